//! Launches, with all checks on, of kernels that are compiled from source.

use std::time::Instant;

use half::f16;
use memo::gpu::{Form, Nvrtc, Target};
use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{self, Checks, Fault, Launch, Module, Options, TensorCore};
use vcuda::memory::Memory;
use vcuda::tensor_map::TensorMap;

use crate::driven::Driven;

/// A kernel's argument. Buffers are allocated for the run.
#[derive(Clone)]
pub enum Arg {
    /// A buffer with these bytes.
    Bytes(Vec<u8>),
    /// A buffer of as many bytes that nobody has written.
    Fresh(usize),
    /// Number `i` of the buffers of the run's first launch.
    Shared(usize),
    /// A number, little-endian.
    Value(Vec<u8>),
    /// A struct of these, each where the last one ends.
    Struct(Vec<Arg>),
    /// A buffer of them.
    Table(Vec<Arg>),
    /// A tensor map of matrices in a buffer.
    Map(Matrices),
}

/// Matrices of float16, in boxes of 64 columns and so many rows, with the swizzle of 128 bytes.
#[derive(Clone)]
pub struct Matrices {
    pub count: usize,
    pub rows: usize,
    pub columns: usize,
    pub box_rows: u32,
}

/// `CU_TENSOR_MAP_DATA_TYPE_FLOAT16` and `CU_TENSOR_MAP_SWIZZLE_128B`.
const FLOAT16: u32 = 6;
const SWIZZLE_128: u32 = 3;

/// Where buffers are.
enum Place<'a> {
    Vcuda(&'a Memory),
    Driven(&'a Driven),
}

impl Place<'_> {
    fn alloc(&self, bytes: usize) -> u64 {
        match self {
            Place::Vcuda(memory) => memory.alloc(bytes).expect("device memory"),
            Place::Driven(driven) => driven.alloc(bytes),
        }
    }

    fn upload(&self, bytes: &[u8]) -> u64 {
        let memory = match self {
            Place::Vcuda(memory) => memory,
            Place::Driven(driven) => return driven.upload(bytes),
        };
        let address = memory.alloc(bytes.len()).expect("device memory");
        // SAFETY: an allocation of as many bytes, known to nobody else.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        memory.mark_written(address, bytes.len());
        address
    }
}

impl Matrices {
    fn map(&self, place: &Place, address: u64) -> Vec<u8> {
        let [count, rows, columns] = [self.count, self.rows, self.columns].map(|size| size as u64);
        let (dims, strides) = ([columns, rows, count], [2 * columns, 2 * columns * rows]);
        let boxes = [64, self.box_rows, 1];
        if let Place::Driven(_) = place {
            return Driven::map(address, &dims, &strides, &boxes);
        }
        TensorMap::tiled(FLOAT16, address, &dims, &strides, &boxes, &[1; 3], SWIZZLE_128, 0)
            .unwrap_or_else(|error| panic!("{error}"))
            .encode()
            .to_vec()
    }
}

/// Number `i` of what buffers are filled with: of no order, from -1 to 1.
fn number(i: u32) -> f32 {
    (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0
}

impl Arg {
    pub fn floats(len: usize) -> Arg {
        Arg::Bytes((0..len as u32).flat_map(|i| number(i).to_le_bytes()).collect())
    }

    /// The same rounded to float16.
    pub fn halves(len: usize) -> Arg {
        Arg::Bytes((0..len as u32).flat_map(|i| f16::from_f32(number(i)).to_le_bytes()).collect())
    }

    pub fn ints(values: &[i32]) -> Arg {
        Arg::Bytes(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub fn given(values: &[f32]) -> Arg {
        Arg::Bytes(values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub fn int(value: i32) -> Arg {
        Arg::Value(value.to_le_bytes().to_vec())
    }

    pub fn float(value: f32) -> Arg {
        Arg::Value(value.to_le_bytes().to_vec())
    }

    /// What the kernel gets, its buffers allocated.
    fn bytes(&self, place: &Place, buffers: &mut Vec<(u64, usize)>, first: bool) -> Vec<u8> {
        let owns = matches!(self, Arg::Bytes(_) | Arg::Fresh(_) | Arg::Table(_) | Arg::Map(_));
        assert!(first || !owns, "buffers belong to the first launch");
        match self {
            Arg::Value(bytes) => bytes.clone(),
            Arg::Struct(parts) => parts.iter().flat_map(|part| part.bytes(place, buffers, first)).collect(),
            Arg::Shared(i) => buffers[*i].0.to_le_bytes().to_vec(),
            Arg::Bytes(bytes) => {
                let address = place.upload(bytes);
                buffers.push((address, bytes.len()));
                address.to_le_bytes().to_vec()
            }
            Arg::Table(parts) => {
                let bytes = parts.iter().flat_map(|part| part.bytes(place, buffers, first)).collect();
                Arg::Bytes(bytes).bytes(place, buffers, first)
            }
            Arg::Map(matrices) => {
                let Matrices { count, rows, columns, .. } = *matrices;
                // Other numbers than the buffers before it.
                let Arg::Bytes(mut values) = Arg::halves(count * rows * columns + buffers.len()) else {
                    unreachable!("halves are bytes")
                };
                values.drain(..2 * buffers.len());
                Arg::Bytes(values).bytes(place, buffers, first);
                let (address, _) = *buffers.last().expect("the matrices");
                matrices.map(place, address)
            }
            Arg::Fresh(len) => {
                let address = place.alloc(*len);
                buffers.push((address, *len));
                address.to_le_bytes().to_vec()
            }
        }
    }
}

/// One launch of a run.
#[derive(Clone)]
pub struct Step {
    pub kernel: &'static str,
    pub grid: [u32; 3],
    pub cluster: u32,
    pub block: u32,
    pub shared_bytes: u32,
    pub args: Vec<Arg>,
}

/// Launches of one source, one after another.
#[derive(Clone)]
pub struct Run {
    pub name: String,
    pub source: String,
    pub steps: Vec<Step>,
    /// The buffer, of the first launch's, that is the result.
    pub out: usize,
}

impl Run {
    /// The result's bytes from the device under test, through its driver.
    pub fn drive(&self) -> Vec<u8> {
        let driven = Driven::new(&self.name, self.source.clone());
        let mut buffers = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            let bytes = |arg: &Arg| arg.bytes(&Place::Driven(&driven), &mut buffers, i == 0);
            let args: Vec<Vec<u8>> = step.args.iter().map(bytes).collect();
            let launch = memo::gpu::Launch {
                grid: step.grid.map(|n| n as usize),
                cluster: [step.cluster as usize, 1, 1],
                block: [step.block as usize, 1, 1],
                shared_bytes: step.shared_bytes as usize,
            };
            driven.launch(step.kernel, launch, &args);
        }
        let out = driven.read(buffers[self.out].0);
        buffers.iter().for_each(|&(address, _)| assert!(driven.free(address)));
        out
    }
}

/// What is on during a run.
#[derive(Clone, Copy)]
pub struct Adversary {
    pub checks: Checks,
    pub sums: Option<TensorCore>,
}

/// All checks for broken rules.
pub const ALL: Adversary = Adversary { checks: Checks::ALL, sums: None };

/// None of them.
pub const PLAIN: Adversary = {
    let checks = Checks { init: false, race: false, asynchrony: false, approx: false };
    Adversary { checks, sums: None }
};

/// Its memory for the checks that keep a shadow of it, and for those that do not.
pub struct Device {
    watched: Memory,
    plain: Memory,
}

impl Device {
    pub fn new() -> Device {
        Device { watched: Memory::watched(1 << 28, Checks::ALL), plain: Memory::new(1 << 28) }
    }

    /// As a driver would have it: what nobody tells a shadow of, none may be asked about.
    fn memory(&self, checks: Checks) -> &Memory {
        if checks.init || checks.race { &self.watched } else { &self.plain }
    }

    /// The result's bytes, or what was found, for each seed.
    pub fn run<const N: usize>(
        &self,
        run: &Run,
        with: Adversary,
        seeds: [u64; N],
    ) -> [Result<Vec<u8>, Fault>; N] {
        let module = self.load(run, with);
        seeds.map(|seed| self.launch_all(&module, run, with, seed))
    }

    /// How long the launches take, in seconds, their module loaded: the quickest of a few.
    pub fn seconds(&self, run: &Run, with: Adversary) -> f64 {
        let module = self.load(run, with);
        let once = || {
            let start = Instant::now();
            self.launch_all(&module, run, with, 0).unwrap_or_else(|fault| panic!("{}: {fault}", run.name));
            start.elapsed().as_secs_f64()
        };
        (0..5).map(|_| once()).fold(f64::INFINITY, f64::min)
    }

    fn load(&self, run: &Run, with: Adversary) -> Module {
        let target = Target { form: Form::Ptx, architecture: "90a" };
        let ptx = Nvrtc::any().and_then(|nvrtc| nvrtc.compile(&run.name, &run.source, target));
        let text = String::from_utf8(ptx.unwrap_or_else(|error| panic!("{error:#}"))).expect("PTX is text");
        let tree = vcuda::ptx::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", run.name));
        Module::load(&tree, self.memory(with.checks), with.checks)
            .unwrap_or_else(|error| panic!("{}: {error}", run.name))
    }

    fn launch_all(&self, module: &Module, run: &Run, with: Adversary, seed: u64) -> Result<Vec<u8>, Fault> {
        let memory = self.memory(with.checks);
        let mut buffers: Vec<(u64, usize)> = Vec::new();
        let mut done = Ok(());
        for (i, step) in run.steps.iter().enumerate() {
            done = done.and_then(|()| {
                let Adversary { checks, sums } = with;
                let options = Options { threads: 2, checks, seed, gpu: &H100, sums };
                self.launch(module, step, options, &mut buffers, i == 0)
            });
        }
        let (address, len) = buffers[run.out];
        let mut out = vec![0; len];
        // SAFETY: an allocation of as many bytes; the launches are over.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, out.as_mut_ptr(), len) };
        buffers.iter().for_each(|&(address, _)| assert!(memory.free(address)));
        done.map(|()| out)
    }

    fn launch(
        &self,
        module: &Module,
        step: &Step,
        options: Options,
        buffers: &mut Vec<(u64, usize)>,
        first: bool,
    ) -> Result<(), Fault> {
        let memory = self.memory(options.checks);
        let kernel = module.kernel(step.kernel).expect("a kernel of this name");
        let mut params = vec![0; kernel.param_bytes];
        for (i, arg) in step.args.iter().enumerate() {
            let bytes = arg.bytes(&Place::Vcuda(memory), buffers, first);
            if let Some(param) = kernel.params.get(i) {
                params[param.offset..][..bytes.len()].copy_from_slice(&bytes);
            }
        }
        let launch = Launch {
            grid: step.grid,
            cluster: [step.cluster, 1, 1],
            block: [step.block, 1, 1],
            dynamic_shared_bytes: step.shared_bytes,
        };
        exec::run(kernel, &launch, &params, memory, &options)
    }
}
