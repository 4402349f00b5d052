//! How fast the interpreter is: `cargo bench -p vcuda`, or `cargo bench -p vcuda -- NAME` for the lines with this name;
//! `-- FILE.ptx` for how long a file takes to load. Medians of several runs, with the fastest and the slowest. NumPy's
//! product on as many threads stands beside ours, where there is NumPy. The products are `gemm.cu`, compiled to `gemm.ptx`;
//! `layernorm.ptx` is what NVRTC 13.0 made of the forward pass in `memo`'s `kernels/layernorm.cu` for compute_90a.
//! `VCUDA_THREADS` says how many cores run them.

use std::process::Command;
use std::time::Instant;

use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{Checks, Kernel, Launch, Module, Options, run};
use vcuda::memory::Memory;
use vcuda::tensor_map::{MAP_BYTES, TensorMap};

const RUNS: usize = 7;
const GEMM: &str = include_str!("gemm.ptx");
const LAYER_NORM: &str = include_str!("layernorm.ptx");
/// The largest kernel kept here.
const LARGEST: &str = include_str!("../tests/ptx/attention_sm80.ptx");
/// Chains of float32 multiply-adds, 32 at a time, 100,000 times, in a warp.
const CHAIN: &str = ".version 8.0\n.target sm_80\n.address_size 64
    .visible .entry chain(.param .u64 out, .param .u32 rounds) {
    .reg .f32 %f<40>; .reg .b32 i, n; .reg .pred p; .reg .b64 at;
    ld.param.u64 at, [out]; ld.param.u32 n, [rounds]; cvt.rn.f32.u32 %f32, n; mov.u32 i, 0;
    FILL
    AGAIN: CHAIN
    add.u32 i, i, 1; setp.lt.u32 p, i, n; @p bra AGAIN;
    SUM st.global.f32 [at], %f0; ret; }";
/// Lines, kernels, their tiles, threads and bytes of dynamic shared memory.
const PRODUCTS: [(&str, &str, [usize; 2], u32, u32); 4] = [
    ("mma fp16", "gemm_mma", [128, 128], 128, 0),
    ("mma fp16, cp.async", "gemm_mma_async", [128, 128], 128, 110_592),
    ("wgmma fp16", "gemm_wgmma", [256, 128], 256, 49_152),
    ("wgmma fp16, TMA", "gemm_wgmma_async", [256, 128], 384, 196_608),
];
const NUMPY_LINE: &str = "NumPy float32";
const EMPTY: &str = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry empty() { ret; }";

/// Seconds of several products of float32 matrices, after one for nothing.
const NUMPY: &str = "
import sys, time, numpy
n, runs = map(int, sys.argv[1:])
a, b = numpy.random.rand(2, n, n).astype(numpy.float32)
for i in range(runs + 1):
    start = time.perf_counter()
    a @ b
    if i: print(time.perf_counter() - start)";

struct Bench {
    memory: Memory,
    threads: usize,
    /// What a line's name must contain.
    wanted: String,
}

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let bench = Bench {
        memory: Memory::new(1 << 30),
        threads: std::env::var("VCUDA_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(cores),
        wanted: std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default(),
    };
    println!("{} host threads", bench.threads);
    bench.chain();
    bench.empty();
    bench.loads();
    bench.layer_norm(2500, 768);
    bench.products(2048);
}

impl Bench {
    /// Times `once`, if that is wanted; says whether it was.
    fn line(&self, name: &str, unit: &str, mut once: impl FnMut(), of_seconds: impl Fn(f64) -> f64) -> bool {
        let is_wanted = name.contains(&self.wanted);
        if is_wanted {
            once();
            let seconds = (0..RUNS).map(|_| {
                let start = Instant::now();
                once();
                start.elapsed().as_secs_f64()
            });
            report(name, unit, seconds.map(of_seconds).collect());
        }
        is_wanted
    }

    fn load(&self, ptx: &str) -> Module {
        let tree = vcuda::ptx::parse(ptx).unwrap_or_else(|error| stop(&format!("PTX: {error}")));
        Module::load(&tree, &self.memory, Checks::default())
            .unwrap_or_else(|error| stop(&format!("PTX: {error}")))
    }

    fn run(&self, kernel: &Kernel, [x, y]: [usize; 2], block: u32, shared_bytes: u32, params: &[u8]) {
        let launch = Launch {
            grid: [x as u32, y as u32, 1],
            cluster: [1; 3],
            block: [block, 1, 1],
            dynamic_shared_bytes: shared_bytes,
        };
        let options =
            Options { threads: self.threads, checks: Checks::default(), seed: 0, gpu: &H100, sums: None };
        run(kernel, &launch, params, &self.memory, &options).expect("a run without faults");
    }

    fn chain(&self) {
        let lines = |line: &dyn Fn(usize) -> String| (0..32).map(line).collect::<String>();
        let chain = CHAIN
            .replace("FILL", &lines(&|i| format!("mov.f32 %f{i}, %f32;\n")))
            .replace("CHAIN", &lines(&|i| format!("fma.rn.f32 %f{i}, %f{i}, %f32, %f32;\n")))
            .replace("SUM", &lines(&|i| format!("add.f32 %f0, %f0, %f{i};\n")));
        let (module, rounds) = (self.load(&chain), 100_000u32);
        let kernel = module.kernel("chain").expect("the kernel");
        let out = self.memory.alloc(1 << 20).expect("device memory");
        let params = [&out.to_le_bytes()[..], &rounds.to_le_bytes()].concat();
        let of_one = |s: f64| s * 1e9 / f64::from(32 * rounds);
        self.line(
            "float32 multiply-add of 32 lanes",
            "ns",
            || self.run(kernel, [1, 1], 32, 0, &params),
            of_one,
        );
    }

    fn empty(&self) {
        let module = self.load(EMPTY);
        let kernel = module.kernel("empty").expect("the kernel");
        let thousand = || (0..1000).for_each(|_| self.run(kernel, [1, 1], 32, 0, &[]));
        self.line("empty launch", "us", thousand, |s| s * 1e3);
    }

    fn loads(&self) {
        let name = "module load, attention on sm_80";
        self.line(name, "ms", || drop(self.load(LARGEST)), |s| s * 1e3);
        if self.wanted.ends_with(".ptx") {
            let read = std::fs::read_to_string(&self.wanted);
            let ptx = read.unwrap_or_else(|error| stop(&format!("{}: {error}", self.wanted)));
            let name = format!("module load, {}", self.wanted);
            self.line(&name, "ms", || drop(self.load(&ptx)), |s| s * 1e3);
        }
    }

    /// A kernel bound by memory: it reads each number of its input three times, and does little with it.
    fn layer_norm(&self, rows: usize, columns: usize) {
        const EPS: f32 = 1e-5;
        let name = format!("layer norm, {rows} by {columns}");
        let module = self.load(LAYER_NORM);
        let kernel = module.kernel("layernorm_forward").expect("the kernel");
        let value = |i: usize| (i * 37 % 61) as f32 / 61.0 - 0.5;
        let floats = |n: usize, of: &dyn Fn(usize) -> f32| {
            let at = self.memory.alloc(4 * n).expect("device memory");
            // SAFETY: an allocation of as many floats, which no kernel uses yet.
            (0..n).for_each(|i| unsafe { *(at as *mut f32).add(i) = of(i) });
            at
        };
        let [out, input] = [rows * columns; 2].map(|n| floats(n, &value));
        let [mean, scale] = [rows; 2].map(|n| floats(n, &value));
        let [weight, bias] = [3, 5].map(|salt| floats(columns, &|i| value(i + salt)));
        let mut params = Vec::new();
        [out, mean, scale, input, weight, bias].iter().for_each(|at| params.extend(at.to_le_bytes()));
        [rows as u32, columns as u32, EPS.to_bits()].iter().for_each(|n| params.extend(n.to_le_bytes()));
        let once = || self.run(kernel, [rows.div_ceil(4), 1], 128, 0, &params);
        if !self.line(&name, "ms", once, |s| s * 1e3) {
            return;
        }
        let (row, column) = (rows / 2, columns / 3);
        let x: Vec<f64> = (0..columns).map(|i| value(row * columns + i).into()).collect();
        let mean = x.iter().sum::<f64>() / columns as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / columns as f64;
        let scaled = (x[column] - mean) / (variance + f64::from(EPS)).sqrt();
        let want = scaled * f64::from(value(column + 3)) + f64::from(value(column + 5));
        // SAFETY: as above; the launches are over.
        let got = unsafe { *(out as *const f32).add(row * columns + column) };
        assert!((f64::from(got) - want).abs() < 1e-5, "{got} in place of {want}");
    }

    fn products(&self, n: usize) {
        let gflops = |s: f64| 2.0 * (n as f64).powi(3) / s / 1e9;
        let line = |name: &str| format!("{name}, {n} cubed");
        let names = PRODUCTS.map(|(name, ..)| line(name)).into_iter().chain([line(NUMPY_LINE)]);
        if !names.into_iter().any(|name| name.contains(&self.wanted)) {
            return;
        }
        let module = self.load(GEMM);
        let half_bits = |i: usize| half::f16::from_f32((i * 37 % 61) as f32 / 61.0 - 0.5).to_bits();
        let [a, b, c] = [2, 2, 4].map(|bytes| self.memory.alloc(bytes * n * n).expect("device memory"));
        for (at, salt) in [(a, 0), (b, 7)] {
            let values: Vec<u16> = (0..n * n).map(|i| half_bits(i / 3 + salt)).collect();
            // SAFETY: an allocation of as many elements, which no kernel uses yet.
            unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), at as *mut u16, n * n) };
        }
        let sizes = [n as u32; 2].map(u32::to_le_bytes).concat();
        let pointers = [&a.to_le_bytes()[..], &b.to_le_bytes(), &c.to_le_bytes(), &sizes].concat();
        let maps = [&self.map(a, n, 128)[..], &self.map(b, n, 256), &c.to_le_bytes(), &sizes].concat();
        for (name, kernel, tile, block, shared_bytes) in PRODUCTS {
            let params = if block == 384 { &maps } else { &pointers };
            let kernel = module.kernel(kernel).expect("the kernel");
            let once = || self.run(kernel, tile.map(|tile| n / tile), block, shared_bytes, params);
            if !self.line(&line(name), "GFLOP/s", once, gflops) {
                continue;
            }
            // SAFETY: as above; the launches are over.
            let (got, row, column) = (unsafe { *(c as *const f32).add(77 * n + 1234) }, 77, 1234);
            let element =
                |i: usize, j: usize, salt| half::f16::from_bits(half_bits((i * n + j) / 3 + salt)).to_f64();
            let want: f64 = (0..n).map(|k| element(row, k, 0) * element(column, k, 7)).sum();
            assert!((f64::from(got) - want).abs() < 1e-3, "{name}: {got} in place of {want}");
        }
        let name = line(NUMPY_LINE);
        if name.contains(&self.wanted) {
            match numpy(n, self.threads) {
                Some(seconds) => report(&name, "GFLOP/s", seconds.into_iter().map(gflops).collect()),
                None => println!("{name:36} none: python3 has no numpy"),
            }
        }
    }

    /// The tensor map of `n` by `n` fp16, of boxes of 64 by `rows` with the 128-byte swizzle.
    fn map(&self, at: u64, n: usize, rows: u32) -> [u8; MAP_BYTES] {
        const FLOAT16: u32 = 6;
        let (n, row_bytes) = (n as u64, 2 * n as u64);
        TensorMap::tiled(FLOAT16, at, &[n; 2], &[row_bytes], &[64, rows], &[1; 2], 3, 0)
            .expect("a valid map")
            .encode()
    }
}

fn stop(why: &str) -> ! {
    eprintln!("error: {why}");
    std::process::exit(1)
}

/// Prints the median and the span.
fn report(name: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (median, last) = (values[values.len() / 2], values.len() - 1);
    println!("{name:36} {median:9.2} {unit:8} ({:.2} to {:.2}, {RUNS} runs)", values[0], values[last]);
}

/// Seconds of its products, if there is NumPy.
fn numpy(n: usize, threads: usize) -> Option<Vec<f64>> {
    let mut python = Command::new("python3");
    for library in ["OMP", "OPENBLAS", "MKL"] {
        python.env(format!("{library}_NUM_THREADS"), threads.to_string());
    }
    // It may choose what suits the machine.
    for name in ["OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"] {
        python.env_remove(name);
    }
    let output = python.args(["-c", NUMPY, &n.to_string(), &RUNS.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let seconds: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    (seconds.len() == RUNS).then_some(seconds)
}
