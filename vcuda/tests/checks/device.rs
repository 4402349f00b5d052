//! Runs a kernel's body with all checks on.

use vcuda::exec::profile::gpu::H100;
use vcuda::exec::{self, Checks, Launch, Module, Options};
use vcuda::memory::Memory;
use vcuda::tensor_map::TensorMap;

pub const SEEDS: [u64; 4] = [0, 1, 7, 1234];

/// A body between declarations that all of these kernels share, and how to launch it.
#[derive(Clone, Copy)]
pub struct Kernel {
    pub blocks: u32,
    pub threads: u32,
    /// Bytes of the input that the host has written; there are 1024.
    pub written: usize,
    pub body: &'static str,
}

/// Line 1 of a body is line 14 of its PTX.
const HEAD: &str = ".version 8.5
.target sm_90a
.address_size 64
.global .u32 counter; .extern .func (.param .b64 r) malloc (.param .b64 n); .extern .func free (.param .b64 x); .func (.param .b32 r) identity (.param .b32 x) { .reg .b32 a; ld.param.b32 a, [x]; st.param.b32 [r], a; ret; } .func (.param .b32 r) nothing (.param .b32 x) { ret; }
.visible .entry kernel(.param .u64 inp_address, .param .u64 out_address, .param .align 64 .b8 map[128]) {
.reg .pred p, q; .reg .b16 h; .reg .b32 a, b, c, d, t, n, lane, warp, cta; .reg .b64 inp, out, at, to; .reg .f32 x, y;
.shared .align 128 .b8 tile[4096]; .local .align 16 .b8 own[64]; .shared .align 8 .b8 bar[8];
ld.param.u64 inp, [inp_address]; ld.param.u64 out, [out_address];
mov.u32 t, %tid.x; mov.u32 n, %ntid.x; mov.u32 cta, %ctaid.x; and.b32 lane, t, 31; shr.u32 warp, t, 5;
mad.lo.u32 a, cta, n, t; mul.wide.u32 at, a, 4; add.u64 to, out, at; add.u64 at, inp, at;
mov.u32 b, tile; mad.lo.u32 a, t, 4, b;
mov.u32 b, 0; mov.u32 c, 0; mov.u32 d, 0;
// at, to: the thread's words of the input and of the output; a: its word of the tile; map: the input, 16 x 16, by 8 x 4
";

impl Kernel {
    /// What is said of the kernel with a seed, and the output's words.
    pub fn run(self, seed: u64) -> (Result<(), exec::Fault>, Vec<u32>) {
        let text = format!("{HEAD}{}\nret;\n}}\n", self.body);
        let memory = Memory::watched(1 << 24, Checks::ALL);
        let tree = vcuda::ptx::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let module =
            Module::load(&tree, &memory, Checks::ALL).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let kernel = module.kernel("kernel").expect("the kernel");
        let (inp, out) = (memory.alloc(1024).expect("memory"), memory.alloc(1024).expect("memory"));
        // SAFETY: an allocation of 256 words.
        unsafe { std::slice::from_raw_parts_mut(inp as *mut u32, 256) }
            .iter_mut()
            .enumerate()
            .for_each(|(i, word)| *word = 1000 + i as u32);
        memory.mark_written(inp, self.written);
        let map = TensorMap::tiled(2, inp, &[16, 16], &[64], &[8, 4], &[1, 1], 0, 0).expect("a tensor map");
        let addresses = [inp, out].map(u64::to_le_bytes).concat();
        let params = [&addresses[..], &[0; 48], &map.encode()].concat();
        let launch = Launch {
            grid: [self.blocks, 1, 1],
            cluster: [1; 3],
            block: [self.threads, 1, 1],
            dynamic_shared_bytes: 0,
        };
        let options = Options { threads: 2, checks: Checks::ALL, seed, gpu: &H100, sums: None };
        let done = exec::run(kernel, &launch, &params, &memory, &options);
        // SAFETY: as above; the launch is over.
        let words = unsafe { std::slice::from_raw_parts(out as *const u32, 256) }.to_vec();
        (done, words)
    }

    /// Every seed finds it, and says all of this.
    pub fn is_caught(self, words: &[&str]) {
        for seed in SEEDS {
            let fault = match self.run(seed).0 {
                Err(fault) => fault,
                Ok(()) => panic!("nothing was found with seed {seed}:\n{}", self.body),
            };
            assert!(matches!(fault.kind.check(), "init" | "race" | "sync" | "async"), "seed {seed}: {fault}");
            for word in words {
                assert!(fault.message.contains(word), "seed {seed}: no {word:?} in: {fault}");
            }
            let again = self.run(seed).0.map_err(|fault| without_addresses(&fault.message));
            assert_eq!(again, Err(without_addresses(&fault.message)), "the same seed, another finding");
        }
    }

    /// No seed finds anything, and all give the same output.
    pub fn is_fine(self, expected: impl Fn(u32) -> u32) {
        for seed in SEEDS {
            let (done, words) = self.run(seed);
            if let Err(fault) = done {
                panic!("seed {seed}: {fault}\n{}", self.body);
            }
            for i in 0..self.blocks * self.threads {
                assert_eq!(words[i as usize], expected(i), "word {i} with seed {seed}:\n{}", self.body);
            }
        }
    }
}

/// Device addresses differ from run to run.
fn without_addresses(message: &str) -> String {
    let mut words = message.split(' ').map(|word| if word.starts_with("0x7") { "0x" } else { word });
    words.by_ref().collect::<Vec<_>>().join(" ")
}
