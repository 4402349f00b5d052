//! What the kernels are on GPUs that nobody here has: none spills a register on any architecture, and tensor instructions are
//! where they belong and nowhere else. As NVRTC makes them for a GPU, by NVIDIA's disassembler.

#[allow(dead_code)] // the table's
#[path = "../../benches/evidence/cases.rs"]
mod cases;
#[path = "../../benches/evidence/sass.rs"]
mod sass;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use cases::{ARCHITECTURES, Case};
use memo::check::test_stream;
use memo::gpu::{Form, ModuleKey, Nvrtc, Target, specialised};
use sass::{Assembled, assemble, disassemble};

/// Which instructions the kernels of a source have: products by `wgmma` of what tensor copies bring, products by `mma.sync` of
/// what `cp.async` brings, which Turing has not, or nothing of all that.
fn belonging(stem: &str, architecture: &str) -> &'static [&'static str] {
    match (stem, architecture) {
        ("linear_wgmma", _) => &["HGMMA", "UTMALDG"],
        ("linear_mma" | "attention_mma", "75") => &["HMMA"],
        ("linear_mma" | "attention_mma", _) => &["HMMA", "LDGSTS"],
        _ => &[],
    }
}

/// What is wrong with a kernel.
fn faults(stem: &str, architecture: &str, kernel: &Assembled) -> Vec<String> {
    let mut faults = Vec::new();
    let &Assembled { spill_store_bytes: stored, spill_load_bytes: loaded, .. } = kernel;
    if stored + loaded > 0 {
        faults.push(format!("spills: {stored} bytes stored, {loaded} loaded"));
    }
    for instruction in ["HGMMA", "UTMALDG", "HMMA", "LDGSTS"] {
        let count = kernel.count(instruction);
        match belonging(stem, architecture).contains(&instruction) {
            true if count == 0 => faults.push(format!("no {instruction}")),
            false if count > 0 => faults.push(format!("{count} {instruction}")),
            _ => {}
        }
    }
    let of_tensor_cores = kernel.instructions.iter().filter(|(name, _)| name.contains("MMA"));
    let all: u32 = of_tensor_cores.map(|(_, count)| count).sum();
    let others = all - kernel.count("HGMMA") - kernel.count("HMMA");
    if others > 0 {
        faults.push(format!("{others} tensor instructions of other kinds: {:?}", kernel.instructions));
    }
    faults
}

/// Those of the evidence, or `MEMO_ARCHITECTURES`, such as `75 86 90a`.
fn architectures() -> Vec<String> {
    match std::env::var("MEMO_ARCHITECTURES") {
        Ok(names) => names.split_whitespace().map(str::to_string).collect(),
        Err(_) => ARCHITECTURES.iter().map(|architecture| architecture.name.to_string()).collect(),
    }
}

/// The sources of all launches of a batch of any case, and of one by each policy; a ViT-L/14's on Hopper alone, since all take
/// minutes, which `make evidence` has.
fn launched(architecture: &str) -> Result<BTreeSet<ModuleKey>> {
    let stream = test_stream();
    let mut all = BTreeSet::new();
    for policy in ["tpt", "augmix", "augmix-cifar", "randaugment", "randaugment:bilinear=1"] {
        let launches = Case::all()[0].launches_by(policy.parse()?, stream.gpu(), architecture, 2)?;
        all.extend(launches.into_iter().map(|launched| launched.module));
    }
    let is_looked_at = |case: &Case| case.model.name == "ViT-B/32" || architecture == "90a";
    for case in Case::all().into_iter().filter(is_looked_at) {
        // Two blocks, of which the last is not like the others.
        let launches = case.launches(stream.gpu(), architecture, 2)?;
        all.extend(launches.into_iter().map(|launched| launched.module));
    }
    Ok(all)
}

#[test]
fn no_kernel_spills_and_tensor_instructions_are_where_they_belong() {
    let architectures = architectures();
    let mut all: Vec<(&str, ModuleKey)> = Vec::new();
    for architecture in &architectures {
        let modules = launched(architecture).unwrap_or_else(|error| panic!("{error:#}"));
        let has = |stem| modules.iter().any(|(of, _)| *of == stem);
        let products = ["linear_simt", "linear_mma", "linear_wgmma"].map(has);
        let is_hopper = architecture == "90a";
        assert_eq!(products, [true, !is_hopper, is_hopper], "sm_{architecture}: which backends multiply");
        assert!(["attention_mma", "norm", "chain", "mix"].into_iter().all(has), "sm_{architecture}");
        all.extend(modules.into_iter().map(|module| (&architecture[..], module)));
    }
    let (next, kernels, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((architecture, module)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (stem, defines) = module;
            let found = specialised(stem, defines).and_then(|source| assemble(stem, &source, architecture));
            let found = found.unwrap_or_else(|error| panic!("sm_{architecture}, {module:?}: {error:#}"));
            kernels.fetch_add(found.len(), Ordering::Relaxed);
            for kernel in found {
                for fault in faults(stem, architecture, &kernel) {
                    let fault = format!("sm_{architecture}, {module:?}, {}: {fault}", kernel.kernel);
                    wrong.lock().expect("no panic").push(fault);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().expect("no panic");
    println!("{} kernels of {} sources", kernels.into_inner(), all.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn hopper_multiplies_float16_by_wgmma_alone() {
    // Of ViT-B/32, ViT-L/14 and its rows of patches, with steps of either way.
    let modules = launched("90a").unwrap_or_else(|error| panic!("{error:#}"));
    let by = |stem| modules.iter().filter(|(of, _)| *of == stem).collect::<Vec<_>>();
    assert!(by("linear_wgmma").len() > 10);
    assert_eq!(by("linear_mma"), Vec::<&ModuleKey>::new());
}

/// A hundred numbers that are all alive, in a block so large that a thread has 64 registers.
const SPILLING: &str = "
extern \"C\" __global__ void __launch_bounds__(1024) spilling(float* x, int n) {
    float a[100];
    #pragma unroll
    for (int i = 0; i < 100; i++) a[i] = x[i * n];
    for (int k = 0; k < n; k++) {
        #pragma unroll
        for (int i = 0; i < 100; i++) a[i] = a[(i + 1) % 100] * a[i] + k;
    }
    #pragma unroll
    for (int i = 0; i < 100; i++) x[i * n] = a[i];
}";

/// A product of tensor cores, and one number.
const MULTIPLYING: &str = "
extern \"C\" __global__ void multiplying(float* x, unsigned a) {
    float d[4] = {};
    asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, %3};\"
                 : \"+f\"(d[0]), \"+f\"(d[1]), \"+f\"(d[2]), \"+f\"(d[3]) : \"r\"(a));
    x[threadIdx.x] = d[0];
}
extern \"C\" __global__ void plain(float* x) { x[threadIdx.x] = 1; }";

#[test]
fn planted_faults_are_found() {
    for architecture in &ARCHITECTURES {
        let of = |source| {
            assemble("planted", source, architecture.name).unwrap_or_else(|error| panic!("{error:#}"))
        };
        let spilling = of(SPILLING).remove(0);
        assert!(spilling.registers == 64 && spilling.stack_bytes > 0, "{spilling:?}");
        let said = faults("norm", architecture.name, &spilling);
        assert!(said.len() == 1 && said[0].starts_with("spills: "), "{said:?}");
        // What is spilled is stored and loaded.
        assert!(spilling.count("STL") > 0 && spilling.count("LDL") > 0, "{spilling:?}");

        let [multiplying, plain] = <[Assembled; 2]>::try_from(of(MULTIPLYING)).expect("two kernels");
        assert_eq!((&multiplying.kernel[..], &plain.kernel[..]), ("multiplying", "plain"));
        assert_eq!(faults("norm", architecture.name, &multiplying), ["1 HMMA"]);
        assert_eq!(faults("linear_mma", architecture.name, &multiplying), ["no LDGSTS"]);
        assert_eq!(
            faults("linear_wgmma", architecture.name, &multiplying),
            ["no HGMMA", "no UTMALDG", "1 HMMA"]
        );
        assert_eq!(faults("norm", architecture.name, &plain), [""; 0]);
        assert_eq!(faults("attention_mma", architecture.name, &plain), ["no HMMA", "no LDGSTS"]);
    }
}

#[test]
fn what_is_looked_at_is_what_a_gpu_is_given() {
    let nvrtc = Nvrtc::any().unwrap_or_else(|error| panic!("{error:#}"));
    let source = specialised("convert", &[]).expect("a source");
    let target = Target { form: Form::Cubin, architecture: "90a" };
    let plain = nvrtc.compile("convert", &source, target).expect("a cubin");
    let (verbose, _) = nvrtc.compile_verbosely("convert", &source, "90a").expect("a cubin");
    // But for a note of the compiler's options they are the same.
    let [plain, verbose] = [plain, verbose].map(|cubin| disassemble(&cubin).expect("SASS"));
    assert!(plain.lines().count() > 100 && plain == verbose, "the compiler's report changes what it makes");
}
