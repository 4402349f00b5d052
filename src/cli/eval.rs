//! `memo eval`: zero-shot CLIP and MEMO over a dataset.

use std::num::NonZero;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::options::{AdaptOptions, Batch, ModelOptions};
use super::{Usage, print, session};
use crate::clip::Checkpoint;
use crate::data::{Dataset, Sample, labels};
use crate::engine::{Item, Memo, Outcome, Queued, Views};
use crate::gpu::trace::Profiler;
use crate::metrics::Totals;
use crate::records::{Record, RecordWriter};
use crate::report::{self, Progress};

#[derive(Args)]
pub struct Eval {
    #[command(flatten)]
    model: ModelOptions,
    /// CIFAR (binary or python folder, or its .tar.gz), or a folder with one subfolder a class
    #[arg(long, short, value_name = "PATH")]
    data: PathBuf,
    /// Evaluate the first N images only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true)]
    limit: Option<u64>,
    /// Class names, one a line, instead of the dataset's own
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    adapt: AdaptOptions,
    /// Images at once; no result depends on it
    #[arg(long, default_value = "auto", value_name = "auto|S")]
    batch: Batch,
    /// Write one JSON object a line and image as it goes
    #[arg(long, value_name = "run.jsonl")]
    out: Option<PathBuf>,
    /// Continue the run that --out holds
    #[arg(long)]
    resume: bool,
    /// End with a JSON object instead of the table
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub fn run(self) -> Result<()> {
        if self.resume && self.out.is_none() {
            return Err(
                Usage("--resume: it continues the file that --out names; give both".to_string()).into()
            );
        }
        self.adapt.settings()?;
        let dataset = Dataset::open(&self.data)?;
        let names = match &self.labels {
            Some(path) => labels::read(path)?,
            None => dataset.labels().to_vec(),
        };
        ensure!(
            names.len() == dataset.labels().len(),
            "{}: {} labels for a dataset of {} classes",
            self.labels.as_deref().unwrap_or(&self.data).display(),
            names.len(),
            dataset.labels().len()
        );
        let count = self.limit.map_or(dataset.len(), |limit| dataset.len().min(limit as usize));

        let checkpoint = session::open_checkpoint(&self.model)?;
        let stream = session::open_device(self.model.device)?;
        let mut memo = session::classifier(&stream, &checkpoint, &names, &self.adapt, self.batch, count)?;

        let mut totals = Totals::default();
        let mut writer = None;
        if let Some(path) = &self.out {
            let opened =
                RecordWriter::open(path, self.resume, &self.describe(&checkpoint, &dataset, &names)?)?;
            for record in opened.records.iter().take(count) {
                totals.add(record);
            }
            writer = Some(opened.writer);
        }
        let first = totals.images();

        let start = Instant::now();
        let mut progress = Progress::new(count, first);
        let (mut profiler, second) = (None, first + memo.batch());
        let mut keep = |record: Record| {
            if let Some(writer) = &mut writer {
                writer.write(&record)?;
            }
            totals.add(&record);
            progress.advance(&totals);
            // The steady state begins behind the first batch.
            if record.index + 1 == second && second < count {
                profiler = Some(Profiler::start(&stream)?);
            }
            Ok(())
        };
        evaluate(&mut memo, &dataset, first..count, &mut keep)?;
        drop(profiler);
        progress.finish();

        let summary =
            report::Summary::new(&totals, (count - first.min(count)) as f64 / start.elapsed().as_secs_f64());
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string(&summary)?)),
            false => print(&summary.to_string()),
        }
    }

    /// All that a result depends on, for a resumed run to be compared with.
    fn describe(
        &self,
        checkpoint: &Checkpoint,
        dataset: &Dataset,
        labels: &[String],
    ) -> Result<serde_json::Value> {
        let adapt = &self.adapt;
        Ok(serde_json::json!({
            "model": checkpoint.fingerprint()?,
            "data": dataset.fingerprint()?,
            "labels": labels,
            "views": adapt.views,
            "lr": adapt.lr,
            "steps": adapt.steps,
            "seed": adapt.seed,
            "policy": adapt.policy.to_string(),
            "prompt": adapt.prompt,
            "precision": adapt.precision,
            "update": adapt.update(),
            "loss_scale": adapt.loss_scale(),
        }))
    }
}

/// MEMO on these samples, a batch at a time; `keep` gets every image's record, in order, while the device has the next batch.
///
/// # Errors
/// An image that cannot be read or adapted to, once all before it are kept.
pub fn evaluate(
    memo: &mut Memo,
    dataset: &Dataset,
    indices: Range<usize>,
    keep: &mut impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    let mut finish = |memo: &mut Memo, first: usize, samples: &[Sample], queued: Queued| -> Result<()> {
        let outcomes = memo
            .finish(queued, &items(first, samples), &Views::Drawn)
            .with_context(|| format!("adapting to images from {first} on"))?;
        for ((index, sample), outcome) in (first..).zip(samples).zip(outcomes) {
            let Outcome { zero_shot, memo, entropy, overflow } =
                outcome.with_context(|| format!("adapting to image {index}"))?;
            let (zero_shot, memo) = ((&zero_shot).into(), (&memo).into());
            keep(Record { index, label: sample.label, zero_shot, memo, entropy, overflow })?;
        }
        Ok(())
    };
    let mut under_way: Option<(usize, Vec<Sample>, Queued)> = None;
    let done = in_batches(dataset, indices, memo.batch(), |first, samples| {
        let queued = memo
            .queue(&items(first, &samples), &Views::Drawn)
            .with_context(|| format!("adapting to images from {first} on"))?;
        if let Some((first, samples, queued)) = under_way.replace((first, samples, queued)) {
            finish(memo, first, &samples, queued)?;
        }
        Ok(memo.batch())
    });
    // Also where a later image ends the run.
    if let Some((first, samples, queued)) = under_way {
        finish(memo, first, &samples, queued)?;
    }
    done
}

fn items(first: usize, samples: &[Sample]) -> Vec<Item<'_>> {
    samples.iter().zip(first as u64..).map(|(sample, index)| Item { image: &sample.image, index }).collect()
}

/// Calls `each` with the first index and the samples of up to `batch` images, in order, while all cores read what comes next;
/// it returns how many it takes from there on. An error in a sample comes once `each` has had all before it.
fn in_batches(
    dataset: &Dataset,
    indices: Range<usize>,
    mut batch: usize,
    mut each: impl FnMut(usize, Vec<Sample>) -> Result<usize>,
) -> Result<()> {
    let readers = thread::available_parallelism().map_or(1, NonZero::get).min(batch.max(2));
    thread::scope(|scope| {
        // Reader r of R has every R-th image, in a queue of its own, so that all come in order; a queue holds its part of
        // two batches.
        let queues: Vec<_> = (0..readers)
            .map(|reader| {
                let (send, receive) = mpsc::sync_channel((2 * batch).div_ceil(readers));
                let indices = indices.clone().skip(reader).step_by(readers);
                scope.spawn(move || {
                    for index in indices {
                        // A closed queue means that the run has ended.
                        if send.send(dataset.get(index)).is_err() {
                            break;
                        }
                    }
                });
                receive
            })
            .collect();
        let mut next = indices.start;
        while next < indices.end {
            let first = next;
            let mut samples = Vec::with_capacity(batch);
            let mut failed = None;
            while next < indices.end && samples.len() < batch && failed.is_none() {
                match queues[(next - indices.start) % readers].recv()? {
                    Ok(sample) => samples.push(sample),
                    Err(error) => failed = Some(error),
                }
                next += 1;
            }
            if !samples.is_empty() {
                batch = each(first, samples)?;
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    })
}
