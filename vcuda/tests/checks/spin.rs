//! CTAs of an ordinary launch that spin on each other's memory, and warps that spin for ever.

use crate::device::Kernel;

const ONE: Kernel = Kernel { blocks: 8, threads: 32, written: 1024, body: "" };

fn with(body: String, kernel: Kernel) -> Kernel {
    Kernel { body: Box::leak(body.into_boxed_str()), ..kernel }
}

/// Each CTA takes the sum that the one before it has left in the input, and leaves its own.
fn look_back(fence: &str) -> Kernel {
    let body = "ld.param.u64 inp, [inp_address]; mul.wide.u32 at, cta, 4; add.u64 at, inp, at; mov.u32 c, 0;
        setp.eq.u32 p, cta, 0; @p bra leave;
        wait: ld.relaxed.gpu.global.u32 b, [at+124]; setp.eq.u32 p, b, 0; @!p setp.ge.u32 p, b, 1000; @p bra wait;
        FENCE
        ld.global.u32 c, [at+252];
        leave: add.u32 c, c, cta; setp.eq.u32 q, lane, 0; @q st.global.u32 [at+256], c;
        FENCE
        @q st.relaxed.gpu.global.u32 [at+128], 1; st.global.u32 [to], c;";
    with(body.replace("FENCE", fence), ONE)
}

#[test]
fn each_cta_waits_for_the_one_before_it() {
    look_back("fence.acq_rel.gpu;").is_fine(|i| (0..=i / 32).sum());
    look_back("").is_caught(&["a race", "at global", "of CTA ["]);
    look_back("membar.cta;").is_caught(&["a race", "at global", "of CTA ["]);
}

/// All CTAs count themselves and wait for the others; then each reads what another one has written.
fn grid_barrier(fence: &str) -> Kernel {
    let body = "st.global.u32 [at], t; FENCE bar.sync 0; mov.u64 inp, counter; setp.ne.u32 p, t, 0; @p bra met;
        atom.global.add.u32 b, [inp], 1;
        wait: ld.relaxed.gpu.global.u32 b, [inp]; setp.lt.u32 p, b, 8; @p bra wait;
        FENCE
        met: bar.sync 0; xor.b32 b, cta, 5; mad.lo.u32 b, b, n, t; mul.wide.u32 at, b, 4; ld.param.u64 inp, [inp_address];
        add.u64 at, inp, at; ld.global.u32 c, [at]; st.global.u32 [to], c;";
    with(body.replace("FENCE", fence), ONE)
}

#[test]
fn all_ctas_wait_for_each_other() {
    grid_barrier("membar.gl;").is_fine(|i| i % 32);
    grid_barrier("").is_caught(&["a race", "at global", "of CTA ["]);
}

#[test]
fn a_loop_with_a_barrier_in_it_waits_for_another_cta() {
    let body = "ld.param.u64 inp, [inp_address]; sub.u32 d, 7, cta; mul.wide.u32 at, d, 4; add.u64 at, inp, at;
        mov.u32 b, tile; setp.eq.u32 q, cta, 7; @q bra done;
        wait: setp.eq.u32 p, t, 0; @p ld.acquire.gpu.global.u32 c, [at+-4]; @p st.shared.u32 [b], c; bar.sync 0;
        ld.shared.u32 c, [b]; bar.sync 0; setp.ge.u32 p, c, 1000; @p bra wait;
        done: setp.eq.u32 p, t, 0; @p st.release.gpu.global.u32 [at], cta; st.global.u32 [to], cta;";
    with(body.to_string(), ONE).is_fine(|i| i / 32);
}

#[test]
fn a_flag_that_nobody_sets() {
    let wait =
        "wait: ld.volatile.global.u32 b, [at]; setp.ge.u32 p, b, 1000; @p bra wait; st.global.u32 [to], t;";
    with(wait.to_string(), ONE).is_caught(&[
        "deadlock",
        "warp 0 lanes 0x",
        "read global",
        "again and again",
        "line 14",
    ]);
    let words = [
        "deadlock",
        "lanes 0x00000002 read shared 0x0 again and again",
        "warp 1 lanes 0xffffffff wait at barrier 0",
    ];
    let wait = "mov.u32 b, tile; setp.eq.u32 p, t, 0; @p st.shared.u32 [b], 0; bar.sync 0; setp.ne.u32 p, t, 1; @p bra done;
        wait: ld.volatile.shared.u32 c, [b]; setp.eq.u32 p, c, 0; @p bra wait;
        done: bar.sync 0;";
    with(wait.to_string(), Kernel { blocks: 1, threads: 64, ..ONE }).is_caught(&words);
}

#[test]
fn two_ctas_that_wait_for_each_other_first() {
    let body = "ld.param.u64 inp, [inp_address]; mul.wide.u32 at, cta, 4; add.u64 at, inp, at; xor.b32 b, cta, 1;
        mul.wide.u32 to, b, 4; add.u64 to, inp, to;
        FIRST wait: ld.acquire.gpu.global.u32 b, [to]; setp.ge.u32 p, b, 1000; @p nanosleep.u32 20; @p bra wait; THEN
        ld.param.u64 out, [out_address]; add.u64 at, out, 0; mad.lo.u32 a, cta, n, t; mul.wide.u32 to, a, 4;
        add.u64 to, out, to; st.global.u32 [to], t;";
    let pair = Kernel { blocks: 2, threads: 1, ..ONE };
    let set = "st.release.gpu.global.u32 [at], 1;";
    with(body.replace("FIRST", set).replace("THEN", ""), pair).is_fine(|_| 0);
    let words = ["deadlock", "again and again", "line 16"];
    with(body.replace("FIRST", "").replace("THEN", set), pair).is_caught(&words);
}

#[test]
fn a_lock_whose_holder_has_gone() {
    let body = "mov.u64 at, counter; setp.ne.u32 p, lane, 0; @p bra done;
        take: atom.global.cas.b32 c, [at], 0, 1; setp.ne.u32 p, c, 0; @p bra take;
        membar.gl; GIVE
        done: st.global.u32 [to], t;";
    let words = ["deadlock", "lanes 0x00000001 read global", "byte 0 of an allocation of", "line 15"];
    with(body.replace("GIVE", "atom.global.exch.b32 c, [at], 0;"), ONE).is_fine(|i| i % 32);
    with(body.replace("GIVE", ""), ONE).is_caught(&words);
}

/// Loops that end by themselves are no deadlock, however long nothing else happens.
#[test]
fn a_wait_that_gives_up() {
    let half_a_second = "mov.u64 at, %globaltimer; add.u64 at, at, 500000000; mov.u64 inp, counter;
        wait: ld.volatile.global.u32 b, [inp]; mov.u64 out, %globaltimer; setp.lt.u64 p, out, at; mov.u64 out, 0;
        setp.eq.and.u32 p, b, 0, p; @p bra wait; st.global.u32 [to], t;";
    with(half_a_second.to_string(), Kernel { blocks: 2, ..ONE }).is_fine(|i| i % 32);
    let many_times = "mov.u64 inp, counter;
        wait: ld.volatile.global.u32 b, [inp]; add.u32 c, c, 1; setp.lt.u32 p, c, 300000; @p bra wait;
        st.global.u32 [to], t;";
    with(many_times.to_string(), Kernel { blocks: 2, ..ONE }).is_fine(|i| i % 32);
    // The waiting lane sees a count that another CTA's lane goes on with; neither keeps one of its own.
    let count = "mov.u64 inp, counter; setp.ne.u32 p, t, 0; @p bra done; setp.eq.u32 p, cta, 0; @p bra wait;
        more: red.global.add.u32 [inp], 1; ld.volatile.global.u32 b, [inp]; setp.lt.u32 p, b, 200000; mov.u32 b, 0; @p bra more;
        bra.uni done;
        wait: ld.volatile.global.u32 b, [inp]; setp.lt.u32 p, b, 200000; mov.u32 b, 0; @p bra wait;
        done: st.global.u32 [to], t;";
    with(count.to_string(), Kernel { blocks: 2, ..ONE }).is_fine(|i| i % 32);
}
