//! The forms of asynchronous copies, mbarriers, tensor copies and clusters.

use crate::device::{Checks, Setup, Shape, run_with};
use crate::lanes::HEADER;

/// Every form that the ISA lists for sm_90a, as `ptxas` takes them; those that are refused name themselves.
const FORMS: &str = "
mbarrier.init.shared::cta.b64 [r1], 5;
mbarrier.init.b64 [d1], r2;
mbarrier.inval.shared.b64 [r1];
mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [r1], r2;
mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [r1], 4;
mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [r1], 4;
mbarrier.complete_tx.shared.b64 [r1], 4;
mbarrier.arrive.shared.b64 d4, [r1];
mbarrier.arrive.b64 d4, [d1], r2;
mbarrier.arrive.release.cluster.shared::cluster.b64 _, [r1], 3;
mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [r1], 3;
mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 d4, [r1], r2;
mbarrier.arrive.expect_tx.shared::cluster.b64 _, [r1], r2;
mbarrier.arrive.noComplete.release.cta.shared::cta.b64 d4, [r1], 2;
mbarrier.arrive_drop.shared::cta.b64 d4, [r1], 2;
mbarrier.arrive_drop.expect_tx.shared::cta.b64 d4, [r1], 2;
mbarrier.arrive_drop.noComplete.b64 d4, [d1], 2;
mbarrier.arrive_drop.release.cluster.shared::cluster.b64 _, [r1];
mbarrier.test_wait.shared.b64 p1, [r1], d4;
mbarrier.test_wait.parity.acquire.cta.shared.b64 p1, [r1], 1;
mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 p1, [r1], r2, 100;
mbarrier.try_wait.b64 p1, [d1], d4, r3;
mbarrier.pending_count.b64 r5, d4;
cp.async.ca.shared.global [r1], [d1], 4;
cp.async.ca.shared::cta.global.L2::128B [r1], [d1], 8, r2;
cp.async.cg.shared.global.L2::cache_hint [r1], [d1], 16, d5;
cp.async.cg.shared.global.L2::cache_hint [r1], [d1], 16, r2, d5;
cp.async.ca.shared.global [r1], [d1], 16, p1;
cp.async.commit_group;
cp.async.wait_group 3;
cp.async.wait_all;
cp.async.mbarrier.arrive.shared::cta.b64 [r1];
cp.async.mbarrier.arrive.noinc.b64 [d1];
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [r1], [d1], 32, [r2];
cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.L2::cache_hint [r1], [d1], r3, [r2], d5;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [r1], [d1], r3, [r2], h, d5;
cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [r1], [r4], r3, [r2];
cp.async.bulk.global.shared::cta.bulk_group [d1], [r1], r3;
cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [d1], [r1], r3, d5;
cp.async.bulk.prefetch.L2.global [d1], 64;
cp.async.bulk.prefetch.L2.global.L2::cache_hint [d1], 64, d5;
cp.async.bulk.commit_group;
cp.async.bulk.wait_group 2;
cp.async.bulk.wait_group.read 0;
cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u64 [r1], [r4], r3, [r2];
cp.reduce.async.bulk.global.shared::cta.bulk_group.add.noftz.f16 [d1], [r1], r3;
cp.reduce.async.bulk.global.shared::cta.bulk_group.max.bf16 [d1], [r1], r3;
cp.reduce.async.bulk.global.shared::cta.bulk_group.L2::cache_hint.add.f32 [d1], [r1], r3, d5;
cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [r1], [d3, {r5}], [r2];
cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [r1], [d3, {r5, r6}], [r2], d5;
cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [r1], [d3, {r5, r6, r7, r8, r9}], [r2], h;
cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [d3, {r5, r6, r7}], [r1];
cp.async.bulk.tensor.3d.global.shared::cta.bulk_group.L2::cache_hint [d3, {r5, r6, r7}], [r1], d5;
cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [d3, {r5, r6}], [r1];
cp.reduce.async.bulk.tensor.2d.global.shared::cta.min.bulk_group.L2::cache_hint [d3, {r5, r6}], [r1], d5;
cp.async.bulk.prefetch.tensor.2d.L2.global.tile [d3, {r5, r6}];
cp.async.bulk.prefetch.tensor.2d.L2.global [d3, {r5, r6}];
prefetch.tensormap [d3];
prefetch.param.tensormap [d2];
tensormap.replace.tile.global_address.global.b1024.b64 [d1], d4;
tensormap.replace.tile.rank.shared::cta.b1024.b32 [r1], 2;
tensormap.replace.tile.box_dim.global.b1024.b32 [d1], 0, r2;
tensormap.replace.tile.global_stride.global.b1024.b64 [d1], 0, d4;
tensormap.replace.tile.element_stride.b1024.b32 [d1], 0, r2;
tensormap.replace.tile.elemtype.global.b1024.b32 [d1], 6;
tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [d1], [r1], 128;
fence.proxy.tensormap::generic.acquire.gpu [d1], 128;
fence.proxy.tensormap::generic.release.gpu;
fence.proxy.async;
fence.proxy.async.global;
fence.proxy.async.shared::cta;
fence.proxy.async.shared::cluster;
fence.proxy.alias;
fence.mbarrier_init.release.cluster;
fence.acq_rel.cluster;
fence.sc.cluster;
fence.acquire.sync_restrict::shared::cluster.cluster;
fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;
griddepcontrol.wait;
griddepcontrol.launch_dependents;
setmaxnreg.inc.sync.aligned.u32 232;
setmaxnreg.dec.sync.aligned.u32 40;
createpolicy.fractional.L2::evict_last.b64 d6, 1.0;
createpolicy.range.global.L2::evict_last.L2::evict_first.b64 d6, [d1], r2, r3;
createpolicy.cvt.L2.b64 d6, d7;
st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [r1], {r2, r3, r4, r5}, [r6];
st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b64 [r1], {d4, d5}, [r6];
st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [r1], f, [r6];
red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.inc.u32 [r1], r2, [r6];
red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u64 [r1], d4, [r6];
mapa.shared::cluster.u32 r1, r2, r3;
mapa.u64 d1, d2, r3;
mapa.shared::cluster.u32 r1, sm, 1;
getctarank.shared::cluster.u32 r1, r2;
getctarank.u64 r1, d2;
barrier.cluster.arrive.release.aligned;
barrier.cluster.wait.acquire.aligned;
barrier.cluster.arrive.relaxed;
barrier.cluster.wait;
ld.shared::cluster.u32 r1, [r2];
st.shared::cluster.v2.u32 [d1], {r2, r3};
atom.shared::cluster.add.u32 r1, [r2], 1;
red.release.cluster.shared::cluster.add.u32 [r2], 1;
cvta.shared::cluster.u64 d1, d2;
isspacep.shared::cluster p1, d1;
isspacep.param p1, d1;
mov.u32 r1, %clusterid.z;
mov.pred p1, %is_explicit_cluster;
ld.param.u32 r3, [d2];
ld.u32 r3, [d3];
ld.param.u32 r3, [map+4];
";

const REFUSED: &str = "
cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [r1], [d3, {r5, r6, r7, r8}], [r2], {h, h};
cp.async.bulk.tensor.4d.global.shared::cta.im2col_no_offs.bulk_group [d3, {r5, r6, r7, r8}], [r1];
cp.async.cg.shared.global [r1], [d1], 8;
cp.reduce.async.bulk.global.shared::cta.bulk_group.min.f32 [d1], [r1], r3;
cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [d3, {r5, r6}], [r1];
cp;
mbarrier;
tensormap.replace.tile.b1024.b32 [d1], 6;
";

#[test]
fn every_form_loads() {
    let load = |line: &str| {
        let ptx = format!(
            "{HEADER}.extern .shared .align 128 .b8 sm[];
             .visible .entry k(.param .u64 p, .param .align 64 .b8 map[128])
             {{ .reg .pred p1; .reg .b16 h; .reg .b32 r<20>; .reg .b64 d<20>; .reg .f32 f;
             mov.u64 d1, 0; mov.u64 d2, map; ret;
             {line}
             ret; }}"
        );
        let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
        let setup = Setup { cluster: 1, checks: Checks::ALL, ..Setup::default() };
        run_with(&ptx, "k", shape, &setup, &mut [vec![0; 16]]).map(|_| ())
    };
    for line in FORMS.lines().filter(|line| !line.is_empty()) {
        assert_eq!(load(line), Ok(()), "{line}");
    }
    if std::env::var("VCUDA_ISA_DRIVER").is_ok() {
        return;
    }
    for line in REFUSED.lines().filter(|line| !line.is_empty()) {
        // By its name; the parts that say what may stand in other places.
        let name = line.split(['.', ' ', ';']).next().unwrap();
        let error = load(line).expect_err(line);
        assert!(error.contains(name) && error.contains("line 8"), "{line}: {error}");
    }
}
