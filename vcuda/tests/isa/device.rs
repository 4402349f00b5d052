//! Where cases run: in this process, or on the CUDA driver that `VCUDA_ISA_DRIVER` names.

use crate::files::{Case, Ran};
use std::sync::OnceLock;
use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{self, Launch, Module, Options, UNSAID};
pub use vcuda::exec::{Checks, TensorCore};
use vcuda::memory::Memory;
use vcuda::tensor_map::{MAP_BYTES, TensorMap};

/// Grid and block along x, and dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub blocks: u32,
    pub threads: u32,
    pub shared_bytes: u32,
}

/// A parameter passed by value after the buffers, to kernels that declare it (`.align 16 .b8 value[16]`).
pub const VALUE: [u8; 16] = [0x80, 0x7f, 2, 0xf3, 4, 5, 0x96, 7, 8, 9, 0xaa, 0xbb, 0xc, 0xd, 0xe, 0x8f];

/// A tensor map, as `cuTensorMapEncodeTiled` takes it, of the buffer with this number.
#[derive(Clone, Debug, Default)]
pub struct Map {
    pub buffer: usize,
    pub data_type: u32,
    pub dims: Vec<u64>,
    pub strides: Vec<u64>,
    pub extents: Vec<u32>,
    pub steps: Vec<u32>,
    pub swizzle: u32,
    pub fill: u32,
}

/// More than most launches need: a cluster along x, tensor maps as parameters after the buffers, and what
/// only the interpreter knows, the checks and their seed, and whose sums products have.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub cluster: u32,
    pub maps: Vec<Map>,
    pub checks: Checks,
    pub seed: u64,
    pub sums: Option<TensorCore>,
}

/// Runs kernel `name` of `ptx` on `buffers`, which are its parameters in order, each a `.u64` address, and
/// hold what it wrote afterwards.
pub fn run(ptx: &str, name: &str, shape: Shape, buffers: &mut [Vec<u8>]) -> Result<Ran, String> {
    run_with(ptx, name, shape, &Setup { cluster: 1, ..Setup::default() }, buffers)
}

/// As [`run`].
pub fn run_with(
    ptx: &str,
    name: &str,
    shape: Shape,
    setup: &Setup,
    buffers: &mut [Vec<u8>],
) -> Result<Ran, String> {
    // A GPU does nothing late on purpose: cases for it are those without checks.
    let is_kept = setup.checks == Checks::default()
        && setup.sums.is_none()
        && std::env::var_os("VCUDA_ISA_OUT").is_some();
    let case = is_kept.then(|| Case {
        ptx: ptx.to_string(),
        kernel: name.to_string(),
        shape,
        setup: setup.clone(),
        buffers: buffers.to_vec(),
    });
    match std::env::var("VCUDA_ISA_DRIVER") {
        Ok(path) => crate::driver::run(&path, ptx, name, shape, setup, buffers),
        Err(_) => in_process(ptx, name, shape, setup, buffers),
    }?;
    Ok(Ran(case))
}

/// The interpreter's message about a kernel that must fail; the expected one on a GPU, which has none.
pub fn fault(ptx: &str, name: &str, shape: Shape, setup: &Setup, buffers: &mut [Vec<u8>]) -> Option<String> {
    match std::env::var("VCUDA_ISA_DRIVER") {
        Ok(_) => None,
        Err(_) => Some(in_process(ptx, name, shape, setup, buffers).err().unwrap_or_default()),
    }
}

fn in_process(
    ptx: &str,
    name: &str,
    shape: Shape,
    setup: &Setup,
    buffers: &mut [Vec<u8>],
) -> Result<(), String> {
    static MEMORY: OnceLock<Memory> = OnceLock::new();
    let memory = MEMORY.get_or_init(|| Memory::new(1 << 30));
    let tree = vcuda::ptx::parse(ptx).map_err(|error| error.to_string())?;
    let mut module = Module::load(&tree, memory, setup.checks).map_err(|error| error.to_string())?;
    let kernel = module.kernel(name).ok_or("no such kernel")?;

    let mut params = vec![0; kernel.param_bytes];
    let mut addresses = Vec::new();
    for (buffer, param) in buffers.iter().zip(&kernel.params) {
        let address = memory.alloc(buffer.len()).ok_or("out of device memory")?;
        // SAFETY: an allocation of as many bytes, known to nobody else.
        unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), address as *mut u8, buffer.len()) };
        params[param.offset..][..8].copy_from_slice(&address.to_le_bytes());
        addresses.push(address);
    }
    let mut rest = kernel.params.iter().skip(buffers.len());
    for (map, param) in setup.maps.iter().zip(&mut rest) {
        let Map { buffer, data_type, dims, strides, extents, steps, swizzle, fill } = map;
        let at = addresses[*buffer];
        let map = TensorMap::tiled(*data_type, at, dims, strides, extents, steps, *swizzle, *fill)?;
        params[param.offset..][..MAP_BYTES].copy_from_slice(&map.encode());
    }
    if let Some(param) = rest.next() {
        params[param.offset..][..VALUE.len()].copy_from_slice(&VALUE);
    }
    let launch = Launch {
        grid: [shape.blocks, 1, 1],
        cluster: if setup.cluster > 1 { [setup.cluster, 1, 1] } else { UNSAID },
        block: [shape.threads, 1, 1],
        dynamic_shared_bytes: shape.shared_bytes,
    };
    let options =
        Options { threads: 2, checks: setup.checks, seed: setup.seed, gpu: &H100, sums: setup.sums };
    let done = exec::run(kernel, &launch, &params, memory, &options);
    for (buffer, address) in buffers.iter_mut().zip(addresses) {
        // SAFETY: as above; the launch is over.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, buffer.as_mut_ptr(), buffer.len()) };
        memory.free(address);
    }
    module.free_variables(memory);
    done.map_err(|fault| fault.to_string())
}
