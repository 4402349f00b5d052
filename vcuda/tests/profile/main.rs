//! The counters against counts by hand, occupancy against NVIDIA's calculator, and the file that a process
//! leaves.

use vcuda::exec::profile::class::{Flops, classify};
use vcuda::exec::profile::counters::Traffic;
use vcuda::exec::profile::occupancy::Needs;
use vcuda::exec::profile::roofline::RESOURCES;
use vcuda::exec::profile::{Action, Class, Counters, Occupancy, Roofline, Space, Totals, Unit, gpu};
use vcuda::exec::{Checks, Launch, Module, Options, run_counted};
use vcuda::memory::Memory;

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

/// Runs a body on CTAs along x. `%rd1` is the buffer's address, `%r1` the thread.
fn count_on(threads: usize, ctas: u32, block: u32, body: &str) -> (Counters, Totals) {
    let memory = Memory::new(8 << 20);
    let tree = vcuda::ptx::parse(&ptx(body)).unwrap();
    let module = Module::load_counted(&tree, &memory, Checks::default()).unwrap();
    let kernel = module.kernel("k").unwrap();
    let address = memory.alloc(BUFFER_BYTES).unwrap();
    let launch =
        Launch { grid: [ctas, 1, 1], cluster: [1; 3], block: [block, 1, 1], dynamic_shared_bytes: 0 };
    let options = Options { threads, checks: Checks::default(), seed: 0 };
    let counters = run_counted(kernel, &launch, &address.to_le_bytes(), &memory, &options).unwrap();
    let totals = counters.totals(kernel);
    (counters, totals)
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

    // One lane stores 1 KiB of shared memory, 16 bytes into a sector.
    let body = "setp.eq.u32 %p1, %r1, 0;\nmov.u32 %r3, s;\nadd.u64 %rd2, %rd1, 16;\nmov.u32 %r2, 1024;\n\
                @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r3], %r2;\n\
                cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;";
    let (counters, _) = count(body);
    let expected = Traffic { requests: 1, bytes: 1024, units: 33, ideal: 32 };
    assert_eq!(counters.traffic(Space::Global, Action::Bulk), expected);
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
    let memory = Memory::new(1 << 20);
    let tree = vcuda::ptx::parse(&ptx(FMA_LOOP)).unwrap();
    let module = Module::load(&tree, &memory, Checks::default()).unwrap();
    let kernel = module.kernel("k").unwrap();
    let launch = Launch { grid: [1; 3], cluster: [1; 3], block: [32, 1, 1], dynamic_shared_bytes: 0 };
    let options = Options { threads: 1, checks: Checks::default(), seed: 0 };
    let counters = run_counted(kernel, &launch, &[0; 8], &memory, &options).unwrap();
    assert_eq!(counters.totals(kernel), Totals::default());
}

#[test]
fn operations_of_opcodes() {
    type Operations = Option<(Unit, u64, bool)>;
    let cases: [(&str, Class, Operations); 14] = [
        ("fma.rn.ftz.f32", Class::Fp32, Some((Unit::Fp32, 2, false))),
        ("add.f32", Class::Fp32, Some((Unit::Fp32, 1, false))),
        ("max.f32", Class::Fp32, None),
        ("fma.rn.f64", Class::Fp64, Some((Unit::Fp64, 2, false))),
        ("fma.rn.f16x2", Class::Fp16, Some((Unit::Fp16, 4, false))),
        ("mul.bf16", Class::Fp16, Some((Unit::Fp16, 1, false))),
        ("mad.lo.s32", Class::Integer, None),
        ("setp.lt.f32", Class::Fp32, None),
        ("ex2.approx.ftz.f32", Class::Special, None),
        ("cvt.rn.f16.f32", Class::Convert, None),
        // 2 · 16 · 8 · 16, 2 · 16 · 8 · 8, and a quarter of 2 · 64 · 128 · 16
        (
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
            Class::Tensor,
            Some((Unit::TensorFp16, 4096, true)),
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32",
            Class::Tensor,
            Some((Unit::TensorTf32, 2048, true)),
        ),
        (
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16",
            Class::Tensor,
            Some((Unit::TensorFp16, 65536, true)),
        ),
        ("wgmma.wait_group.sync.aligned", Class::Barrier, None),
    ];
    for (opcode, class, flops) in cases {
        let parts: Vec<&str> = opcode.split('.').collect();
        let flops = flops.map(|(unit, count, of_warp)| Flops { unit, count, of_warp });
        assert_eq!(classify(&parts), (class, flops), "{opcode}");
    }
}

#[test]
fn occupancy_as_nvidias_calculator_has_it() {
    // GPU, threads, registers, shared bytes: CTAs of a multiprocessor, its warps, the limit.
    let cases = [
        (gpu::H100, 256, 32, 0, 8, 64, "threads"),
        (gpu::H100, 256, 37, 0, 6, 48, "registers"), // 1280 a warp: 51, and fours: 48
        (gpu::H100, 256, 64, 0, 4, 32, "registers"),
        (gpu::H100, 1024, 40, 0, 1, 32, "registers"),
        (gpu::H100, 128, 168, 0, 3, 12, "registers"),
        (gpu::H100, 384, 168, 200 << 10, 1, 12, "registers"),
        (gpu::H100, 128, 32, 100 << 10, 2, 8, "shared memory"),
        (gpu::H100, 32, 16, 0, 32, 32, "CTA slots"),
        (gpu::H100, 33, 16, 0, 32, 64, "threads"),
        (gpu::A100, 256, 32, 48 << 10, 3, 24, "shared memory"),
        (gpu::RTX4090, 1024, 32, 0, 1, 32, "threads"),
        (gpu::RTX4090, 32, 16, 0, 24, 24, "CTA slots"),
        (gpu::RTX4090, 128, 32, 24 << 10, 4, 16, "shared memory"),
    ];
    for (gpu, threads, registers, shared_bytes, ctas, warps, limit) in cases {
        let occupancy = Occupancy::new(&gpu, Needs { threads, registers, shared_bytes }, 1);
        assert_eq!(
            (occupancy.ctas_per_sm, occupancy.limit()),
            (ctas, limit),
            "{threads} {registers} {shared_bytes}"
        );
        assert_eq!(occupancy.theoretical, f64::from(warps) / f64::from(gpu.limits.warps));
    }
    let needs = Needs { threads: 1024, registers: 64, shared_bytes: 0 };
    let occupancy = Occupancy::new(&gpu::H100, needs, 198);
    assert_eq!((occupancy.ctas_per_sm, occupancy.waves, occupancy.tail), (1, 1.5, 0.5));
    let occupancy = Occupancy::new(&gpu::H100, needs, 264);
    assert_eq!((occupancy.waves, occupancy.tail), (2.0, 1.0));
}

fn time_us(roofline: &Roofline, resource: &str) -> f64 {
    roofline.times_us[RESOURCES.iter().position(|&name| name == resource).unwrap()]
}

fn assert_close(value: f64, expected: f64) {
    assert!((value - expected).abs() <= 1e-9 * expected.abs(), "{value} {expected}");
}

#[test]
fn roofline_of_known_work() {
    // One CTA of 128 threads on each of 132 multiprocessors: 30 multiply-adds a warp, 4 warps, 4 a clock.
    let (counters, totals) = count_on(2, 132, 128, FMA_LOOP);
    let roofline = Roofline::new(&gpu::H100, &totals, &counters, 132);
    assert_eq!(roofline.coverage, 1.0);
    assert_close(time_us(&roofline, "fp32"), 30.0 / 1980.0);
    assert_close(time_us(&roofline, "integer"), 40.0 / 1980.0);
    assert_close(time_us(&roofline, "issue"), 64.0 / 1980.0);
    assert_eq!(time_us(&roofline, "DRAM"), 0.0);
    // One CTA more, and one multiprocessor has two.
    let (counters, totals) = count_on(2, 133, 128, FMA_LOOP);
    let roofline = Roofline::new(&gpu::H100, &totals, &counters, 133);
    assert_close(time_us(&roofline, "fp32"), 60.0 / 1980.0);

    // 64 CTAs of 256 threads read 16 bytes each: 256 KiB.
    let body = "mov.u32 %r2, %ctaid.x;\nmad.lo.u32 %r2, %r2, 256, %r1;\nmul.wide.u32 %rd2, %r2, 16;\n\
                add.u64 %rd2, %rd1, %rd2;\nld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd2];";
    let (counters, totals) = count_on(2, 64, 256, body);
    assert_eq!(counters.compulsory_bytes(), 262_144);
    let roofline = Roofline::new(&gpu::A100, &totals, &counters, 64);
    assert_close(time_us(&roofline, "DRAM"), 262_144.0 / 2_039_000.0);
    assert_close(time_us(&roofline, "L2"), 262_144.0 / (5120.0 * 1410.0));
    assert_close(time_us(&roofline, "L1 fill"), 4096.0 / (64.0 * 1410.0)); // 4 KiB a CTA
    assert_eq!(roofline.limit, "launch");
}

mod process {
    //! The file that a process leaves which launches through the driver's functions.

    use std::ffi::c_void;
    use std::process::Command;
    use vcuda as _;

    unsafe extern "C" {
        fn cuInit(flags: u32) -> i32;
        fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: i32) -> i32;
        fn cuCtxSetCurrent(context: *mut c_void) -> i32;
        fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) -> i32;
        fn cuModuleGetFunction(function: *mut *mut c_void, module: *mut c_void, name: *const u8) -> i32;
        fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> i32;
        fn cuLaunchKernel(
            function: *mut c_void,
            gx: u32,
            gy: u32,
            gz: u32,
            bx: u32,
            by: u32,
            bz: u32,
            shared_bytes: u32,
            stream: *mut c_void,
            params: *const *const c_void,
            extra: *const *const c_void,
        ) -> i32;
    }

    /// Does nothing but in the process that [`run`] starts.
    #[test]
    fn launch_twice() {
        if std::env::var("VCUDA_PROFILE").is_err() {
            return;
        }
        let text = super::ptx("ld.global.u32 %r2, [%rd1];") + "\0";
        let (mut context, mut module, mut function) = [std::ptr::null_mut(); 3].into();
        let (mut address, null) = (0u64, std::ptr::null_mut());
        // SAFETY: as the driver API asks for: live pointers, C strings that end in NUL, one parameter.
        unsafe {
            assert_eq!(cuInit(0), 0);
            assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
            assert_eq!(cuCtxSetCurrent(context), 0);
            assert_eq!(cuModuleLoadData(&mut module, text.as_ptr().cast()), 0);
            assert_eq!(cuModuleGetFunction(&mut function, module, c"k".as_ptr().cast()), 0);
            assert_eq!(cuMemAlloc_v2(&mut address, 4096), 0);
            let params = [(&raw const address).cast::<c_void>()];
            for ctas in [3, 5] {
                let done = cuLaunchKernel(
                    function,
                    ctas,
                    1,
                    1,
                    64,
                    1,
                    1,
                    0,
                    null,
                    params.as_ptr(),
                    std::ptr::null(),
                );
                assert_eq!(done, 0);
            }
        }
    }

    /// This test again, as a process of its own.
    fn run(profile: &str, gpu: &str) -> std::process::Output {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::launch_twice", "--nocapture"])
            .envs([("VCUDA_PROFILE", profile), ("VCUDA_GPU", gpu), ("VCUDA_MEMORY_BYTES", "1048576")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    }

    #[test]
    fn a_file_of_launches_and_kernels() {
        let path = std::env::temp_dir().join(format!("vcuda-profile-{}.json", std::process::id()));
        run(path.to_str().unwrap(), "A100");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        // 5 CTAs of 2 warps: ld.param, mov, ld, ret; 1 sector each.
        assert!(lines[1].starts_with("{\"launch\":1,\"kernel\":\"k\",\"grid\":[5, 1, 1],"), "{text}");
        for part in [
            "\"warp_instructions\":40,",
            "\"thread_instructions\":1280,",
            "\"load\":{\"requests\":10,\"bytes\":1280,\"sectors\":10,\"ideal_sectors\":10}",
            "\"unique_bytes_read\":32,",
            "\"gpu\":\"A100\"",
            "\"kind\":\"model, not a measurement\"",
        ] {
            assert!(lines[1].contains(part), "{part}: {text}");
        }
        assert!(
            lines[2].starts_with("{\"summary\":\"k\",\"launches\":2,\"warp_instructions\":64,"),
            "{text}"
        );
        for line in lines {
            assert_eq!(line.matches('{').count(), line.matches('}').count());
            assert_eq!(line.matches('[').count(), line.matches(']').count());
        }
    }

    #[test]
    fn a_table_on_stderr() {
        let output = run("-", "h200");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("on the model of a H200: a lower bound, not a measurement"), "{text}");
        assert!(
            text.lines().any(|line| line.trim_start().starts_with("2 ") && line.ends_with(" k")),
            "{text}"
        );
    }
}
