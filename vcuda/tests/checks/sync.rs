//! Barriers as the ISA forbids them.

use crate::device::Kernel;

const ONE: Kernel = Kernel { blocks: 1, threads: 64, written: 1024, body: "" };

#[test]
fn a_barrier_that_half_a_warp_skips() {
    let body = "st.global.u32 [to], t; setp.lt.u32 p, lane, 16; @!p bra after; bar.sync 0;
        after: bar.sync 0;";
    Kernel { body, ..ONE }.is_caught(&[
        "a divergent barrier: lanes 0x",
        "at barrier 0",
        "line 14",
        "line 15",
    ]);
    // Whole warps may go to different instructions.
    let body = "st.global.u32 [to], t; setp.lt.u32 p, warp, 1; @!p bra other; bar.sync 0; bra.uni done;
        other: bar.sync 0; done:";
    Kernel { body, ..ONE }.is_fine(|i| i);
    // And so may lanes, where the barrier is not `.aligned`.
    let body = "st.global.u32 [to], t; setp.lt.u32 p, lane, 16; @!p bra other; barrier.sync 0; bra.uni done;
        other: barrier.sync 0; done:";
    Kernel { body, ..ONE }.is_fine(|i| i);
}

#[test]
fn threads_that_exit_before_a_barrier() {
    let body = "st.global.u32 [to], t; setp.ge.u32 p, t, 40; @p exit; bar.sync 0;";
    Kernel { body, ..ONE }.is_fine(|i| i);
}

#[test]
fn a_barrier_for_part_of_a_warp() {
    let body = "setp.lt.u32 p, t, 16; @p barrier.sync 1, 16; st.global.u32 [to], t;";
    Kernel { body, ..ONE }.is_caught(&["barrier 1 for 16 threads, which is no multiple of 32", "line 14"]);
    let body = "setp.lt.u32 p, t, 32; @p barrier.sync 1, 32; st.global.u32 [to], t;";
    Kernel { body, ..ONE }.is_fine(|i| i);
}

#[test]
fn a_barrier_with_two_counts() {
    let kernel = Kernel { threads: 96, ..ONE };
    let text =
        "mov.u32 b, 96; setp.eq.u32 p, warp, 1; @p mov.u32 b, 64; barrier.sync 1, b; st.global.u32 [to], t;";
    Kernel { body: text, ..kernel }.is_caught(&["barrier 1 for ", "others wait there for "]);
    let text = "mov.u32 b, 96; barrier.sync 1, b; st.global.u32 [to], t;";
    Kernel { body: text, ..kernel }.is_fine(|i| i);
}

/// A product of zeros by a warpgroup; `shift` goes into each warp's descriptor of B.
macro_rules! product {
    ($shift:literal) => {
        concat!(
            "{ .reg .f32 s<4>; .reg .b64 da, db, shift; mov.u32 c, tile; mad.lo.u32 c, t, 16, c; st.shared.v4.u32 [c], {d, d, d, d};
            st.shared.v4.u32 [c+2048], {d, d, d, d}; fence.proxy.async; bar.sync 0;
            mov.u32 c, tile; shr.u32 c, c, 4; cvt.u64.u32 da, c; add.u64 da, da, 0x1000080000; add.u64 db, da, 128;",
            $shift,
            "cvt.u64.u32 shift, c; add.u64 db, db, shift; setp.eq.u32 p, d, 0; wgmma.fence.sync.aligned;
            wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {s0, s1, s2, s3}, da, db, 0, 1, 1, 0, 0;
            wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; st.global.u32 [to], t; }"
        )
    };
}

#[test]
fn descriptors_of_one_product_that_differ() {
    let kernel = Kernel { threads: 128, ..ONE };
    Kernel { body: product!("mov.u32 c, 0;"), ..kernel }.is_fine(|i| i);
    let differ = "have different products, or descriptors of one";
    Kernel { body: product!("and.b32 c, warp, 1;"), ..kernel }.is_caught(&[differ]);
    let differ = "lanes have different descriptors of one matrix";
    Kernel { body: product!("and.b32 c, lane, 1;"), ..kernel }.is_caught(&[differ]);
}
