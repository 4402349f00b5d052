//! How fast the interpreter is: `cargo bench -p vcuda`. Medians of several runs, with the fastest and the
//! slowest. The products are `gemm.cu`, compiled to `gemm.ptx`; `VCUDA_THREADS` says how many cores run them.

use std::time::Instant;
use vcuda::exec::{Checks, Launch, Module, Options, run};
use vcuda::memory::Memory;

const RUNS: usize = 7;
const GEMM: &str = include_str!("gemm.ptx");
/// The largest kernel kept here.
const LARGEST: &str = include_str!("../tests/ptx/attention_sm80.ptx");
/// Chains of float32 multiply-adds, 32 at a time, 1,000 times, in each warp.
const CHAIN: &str = ".version 8.0\n.target sm_80\n.address_size 64
    .visible .entry chain(.param .u64 out, .param .u32 rounds) {
    .reg .f32 %f<40>; .reg .b32 i, n; .reg .pred p; .reg .b64 at;
    ld.param.u64 at, [out]; ld.param.u32 n, [rounds]; cvt.rn.f32.u32 %f32, n; mov.u32 i, 0;
    FILL
    AGAIN: CHAIN
    add.u32 i, i, 1; setp.lt.u32 p, i, n; @p bra AGAIN;
    SUM st.global.f32 [at], %f0; ret; }";
const EMPTY: &str = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry empty() { ret; }";

/// Prints the median of `RUNS` and the span, of what `run` makes of the seconds that it takes.
fn report(name: &str, unit: &str, mut once: impl FnMut(), of_seconds: impl Fn(f64) -> f64) {
    once();
    let mut values: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            once();
            of_seconds(start.elapsed().as_secs_f64())
        })
        .collect();
    values.sort_by(f64::total_cmp);
    println!(
        "{name:36} {:9.2} {unit:8} ({:.2} to {:.2}, {RUNS} runs)",
        values[RUNS / 2],
        values[0],
        values[RUNS - 1]
    );
}

fn load(ptx: &str, memory: &Memory) -> Module {
    let tree = vcuda::ptx::parse(ptx).expect("PTX that parses");
    Module::load(&tree, memory, Checks::default()).expect("a kernel of known instructions")
}

fn main() {
    let memory = Memory::new(1 << 30);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = std::env::var("VCUDA_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(cores);
    let options = |threads| Options { threads, checks: Checks::default(), seed: 0 };
    let launch = |grid: [u32; 3], block: u32, dynamic_shared_bytes: u32| Launch {
        grid,
        cluster: [1; 3],
        block: [block, 1, 1],
        dynamic_shared_bytes,
    };
    println!("{threads} host threads");

    let lines = |line: &dyn Fn(usize) -> String| (0..32).map(line).collect::<String>();
    let chain = CHAIN
        .replace("FILL", &lines(&|i| format!("mov.f32 %f{i}, %f32;\n")))
        .replace("CHAIN", &lines(&|i| format!("fma.rn.f32 %f{i}, %f{i}, %f32, %f32;\n")))
        .replace("SUM", &lines(&|i| format!("add.f32 %f0, %f0, %f{i};\n")));
    let module = load(&chain, &memory);
    let out = memory.alloc(1 << 20).expect("device memory");
    let mut params = [0; 12];
    params[..8].copy_from_slice(&out.to_le_bytes());
    params[8..].copy_from_slice(&1000u32.to_le_bytes());
    let kernel = module.kernel("chain").expect("the kernel");
    let go = |params: &[u8], kernel, launch: &Launch, threads| {
        run(kernel, launch, params, &memory, &options(threads)).expect("a run without faults");
    };
    report(
        "float32 multiply-add of 32 lanes",
        "ns",
        || go(&params, kernel, &launch([1; 3], 32, 0), 1),
        |s| s * 1e9 / 32_000.0,
    );

    let module = load(EMPTY, &memory);
    let kernel = module.kernel("empty").expect("the kernel");
    report(
        "empty launch",
        "us",
        || (0..1000).for_each(|_| go(&[], kernel, &launch([1; 3], 32, 0), threads)),
        |s| s * 1e3,
    );
    report("module load, attention on sm_80", "ms", || drop(load(LARGEST, &memory)), |s| s * 1e3);

    let n = 2048usize;
    let module = load(GEMM, &memory);
    let half_bits = |i: usize| half::f16::from_f32((i * 37 % 61) as f32 / 61.0 - 0.5).to_bits();
    let [a, b, c] = [2, 2, 4].map(|bytes| memory.alloc(bytes * n * n).expect("device memory"));
    for (at, salt) in [(a, 0), (b, 7)] {
        let values: Vec<u16> = (0..n * n).map(|i| half_bits(i / 3 + salt)).collect();
        // SAFETY: an allocation of as many elements, which no kernel uses yet.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), at as *mut u16, n * n) };
    }
    let mut params = Vec::new();
    [a, b, c].iter().for_each(|at| params.extend(at.to_le_bytes()));
    params.extend([n as u32; 2].iter().flat_map(|n| n.to_le_bytes()));
    let gflops = |s: f64| 2.0 * (n as f64).powi(3) / s / 1e9;
    for (name, tile, block, shared_bytes) in [("mma", [128, 128], 128, 0), ("wgmma", [256, 128], 256, 49_152)]
    {
        let kernel = module.kernel(&format!("gemm_{name}")).expect("the kernel");
        let grid = [n as u32 / tile[0], n as u32 / tile[1], 1];
        let shape = launch(grid, block, shared_bytes);
        report(
            &format!("{name} fp16, {n} cubed"),
            "GFLOP/s",
            || go(&params, kernel, &shape, threads),
            gflops,
        );
        // SAFETY: as above; the launches are over.
        let (got, row, column) = (unsafe { *(c as *const f32).add(77 * n + 1234) }, 77, 1234);
        let element =
            |i: usize, j: usize, salt| half::f16::from_bits(half_bits((i * n + j) / 3 + salt)).to_f64();
        let want: f64 = (0..n).map(|k| element(row, k, 0) * element(column, k, 7)).sum();
        assert!((f64::from(got) - want).abs() < 1e-3, "{name}: {got} in place of {want}");
    }
}
