//! `memo eval`: zero-shot CLIP and MEMO over a dataset.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::options::{AdaptOptions, Batch, ModelOptions};
use super::{Usage, fleet, print, session};
use crate::clip::Checkpoint;
use crate::data::{Dataset, labels};
use crate::engine::Precision;
use crate::gpu::{Gpu, Stream};
use crate::metrics::Totals;
use crate::ops::linear::serving;
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
        let streams = session::open_devices(self.model.device)?;

        let mut run = Run { count, rates: self.adapt.lr.len(), ..Run::default() };
        if let Some(path) = &self.out {
            let settings = || self.describe(&checkpoint, &dataset, &names, streams[0].gpu());
            run.out = Some((path.clone(), self.resume, Box::new(settings)));
        }
        let build = |stream: &Stream| {
            session::classifier(stream, &checkpoint, &names, &self.adapt, self.batch, count)
        };
        let seconds = fleet::evaluate_on(&streams, build, &dataset, &mut run)?;
        run.progress.iter().for_each(Progress::finish);

        let done = run.totals.images() - run.first;
        let images_per_s = if done > 0 { done as f64 / seconds } else { 0.0 };
        let summary = report::Summary { totals: &run.totals, learning_rates: &self.adapt.lr, images_per_s };
        match self.json {
            true => print(&format!("{}\n", summary.json())),
            false => print(&summary.to_string()),
        }
    }

    /// All that a result depends on, for a resumed run to be compared with, once backends have proved themselves.
    fn describe(
        &self,
        checkpoint: &Checkpoint,
        dataset: &Dataset,
        labels: &[String],
        gpu: &Gpu,
    ) -> Result<Value> {
        let (adapt, settings) = (&self.adapt, self.adapt.settings()?);
        let lr: Vec<f64> = adapt.lr.iter().map(|&lr| report::decimal(lr)).collect();
        Ok(json!({
            "model": checkpoint.fingerprint()?,
            "data": dataset.fingerprint()?,
            "labels": labels,
            "views": adapt.views,
            "lr": lr,
            "steps": adapt.steps,
            "optimizer": settings.optimizer,
            "seed": adapt.seed,
            "policy": adapt.policy.to_string(),
            "prompt": adapt.prompt,
            "precision": adapt.precision,
            "update": settings.update,
            "loss_scale": settings.loss_scale,
            "device": gpu.target(),
            "compiler": gpu.code_by()?,
            "products": (adapt.precision == Precision::Fp16).then(|| serving(gpu.architecture()).kernel()),
        }))
    }
}

/// What a run's results depend on.
type Settings<'a> = Box<dyn Fn() -> Result<Value> + 'a>;

/// A run over the first `count` samples, from where its file ends.
#[derive(Default)]
struct Run<'a> {
    count: usize,
    /// Learning rates, of which every record has a prediction each.
    rates: usize,
    /// The file, and whether it is continued.
    out: Option<(PathBuf, bool, Settings<'a>)>,
    writer: Option<RecordWriter>,
    totals: Totals,
    /// Records that were in the file.
    first: usize,
    progress: Option<Progress>,
}

impl fleet::Run for Run<'_> {
    fn begin(&mut self) -> Result<Vec<usize>> {
        if let Some((path, resume, settings)) = &self.out {
            let opened = RecordWriter::open(path, *resume, &settings()?)?;
            for Record { index, memo, .. } in &opened.records {
                let (there, rates, path) = (memo.len(), self.rates, path.display());
                ensure!(
                    there == rates,
                    "reading {path}: image {index} was adapted to by {there} of {rates} learning rates"
                );
            }
            opened.records.iter().take(self.count).for_each(|record| self.totals.add(record));
            self.writer = Some(opened.writer);
        }
        self.first = self.totals.images();
        self.progress = Some(Progress::new(self.count, self.first));
        Ok((self.first..self.count).collect())
    }

    fn keep(&mut self, record: Record) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.write(&record)?;
        }
        self.totals.add(&record);
        if let Some(progress) = &mut self.progress {
            progress.advance(&self.totals);
        }
        Ok(())
    }
}
