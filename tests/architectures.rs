//! Every kernel compiles to machine code for every GPU that this NVRTC knows, from sm_75 on.
//!
//! `MEMO_EVERY_KERNEL=1`: all of them for each. Otherwise all for the newest, and for the others those whose instructions differ from
//! one kind of GPU to another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use memo::gpu::{Form, Nvrtc, SOURCES, Target};

/// Of which each kind of GPU has its own instructions.
const OWN: [&str; 3] = ["linear_mma", "linear_wgmma", "attention_mma"];

#[test]
#[ignore = "tests/nvrtc_wheels.sh runs it, with several compilers"]
fn every_kernel_compiles_for_every_gpu() {
    let nvrtc = Nvrtc::any().unwrap_or_else(|error| panic!("{error:#}"));
    let known: Vec<u32> = nvrtc.architectures().iter().copied().filter(|&known| known >= 75).collect();
    assert!([75, 80, 90].iter().all(|number| known.contains(number)), "{known:?}");
    let every = std::env::var_os("MEMO_EVERY_KERNEL").is_some();
    let newest = *known.last().expect("some");
    let mut jobs = Vec::new();
    for number in known {
        // Hopper's instructions are in the target of that name alone.
        let architecture = if number == 90 { "90a".to_string() } else { number.to_string() };
        for (stem, source) in SOURCES {
            let is_asked_for = every || number == newest || OWN.contains(stem);
            if !is_asked_for || *stem == "linear_wgmma" && number != 90 {
                continue;
            }
            let halves = if OWN.contains(stem) { &[1][..] } else { &[0, 1] };
            jobs.extend(halves.iter().map(|&half| (architecture.clone(), *stem, *source, half)));
        }
    }
    let next = AtomicUsize::new(0);
    let compile = || {
        while let Some((architecture, stem, source, half)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let source = format!("#define ELEMENT_HALF {half}\n{source}");
            let target = Target { form: Form::Cubin, architecture };
            let cubin = nvrtc
                .compile(stem, &source, target)
                .unwrap_or_else(|error| panic!("sm_{architecture}: {error:#}"));
            assert!(cubin.starts_with(b"\x7fELF"), "{stem} for sm_{architecture}");
            // A source without a kernel for this architecture compiles too.
            let named = cubin.windows(6).any(|name| name == b".text.");
            assert!(named, "{stem} for sm_{architecture}: no kernel in it");
        }
    };
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(compile))));
    println!("NVRTC {}: {} kernels of sources for {:?}", nvrtc.version(), jobs.len(), nvrtc.architectures());
}
