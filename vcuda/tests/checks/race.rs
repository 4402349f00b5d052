//! Accesses that nothing orders.

use crate::device::Kernel;

const ONE: Kernel = Kernel { blocks: 1, threads: 128, written: 1024, body: "" };

/// A kernel with a part that makes it right, and without it.
fn twins(kernel: Kernel, body: &str, part: &str, expected: impl Fn(u32) -> u32, words: &[&str]) {
    let text = |part: &str| -> &'static str { Box::leak(body.replace("PART", part).into_boxed_str()) };
    Kernel { body: text(part), ..kernel }.is_fine(expected);
    Kernel { body: text(""), ..kernel }.is_caught(words);
}

#[test]
fn a_read_of_a_neighbours_word() {
    let body = "st.shared.u32 [a], t;
        PART
        xor.b32 b, t, 32; mov.u32 c, tile; mad.lo.u32 b, b, 4, c;
        ld.shared.u32 b, [b]; st.global.u32 [to], b;";
    let words = ["a race: nothing orders this", "at shared 0x", "line 14", "line 17", "by thread ["];
    // Whichever warp is first: its read of what nobody wrote, or the other's write after it.
    let text = body.replace("PART", "bar.sync 0;");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_fine(|i| i ^ 32);
    let text = format!("st.shared.u32 [a], 7; bar.sync 0; {}", body.replace("PART", ""));
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_caught(&words);
}

#[test]
fn a_tile_rewritten_while_others_read_it() {
    let body = "loop: add.u32 d, c, t; st.shared.u32 [a], d; bar.sync 0;
        xor.b32 b, a, 128; ld.shared.u32 b, [b]; add.u32 lane, lane, b;
        PART
        add.u32 c, c, 1; setp.lt.u32 p, c, 4; @p bra loop; st.global.u32 [to], b;";
    let words = ["a race: nothing orders this", "at shared 0x", "line 14", "line 15"];
    twins(ONE, body, "bar.sync 0;", |i| (i ^ 32) + 3, &words);
}

#[test]
fn lanes_of_one_warp() {
    let body = "st.shared.u32 [a], t;
        PART
        xor.b32 b, a, 4; ld.shared.u32 b, [b]; st.global.u32 [to], b;";
    let kernel = Kernel { threads: 32, ..ONE };
    let words =
        ["this read of 4 bytes at shared 0x", "the write by thread [", "PTX line 14;", "PTX line 16, CTA"];
    twins(kernel, body, "bar.warp.sync 0xffffffff;", |i| i ^ 1, &words);
    twins(kernel, body, "bar.sync 0;", |i| i ^ 1, &words);
}

#[test]
fn all_lanes_read_what_one_has_added_to() {
    let body = "st.shared.u32 [a], 7; bar.sync 0; mov.u32 b, tile; setp.eq.u32 p, t, 0; @p red.shared.add.u32 [b], 1;
        PART
        ld.shared.u32 c, [b]; st.global.u32 [to], c;";
    let words =
        ["this read of 4 bytes at shared 0x0", "the atomic write by thread [0, 0, 0]", "thread [1, 0, 0]"];
    twins(Kernel { threads: 32, ..ONE }, body, "bar.warp.sync 0xffffffff;", |_| 8, &words);
}

#[test]
fn half_a_warp_is_not_the_other_half() {
    // The halves on paths of their own, and with a mask each in one instruction, as tiles of a warp have.
    let apart = "setp.lt.u32 p, lane, 16; @p bra low; bar.warp.sync 0xffff0000; bra.uni join;
        low: bar.warp.sync 0x0000ffff; join:";
    let together = "setp.lt.u32 p, lane, 16; selp.u32 b, 0x0000ffff, 0xffff0000, p; bar.warp.sync b;";
    for sync in [apart, together] {
        let kernel = |distance: u32| {
            let body = format!(
                "st.shared.u32 [a], t; {sync} xor.b32 b, a, {distance}; ld.shared.u32 b, [b]; st.global.u32 [to], b;"
            );
            Kernel { threads: 32, body: body.leak(), ..ONE }
        };
        kernel(4).is_fine(|i| i ^ 1);
        kernel(64).is_caught(&["a race", "at shared 0x"]);
    }
}

#[test]
fn two_lanes_store_to_one_place() {
    let body =
        "mov.u32 b, tile; st.shared.u32 [b], VALUE; bar.sync 0; ld.shared.u32 c, [b]; st.global.u32 [to], c;";
    let text = body.replace("VALUE", "5");
    let kernel = Kernel { threads: 32, ..ONE };
    Kernel { body: Box::leak(text.into_boxed_str()), ..kernel }.is_fine(|_| 5);
    let text = body.replace("VALUE", "t");
    let words = ["this write of 4 bytes at shared 0x0 and the write by thread [0, 0, 0]", "thread [1, 0, 0]"];
    Kernel { body: Box::leak(text.into_boxed_str()), ..kernel }.is_caught(&words);
}

#[test]
fn bytes_beside_each_other_are_no_race() {
    let body = "mov.u32 b, tile; add.u32 b, b, t; cvt.u16.u32 h, t; st.shared.u8 [b], h; bar.sync 0;
        mov.u32 b, tile; xor.b32 c, t, 1; add.u32 b, b, c; ld.shared.u8 h, [b]; cvt.u32.u16 c, h; st.global.u32 [to], c;";
    Kernel { body, ..ONE }.is_fine(|i| i ^ 1);
    let body = "mov.u32 b, tile; shr.u32 c, t, 1; add.u32 b, b, c; cvt.u16.u32 h, t; st.shared.u8 [b], h;";
    Kernel { body, ..ONE }.is_caught(&["this write of 1 bytes at shared 0x", "the write by thread ["]);
}

#[test]
fn a_sum_by_all_threads() {
    let body = "mov.u32 b, tile; setp.eq.u32 p, t, 0; @p st.shared.u32 [b], 0; bar.sync 0;
        UPDATE
        bar.sync 0; ld.shared.u32 c, [b]; st.global.u32 [to], c;";
    let text = body.replace("UPDATE", "red.shared.add.u32 [b], 1;");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_fine(|_| 128);
    let text = body.replace("UPDATE", "ld.shared.u32 c, [b]; add.u32 c, c, 1; st.shared.u32 [b], c;");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_caught(&[
        "a race",
        "at shared 0x0",
        "line 15",
    ]);
    let text = "mov.u32 b, tile; setp.eq.u32 p, t, 0; @p st.shared.u32 [b], 0; bar.sync 0;
        red.shared.add.u32 [b], 1; ld.shared.u32 c, [b]; st.global.u32 [to], c;";
    Kernel { body: text, ..ONE }.is_caught(&["a race", "atomic"]);
}

#[test]
fn named_barriers_order_their_threads_only() {
    // Warps 0 and 1 meet at barrier 1, warps 2 and 3 at barrier 2.
    let body = "st.shared.u32 [a], t; shr.u32 b, warp, 1; add.u32 b, b, 1; barrier.sync b, 64;
        xor.b32 b, a, DISTANCE; ld.shared.u32 b, [b]; st.global.u32 [to], b;";
    let text = body.replace("DISTANCE", "128");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_fine(|i| i ^ 32);
    let text = format!("st.shared.u32 [a], t; bar.sync 0; {}", body.replace("DISTANCE", "256"));
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_caught(&["a race", "line 15"]);
}

#[test]
fn producers_arrive_and_consumers_wait() {
    // Warps 2 and 3 write and arrive; warps 0 and 1 wait and read.
    let body = "setp.ge.u32 p, warp, 2; @p bra produce;
        barrier.sync 1, 128; add.u32 b, a, 256; ld.shared.u32 b, [b]; st.global.u32 [to], b; bra.uni done;
        produce: FIRST THEN st.global.u32 [to], t; done:";
    let text = body.replace("FIRST", "st.shared.u32 [a], t;").replace("THEN", "barrier.arrive 1, 128;");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_fine(|i| if i < 64 { i + 64 } else { i });
    let text = body.replace("FIRST", "barrier.arrive 1, 128;").replace("THEN", "st.shared.u32 [a], t;");
    let text = format!("st.shared.u32 [a], 1; bar.sync 0; {text}");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_caught(&["a race", "line 15", "line 16"]);
}

#[test]
fn overlapping_stores_of_two_ctas() {
    let body = "st.global.u32 [to], 1; PLACE";
    let kernel = Kernel { blocks: 2, threads: 64, ..ONE };
    Kernel { body: Box::leak(body.replace("PLACE", "").into_boxed_str()), ..kernel }.is_fine(|_| 1);
    let text = body.replace("PLACE", "setp.eq.u32 p, t, 63; @p st.global.u32 [to+4], 1;");
    // The last word of CTA 1 is CTA 2's first.
    Kernel { body: Box::leak(text.into_boxed_str()), ..kernel }.is_caught(&[
        "this write of 4 bytes at global",
        "the write by thread",
        "of CTA [",
    ]);
}

#[test]
fn a_word_that_one_cta_reads_and_another_writes() {
    let body = "setp.eq.u32 p, cta, 0; @p ld.global.u32 b, [inp]; @!p st.global.u32 [INTO], 1; st.global.u32 [to], 2;";
    let kernel = Kernel { blocks: 2, threads: 1, ..ONE };
    Kernel { body: Box::leak(body.replace("INTO", "inp+4").into_boxed_str()), ..kernel }.is_fine(|_| 2);
    let words = ["a race", "at global", "byte 0 of an allocation of 1024", "by thread [0, 0, 0] of CTA ["];
    Kernel { body: Box::leak(body.replace("INTO", "inp").into_boxed_str()), ..kernel }.is_caught(&words);
}

/// The last CTA to finish adds what the others have left: a counter tells which it is.
const LAST_CTA: &str = "st.global.u32 [to], t;
    FENCE1 BARRIER FENCE2
    setp.ne.u32 p, t, 0; mov.u32 b, tile; @p bra wait;
    atom.global.inc.u32 d, [counter], 3; st.shared.u32 [b], d;
    wait: bar.sync 0; ld.shared.u32 d, [b]; setp.ne.u32 p, d, 3; @p bra done;
    mul.wide.u32 at, t, 4; add.u64 at, out, at; mov.u32 c, 0; mov.u32 d, 0;
    next: ld.global.u32 b, [at]; add.u32 c, c, b; mul.wide.u32 to, n, 4; add.u64 at, at, to;
    add.u32 d, d, 1; setp.lt.u32 p, d, 4; @p bra next;
    mul.wide.u32 to, t, 4; add.u64 to, out, to; st.global.u32 [to], c; done:";

fn last_cta(fence1: &str, barrier: &str, fence2: &str) -> Kernel {
    let text = LAST_CTA.replace("FENCE1", fence1).replace("BARRIER", barrier).replace("FENCE2", fence2);
    Kernel { blocks: 4, threads: 64, body: Box::leak(text.into_boxed_str()), ..ONE }
}

#[test]
fn the_last_cta_adds_up() {
    let expected = |i| if i < 64 { 4 * i } else { i % 64 };
    last_cta("", "bar.sync 0;", "fence.acq_rel.gpu;").is_fine(expected);
    last_cta("membar.gl;", "bar.sync 0;", "").is_fine(expected);
    let words = ["this read of 4 bytes at global", "the write by thread [", "of CTA ["];
    last_cta("", "bar.sync 0;", "").is_caught(&words);
    last_cta("", "bar.sync 0;", "membar.cta;").is_caught(&words);
    last_cta("", "", "membar.gl;").is_caught(&["a race", "at global", "of CTA ["]);
}

#[test]
fn a_lock_orders_what_it_guards() {
    let body = "mov.u32 b, tile; setp.eq.u32 p, t, 0; @p st.shared.u32 [b], 0; @p st.shared.u32 [b+4], 0; bar.sync 0;
        setp.ne.u32 p, lane, 0; @p bra done;
        take: atom.shared.cas.b32 c, [b], 0, 1; setp.ne.u32 p, c, 0; @p bra take;
        FENCE
        ld.shared.u32 c, [b+4]; add.u32 c, c, 1; st.shared.u32 [b+4], c;
        FENCE
        atom.shared.exch.b32 c, [b], 0;
        done: bar.sync 0; ld.shared.u32 c, [b+4]; st.global.u32 [to], c;";
    let text = body.replace("FENCE", "membar.cta;");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_fine(|_| 4);
    let text = body.replace("FENCE", "");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_caught(&["a race", "at shared 0x4"]);
}

#[test]
fn an_mbarrier_orders_arrivals_before_waits() {
    let body = "mov.u32 b, bar; setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [b], 64; bar.sync 0;
        setp.ge.u32 p, warp, 2; @p bra produce;
        again: mbarrier.try_wait.parity.shared.b64 p, [b], 0; @!p bra again;
        add.u32 b, a, 256; ld.shared.u32 b, [b]; st.global.u32 [to], b; bra.uni done;
        produce: FIRST THEN st.global.u32 [to], t; done:";
    let arrive = "mbarrier.arrive.shared.b64 at, [b];";
    let text = body.replace("FIRST", "st.shared.u32 [a], t;").replace("THEN", arrive);
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_fine(|i| if i < 64 { i + 64 } else { i });
    let text = body.replace("FIRST", arrive).replace("THEN", "st.shared.u32 [a], t;");
    let text = format!("st.shared.u32 [a], 1; {text}");
    Kernel { body: Box::leak(text.into_boxed_str()), ..ONE }.is_caught(&["a race", "line 17", "line 18"]);
}

/// As the copies of cooperative groups by tiles do, whose last lanes copy one element together.
#[test]
fn lanes_that_copy_the_same_to_the_same_place() {
    let body = "ld.param.u64 inp, [inp_address]; and.b32 c, t, 15; mul.wide.u32 at, c, 4; add.u64 at, inp, at;
        mov.u32 b, tile; mad.lo.u32 a, c, 4, b; OTHER
        cp.async.ca.shared.global [a], [at], 4; cp.async.wait_all; bar.warp.sync -1; ld.shared.u32 c, [a]; st.global.u32 [to], c;";
    let warp = Kernel { blocks: 1, threads: 32, ..ONE };
    Kernel { body: Box::leak(body.replace("OTHER", "").into_boxed_str()), ..warp }.is_fine(|i| 1000 + i % 16);
    let text = body.replace("OTHER", "and.b32 c, t, 16; cvt.u64.u32 out, c; add.u64 at, at, out;");
    Kernel { body: Box::leak(text.into_boxed_str()), ..warp }.is_caught(&["a race", "at shared 0x"]);
}

/// As pipelines of the standard library do when the last thread leaves.
#[test]
fn a_barrier_that_others_have_arrived_at_is_invalidated() {
    let body = "mov.u32 b, bar; setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [b], 32; bar.warp.sync -1;
        setp.ne.u32 q, t, 1; @q mbarrier.arrive.shared.b64 at, [b]; match.any.sync.b32 c, b, -1;
        @p mbarrier.inval.shared.b64 [b]; LATE st.global.u32 [to], t;";
    let warp = Kernel { blocks: 1, threads: 32, ..ONE };
    Kernel { body: Box::leak(body.replace("LATE", "").into_boxed_str()), ..warp }.is_fine(|i| i);
    let text = body.replace("LATE", "@!q mbarrier.arrive.shared.b64 at, [b];");
    Kernel { body: Box::leak(text.into_boxed_str()), ..warp }.is_caught(&["no mbarrier", "line 16"]);
}

/// The first warp copies, and says so to an mbarrier; the second one waits for it, or not, and reads.
fn copied(arrive: &str, count: u32, wait: &str) -> Kernel {
    let body = format!(
        "setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [bar], {count}; bar.sync 0; setp.gt.u32 p, warp, 0; @p bra read;
        cp.async.ca.shared.global [a], [at], 4; {arrive} st.global.u32 [to], t; ret;
        read: {wait} ld.shared.u32 b, [a+-128]; st.global.u32 [to], b;"
    );
    Kernel { blocks: 1, threads: 64, written: 1024, body: Box::leak(body.into_boxed_str()) }
}

#[test]
fn copies_that_arrive_at_an_mbarrier() {
    let wait = "wait: mbarrier.try_wait.parity.shared.b64 q, [bar], 0; @!q bra wait;";
    let expected = |i| if i < 32 { i } else { 1000 + i - 32 };
    let noinc = "cp.async.mbarrier.arrive.noinc.shared.b64 [bar];";
    copied(noinc, 32, wait).is_fine(expected);
    let counted = "cp.async.mbarrier.arrive.shared.b64 [bar]; bar.warp.sync -1; setp.eq.u32 p, lane, 0;
        @p mbarrier.arrive.shared.b64 _, [bar];";
    copied(counted, 1, wait).is_fine(expected);
    // An ordinary arrival, after the copies.
    let own = "cp.async.wait_all; mbarrier.arrive.shared.b64 _, [bar];";
    copied(own, 32, wait).is_fine(expected);
}
