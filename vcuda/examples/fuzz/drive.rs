//! What is done with a text: it is loaded, and its kernels are run with parameters that mean little.

use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{Checks, Kernel, Launch, Module, Options, UNSAID, run};
use vcuda::memory::Memory;
use vcuda::ptx;

use crate::mutate::Rng;

/// A device for cases: memory, and a buffer that kernels may use.
pub struct Device {
    pub memory: Memory,
    checks: Checks,
    buffer: u64,
    /// What no module has.
    pub free_bytes: usize,
}

const BUFFER_BYTES: usize = 4096;

impl Device {
    /// One of `capacity_bytes` for modules with these checks.
    pub fn new(capacity_bytes: usize, checks: Checks) -> Device {
        let memory = Memory::watched(capacity_bytes, checks);
        let buffer = memory.alloc(BUFFER_BYTES).unwrap_or(0);
        let (free_bytes, _) = memory.info();
        Device { memory, checks, buffer, free_bytes }
    }

    /// Parses and loads a module.
    pub fn load(&self, text: &str) -> Result<Module, String> {
        let tree = ptx::parse(text).map_err(|error| error.to_string())?;
        Module::load(&tree, &self.memory, self.checks).map_err(|error| error.to_string())
    }

    /// Runs a kernel in one small CTA; the fault's message, if it had one.
    pub fn run(&self, kernel: &Kernel, rng: &mut Rng) -> Result<(), String> {
        let block = [[32, 1, 1], [64, 1, 1], [33, 1, 1], [8, 4, 2], [1, 1, 1]][rng.below(5)];
        let dynamic_shared_bytes = [0, 256, 4096][rng.below(3)];
        let ctas = 1 + rng.below(2) as u32;
        let launch = Launch {
            grid: [ctas, 1, 1],
            cluster: if rng.one_in(2) { [ctas, 1, 1] } else { UNSAID },
            block,
            dynamic_shared_bytes,
        };
        let mut params = vec![0; kernel.param_bytes];
        for word in params.chunks_mut(8) {
            let value = match rng.below(5) {
                0 => rng.next(),
                1 => rng.below(100) as u64,
                _ => self.buffer,
            };
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
        let options = Options { threads: 1, checks: self.checks, seed: rng.next(), gpu: &H100, sums: None };
        run(kernel, &launch, &params, &self.memory, &options).map_err(|fault| fault.to_string())
    }
}
