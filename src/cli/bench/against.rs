//! This program and others at the same job, in turn.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::job::Job;
use super::peak_host_bytes;
use super::rival::{Checked, Rival, Variant, find_python, write_programs};
use super::samples::Samples;
use crate::engine::{Item, Memo, Settings, Views};
use crate::gpu::Stream;
use crate::ops::Optimizer;
use crate::policy::Policy;

/// Rounds at least.
const LEAST: usize = 3;

/// One of those that are timed.
struct Runner {
    rival: Option<Rival>, // or this program
    /// See [`Checked::error`].
    error: f64,
    moved: Option<f64>,
    seconds: Vec<f64>,
    peak_bytes: u64,
    /// What this program takes of a GPU's memory.
    device_bytes: Option<u64>,
}

/// That what is compared is the same job.
///
/// # Errors
/// What the other programs do not do, by the flag that asks for it.
pub fn expect_comparable(settings: &Settings, variants: &[Variant]) -> Result<()> {
    let plain = Optimizer::Sgd { momentum: 0.0, weight_decay: 0.0 };
    ensure!(settings.learning_rates.len() == 1, "--against: one learning rate (--lr) is compared at a time");
    ensure!(
        settings.optimizer == plain,
        "--against: the other programs make steps of plain sgd (--optimizer, --momentum, --weight-decay)"
    );
    ensure!(
        settings.policy == Policy::notebook(),
        "--against: the other programs draw their views as the notebook does (--policy)"
    );
    let folds = variants.iter().any(|variant| variant.name == "implicit");
    ensure!(!folds || settings.steps == 1, "--against libtorch:implicit: it makes one step (--steps)");
    Ok(())
}

/// Checks what step each of them makes, then lets each have as many images as this program takes at once, one after the other,
/// until `seconds` are over; `free_bytes` of the device were free before this program had any. `effect`, the most that the true step changes a logit, and `against`, one object for each, this program
/// first.
///
/// # Errors
/// No Python for them; their own; this program's.
pub fn run(
    stream: &Stream,
    free_bytes: usize,
    memo: &mut Memo,
    job: &Job,
    variants: &[Variant],
    seconds: f64,
) -> Result<Value> {
    let python = find_python()?;
    let folder = tempfile::Builder::new().prefix("memo-against-").tempdir();
    let folder = folder.context("making a folder for other programs")?;
    let reference = Variant::reference();
    let precisions: BTreeSet<&str> =
        variants.iter().chain([&reference]).map(|variant| variant.precision.as_str()).collect();
    write_programs(folder.path())?;
    job.write(stream, folder.path(), &precisions.into_iter().collect::<Vec<_>>())?;
    let start = |variant: &Variant| {
        crate::notice!("checking {}", variant.describe());
        Rival::start(&python, folder.path(), variant)
    };
    let checked = check(memo, job)?;
    // As many images as are timed: kernels are loaded with the first batch, and a graph is recorded with the second, which takes
    // a part of a batch's time that counts on a GPU alone.
    let is_virtual = stream.gpu().driver().is_virtual();
    (0..if is_virtual { 1 } else { 2 }).try_for_each(|_| adapt(memo, job, 0))?;
    // No other program is there yet, so that all that is taken is this one's.
    let device_bytes = free_bytes.saturating_sub(stream.gpu().memory_bytes()?.0) as u64;
    let truth = start(&reference)?.check()?;
    let mut runners = vec![Runner::new(None, &checked, &truth)?];
    runners[0].device_bytes = (!is_virtual).then_some(device_bytes);
    for variant in variants {
        let mut rival = start(variant)?;
        let checked = rival.check()?;
        rival.ask(&json!({ "warm_up": true }))?;
        runners.push(Runner::new(Some(rival), &checked, &truth)?);
    }
    let clock = Instant::now();
    for round in 1.. {
        for runner in &mut runners {
            runner.go(memo, job)?;
        }
        crate::notice!("round {round}: {:.0} s", clock.elapsed().as_secs_f64());
        if round >= LEAST && clock.elapsed().as_secs_f64() >= seconds {
            break;
        }
    }
    let all: Vec<Samples> = runners.iter().map(Runner::samples).collect::<Result<_>>()?;
    let rows: Vec<Value> =
        runners.iter().zip(&all).map(|(runner, own)| runner.object(own, &all[0])).collect();
    Ok(json!({ "batch": job.batch, "effect": truth.most(), "against": rows }))
}

/// Adapts to as many images as are timed, from number `first` on.
fn adapt(memo: &mut Memo, job: &Job, first: usize) -> Result<()> {
    let item = |i: usize| Item { image: job.pictures.get(i % job.images), index: i as u64 };
    let items: Vec<Item> = (first..first + job.batch).map(item).collect();
    memo.adapt(&items, &Views::Drawn)?.into_iter().try_for_each(|outcome| outcome.map(|_| ()))
}

/// This program on the job's images.
fn check(memo: &mut Memo, job: &Job) -> Result<Checked> {
    let images = 0..job.images;
    let items: Vec<Item> = images.map(|i| Item { image: job.pictures.get(i), index: i as u64 }).collect();
    let (mut zero_shot, mut after) = (Vec::new(), Vec::new());
    let wide = |logits: &[f32]| logits.iter().map(|&logit| f64::from(logit)).collect::<Vec<f64>>();
    for outcome in memo.adapt(&items, &Views::Drawn)? {
        let outcome = outcome?;
        zero_shot.push(wide(&outcome.zero_shot.logits));
        let memo = outcome.memo[0].as_ref().map_err(|error| anyhow!("{error}"))?;
        after.push(wide(&memo.logits));
    }
    Ok(Checked { zero_shot, memo: after, moved: None })
}

impl Runner {
    fn new(rival: Option<Rival>, checked: &Checked, truth: &Checked) -> Result<Runner> {
        let error = checked.error(truth)?;
        let (seconds, moved) = (Vec::new(), checked.moved);
        Ok(Runner { rival, error, moved, seconds, peak_bytes: 0, device_bytes: None })
    }

    /// Times the next images.
    fn go(&mut self, memo: &mut Memo, job: &Job) -> Result<()> {
        let (seconds, peak_bytes) = match &mut self.rival {
            Some(rival) => rival.run(job.batch)?,
            None => {
                let start = Instant::now();
                adapt(memo, job, self.seconds.len())?;
                let seconds = vec![start.elapsed().as_secs_f64() / job.batch as f64; job.batch];
                (seconds, self.device_bytes.unwrap_or_else(|| peak_host_bytes() as u64))
            }
        };
        self.seconds.extend(seconds);
        self.peak_bytes = self.peak_bytes.max(peak_bytes);
        Ok(())
    }

    fn samples(&self) -> Result<Samples> {
        Samples::new(self.seconds.clone()).context("timing: no time has passed")
    }

    fn object(&self, own: &Samples, ours: &Samples) -> Value {
        let [ratio, from, to] = ours.speed_over(own);
        let (name, about) = match &self.rival {
            Some(rival) => (rival.variant().describe(), rival.ready.clone()),
            None => ("memo".to_string(), Value::Null),
        };
        json!({
            "name": name,
            "about": about,
            "images_per_s": own.rates(),
            "memo_is_faster": { "ratio": ratio, "from": from, "to": to },
            "peak_bytes": self.peak_bytes,
            "step_error": self.error,
            "weights_moved": self.moved,
            "samples_s": own.seconds,
        })
    }
}
