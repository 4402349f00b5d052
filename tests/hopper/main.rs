//! Tensor-core kernels as the product will have them, on the virtual device with all checks on: a product by TMA and
//! wgmma in every layout, and attention by mma.sync, against float64 at whole and ragged sizes; with sums in float32 and
//! as a GPU's tensor cores have them, and with approximate functions as exact as may be and as far off. With `MEMO_TEST_DEVICE`
//! the same through that device's driver, as it adds and approximates.

mod attention;
#[path = "../common/driven.rs"]
mod driven;
mod gemm;
mod linear;
mod product;

use std::hash::{DefaultHasher, Hash, Hasher};

use half::f16;
use memo::gpu::{Form, Nvrtc, Target};
use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{self, Checks, Launch, Module, Options, TensorCore};
use vcuda::memory::Memory;
use vcuda::tensor_map::TensorMap;

use driven::Driven;

/// `CU_TENSOR_MAP_DATA_TYPE_FLOAT16` and `CU_TENSOR_MAP_SWIZZLE_128B`.
const FLOAT16: u32 = 6;
const SWIZZLE_128: u32 = 3;

/// A loaded source, and the memory of its device.
enum Device {
    Vcuda { memory: Memory, module: Module },
    Driven(Driven),
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
        let source = format!("{defines}{source}");
        if driven::is_asked_for() {
            return Device::Driven(Driven::new(name, source));
        }
        let target = Target { form: Form::Ptx, architecture };
        let ptx = Nvrtc::any().and_then(|nvrtc| nvrtc.compile(name, &source, target));
        let text = String::from_utf8(ptx.unwrap_or_else(|error| panic!("{error:#}"))).expect("PTX is text");
        let memory = Memory::new(1 << 28);
        let tree = vcuda::ptx::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let checks = Checks { approx, ..Checks::ALL };
        let module = Module::load(&tree, &memory, checks).unwrap_or_else(|error| panic!("{error}"));
        Device::Vcuda { memory, module }
    }

    fn upload(&self, bytes: &[u8]) -> u64 {
        if let Device::Driven(driven) = self {
            return driven.upload(bytes);
        }
        let address = self.alloc(bytes.len());
        // SAFETY: an allocation of as many bytes, known to nobody else.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        address
    }

    fn alloc(&self, bytes: usize) -> u64 {
        match self {
            Device::Vcuda { memory, .. } => memory.alloc(bytes).expect("device memory"),
            Device::Driven(driven) => driven.alloc(bytes),
        }
    }

    fn free(&self, address: u64) {
        assert!(match self {
            Device::Vcuda { memory, .. } => memory.free(address),
            Device::Driven(driven) => driven.free(address),
        });
    }

    /// A result, whose digest is printed for `tests/nvrtc_versions.sh`.
    fn read(&self, what: &str, address: u64, bytes: usize) -> Vec<u8> {
        let out = match self {
            Device::Vcuda { .. } => {
                let mut out = vec![0; bytes];
                // SAFETY: an allocation of as many bytes; no launch is under way.
                unsafe { std::ptr::copy_nonoverlapping(address as *const u8, out.as_mut_ptr(), bytes) };
                out
            }
            Device::Driven(driven) => driven.read(address),
        };
        let mut hasher = DefaultHasher::new();
        out.hash(&mut hasher);
        println!("bits {what}: {:016x}", hasher.finish());
        out
    }

    /// A tensor map of float16, swizzled by 128 bytes.
    fn map(&self, address: u64, dims: &[u64], strides: &[u64], boxes: &[u32]) -> Vec<u8> {
        if let Device::Driven(_) = self {
            return Driven::map(address, dims, strides, boxes);
        }
        let every = vec![1; dims.len()];
        let map = TensorMap::tiled(FLOAT16, address, dims, strides, boxes, &every, SWIZZLE_128, 0);
        map.unwrap_or_else(|error| panic!("{error}")).encode().to_vec()
    }

    fn launch(
        &self,
        kernel: &'static str,
        launch: Launch,
        args: &[Vec<u8>],
        (seed, sums): (u64, Option<TensorCore>),
    ) {
        let (memory, module) = match self {
            Device::Vcuda { memory, module } => (memory, module),
            Device::Driven(driven) => {
                let Launch { grid, cluster, block, dynamic_shared_bytes } = launch;
                let [grid, cluster, block] = [grid, cluster, block].map(|sizes| sizes.map(|n| n as usize));
                let shared_bytes = dynamic_shared_bytes as usize;
                return driven.launch(kernel, memo::gpu::Launch { grid, cluster, block, shared_bytes }, args);
            }
        };
        let kernel = module.kernel(kernel).expect("a kernel of this name");
        let mut params = vec![0; kernel.param_bytes];
        assert_eq!(args.len(), kernel.params.len());
        for (arg, param) in args.iter().zip(&kernel.params) {
            params[param.offset..][..param.size].copy_from_slice(arg);
        }
        let options = Options { threads: 2, checks: Checks::ALL, seed, gpu: &H100, sums };
        exec::run(kernel, &launch, &params, memory, &options).unwrap_or_else(|fault| panic!("{fault}"));
    }
}

/// What runs in vcuda itself elsewhere goes through its driver here, whose checks are the child's.
#[test]
fn the_same_kernels_go_through_the_driver() {
    if driven::is_asked_for() {
        return;
    }
    let program = std::env::current_exe().expect("a program has a path");
    let test = "linear::batches_have_their_own_operands_or_share_them";
    let output = std::process::Command::new(program)
        .args(["--exact", "--nocapture", test])
        .env("MEMO_TEST_DEVICE", "virtual")
        .output()
        .expect("this program runs again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("bits "), "{said}");
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
