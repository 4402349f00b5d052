//! Reads of what nobody wrote.

use crate::device::Kernel;

const ONE: Kernel = Kernel { blocks: 1, threads: 64, written: 1024, body: "" };

#[test]
fn the_tail_of_the_input() {
    let body = "ld.global.u32 b, [at]; st.global.u32 [to], b;";
    let kernel = Kernel { blocks: 4, body, ..ONE };
    kernel.is_fine(|i| 1000 + i);
    Kernel { written: 1023, ..kernel }.is_caught(&[
        "kernel: a read of 4 bytes at global",
        "byte 1020 of an allocation of 1024: nobody has written byte 3 of them",
        "PTX line 14, CTA [3, 0, 0], thread [63, 0, 0]",
    ]);
}

#[test]
fn the_padding_of_a_vector_load() {
    let body = "setp.ne.u32 p, t, 0; @p bra done; ld.global.v4.u32 {a, b, c, d}, [inp+64]; add.u32 a, a, b;
        st.global.u32 [to], a; done: ld.global.u32 b, [inp+64]; st.global.u32 [to], b;";
    Kernel { body, ..ONE }.is_fine(|_| 1016);
    Kernel { written: 72, body, ..ONE }.is_caught(&[
        "a read of 16 bytes",
        "written byte 8 of them",
        "line 14",
    ]);
}

#[test]
fn arguments_and_results() {
    let call = "mov.u64 at, identity; { .param .b32 x; .param .b32 r; st.param.b32 [x], t;
        p: .callprototype (.param .b32 _) _ (.param .b32 _);
        call (r), at, (x), p; ld.param.b32 b, [r]; } st.global.u32 [to], b;";
    Kernel { body: call, ..ONE }.is_fine(|i| i);
    let body = call.replace("st.param.b32 [x], t;", "").leak();
    Kernel { body, ..ONE }.is_caught(&["a read of 4 bytes at local", "nobody has written", "PTX line 4"]);
    let body = call.replace("identity", "nothing").leak();
    Kernel { body, ..ONE }.is_caught(&["a read of 4 bytes at local", "nobody has written", "PTX line 16"]);
}

#[test]
fn memory_from_malloc() {
    let body = "{ .param .b64 n; .param .b64 r; st.param.b64 [n], 8; call.uni (r), malloc, (n);
        ld.param.b64 at, [r]; } st.u32 [at], t; ld.u32 b, [at]; st.global.u32 [to], b;
        { .param .b64 x; st.param.b64 [x], at; call.uni free, (x); }";
    Kernel { body, ..ONE }.is_fine(|i| i);
    let body = body.replace("ld.u32 b, [at]", "ld.u32 b, [at+4]").leak();
    Kernel { body, ..ONE }.is_caught(&["a read of 4 bytes at global", "nobody has written", "line 15"]);
}

#[test]
fn output_that_is_added_to() {
    let body = "ld.global.u32 b, [to]; add.u32 b, b, 1; st.global.u32 [to], b;";
    Kernel { body, ..ONE }.is_caught(&["a read of 4 bytes at global", "PTX line 14"]);
    let body = "st.global.u32 [to], 4; ld.global.u32 b, [to]; add.u32 b, b, 1; st.global.u32 [to], b;";
    Kernel { body, ..ONE }.is_fine(|_| 5);
    let body = "red.global.add.u32 [to], 1;";
    Kernel { body, ..ONE }.is_caught(&["a read of 4 bytes at global"]);
}

#[test]
fn shared_memory() {
    let body = "setp.eq.u32 p, t, 63; @!p st.shared.u32 [a], t; bar.sync 0;
        xor.b32 b, t, 1; mov.u32 c, tile; mad.lo.u32 b, b, 4, c; ld.shared.u32 b, [b]; st.global.u32 [to], b;";
    Kernel { body, ..ONE }.is_caught(&[
        "at shared 0xfc",
        "nobody has written",
        "line 15",
        "thread [62, 0, 0]",
    ]);
    let body = "st.shared.u32 [a], t; bar.sync 0;
        xor.b32 b, t, 1; mov.u32 c, tile; mad.lo.u32 b, b, 4, c; ld.shared.u32 b, [b]; st.global.u32 [to], b;";
    Kernel { body, ..ONE }.is_fine(|i| i ^ 1);
}

#[test]
fn shared_memory_is_new_in_every_cta() {
    let body = "setp.ne.u32 p, cta, 0; @p bra skip; st.shared.u32 [a], t;
        skip: ld.shared.u32 b, [a]; st.global.u32 [to], b;";
    Kernel { blocks: 2, body, ..ONE }.is_caught(&["at shared", "CTA [1, 0, 0]"]);
    let body = "st.shared.u32 [a], t; ld.shared.u32 b, [a]; st.global.u32 [to], b;";
    Kernel { blocks: 2, body, ..ONE }.is_fine(|i| i % 64);
}

#[test]
fn local_memory() {
    let body = "mov.u32 b, own; st.local.u32 [b], t; ld.local.u32 c, [b+4]; st.global.u32 [to], c;";
    Kernel { body, ..ONE }.is_caught(&["a read of 4 bytes at local 0x4", "nobody has written"]);
    let body = "mov.u32 b, own; st.local.u32 [b+4], t; ld.local.u32 c, [b+4]; st.global.u32 [to], c;";
    Kernel { body, ..ONE }.is_fine(|i| i);
}

#[test]
fn generic_addresses_into_several_memories() {
    // Odd threads read shared memory, even ones the input, by one instruction.
    let body = "and.b32 b, t, 1; setp.eq.u32 p, b, 1; cvt.u64.u32 to, a; cvta.shared.u64 to, to;
        WRITE
        @!p mov.u64 to, at; ld.u32 c, [to];
        mul.wide.u32 at, t, 4; add.u64 to, out, at; st.u32 [to], c;";
    let fine = Box::leak(body.replace("WRITE", "st.shared.u32 [a], t;").into_boxed_str());
    Kernel { body: fine, ..ONE }.is_fine(|i| if i % 2 == 1 { i } else { 1000 + i });
    let broken = Box::leak(body.replace("WRITE", "").into_boxed_str());
    Kernel { body: broken, ..ONE }.is_caught(&["at shared 0x", "line 16"]);
}
