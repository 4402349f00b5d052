//! Tensor-core kernels as the product will have them, on the virtual device with all checks on: a product by TMA and
//! wgmma in every layout, and attention by mma.sync, against float64 at whole and ragged sizes; with sums in float32 and
//! as a GPU's tensor cores have them, and with approximate functions as exact as may be and as far off.

mod attention;
mod gemm;
mod linear;
mod product;

use std::hash::{DefaultHasher, Hash, Hasher};

use half::f16;
use memo::gpu::{Nvrtc, Target};
use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{self, Checks, Launch, Module, Options, TensorCore};
use vcuda::memory::Memory;

/// A loaded source, and the memory of its device.
struct Device {
    memory: Memory,
    module: Module,
}

impl Device {
    /// Compiles with `defines` for an architecture such as `90a`.
    fn new(
        name: &str,
        source: &str,
        defines: &[(&str, usize)],
        (architecture, approx): (&str, bool),
    ) -> Device {
        let defines: String =
            defines.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
        let target = Target { virtual_driver: true, architecture };
        let ptx = Nvrtc::find().and_then(|nvrtc| nvrtc.compile(name, &format!("{defines}{source}"), target));
        let text = String::from_utf8(ptx.unwrap_or_else(|error| panic!("{error:#}"))).expect("PTX is text");
        let memory = Memory::new(1 << 28);
        let tree = vcuda::ptx::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let checks = Checks { approx, ..Checks::ALL };
        let module = Module::load(&tree, &memory, checks).unwrap_or_else(|error| panic!("{error}"));
        Device { memory, module }
    }

    fn upload(&self, bytes: &[u8]) -> u64 {
        let address = self.alloc(bytes.len());
        // SAFETY: an allocation of as many bytes, known to nobody else.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        address
    }

    fn alloc(&self, bytes: usize) -> u64 {
        self.memory.alloc(bytes).expect("device memory")
    }

    /// A result, whose digest is printed for `tests/nvrtc_versions.sh`.
    fn read(&self, what: &str, address: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        // SAFETY: an allocation of as many bytes; no launch is under way.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, out.as_mut_ptr(), bytes) };
        let mut hasher = DefaultHasher::new();
        out.hash(&mut hasher);
        println!("bits {what}: {:016x}", hasher.finish());
        out
    }

    fn launch(
        &self,
        kernel: &str,
        launch: Launch,
        args: &[Vec<u8>],
        (seed, sums): (u64, Option<TensorCore>),
    ) {
        let kernel = self.module.kernel(kernel).expect("a kernel of this name");
        let mut params = vec![0; kernel.param_bytes];
        assert_eq!(args.len(), kernel.params.len());
        for (arg, param) in args.iter().zip(&kernel.params) {
            params[param.offset..][..param.size].copy_from_slice(arg);
        }
        let options = Options { threads: 2, checks: Checks::ALL, seed, gpu: &H100, sums };
        exec::run(kernel, &launch, &params, &self.memory, &options).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// Numbers between -1 and 1, exact in float16.
fn random(len: usize, seed: u32) -> Vec<f16> {
    let value = |i: u32| (i.wrapping_add(seed << 16).wrapping_mul(2_654_435_761) >> 21) as f32 / 1024.0 - 1.0;
    (0..len as u32).map(|i| f16::from_f32(value(i))).collect()
}

fn halves(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).into()).collect()
}

fn bytes(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Each element within `most` of its own plus half a unit of float16.
fn assert_close(what: &str, got: &[f64], want: &[f64], most: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let most = most(i) + (want.abs() / 2048.0).max(2f64.powi(-25));
        assert!((got - want).abs() <= most, "{what}: element {i} is {got}, not {want} within {most:e}");
    }
}

/// How far a sum of products of factors up to one may be off, whichever way the tensor cores add: for each eight
/// products 11 · 2^-24 of the greatest that is in the step, a product or a sum. Float32 multiply-adds err by 2^-24 of the
/// sum each, so by 8 of these; an A100 cuts nine terms to 24 bits below the greatest, and the sum to 23 (9 + 2); an H100
/// cuts seventeen terms for sixteen products to 25 bits ((8.5 + 2) / 2).
fn sum_error(products: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut greatest, mut error) = (0f64, 1f64, 0.0);
    for (i, product) in products.enumerate() {
        sum += product;
        greatest = greatest.max(sum.abs());
        if i % 8 == 0 {
            error += 11.0 * 2f64.powi(-24);
        }
    }
    error * greatest
}
