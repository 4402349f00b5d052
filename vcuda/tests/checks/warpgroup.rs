//! What a warpgroup's products read, and who may write it when.

use crate::device::Kernel;

/// A warpgroup multiplies what its threads have stored, and one of them arrives; a fifth warp then writes over it. PRODUCT is
/// the product with its fence and commit.
const PRODUCT: &str = "{ .reg .f32 s<4>; .reg .b64 da, db;
    mov.u32 c, tile; mad.lo.u32 c, t, 16, c; setp.eq.u32 q, t, 0; mov.u32 b, bar;
    @q mbarrier.init.shared.b64 [b], COUNT; setp.ge.u32 q, t, 128; @q bra WRITER;
    st.shared.v4.u32 [c], {d, d, d, d}; setp.lt.u32 p, t, 16; @p st.shared.v4.u32 [c+2048], {d, d, d, d};
    FENCE bar.sync 0;
    mov.u32 c, tile; shr.u32 c, c, 4; cvt.u64.u32 da, c; add.u64 da, da, 0x1000080000; add.u64 db, da, 128;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {s0, s1, s2, s3}, da, db, 0, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    BEFORE
    wgmma.wait_group.sync.aligned 0;
    AFTER
    st.global.u32 [to], t; bra.uni DONE;
    WRITER: bar.sync 0;
    AGAIN: mbarrier.test_wait.parity.shared.b64 p, [b], 0; @!p bra AGAIN;
    mov.u32 c, tile; mad.lo.u32 c, lane, 4, c; st.shared.u32 [c], d; st.global.u32 [to], t;
    DONE: }";

fn kernel(count: u32, fence: &str, before: &str, after: &str) -> Kernel {
    let body = PRODUCT
        .replace("COUNT", &count.to_string())
        .replace("FENCE", fence)
        .replace("BEFORE", before)
        .replace("AFTER", after);
    Kernel { blocks: 1, threads: 160, written: 1024, body: body.leak() }
}

const FENCE: &str = "fence.proxy.async;";

#[test]
fn one_arrival_of_any_thread_gives_the_stage_back() {
    for thread in [0, 31, 64, 127] {
        let arrive = format!("setp.eq.u32 p, t, {thread}; @p mbarrier.arrive.shared.b64 _, [b];");
        kernel(1, FENCE, "", &arrive).is_fine(|i| i);
        // All four warps have issued the product; before that it would read what has been written over.
        kernel(1, FENCE, &format!("bar.sync 1, 128; {arrive}"), "").is_caught(&[
            "this write",
            "shared",
            "line",
        ]);
    }
    // One arrival a warp, and of all.
    kernel(4, FENCE, "", "setp.eq.u32 p, lane, 5; @p mbarrier.arrive.shared.b64 _, [b];").is_fine(|i| i);
    kernel(128, FENCE, "", "mbarrier.arrive.shared.b64 _, [b];").is_fine(|i| i);
}

#[test]
fn a_thread_of_the_warpgroup_writes() {
    let arrive = "setp.eq.u32 p, t, 0; @p mbarrier.arrive.shared.b64 _, [b];";
    let write = "mov.u32 c, tile; setp.eq.u32 p, t, 77; @p st.shared.u32 [c+2052], d;";
    kernel(1, FENCE, "", &format!("{write} {arrive}")).is_fine(|i| i);
    kernel(1, FENCE, write, arrive).is_caught(&["line"]);
}

#[test]
fn nothing_orders_the_stores_before_the_product() {
    let arrive = "setp.eq.u32 p, t, 0; @p mbarrier.arrive.shared.b64 _, [b];";
    kernel(1, "", "", arrive).is_caught(&["no fence.proxy.async comes between"]);
}
