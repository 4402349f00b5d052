//! The counters against counts by hand, occupancy against NVIDIA's calculator, and the file that a process
//! leaves.

mod model;
mod process;

use vcuda::exec::profile::counters::Traffic;
use vcuda::exec::profile::gpu::H100;
use vcuda::exec::profile::{Action, Class, Counters, Space, Totals, Unit};
use vcuda::exec::{Checks, Launch, LoadError, Module, Options, run_counted};
use vcuda::memory::Memory;
use vcuda::ptx::ast;

/// Bytes of the buffer that each kernel has; a power of two, and aligned to sectors.
const BUFFER_BYTES: usize = 1 << 20;

fn ptx(body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n\
         .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>; .reg .f64 %fd<9>; .reg .pred %p<4>;\n\
         .shared .align 128 .b8 s[8192];\n\
         ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\n{body}\nret;\n}}\n"
    )
}

/// [`Module::load_counted`], or [`Module::load`].
type Load = fn(&ast::Module, &Memory, Checks) -> Result<Module, LoadError>;

/// Runs a body on CTAs along x. `%rd1` is the buffer's address, `%r1` the thread.
fn run_on(load: Load, threads: usize, ctas: u32, block: u32, body: &str) -> (Counters, Totals) {
    let memory = Memory::new(8 << 20);
    let tree = vcuda::ptx::parse(&ptx(body)).unwrap();
    let module = load(&tree, &memory, Checks::default()).unwrap();
    let kernel = module.kernel("k").unwrap();
    let address = memory.alloc(BUFFER_BYTES).unwrap();
    let launch =
        Launch { grid: [ctas, 1, 1], cluster: [1; 3], block: [block, 1, 1], dynamic_shared_bytes: 0 };
    let options = Options { threads, checks: Checks::default(), seed: 0, gpu: &H100, sums: None };
    let counters = run_counted(kernel, &launch, &address.to_le_bytes(), &memory, &options).unwrap();
    let totals = counters.totals(kernel);
    (counters, totals)
}

fn count_on(threads: usize, ctas: u32, block: u32, body: &str) -> (Counters, Totals) {
    run_on(Module::load_counted, threads, ctas, block, body)
}

fn count(body: &str) -> (Counters, Totals) {
    count_on(1, 1, 32, body)
}

/// `%rd2`, `%r3`: the buffer and `s` at `stride` bytes times the thread, plus `offset`.
fn strided(stride: u32, offset: u32, access: &str) -> String {
    format!(
        "mad.lo.u32 %r2, %r1, {stride}, {offset};\ncvt.u64.u32 %rd2, %r2;\nadd.u64 %rd2, %rd1, %rd2;\n\
         mov.u32 %r3, s;\nadd.u32 %r3, %r3, %r2;\n{access}"
    )
}

#[test]
fn sectors_of_global_loads() {
    // Stride and offset in bytes, the load, bytes of a lane, sectors, unique bytes.
    let cases = [
        (4, 0, "ld.global.f32 %f1, [%rd2];", 4, 4, 128),
        (4, 4, "ld.global.f32 %f1, [%rd2];", 4, 5, 160),
        (8, 0, "ld.global.f32 %f1, [%rd2];", 4, 8, 256),
        (32, 0, "ld.global.f32 %f1, [%rd2];", 4, 32, 1024),
        (4096, 0, "ld.global.f32 %f1, [%rd2];", 4, 32, 1024),
        (0, 64, "ld.global.f32 %f1, [%rd2];", 4, 1, 32),
        (1, 0, "ld.global.u8 %r4, [%rd2];", 1, 1, 32),
        (8, 0, "ld.global.f64 %fd1, [%rd2];", 8, 8, 256),
        (16, 0, "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd2];", 16, 16, 512),
        (48, 0, "ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd2];", 16, 32, 1024),
        (4, 0, "ld.f32 %f1, [%rd2];", 4, 4, 128), // generic
        (4, 0, "ld.global.f32 %f1, [%rd2+128];", 4, 4, 128),
    ];
    for (stride, offset, load, bytes, sectors, unique) in cases {
        let (counters, totals) = count(&strided(stride, offset, load));
        let ideal = sectors.min(bytes);
        let expected = Traffic { requests: 1, bytes: 32 * bytes, units: sectors, ideal };
        assert_eq!(counters.traffic(Space::Global, Action::Load), expected, "{stride} {offset} {load}");
        assert_eq!(counters.compulsory_bytes(), unique, "{stride} {offset} {load}");
        assert_eq!(counters.written.count(), 0);
        assert_eq!(totals.instructions[Class::Load as usize], 1);
    }
}

#[test]
fn lanes_in_any_order_touch_the_same_sectors() {
    // Lane i reads word 31 - i, then word i ^ 9.
    let body = "xor.b32 %r2, %r1, 31;\nmul.wide.u32 %rd2, %r2, 4;\nadd.u64 %rd2, %rd1, %rd2;\n\
                ld.global.u32 %r4, [%rd2];\nxor.b32 %r2, %r1, 9;\nmul.wide.u32 %rd2, %r2, 4;\n\
                add.u64 %rd2, %rd1, %rd2;\nld.global.u32 %r4, [%rd2];";
    let (counters, _) = count(body);
    let expected = Traffic { requests: 2, bytes: 256, units: 8, ideal: 8 };
    assert_eq!(counters.traffic(Space::Global, Action::Load), expected);
    assert_eq!(counters.read.count(), 4);
}

#[test]
fn stores_and_atomics() {
    let (counters, _) =
        count(&strided(4, 0, "st.global.u32 [%rd2], %r1;\nred.global.add.u32 [%rd2+256], %r1;"));
    let expected = Traffic { requests: 1, bytes: 128, units: 4, ideal: 4 };
    assert_eq!(counters.traffic(Space::Global, Action::Store), expected);
    assert_eq!(counters.traffic(Space::Global, Action::Atomic), expected);
    assert_eq!((counters.read.count(), counters.written.count()), (4, 8));
}

#[test]
fn wavefronts_of_shared_accesses() {
    // Stride and offset in bytes, the access, bytes of a lane, wavefronts, the least possible.
    let cases = [
        (4, 0, "ld.shared.f32 %f1, [%r3];", 4, 1, 1),
        (8, 0, "ld.shared.f32 %f1, [%r3];", 4, 2, 1),
        (16, 0, "ld.shared.f32 %f1, [%r3];", 4, 4, 1),
        (32, 0, "ld.shared.f32 %f1, [%r3];", 4, 8, 1),
        (64, 0, "ld.shared.f32 %f1, [%r3];", 4, 16, 1),
        (128, 0, "ld.shared.f32 %f1, [%r3];", 4, 32, 1),
        (132, 0, "ld.shared.f32 %f1, [%r3];", 4, 1, 1),
        (12, 0, "st.shared.f32 [%r3], %f1;", 4, 1, 1),
        (0, 12, "ld.shared.f32 %f1, [%r3];", 4, 1, 1),
        (2, 0, "ld.shared.u16 %r4, [%r3];", 2, 1, 1),
        (8, 0, "ld.shared.f64 %fd1, [%r3];", 8, 2, 2),
        (16, 0, "ld.shared.f64 %fd1, [%r3];", 8, 4, 2),
        (16, 0, "ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r3];", 16, 4, 4),
        (32, 0, "ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r3];", 16, 8, 4),
        (128, 0, "st.shared.v4.f32 [%r3], {%f1, %f2, %f3, %f4};", 16, 32, 4),
        (0, 0, "ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r3];", 16, 4, 4),
    ];
    for (stride, offset, access, bytes, wavefronts, ideal) in cases {
        let (counters, _) = count(&strided(stride, offset, access));
        let expected = Traffic { requests: 1, bytes: 32 * bytes, units: wavefronts, ideal };
        assert_eq!(counters.all_traffic(Space::Shared), expected, "{stride} {offset} {access}");
        assert_eq!(counters.all_traffic(Space::Global), Traffic::default());
    }
}

#[test]
fn part_of_a_warp_takes_part_of_the_wavefronts() {
    let body = strided(16, 0, "setp.lt.u32 %p1, %r1, 8;\n@%p1 ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r3];");
    let (counters, _) = count(&body);
    let expected = Traffic { requests: 1, bytes: 128, units: 1, ideal: 1 };
    assert_eq!(counters.traffic(Space::Shared, Action::Load), expected);
}

#[test]
fn local_memory_is_interleaved() {
    let body = ".local .align 16 .b8 l[64];\nmov.u32 %r2, 7;\nst.local.u32 [l+8], %r2;\nst.local.v4.u32 [l+16], {%r1, %r1, %r1, %r1};";
    let (counters, _) = count(body);
    let expected = Traffic { requests: 2, bytes: 640, units: 20, ideal: 20 };
    assert_eq!(counters.traffic(Space::Local, Action::Store), expected);
    assert_eq!(counters.compulsory_bytes(), 0);
}

#[test]
fn copies_without_registers() {
    let body = strided(16, 0, "cp.async.cg.shared.global [%r3], [%rd2], 16;\ncp.async.wait_all;");
    let (counters, totals) = count(&body);
    let global = Traffic { requests: 1, bytes: 512, units: 16, ideal: 16 };
    let shared = Traffic { requests: 1, bytes: 512, units: 4, ideal: 4 };
    assert_eq!(counters.traffic(Space::Global, Action::CopyAsync), global);
    assert_eq!(counters.traffic(Space::Shared, Action::CopyAsync), shared);
    assert_eq!(totals.instructions[Class::Copy as usize], 2);

    // Again and again, where its memory is known.
    let copies = "mov.u32 %r2, 0;\nL:\ncp.async.cg.shared.global [%r3], [%rd2], 16;\nadd.u32 %r2, %r2, 1;\n\
                  setp.lt.u32 %p1, %r2, 3;\n@%p1 bra L;\ncp.async.wait_all;";
    let (counters, _) = count(&strided(16, 0, copies));
    let global = Traffic { requests: 3, bytes: 3 * 512, units: 48, ideal: 48 };
    assert_eq!(counters.traffic(Space::Global, Action::CopyAsync), global);

    // One lane stores 1 KiB of shared memory, 16 bytes into a sector.
    let body = "setp.eq.u32 %p1, %r1, 0;\nmov.u32 %r3, s;\nadd.u64 %rd2, %rd1, 16;\nmov.u32 %r2, 1024;\n\
                @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r3], %r2;\n\
                cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;";
    let (counters, _) = count(body);
    let expected = Traffic { requests: 1, bytes: 1024, units: 33, ideal: 32 };
    assert_eq!(counters.traffic(Space::Global, Action::Bulk), expected);
    let expected = Traffic { requests: 1, bytes: 1024, units: 8, ideal: 8 };
    assert_eq!(counters.traffic(Space::Shared, Action::Bulk), expected);
    assert_eq!((counters.read.count(), counters.written.count()), (0, 33));
}

#[test]
fn a_branch_that_divides_the_warp() {
    let body = "setp.lt.u32 %p1, %r1, 16;\n@%p1 bra A;\nmov.u32 %r2, 1;\nbra B;\nA:\nmov.u32 %r2, 2;\nmov.u32 %r3, 2;\nB:";
    let (counters, totals) = count(body);
    assert_eq!((counters.branches, counters.divergent_branches), (1, 1));
    // ld.param, mov, setp and bra for all; mov and bra for a half, two movs for the other; ret for all.
    assert_eq!(totals.issued(), 9);
    assert_eq!(totals.active, 4 * 32 + 2 * 16 + 2 * 16 + 32);
    assert_eq!(totals.instructions[Class::Control as usize], 3);
    assert_eq!(totals.executed, totals.active - 16); // the guard of the first branch

    let (counters, totals) = count(&body.replace("16;", "64;"));
    assert_eq!((counters.branches, counters.divergent_branches), (1, 0));
    assert_eq!((totals.issued(), totals.active), (7, 7 * 32));
}

#[test]
fn guards_count_the_lanes_that_they_let_through() {
    let body = "setp.lt.u32 %p1, %r1, 5;\nadd.f32 %f1, %f1, %f1;\n@%p1 add.f32 %f1, %f1, %f1;\n@!%p1 mul.f32 %f1, %f1, %f1;\nadd.f32 %f1, %f1, %f1;";
    let (_, totals) = count(body);
    assert_eq!(totals.issued(), 8);
    assert_eq!(totals.flops[Unit::Fp32 as usize], 32 + 5 + 27 + 32);
    assert_eq!((totals.active, totals.executed), (8 * 32, 6 * 32 + 5 + 27));
}

/// 10 rounds of three fused multiply-adds, an addition, a comparison and a branch.
const FMA_LOOP: &str = "mov.u32 %r2, 0;\nL:\nfma.rn.f32 %f1, %f2, %f3, %f1;\nfma.rn.f32 %f4, %f2, %f3, %f4;\n\
                        fma.rn.f32 %f5, %f2, %f3, %f5;\nadd.u32 %r2, %r2, 1;\nsetp.lt.u32 %p1, %r2, 10;\n@%p1 bra L;";

#[test]
fn operations_of_a_loop() {
    let (counters, totals) = count_on(2, 3, 64, FMA_LOOP);
    assert_eq!(totals.flops[Unit::Fp32 as usize], 3 * 64 * 10 * 3 * 2);
    let mut expected = [0; Class::COUNT];
    expected[Class::Fp32 as usize] = 6 * 30;
    expected[Class::Integer as usize] = 6 * 20;
    expected[Class::Control as usize] = 6 * 11;
    expected[Class::Move as usize] = 6 * 3;
    assert_eq!(totals.instructions, expected);
    assert_eq!((counters.branches, counters.divergent_branches), (60, 0));
    // The last warp of a CTA of 40 threads has 8 lanes.
    let (_, totals) = count_on(1, 1, 40, FMA_LOOP);
    assert_eq!(totals.flops[Unit::Fp32 as usize], 40 * 10 * 3 * 2);
    assert_eq!(totals.lanes_per_instruction(), 20.0);
}

#[test]
fn shuffles_and_barriers() {
    let body = "bar.sync 0;\nshfl.sync.bfly.b32 %r2, %r1, 1, 31, -1;\nadd.u32 %r2, %r2, 1;\nbar.sync 0;";
    let (_, totals) = count_on(1, 1, 128, body);
    assert_eq!(totals.instructions[Class::Barrier as usize], 2 * 4);
    assert_eq!(totals.instructions[Class::Warp as usize], 4);
    assert_eq!(totals.instructions[Class::Integer as usize], 4);
    assert_eq!(totals.active, totals.issued() * 32);
}

#[test]
fn the_same_counts_on_any_number_of_threads() {
    let body = strided(20, 0, &format!("ld.global.u32 %r4, [%rd2];\nst.shared.u32 [%r3], %r4;\n{FMA_LOOP}"));
    let (one, totals) = count_on(1, 37, 96, &body);
    let (many, many_totals) = count_on(4, 37, 96, &body);
    assert_eq!(totals, many_totals);
    assert_eq!(one.traffic, many.traffic);
    assert_eq!(one.compulsory_bytes(), many.compulsory_bytes());
}

#[test]
fn nothing_is_counted_unless_asked_for() {
    let (_, totals) = run_on(Module::load, 1, 1, 32, FMA_LOOP);
    assert_eq!(totals, Totals::default());
}
