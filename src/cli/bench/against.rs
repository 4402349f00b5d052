//! This program and others at the same job, in turn.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde_json::{Map, Value, json};

use super::checked::Checked;
use super::job::Job;
use super::peak_host_bytes;
use super::programs::Programs;
use super::rival::{Rival, Variant};
use super::samples::Samples;
use crate::engine::{Item, Memo, Settings, Views};
use crate::gpu::Stream;
use crate::interrupt::{self, Interrupted};
use crate::ops::Optimizer;
use crate::policy::Policy;

/// Rounds at least.
const LEAST: usize = 3;

/// What each says how long it takes, as `common.py` has it.
pub const STAGES: [&str; 5] = ["views", "forward", "backward", "step", "predict"];

/// One of those that are timed.
struct Runner {
    rival: Option<Rival>, // or this program
    /// See [`Checked::error`].
    error: f64,
    moved: Option<f64>,
    seconds: Vec<f64>,
    /// Seconds an image of each stage.
    stages: Map<String, Value>,
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

/// How long others are listened to.
pub struct Limits {
    /// What is timed, together.
    pub seconds: f64,
    /// For one answer of another program.
    pub answer: Duration,
}

/// Checks what step each of them makes, then lets each have as many images as this program takes at once, one after the other,
/// until the time is over; last, one turn of each by stages. `free_bytes` of the device were free before this program had any.
///
/// `effect`, the most that the true step changes a logit; `against`, one object for each, this program first; `failed`, the name
/// of each that failed or did not answer in time, and why: the others go on.
///
/// # Errors
/// No Python for them; this program's; the reference's; that none of the others is left; [`Interrupted`].
pub fn run(
    stream: &Stream,
    free_bytes: usize,
    memo: &mut Memo,
    job: &Job,
    variants: &[Variant],
    limits: &Limits,
) -> Result<Value> {
    // What has a folder and processes to clear away ends in order.
    interrupt::catch()?;
    let folder = tempfile::Builder::new().prefix("memo-against-").tempdir();
    let folder = folder.context("making a folder for other programs")?;
    let programs = Programs::prepare(folder.path(), variants.iter().any(Variant::is_tch))?;
    let reference = Variant::reference();
    let precisions: BTreeSet<&str> =
        variants.iter().chain([&reference]).map(|variant| variant.precision.as_str()).collect();
    job.write(stream, folder.path(), &precisions.into_iter().collect::<Vec<_>>())?;
    let start = |variant: &Variant| {
        crate::notice!("checking {}", variant.describe());
        Rival::start(&programs, folder.path(), variant, limits.answer)
    };
    let checked = check(memo, job)?;
    // As many images as are timed: kernels are loaded with the first batch, and a graph is recorded with the second, which takes
    // a part of a batch's time that counts on a GPU alone.
    let is_virtual = stream.gpu().driver().is_virtual();
    (0..if is_virtual { 1 } else { 2 }).try_for_each(|_| adapt(memo, job, 0))?;
    // No other program is there yet, so that all that is taken is this one's.
    let device_bytes = free_bytes.saturating_sub(stream.gpu().memory_bytes()?.0) as u64;
    interrupt::check()?;
    let truth = start(&reference)?.check()?;
    let mut ours = Runner::new(None, &checked, &truth)?;
    ours.device_bytes = (!is_virtual).then_some(device_bytes);
    let mut field = Field { runners: vec![ours], failed: Vec::new() };
    for variant in variants {
        let ready = || {
            let mut rival = start(variant)?;
            let checked = rival.check()?;
            rival.ask(&json!({ "warm_up": true }))?;
            Runner::new(Some(rival), &checked, &truth)
        };
        match ready() {
            Ok(runner) => field.runners.push(runner),
            Err(error) => field.fail(variant, error)?,
        }
    }
    let clock = Instant::now();
    for round in 1.. {
        field.turn(|runner| runner.go(memo, job))?;
        crate::notice!("round {round}: {:.0} s", clock.elapsed().as_secs_f64());
        if round >= LEAST && clock.elapsed().as_secs_f64() >= limits.seconds {
            break;
        }
    }
    field.turn(|runner| runner.go_by_stages(memo, job))?;
    let Field { runners, failed } = field;
    let all: Vec<Samples> = runners.iter().map(Runner::samples).collect::<Result<_>>()?;
    let rows: Vec<Value> =
        runners.iter().zip(&all).map(|(runner, own)| runner.object(own, &all[0])).collect();
    Ok(json!({ "batch": job.batch, "effect": truth.most(), "against": rows, "failed": failed }))
}

/// Those that are timed, and what became of the others.
struct Field {
    /// This program first.
    runners: Vec<Runner>,
    failed: Vec<Value>,
}

impl Field {
    /// Lets each have a turn.
    ///
    /// # Errors
    /// This program's; that no other is left.
    fn turn(&mut self, mut go: impl FnMut(&mut Runner) -> Result<()>) -> Result<()> {
        ensure!(self.runners.len() > 1, "--against: {}", failures(&self.failed));
        for mut runner in std::mem::take(&mut self.runners) {
            interrupt::check()?;
            match go(&mut runner) {
                Ok(()) => self.runners.push(runner),
                Err(error) => match &runner.rival {
                    Some(rival) => self.fail(rival.variant(), error)?,
                    None => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Goes on without a program, unless it is the run that is to end.
    fn fail(&mut self, variant: &Variant, error: Error) -> Result<()> {
        if error.is::<Interrupted>() {
            return Err(error);
        }
        crate::notice!("note: {error:#}; the others go on");
        self.failed.push(json!({ "name": variant.describe(), "why": format!("{error:#}") }));
        Ok(())
    }
}

/// Why they failed.
pub fn failures(failed: &[Value]) -> String {
    failed.iter().filter_map(|one| one["why"].as_str()).collect::<Vec<_>>().join("; ")
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
        Ok(Runner { rival, error, moved, seconds, stages: Map::new(), peak_bytes: 0, device_bytes: None })
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

    /// Times the stages of as many images.
    fn go_by_stages(&mut self, memo: &mut Memo, job: &Job) -> Result<()> {
        self.stages = match &mut self.rival {
            Some(rival) => rival.stages(job.batch)?,
            None => {
                memo.keep_stage_times();
                adapt(memo, job, self.seconds.len())?;
                let mut stages = STAGES.map(|name| (name, 0.0));
                for (name, time) in memo.stage_times() {
                    // The others predict before and after the step, and have one name for it.
                    let name = if name == "zero-shot" { "predict" } else { name };
                    let stage = stages.iter_mut().find(|(known, _)| *known == name);
                    stage.with_context(|| format!("timing: no stage {name}"))?.1 += time.as_secs_f64();
                }
                let of_image =
                    |(name, seconds): (&str, f64)| (name.to_string(), json!(seconds / job.batch as f64));
                stages.into_iter().map(of_image).collect()
            }
        };
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
            "stages_s": self.stages,
            "samples_s": own.seconds,
        })
    }
}
