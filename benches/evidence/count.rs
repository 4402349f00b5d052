//! Running a batch on the virtual device, in a process of its own, to count what its launches do.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use half::f16;
use memo::check::random;
use memo::clip::Naming;
use memo::engine::{Batch, Views, Vision};
use memo::gpu::{DeviceChoice, Gpu, Launched};
use serde_json::Value;
use vcuda::exec::profile::gpu;

use crate::cases::{CLASSES, Case, items};
use crate::counted::Counted;

/// Runs a batch, in the process that [`count`] starts.
///
/// # Errors
/// Out of memory; the device's.
pub fn run(case: &Case, layers: usize) -> Result<()> {
    let config = case.config(layers);
    let layout = config.vision_layout();
    let mut weights = vec![0.0; layout.total];
    for (seed, source) in (0..).zip(config.vision_sources(Naming::HuggingFace)) {
        source.write(&mut weights, &parameter(&source.name, &source.shape, seed));
    }
    let unit = (3.0 / config.embed_dim as f32).sqrt();
    let text = random(CLASSES * config.embed_dim, unit, 1 << 32);
    let stream = Gpu::open(DeviceChoice::Virtual)?.stream()?;
    let vision = Vision { config, layout };
    let batch = Batch::<f16>::new(&stream, vision, &weights, &text, case.images, case.settings())?;
    let pictures = case.pictures();
    let results = batch.adapt(&items(&pictures), &Views::Drawn)?;
    let mut stepped = results.iter().flat_map(|raw| &raw.by_loss);
    ensure!(
        stepped.all(|step| !step.overflow && step.entropy.iter().all(|h| h.is_finite())),
        "a batch of random weights: gradients overflow, or the entropy is not finite"
    );
    Ok(())
}

/// Random, at the scale at which CLIP's begin, and exact in float16 as OpenAI's are; norms near one.
fn parameter(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let is_gain = name.ends_with("norm.weight") || name.contains("norm") && name.ends_with("weight");
    let inputs: usize = shape[1..].iter().product();
    let spread = match shape.len() {
        1 => 0.02,
        _ if name.contains("position") => 0.02,
        _ => (3.0 / inputs as f32).sqrt(),
    };
    let shift = if is_gain { 1.0 } else { 0.0 };
    random(shape.iter().product(), spread, seed).iter().map(|x| f16::from_f32(x + shift).to_f32()).collect()
}

/// Has a process of its own run a batch with so many blocks as this architecture, and counts; launch by launch.
///
/// # Errors
/// That process's; other launches than those that going through the batch has found.
pub fn count(case: &Case, layers: usize, architecture: &str, launches: &[Launched]) -> Result<Vec<Counted>> {
    let folder = tempfile::tempdir().context("making a folder for counters")?;
    let file = folder.path().join("launches");
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.arg("--count").arg(case.name()).args(["--layers", &layers.to_string()]);
    command.args(["--views", &case.views.to_string()]);
    command.env("VCUDA_PROFILE", &file).env("VCUDA_ARCH", format!("sm_{architecture}"));
    let output =
        command.stdout(Stdio::null()).stderr(Stdio::piped()).output().context("counting launches")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "counting launches: {}: {}", output.status, said.trim_end());
    let counted = read(&file)?;
    ensure!(
        counted.len() >= launches.len(),
        "{} launches, where {} were expected",
        counted.len(),
        launches.len()
    );
    let counted = &counted[counted.len() - launches.len()..];
    for (launched, counted) in launches.iter().zip(counted) {
        let expected =
            (launched.kernel, launched.launch.grid, launched.launch.block, launched.launch.shared_bytes);
        let ran = (&counted.kernel[..], counted.grid, counted.block, counted.dynamic_shared_bytes);
        ensure!(ran == expected, "counting launches: {ran:?} where going through the batch has {expected:?}");
    }
    Ok(counted.to_vec())
}

/// What is modelled of these counts, of launches of other sizes too, is vcuda's own model.
///
/// # Errors
/// Another time than vcuda's of the very launch that was counted.
pub fn expect_vcudas_model(counted: &[Counted]) -> Result<()> {
    for counted in counted {
        for gpu in gpu::ALL {
            let (us, _) = counted.roofline(&gpu, counted.grid.iter().product(), 1.0);
            let own_us = counted.roofline_us.get(gpu.name).copied().unwrap_or(f64::NAN);
            let is_same = (us - own_us).abs() <= 1e-3 * own_us;
            ensure!(is_same, "{} on {}: {us} us, and {own_us} by vcuda", counted.kernel, gpu.name);
        }
    }
    Ok(())
}

/// The records of `VCUDA_PROFILE`.
fn read(file: &Path) -> Result<Vec<Counted>> {
    let text = std::fs::read_to_string(file).context("reading counters")?;
    let mut all = Vec::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).context("reading counters")?;
        if record["launch"].is_u64() {
            all.push(Counted::read(&record).with_context(|| format!("reading counters: {line}"))?);
        }
    }
    Ok(all)
}
