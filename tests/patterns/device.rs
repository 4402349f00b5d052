//! Compiling a pattern's source, and launching it with checks or without.

use memo::gpu::{Form, Nvrtc, Target};
use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{self, Checks, Fault, Launch, Module, Options, TensorCore};
use vcuda::memory::Memory;

use crate::problem::{Defines, Problem};

const HEADER: &str = include_str!("hopper.cuh");

/// Two devices: the checks watch the memory of one.
pub struct Device {
    plain: Memory,
    watched: Memory,
}

/// How a kernel is launched, but for the problem.
#[derive(Clone, Copy)]
pub struct Shape {
    pub ctas: u32,
    pub cluster: u32,
    pub threads: u32,
    pub stages: u32,
    pub shared_bytes: u32,
}

/// A source's syntax tree.
pub struct Compiled(vcuda::ptx::ast::Module);

impl Compiled {
    pub fn new(name: &str, source: &str, defines: &Defines, bug: u32) -> Compiled {
        let defines: String =
            defines.iter().map(|(name, value)| format!("#define {name} {value}\n")).collect();
        let text = format!(
            "#define BUG {bug}\n{defines}#line 1 \"hopper.cuh\"\n{HEADER}#line 1 \"{name}.cu\"\n{source}"
        );
        let target = Target { form: Form::Ptx, architecture: "90a" };
        let ptx = Nvrtc::any().and_then(|nvrtc| nvrtc.compile(name, &text, target));
        let text = String::from_utf8(ptx.unwrap_or_else(|error| panic!("{error:#}"))).expect("PTX is text");
        Compiled(vcuda::ptx::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
    }
}

impl Device {
    pub fn new() -> Device {
        Device { plain: Memory::new(1 << 26), watched: Memory::watched(1 << 26, Checks::ALL) }
    }

    fn memory(&self, checks: Checks) -> &Memory {
        if checks == Checks::default() { &self.plain } else { &self.watched }
    }

    pub fn load(&self, compiled: &Compiled, checks: Checks) -> Module {
        Module::load(&compiled.0, self.memory(checks), checks).unwrap_or_else(|error| panic!("{error}"))
    }

    /// D, or what `checks`, with which the module has been loaded, found; products have the sums of a GPU where those
    /// are asked for.
    pub fn run(
        &self,
        module: &Module,
        problem: &Problem,
        shape: Shape,
        (checks, sums): (Checks, Option<TensorCore>),
        seed: u64,
    ) -> Result<Vec<f32>, Fault> {
        let memory = self.memory(checks);
        let room = |bytes: usize| memory.alloc(bytes).expect("device memory");
        let upload = |bytes: &[u8]| {
            let address = room(bytes.len());
            // SAFETY: an allocation of as many bytes, known to nobody else.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
            memory.mark_written(address, bytes.len());
            address
        };
        let [a, b] = [&problem.a, &problem.b].map(|x| upload(bytemuck::cast_slice(x)));
        let d = upload(&vec![0xff; 4 * problem.want.len()]);
        let partial = room(4 * problem.want.len());
        let flags = upload(&[0; 256]);
        let params = problem.params([a, b, d, partial, flags], shape.stages);

        let kernel = module.kernel("kernel").expect("a kernel of this name");
        assert_eq!(kernel.param_bytes, params.len(), "the kernel's one parameter is a Problem");
        let launch = Launch {
            grid: [shape.ctas, 1, 1],
            cluster: [shape.cluster, 1, 1],
            block: [shape.threads, 1, 1],
            dynamic_shared_bytes: shape.shared_bytes,
        };
        let options = Options { threads: 1, checks, seed, gpu: &H100, sums };
        let done = exec::run(kernel, &launch, &params, memory, &options);
        let mut out = vec![0f32; problem.want.len()];
        // SAFETY: an allocation of as many bytes; the launch is over.
        unsafe { std::ptr::copy_nonoverlapping(d as *const f32, out.as_mut_ptr(), out.len()) };
        [a, b, d, partial, flags].iter().for_each(|&address| assert!(memory.free(address)));
        done.map(|()| out)
    }
}
