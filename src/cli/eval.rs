//! `memo eval`: zero-shot CLIP and MEMO over a dataset.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::options::{AdaptOptions, Batch, DataOptions, LabelOptions, ModelOptions};
use super::predictors::PredictorOptions;
use super::{Usage, fleet, print, session};
use crate::data::{DataSource, Dataset, Evaluated, Selection, Shard};
use crate::engine::Precision;
use crate::gpu::{Gpu, Stream};
use crate::interrupt::{self, ReaderGone};
use crate::metrics::Totals;
use crate::notice;
use crate::ops::linear::serving;
use crate::records::{Answer, Asked, Failed, Failure, Out, Predictor, Record, Row, name_of};
use crate::report::{self, Progress};

const EXAMPLES: &str = "\
Examples:
  memo eval --model MODEL --data cifar-100-binary.tar.gz --limit 500 --out run.jsonl
  memo eval --model MODEL --data cifar-100-binary.tar.gz --limit 500 --out run.jsonl --resume
  memo eval --model MODEL --data imagenet/val --limit 1000 --lr 1e-6,1e-5,1e-4
  memo eval --model MODEL --data photos --views 8 --limit 20     a try on the CPU";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(mut_arg("device", |arg| arg.help("auto (a GPU if there is one), gpu, gpu:N, gpu:all (every GPU, each with a part of \
    the images), or virtual (the CPU, through the virtual CUDA driver)")))]
pub struct Eval {
    #[command(flatten, next_help_heading = "Model")]
    model: ModelOptions,
    /// Images at once; no result depends on it
    #[arg(long, default_value = "auto", value_name = "auto|S", help_heading = "Device")]
    batch: Batch,
    /// A folder with one subfolder of images for each class; CIFAR-10 or CIFAR-100 (a folder or its .tar.gz); .npy, .npz, .parquet,
    /// WebDataset's .tar, .zip, .csv, or a folder of such; what torchvision has downloaded. `memo data PATH` says what a path is
    #[arg(long, short, value_name = "PATH", help_heading = "Data")]
    data: PathBuf,
    /// Evaluate N images only, of all classes in proportion, which the seed chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true,
        help_heading = "Data")]
    limit: Option<u64>,
    /// Evaluate the first N images only
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true,
        conflicts_with = "limit", help_heading = "Data")]
    first: Option<u64>,
    /// Of the images that are asked for, evaluate those whose index leaves I when divided by N, on this machine; `memo merge` puts
    /// the files of all N together
    #[arg(long, value_name = "I/N", help_heading = "Data")]
    shard: Option<Shard>,
    #[command(flatten, next_help_heading = "Data")]
    labels: LabelOptions,
    #[command(flatten, next_help_heading = "Data")]
    part: DataOptions,
    /// Images of none of the classes, behind the others: --limit and --first hold for them too
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    ood: Option<PathBuf>,
    /// Which split of --ood, as --split is of --data
    #[arg(long, value_name = "FOLDER", help_heading = "Data", requires = "ood")]
    ood_split: Option<String>,
    #[command(flatten, next_help_heading = "Adaptation")]
    adapt: AdaptOptions,
    #[command(flatten, next_help_heading = "Predictors")]
    predictors: PredictorOptions,
    /// Write a line of JSON for each image, as it goes. To /dev/stdout too, where the table then goes to stderr
    #[arg(long, value_name = "run.jsonl", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Continue the run in --out; images that could not be read are tried again
    #[arg(long, help_heading = "Output")]
    resume: bool,
    /// End at the first image that cannot be read, with exit code 1; otherwise it is named, recorded and left out of all figures.
    /// Also at one for which one of several learning rates leads to no number; otherwise that counts as wrong
    #[arg(long, help_heading = "Output")]
    strict: bool,
    /// End with a JSON object instead of the table
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Eval {
    pub fn run(mut self) -> Result<()> {
        self.adapt.predictors = self.predictors.clone();
        if self.resume && self.out.is_none() {
            return Err(
                Usage("--resume: it continues the file that --out names; give both".to_string()).into()
            );
        }
        let flags = self.flags()?;
        let out = self.out.as_deref().map(|path| Out::open(path, self.resume)).transpose()?;
        let expect =
            |out: &Option<Out>, settings: &Value| out.iter().try_for_each(|out| out.expect(settings));
        expect(&out, &flags)?;

        let mut dataset = self.open_data()?;
        restore_removed(&mut dataset, &out);
        let names = self.labels.names(dataset.data(), &self.data)?;
        let (mut indices, of_no_class) = self.indices(&dataset);
        let selection = json!({
            "limit": self.limit, "first": self.first, "images": indices.len(), "of": dataset.len(),
            "of_no_class": of_no_class,
            "data": std::path::absolute(&self.data)?.display().to_string(),
        });
        indices.retain(|&index| self.shard.is_none_or(|shard| shard.has(index)));
        let shard = self.shard.map(|shard| shard.settings(indices.len()));
        let part = json!({ "shard": shard, "labels": names });
        expect(&out, &part)?;
        self.adapt.prompts.read()?.texts(&names)?;
        if let Some(out) = &out {
            let (rates, steps) = (self.adapt.lr.len(), self.adapt.steps as usize);
            let (losses, classes) = (&self.predictors.losses()[..], names.len());
            out.expect_rows(&Asked { indices: &indices, classes, rates, steps, losses }, &dataset)?;
        }

        let checkpoint = session::open_checkpoint(&self.model)?;
        let config = checkpoint.config();
        let model = json!({
            "model": if out.is_some() { checkpoint.fingerprint()? } else { Value::Null },
            "preprocess": config.preprocess,
            "logit_scale": report::decimal(config.logit_scale),
            "logit_scale_is": checkpoint.scale_is(),
        });
        expect(&out, &model)?;
        if let (Some(shard), true) = (self.shard, indices.is_empty()) {
            notice!("note: no image is of shard {shard}");
        }
        let streams = session::open_devices(self.model.device)?;
        let told = json!({ "selection": selection });
        let mut run = Run {
            indices: &indices,
            strict: self.strict,
            settings: Box::new(|| {
                Ok(together(&[&told, &part, &model, &flags, &self.platform(streams[0].gpu())?]))
            }),
            out,
            totals: if self.ood.is_some() { Totals::with_confidences() } else { Totals::default() },
            progress: None,
            start: Instant::now(),
            done: 0,
            is_written: true,
        };
        let build = |stream: &Stream| {
            session::classifier(stream, &checkpoint, &names, &self.adapt, self.batch, indices.len())
        };
        let ended = fleet::evaluate_on(&streams, build, &dataset, &mut run);
        let Run { mut out, totals, progress, start, done, is_written, .. } = run;
        drop(progress);
        // Whatever has ended it, what there is is to be there.
        let kept = out.as_mut().map_or(Ok(()), Out::finish);
        let images_per_s = done as f64 / start.elapsed().as_secs_f64();
        let (asked, learning_rates) = (indices.len(), &self.adapt.lr[..]);
        let logit_scale = (checkpoint.config().logit_scale, checkpoint.scale_is());
        let totals = &totals;
        let summary =
            report::Summary { totals, asked, learning_rates, logit_scale, images_per_s: Some(images_per_s) };
        let is_read = !ended.as_ref().is_err_and(|error| error.is::<ReaderGone>());
        if totals.images() > 0 && is_read && (ended.is_ok() || !is_written) {
            self.show(&summary, out.as_ref())?;
        }
        ended?;
        kept?;
        if let (1.., Some(interrupted)) = (summary.left(), interrupt::asked()) {
            let how = match out.is_some_and(|out| out.is_kept()) {
                true => "the same command with --resume goes on",
                false => "there is no --out file to go on from",
            };
            notice!("note: ended by {interrupted} after {} of {asked} images; {how}", asked - summary.left());
            bail!(interrupted);
        }
        ensure!(
            totals.images() > 0 || asked == 0,
            "{}: none of {asked} images could be read",
            self.data.display()
        );
        Ok(())
    }

    fn open_data(&self) -> Result<Evaluated> {
        let data = self.part.open(&self.data)?;
        if let Some(file) = data.templates().filter(|_| self.adapt.prompts.is_default()) {
            notice!("note: prompts lie beside the data, and are not used: --templates {}", file.display());
        }
        let Some(path) = &self.ood else { return Ok(data.into()) };
        let of_no_class =
            DataSource { path: path.clone(), split: self.ood_split.clone(), ..DataSource::default() };
        let of_no_class = Dataset::open(&of_no_class).context("--ood, whose split is --ood-split's")?;
        for notice in of_no_class.notices() {
            notice!("note: --ood: {notice}");
        }
        Ok(Evaluated::with(data, of_no_class))
    }

    /// Those that are asked for, increasing, and how many of them are of no class.
    fn indices(&self, dataset: &Evaluated) -> (Vec<usize>, usize) {
        let mut indices = self.selection().indices(dataset.data());
        let others = dataset.of_no_class().map(|others| self.selection().indices(others)).unwrap_or_default();
        indices.extend(others.iter().map(|index| dataset.data().len() + index));
        (indices, others.len())
    }

    fn selection(&self) -> Selection {
        match (self.limit, self.first) {
            (Some(count), _) => Selection::Sample { count: count as usize, seed: self.adapt.seed },
            (_, Some(count)) => Selection::First(count as usize),
            _ => Selection::All,
        }
    }

    /// The table or its JSON, where records do not go.
    fn show(&self, summary: &report::Summary, out: Option<&Out>) -> Result<()> {
        let text = match self.json {
            true => format!("{}\n", summary.json()),
            false => summary.to_string(),
        };
        match out.is_some_and(Out::is_stdout) {
            true => notice!("{}", text.trim_end()),
            false => print(&text)?,
        }
        Ok(())
    }

    /// What flags say of all that a result depends on, for a resumed run to be compared with.
    fn flags(&self) -> Result<Value> {
        let (adapt, settings) = (&self.adapt, self.adapt.settings()?);
        let lr: Vec<f64> = adapt.lr.iter().map(|&lr| report::decimal(lr)).collect();
        let adaptation = json!({
            "views": adapt.views,
            "lr": lr,
            "steps": adapt.steps,
            "optimizer": settings.optimizer,
            "seed": adapt.seed,
            "policy": adapt.policy.to_string(),
            "pillow": settings.pillow,
            "precision": adapt.precision,
            "update": settings.update,
            "loss_scale": settings.loss_scale,
        });
        Ok(together(&[&adaptation, &adapt.prompts.fields()?, &self.predictors.fields()]))
    }

    /// What of it the machine says, once backends have proved themselves.
    fn platform(&self, gpu: &Gpu) -> Result<Value> {
        Ok(json!({
            "device": gpu.target(),
            "compiler": gpu.code_by()?,
            "products": (self.adapt.precision == Precision::Fp16).then(|| serving(gpu.architecture()).kernel()),
        }))
    }
}

/// One object of the fields of several.
fn together(objects: &[&Value]) -> Value {
    let fields = objects.iter().filter_map(|object| object.as_object()).flatten();
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Images that could not be read, and that were removed since, keep their places among the others.
fn restore_removed(dataset: &mut Evaluated, out: &Option<Out>) {
    for row in out.iter().flat_map(Out::rows) {
        if let Row::Failure(Failure { index, file: Some(file), label, .. }) = row {
            dataset.restore(*index, file, *label);
        }
    }
}

/// A run over these images, but for those that its file has records of.
struct Run<'a> {
    /// Increasing.
    indices: &'a [usize],
    strict: bool,
    /// All that its results depend on.
    settings: Box<dyn Fn() -> Result<Value> + 'a>,
    out: Option<Out>,
    totals: Totals,
    progress: Option<Progress>,
    start: Instant,
    /// Images that this run has adapted to.
    done: usize,
    /// Whether the file has taken every row: if not, what was computed is told all the same.
    is_written: bool,
}

/// Tells of the first image that a learning rate has no answer for; how many there are is told in the end.
fn answered(record: &Record, so_far: &Totals, strict: bool) -> Result<()> {
    let Record { index, file, memo, memo_confident, .. } = record;
    let all = (0..).zip(memo).map(|(rate, answer)| (Predictor::Memo { rate }, answer));
    let confident = (0..).zip(memo_confident);
    let confident = confident.map(|(rate, answer)| (Predictor::MemoConfident { rate }, answer));
    for (predictor, answer) in all.chain(confident) {
        let Answer::Failed(Failed { error }) = answer else { continue };
        let name = name_of(*index, file.as_deref());
        ensure!(!strict, "{name}: {error}");
        if so_far.failures(predictor) == 0 {
            notice!("note: {name} counts as wrong by one learning rate: {error}");
        }
    }
    Ok(())
}

impl fleet::Run for Run<'_> {
    fn begin(&mut self) -> Result<Vec<usize>> {
        let mut there = BTreeSet::new();
        if let Some(out) = &mut self.out {
            out.begin(&(self.settings)()?)?;
            for row in out.rows() {
                let Row::Record(record) = row else { continue };
                answered(record, &self.totals, self.strict)?;
                self.totals.add(row);
                there.insert(row.index());
            }
        }
        self.progress = Some(Progress::new(self.indices.len(), there.len()));
        interrupt::catch()?;
        self.start = Instant::now();
        Ok(self.indices.iter().copied().filter(|index| !there.contains(index)).collect())
    }

    fn keep(&mut self, row: Row) -> Result<()> {
        match &row {
            Row::Record(record) => {
                answered(record, &self.totals, self.strict)?;
                self.done += 1;
            }
            Row::Failure(Failure { file, index, error, .. }) => {
                let name = name_of(*index, file.as_deref());
                ensure!(!self.strict, "reading {name}: {error}");
                notice!("note: {name} is left out: {error}");
            }
        }
        if let Some(out) = &mut self.out {
            self.is_written = false;
            out.write(&row)?;
            self.is_written = true;
        }
        self.totals.add(&row);
        if let Some(progress) = &mut self.progress {
            progress.advance(&self.totals);
        }
        Ok(())
    }
}
