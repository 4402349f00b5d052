//! What the virtual driver's counters say that GPUs would take at the least: a model, not a measurement.
//!
//! This program runs a batch more in a process of its own, where launches are counted (`VCUDA_PROFILE`), once with the kernels of
//! Hopper and once with those of older and other GPUs.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Architectures of the virtual device, and the GPUs that run their kernels.
const MODELLED: [(&str, &[&str]); 2] = [("sm_90a", &["H100", "H200"]), ("sm_80", &["A100", "RTX4090"])];

/// Kernels whose names begin so are products.
const PRODUCT: &str = "linear_";

/// One object for each GPU.
///
/// * `args`: of a run of one batch by this program, which is `memo bench --json`.
///
/// # Errors
/// That run's; counters that are not there.
pub fn model(args: &[OsString]) -> Result<Vec<Value>> {
    let folder = tempfile::tempdir().context("making a folder for counters")?;
    let mut all = Vec::new();
    for (architecture, gpus) in MODELLED {
        crate::notice!("counting what the kernels of {architecture} do");
        let file = folder.path().join(architecture);
        let program = std::env::current_exe().context("finding this program")?;
        let mut command = Command::new(program);
        command.args(args).env("VCUDA_PROFILE", &file).env("VCUDA_ARCH", architecture);
        let output = command.stderr(Stdio::piped()).output().context("counting a batch's launches")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "counting a batch's launches: {}", said.trim_end());
        let run: Value = serde_json::from_slice(&output.stdout).context("counting a batch's launches")?;
        let [batch, launches] =
            ["batch", "launches"].map(|name| run[name].as_u64().unwrap_or_default() as usize);
        let launches = read(&file, launches)?;
        for gpu in gpus {
            all.push(total(gpu, batch, &launches)?);
        }
    }
    Ok(all)
}

/// The last records of a run: the batch's, which is the last that it does.
fn read(file: &Path, launches: usize) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).context("reading the counters of a batch")?;
    let records = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let mut records = records.context("reading the counters of a batch")?;
    records.retain(|record| record["launch"].is_u64());
    ensure!(
        records.len() >= launches && launches > 0,
        "counters of {} launches of {launches}",
        records.len()
    );
    Ok(records.split_off(records.len() - launches))
}

fn total(gpu: &str, batch: usize, launches: &[Value]) -> Result<Value> {
    let (mut all_us, mut products_us) = (0.0, 0.0);
    for launch in launches {
        let time_us = launch["roofline_us"][gpu].as_f64();
        let time_us = time_us.with_context(|| format!("a launch's counters have no {gpu}"))?;
        all_us += time_us;
        if launch["kernel"].as_str().is_some_and(|name| name.starts_with(PRODUCT)) {
            products_us += time_us;
        }
    }
    Ok(json!({
        "gpu": gpu, "kind": "model, not a measurement", "images_per_s": batch as f64 / all_us * 1e6,
        "ms_per_batch": all_us / 1e3, "share_outside_products": 1.0 - products_us / all_us,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_what_the_last_launches_take() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("counters");
        let launch = |i: u32, kernel: &str, us: f64| {
            json!({ "launch": i, "kernel": kernel, "roofline_us": { "H200": us } }).to_string()
        };
        let lines = [
            launch(0, "split", 100.0),
            launch(1, "norm_forward", 25.0),
            launch(2, "linear_wgmma", 75.0),
            json!({ "summary": "split", "launches": 1 }).to_string(),
        ];
        std::fs::write(&file, lines.join("\n")).expect("a file is written");
        let launches = read(&file, 2).expect("two launches");
        let total = total("H200", 4, &launches).expect("their times");
        assert_eq!((&total["images_per_s"], &total["share_outside_products"]), (&4e4.into(), &0.25.into()));
        assert!(super::total("H300", 4, &launches).is_err());
        assert!(read(&file, 4).is_err() && read(&file, 0).is_err());
    }
}
