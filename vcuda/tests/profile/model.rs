//! What is derived from the counters: classes and operations of opcodes, occupancy, the roofline.

use crate::{FMA_LOOP, count_on};
use vcuda::exec::profile::class::{Flops, classify};
use vcuda::exec::profile::occupancy::Needs;
use vcuda::exec::profile::roofline::RESOURCES;
use vcuda::exec::profile::{Class, Occupancy, Roofline, Unit, gpu};

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
        (gpu::B200, 384, 168, 200 << 10, 1, 12, "registers"),
        (gpu::RTX5090, 128, 168, 48 << 10, 2, 8, "shared memory"),
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
