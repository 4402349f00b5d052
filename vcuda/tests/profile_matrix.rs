//! Counters of tensor copies and matrix instructions against counts by hand.

use vcuda::exec::profile::counters::Traffic;
use vcuda::exec::profile::gpu::H100;
use vcuda::exec::profile::{Action, Counters, Space, Totals, Unit};
use vcuda::exec::{Checks, Launch, Module, Options, run_counted};
use vcuda::memory::Memory;
use vcuda::tensor_map::TensorMap;

/// Runs a body on one CTA. `%rd1` is the address of a map: 32 rows of 64 words, by boxes of 8 rows of 32.
fn count(threads: u32, body: &str) -> (Counters, Totals) {
    let text = format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.global .align 32 .b8 g[256];\n.visible .entry k(.param .align 64 .b8 map[128])\n{{\n\
         .reg .b32 %r<40>; .reg .b64 %rd<9>; .reg .f32 %f<9>; .reg .pred %p<4>; .reg .f64 %d<9>;\n\
         .shared .align 1024 .b8 s[16384]; .shared .align 8 .b64 bar;\n\
         mov.u64 %rd1, map; cvta.param.u64 %rd1, %rd1; mov.u32 %r1, %tid.x; mov.u32 %r2, s;\n\
         setp.eq.u32 %p1, %r1, 0;\n{body}\nret;\n}}\n"
    );
    let memory = Memory::new(1 << 20);
    let tree = vcuda::ptx::parse(&text).unwrap();
    let module = Module::load_counted(&tree, &memory, Checks::default()).unwrap();
    let kernel = module.kernel("k").unwrap();
    let address = memory.alloc(64 * 32 * 4).unwrap();
    let map = TensorMap::tiled(2, address, &[64, 32], &[256], &[32, 8], &[1, 1], 0, 0).unwrap();
    let launch = Launch { grid: [1; 3], cluster: [1; 3], block: [threads, 1, 1], dynamic_shared_bytes: 0 };
    let options = Options { threads: 1, checks: Checks::default(), seed: 0, gpu: &H100, sums: None };
    let counters = run_counted(kernel, &launch, &map.encode(), &memory, &options).unwrap();
    let totals = counters.totals(kernel);
    (counters, totals)
}

fn traffic(requests: u64, bytes: u64, units: u64, ideal: u64) -> Traffic {
    Traffic { requests, bytes, units, ideal }
}

#[test]
fn tensor_copies() {
    // A row of a box is 128 bytes. Column and row of the box; rows inside, their bytes, and their sectors.
    for (x, y, rows, bytes, sectors) in
        [(16, 4, 8, 128, 4), (14, 4, 8, 128, 5), (48, 28, 4, 64, 2), (-7, 0, 8, 100, 4), (64, 0, 0, 0, 0)]
    {
        let ideal = rows * u64::min(sectors, u64::div_ceil(bytes, 32));
        let global = traffic(rows, rows * bytes, rows * sectors, ideal);
        let place = format!("mov.s32 %r3, {x}; mov.s32 %r4, {y};");
        let load = format!(
            "{place} @%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @!%p1 bra done;
             mbarrier.arrive.expect_tx.shared.b64 _, [bar], 1024;
             cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r2], [%rd1, {{%r3, %r4}}], [bar];
             wait: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra wait; done:"
        );
        let (counters, _) = count(32, &load);
        assert_eq!(counters.traffic(Space::Global, Action::Tensor), global, "load at {x}, {y}");
        // The whole box is filled: 8 rows of 128 bytes, a wavefront each.
        assert_eq!(counters.traffic(Space::Shared, Action::Tensor), traffic(1, 1024, 8, 8));
        assert_eq!((counters.read.count(), counters.written.count()), (rows * sectors, 0));
        let store = format!(
            "{place} fence.proxy.async; @%p1 cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd1, {{%r3, %r4}}], [%r2];
             cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"
        );
        let (counters, _) = count(32, &store);
        assert_eq!(counters.traffic(Space::Global, Action::Tensor), global, "store at {x}, {y}");
        let wavefronts = u64::div_ceil(rows * bytes, 128);
        let shared = traffic((rows > 0) as u64, rows * bytes, wavefronts, wavefronts);
        assert_eq!(counters.traffic(Space::Shared, Action::Tensor), shared, "store at {x}, {y}");
        assert_eq!((counters.read.count(), counters.written.count()), (0, rows * sectors));
    }
}

#[test]
fn bulk_copies() {
    let (counters, _) = count(
        32,
        "@%p1 mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @!%p1 bra done; mov.u64 %rd2, g;
         mbarrier.arrive.expect_tx.shared.b64 _, [bar], 208;
         cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd2+16], 208, [bar];
         wait: mbarrier.try_wait.parity.shared.b64 %p2, [bar], 0; @!%p2 bra wait; done:",
    );
    // From byte 16 to 224: 7 sectors; 208 bytes fill two wavefronts.
    assert_eq!(counters.traffic(Space::Global, Action::Bulk), traffic(1, 208, 7, 7));
    assert_eq!(counters.traffic(Space::Shared, Action::Bulk), traffic(1, 208, 2, 2));
}

#[test]
fn matrices_in_shared_memory() {
    // Bytes from row to row: eight rows of 16 bytes side by side are a wavefront, or all in the same four banks, or
    // in eight different places.
    for (pitch, each) in [(16, 1), (128, 8), (144, 1), (64, 4), (32, 2)] {
        for (count_of, name) in [(1, "x1"), (2, "x2"), (4, "x4")] {
            let list: Vec<String> = (10..10 + count_of).map(|i| format!("%r{i}")).collect();
            let list = list.join(", ");
            for (name, instruction) in [
                ("load", format!("ldmatrix.sync.aligned.m8n8.{name}.shared.b16 {{{list}}}, [%r3];")),
                ("store", format!("stmatrix.sync.aligned.m8n8.{name}.shared.b16 [%r3], {{{list}}};")),
            ] {
                let (counters, _) = count(32, &format!("mad.lo.u32 %r3, %r1, {pitch}, %r2; {instruction}"));
                let expected = traffic(1, 128 * count_of, each * count_of, count_of);
                let found = counters.traffic(Space::Shared, Action::Matrix);
                assert_eq!(found, expected, "{name} of {count_of}, pitch {pitch}");
                assert_eq!(counters.all_traffic(Space::Global), Traffic::default());
            }
        }
    }
}

#[test]
fn operations_of_products() {
    let r = |from: usize, count: usize| {
        let list: Vec<String> = (from..from + count).map(|i| format!("%r{i}")).collect();
        format!("{{{}}}", list.join(", "))
    };
    // Form, registers of A, B and C; m, n, k.
    let products = [
        ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", [4, 2, 4], Unit::TensorFp16, [16, 8, 16]),
        ("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", [2, 1, 4], Unit::TensorFp16, [16, 8, 8]),
        ("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", [2, 1, 4], Unit::TensorTf32, [16, 8, 4]),
        ("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32", [4, 2, 4], Unit::TensorInt8, [16, 8, 32]),
        ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32", [8, 8, 8], Unit::TensorFp16, [16, 16, 16]),
    ];
    let mut cases: Vec<_> = products
        .map(|(form, [a, b, c], unit, shape)| {
            let (a, b, c) = (r(4, a), r(12, b), r(20, c));
            (format!("{form} {c}, {a}, {b}, {c};"), unit, shape)
        })
        .into();
    let double = "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%d1, %d2}, {%d3}, {%d4}, {%d1, %d2};";
    cases.push((double.to_string(), Unit::TensorFp64, [8, 8, 4]));
    for (instruction, unit, [m, n, k]) in cases {
        let body = format!(
            "mov.u32 %r3, 0; again: {instruction} add.u32 %r3, %r3, 1; setp.lt.u32 %p2, %r3, 5; @%p2 bra again;"
        );
        let (_, totals) = count(96, &body);
        let mut expected = [0; Unit::COUNT];
        // 2 m n k of each of three warps, five times.
        expected[unit as usize] = 3 * 5 * 2 * m * n * k;
        assert_eq!(totals.flops, expected, "{instruction}");
    }
}

#[test]
fn products_of_a_warpgroup() {
    // Dense core matrices of 8 rows of 16 bytes: 128 bytes along k, 256 along m and n; B behind A.
    let body = "mov.u64 %rd2, 0x0000001000080000; mov.u64 %rd3, 0x0000001000080100; setp.eq.u32 %p3, %r1, %r1; wgmma.fence.sync.aligned;
        wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2, %f3, %f4}, %rd2, %rd3, %p3, 1, 1, 0, 0;
        wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2, %f3, %f4}, {%r10, %r11, %r12, %r13}, %rd3, %p3, 1, 1, 0;
        wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;";
    let (counters, totals) = count(128, body);
    assert_eq!(totals.flops[Unit::TensorFp16 as usize], 2 * 2 * 64 * 8 * 16);
    // A and B are 64 x 16 and 8 x 16 halves, 2304 bytes, B alone 256: a quarter of either for each of four warps.
    let expected = traffic(8, 2304 + 256, 4 * (5 + 1), 4 * (5 + 1));
    assert_eq!(counters.traffic(Space::Shared, Action::Product), expected);
}

#[test]
fn whole_matrices() {
    // 16 x 16 float32 with rows of 64 bytes: eight registers, of 32 elements of 4 bytes.
    let body = "mov.u64 %rd2, s; wmma.load.c.sync.aligned.row.m16n16k16.shared.f32
        {%r10, %r11, %r12, %r13, %r14, %r15, %r16, %r17}, [%rd2], 16;";
    let (counters, _) = count(32, body);
    let found = counters.traffic(Space::Shared, Action::Matrix);
    assert_eq!((found.requests, found.bytes), (8, 1024));
    // Lanes of a register are at words 16 g + 2 t: rows two apart share their banks, so four are in each used bank.
    assert_eq!(found.units, 8 * 4);
}
