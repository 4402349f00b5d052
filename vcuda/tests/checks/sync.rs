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
