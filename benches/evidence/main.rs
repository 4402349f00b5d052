//! The evidence table: what every kernel is on each architecture, and what each launch of a batch does beside what is needed.
//! `make evidence`, or `cargo bench --bench evidence [-- --only "ViT-B/32, implicit, S = 1"]`.
//!
//! Without a GPU: kernels are assembled by NVRTC as for a GPU and disassembled, a batch is gone through to find its launches
//! and what they need, and what they do is counted by the virtual device. What is found is kept; a run that was stopped goes on.

mod alike;
mod cases;
mod count;
mod counted;
mod kept;
mod lines;
mod report;
mod rows;
mod sass;
mod shares;
mod sums;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use memo::engine::modules;
use memo::gpu::{DeviceChoice, Gpu, Launched, ModuleKey, Nvrtc, SOURCES, specialised};

use alike::{layers_that_suffice, scaled};
use cases::{ARCHITECTURES, Architecture, CLASSES, Case};
use count::{count, expect_vcudas_model};
use counted::Counted;
use kept::Kept;
use rows::Kernels;
use sass::assemble;

#[derive(Parser)]
#[command(about = "Writes the evidence table", max_term_width = 110)]
struct Args {
    /// The folder of the table
    #[arg(long, required_unless_present_any = ["only", "count"])]
    out: Option<PathBuf>,
    /// Count batches whose name has these words alone, as sm_90a, and print whose time it is instead of writing a table
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// Run one batch and say nothing: for the process that counts
    #[arg(long, value_name = "CASE", hide = true, requires = "layers")]
    count: Option<String>,
    /// Blocks of the model that is run
    #[arg(long, hide = true, requires = "views")]
    layers: Option<usize>,
    /// Views of an image in it
    #[arg(long, hide = true)]
    views: Option<usize>,
    /// As cargo passes it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    if let (Some(name), Some(layers), Some(views)) = (&args.count, args.layers, args.views) {
        let case = Case::all().into_iter().find(|case| case.name() == *name);
        let case = case.with_context(|| format!("--count {name}: there is no such batch"))?;
        return count::run(&Case { views, ..case }, layers);
    }
    let gpu = Gpu::open(DeviceChoice::Virtual)?;
    // A persistent kernel's grid is as long as the device is wide.
    ensure!(gpu.architecture() == "90a", "the device plays sm_{}: unset VCUDA_ARCH", gpu.architecture());
    let kept = Kept::open()?;
    let mut tables = Vec::new();
    for architecture in ARCHITECTURES.iter().filter(|_| args.only.is_none()) {
        tables.push((architecture, assembled(&gpu, &kept, architecture)?));
    }
    let mut found = Vec::new();
    let is_wanted = |case: &Case| args.only.as_ref().is_none_or(|only| case.name().contains(only));
    for case in Case::all().into_iter().filter(is_wanted) {
        for architecture in ["90a", "80"] {
            if args.only.is_some() && architecture != "90a" {
                continue;
            }
            let count = counted(&gpu, &kept, &case, architecture)?;
            if args.only.is_some() {
                shares::print(&gpu, &case, architecture, &count)?;
            }
            found.push((case, architecture, count));
        }
    }
    let Some(out) = args.out.filter(|_| args.only.is_none()) else { return Ok(()) };
    report::write(&out, &gpu, &tables, &found)
}

/// What was counted of a batch with so many blocks; `by` is the batch that was run for it.
pub struct Count {
    pub layers: usize,
    pub by: Case,
    pub launches: Vec<Launched>,
    pub counted: Vec<Counted>,
}

fn counted(gpu: &Gpu, kept: &Kept, case: &Case, architecture: &str) -> Result<Count> {
    let layers = layers_that_suffice(gpu, case, architecture)?;
    let (launches, by) = (case.launches(gpu, architecture, layers)?, case.counted_by(architecture));
    let small = by.launches(gpu, architecture, layers)?;
    let depends_on = [format!("{small:?}"), format!("{SOURCES:?}"), compiler()?, architecture.to_string()];
    let counted = kept.get(&depends_on.each_ref().map(String::as_str), || {
        let (clock, Case { views, .. }) = (Instant::now(), by);
        let what = format!("{} on sm_{architecture} ({views} views, {layers} blocks)", by.name());
        eprintln!("counting {what}: {} launches", small.len());
        let counted = count(&by, layers, architecture, &small).with_context(|| what.clone())?;
        eprintln!("counted {what} in {:.0} s", clock.elapsed().as_secs_f64());
        Ok(counted)
    })?;
    expect_vcudas_model(&counted)?;
    let counted = scaled(&launches, &small, &counted)?;
    Ok(Count { layers, by, launches, counted })
}

fn compiler() -> Result<String> {
    Ok(Nvrtc::any()?.fingerprint()?.to_string())
}

/// Every kernel that the batches of all cases need, and those that may be needed besides, on this architecture.
fn assembled(gpu: &Gpu, kept: &Kept, architecture: &Architecture) -> Result<Kernels> {
    let mut all: BTreeSet<ModuleKey> = BTreeSet::new();
    for case in Case::all() {
        let (config, settings) = ((case.model.config)(), case.settings());
        all.extend(modules(gpu, architecture.name, &config, CLASSES, &settings)?);
        let launches = case.launches(gpu, architecture.name, config.vision.layers)?;
        all.extend(launches.into_iter().map(|launched| launched.module));
    }
    let all: Vec<ModuleKey> = all.into_iter().collect();
    let (next, kernels, compiler) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()), compiler()?);
    let work = || -> Result<()> {
        while let Some(module) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (stem, defines) = module;
            let source = specialised(stem, defines)?;
            let found = kept.get(&[&source, architecture.name, &compiler], || {
                assemble(stem, &source, architecture.name).with_context(|| format!("{module:?}"))
            })?;
            let mut kernels = kernels.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            kernels.extend(found.into_iter().map(|kernel| ((module.clone(), kernel.kernel.clone()), kernel)));
            drop(kernels);
            let done = next.load(Ordering::Relaxed).min(all.len());
            eprint!("\rassembling for sm_{}: {done} of {} sources ", architecture.name, all.len());
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no panic")).collect()
    });
    eprintln!();
    results.into_iter().collect::<Result<()>>()?;
    Ok(kernels.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}
