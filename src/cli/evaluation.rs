//! One or several runs over the same images by the same model: what is shared is read, checked and computed once.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::options::{AdaptOptions, Batch, DataOptions, LabelOptions, ModelOptions};
use super::{fleet, session};
use crate::clip::Checkpoint;
use crate::data::{DataSource, Dataset, Evaluated, Selection, Shard};
use crate::engine::{Memo, Model, Precision, prepare};
use crate::gpu::{Gpu, Stream};
use crate::interrupt;
use crate::metrics::Totals;
use crate::notice;
use crate::ops::linear::serving;
use crate::records::{Answer, Asked, Failed, Failure, Out, Predictor, Record, Row, name_of};
use crate::report::{self, Progress};

/// Which model and which images.
#[derive(Args)]
#[command(mut_arg("device", |arg| arg.help("auto (a GPU if there is one), gpu, gpu:N, gpu:all (every GPU, each with a part of \
    the images), or virtual (the CPU, through the virtual CUDA driver)")))]
pub struct EvalOptions {
    #[command(flatten, next_help_heading = "Model")]
    pub model: ModelOptions,
    /// Images at once; no result depends on it
    #[arg(long, default_value = "auto", value_name = "auto|S", help_heading = "Device")]
    batch: Batch,
    /// A folder with one subfolder of images for each class; CIFAR-10 or CIFAR-100 (a folder or its .tar.gz); .npy, .npz, .parquet,
    /// WebDataset's .tar, .zip, .csv, or a folder of such; what torchvision has downloaded. `memo data PATH` says what a path is
    #[arg(long, short, value_name = "PATH", help_heading = "Data")]
    pub data: PathBuf,
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
}

impl EvalOptions {
    fn open_data(&self) -> Result<Evaluated> {
        let data = self.part.open(&self.data)?;
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
    fn indices(&self, dataset: &Evaluated, seed: u64) -> (Vec<usize>, usize) {
        let selection = match (self.limit, self.first) {
            (Some(count), _) => Selection::Sample { count: count as usize, seed },
            (_, Some(count)) => Selection::First(count as usize),
            _ => Selection::All,
        };
        let mut indices = selection.indices(dataset.data());
        let others = dataset.of_no_class().map(|others| selection.indices(others)).unwrap_or_default();
        indices.extend(others.iter().map(|index| dataset.data().len() + index));
        (indices, others.len())
    }
}

/// One run: how it adapts, and where its records go.
pub struct Job {
    pub adapt: AdaptOptions,
    pub out: Option<Out>,
}

/// Runs that are ready to begin.
pub struct Evaluation<'a> {
    options: &'a EvalOptions,
    jobs: Vec<Job>,
    pub dataset: Evaluated,
    names: Vec<String>,
    /// Increasing; of this shard, if there is one.
    pub indices: Vec<usize>,
    pub checkpoint: Checkpoint,
    streams: Vec<Stream>,
    /// Settings that all runs have.
    shared: Value,
    /// Text features of the classes, once a device has them.
    features: Mutex<Option<Vec<f32>>>,
    /// By the devices' numbers, once they have the model: no run writes to it.
    models: Mutex<HashMap<usize, Model>>,
}

/// What has come of a run, and how it ended.
pub struct Ended {
    pub totals: Totals,
    /// Of the images that it has adapted to.
    pub images_per_s: f64,
    /// Whether the file has taken every row: if not, what was computed is told all the same.
    pub is_written: bool,
    pub out: Option<Out>,
    /// How the run ended, and whether its file has what was written.
    pub run: Result<()>,
    pub kept: Result<()>,
}

impl<'a> Evaluation<'a> {
    /// How many of the images are of a class.
    pub fn of_class(&self) -> usize {
        self.indices.iter().filter(|&&index| self.dataset.is_of_class(index)).count()
    }

    /// # Errors
    /// There are images of classes, and none of them could be read.
    pub fn expect_images(&self, totals: &Totals) -> Result<()> {
        let asked = self.of_class();
        let why = format!("{}: none of {asked} images could be read", self.options.data.display());
        ensure!(totals.images() > 0 || asked == 0, why);
        Ok(())
    }

    /// Reads and checks all that the runs need, before the first of them begins. They differ in nothing but views, rates, steps, policy
    /// and seed; the first one's seed chooses the images.
    ///
    /// # Errors
    /// The data's, the names', the model's, the device's; a file that is there and is of another run.
    pub fn open(options: &'a EvalOptions, jobs: Vec<Job>) -> Result<Evaluation<'a>> {
        let outs = || jobs.iter().filter_map(|job| job.out.as_ref());
        let expect = |settings: &Value| outs().try_for_each(|out| out.expect(settings));
        for job in &jobs {
            let flags = flags(&job.adapt)?;
            job.out.iter().try_for_each(|out| out.expect(&flags))?;
        }
        let fixed = &jobs.first().context("no run is asked for")?.adapt.fixed;

        let mut dataset = options.open_data()?;
        outs().for_each(|out| restore_removed(&mut dataset, out));
        let names = options.labels.names(dataset.data(), &options.data)?;
        if let Some(file) = dataset.data().templates().filter(|_| fixed.prompts.is_default()) {
            notice!("note: prompts lie beside the data, and are not used: --templates {}", file.display());
        }
        let (mut indices, of_no_class) = options.indices(&dataset, fixed.seed);
        let selection = json!({
            "limit": options.limit, "first": options.first, "images": indices.len(), "of": dataset.len(),
            "of_no_class": of_no_class,
            "data": std::path::absolute(&options.data)?.display().to_string(),
        });
        let of_no_class = options.ood.as_deref().map(std::path::absolute).transpose()?;
        let of_no_class = of_no_class.map_or_else(
            || json!({}),
            |path| match &options.ood_split {
                Some(split) => json!({ "ood": path.display().to_string(), "ood_split": split }),
                None => json!({ "ood": path.display().to_string() }),
            },
        );
        let chosen = serde_json::to_value(options.part.source(&options.data))?;
        let selection = together(&[&selection, &chosen, &of_no_class]);
        indices.retain(|&index| options.shard.is_none_or(|shard| shard.has(index)));
        let shard = options.shard.map(|shard| shard.settings(indices.len()));
        let part = json!({ "shard": shard, "labels": names });
        expect(&part)?;
        fixed.prompts.read()?.texts(&names)?;
        for Job { adapt, out } in &jobs {
            let (rates, steps, classes) = (adapt.lr.len(), adapt.steps as usize, names.len());
            let losses = &adapt.fixed.predictors.losses()[..];
            let asked = Asked { indices: &indices, classes, rates, steps, losses };
            out.iter().try_for_each(|out| out.expect_rows(&asked, &dataset))?;
        }

        let checkpoint = session::open_checkpoint(&options.model)?;
        let config = checkpoint.config();
        let model = json!({
            "model": if outs().next().is_some() { checkpoint.fingerprint()? } else { Value::Null },
            "preprocess": config.preprocess,
            "logit_scale": report::decimal(config.logit_scale),
            "logit_scale_is": checkpoint.scale_is(),
        });
        expect(&model)?;
        if let (Some(shard), true) = (options.shard, indices.is_empty()) {
            notice!("note: no image is of shard {shard}");
        }
        let streams = session::open_devices(options.model.device)?;
        let shared = together(&[&json!({ "selection": selection }), &part, &model]);
        let (features, models) = Default::default();
        Ok(Evaluation {
            options,
            jobs,
            dataset,
            names,
            indices,
            checkpoint,
            streams,
            shared,
            features,
            models,
        })
    }

    /// Runs the `number`th, once.
    ///
    /// * `watch`: gets the row of each image, also of those that the file has already.
    pub fn run(&mut self, number: usize, strict: bool, watch: &mut dyn FnMut(&Row)) -> Ended {
        let out = self.jobs[number].out.take();
        let adapt = &self.jobs[number].adapt;
        // Where another seed than the run's own has chosen its images, nothing else would tell.
        let chosen_by = self.jobs.first().map(|first| first.adapt.fixed.seed);
        let chosen_by = chosen_by.filter(|&seed| self.options.limit.is_some() && seed != adapt.fixed.seed);
        let settings = || -> Result<Value> {
            let platform = platform(adapt, self.streams[0].gpu())?;
            let mut settings = together(&[&self.shared, &flags(adapt)?, &platform]);
            if let Some(seed) = chosen_by {
                settings["selection"]["seed"] = seed.into();
            }
            Ok(settings)
        };
        let has_confidences = self.dataset.of_no_class().is_some();
        let mut run = Run {
            indices: &self.indices,
            strict,
            settings: &settings,
            out,
            counts: Counts {
                totals: if has_confidences { Totals::with_confidences() } else { Totals::default() },
                watch,
                images: self.indices.len(),
            },
            progress: None,
            start: Instant::now(),
            done: 0,
            is_written: true,
        };
        let build = |stream: &Stream| self.classifier(stream, adapt);
        let ended = fleet::evaluate_on(&self.streams, build, &self.dataset, &mut run);
        let Run { mut out, counts: Counts { totals, .. }, progress, start, done, is_written, .. } = run;
        drop(progress);
        // Whatever has ended it, what there is is to be there.
        let kept = out.as_mut().map_or(Ok(()), Out::finish);
        let images_per_s = done as f64 / start.elapsed().as_secs_f64();
        Ended { totals, images_per_s, is_written, out, run: ended, kept }
    }

    fn classifier(&self, stream: &Stream, adapt: &AdaptOptions) -> Result<Memo> {
        prepare(stream, self.checkpoint.config(), self.names.len(), &adapt.settings()?)?;
        let model = self.model(stream, adapt)?;
        session::classifier_by(stream, &model, adapt, self.options.batch, self.indices.len())
    }

    /// On this device: runs differ in nothing that it depends on.
    fn model(&self, stream: &Stream, adapt: &AdaptOptions) -> Result<Model> {
        let models = || self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let device = stream.gpu().ordinal();
        if let Some(model) = models().get(&device) {
            return Ok(model.clone());
        }
        let features = {
            let mut there = self.features.lock().unwrap_or_else(PoisonError::into_inner);
            match &*there {
                Some(features) => features.clone(),
                None => there
                    .insert(session::label_features(stream, &self.checkpoint, &self.names, adapt)?)
                    .clone(),
            }
        };
        // Without the lock: of several devices each takes its time.
        let model = session::model_on(stream, &self.checkpoint, &features, adapt.fixed.precision)?;
        Ok(models().entry(device).or_insert(model).clone())
    }
}

/// What flags say of all that a result depends on, for a resumed run to be compared with.
fn flags(adapt: &AdaptOptions) -> Result<Value> {
    let (fixed, settings) = (&adapt.fixed, adapt.settings()?);
    let lr: Vec<f64> = adapt.lr.iter().map(|&lr| report::decimal(lr)).collect();
    let adaptation = json!({
        "views": adapt.views,
        "lr": lr,
        "steps": adapt.steps,
        "optimizer": settings.optimizer,
        "seed": fixed.seed,
        "policy": adapt.policy.to_string(),
        "pillow": settings.pillow,
        "precision": fixed.precision,
        "update": settings.update,
        "loss_scale": settings.loss_scale,
    });
    Ok(together(&[&adaptation, &fixed.prompts.fields()?, &fixed.predictors.fields()]))
}

/// What of it the machine says, once backends have proved themselves.
fn platform(adapt: &AdaptOptions, gpu: &Gpu) -> Result<Value> {
    Ok(json!({
        "device": gpu.target(),
        "compiler": gpu.code_by()?,
        "products": (adapt.fixed.precision == Precision::Fp16).then(|| serving(gpu.architecture()).kernel()),
    }))
}

/// One object of the fields of several.
fn together(objects: &[&Value]) -> Value {
    let fields = objects.iter().filter_map(|object| object.as_object()).flatten();
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// Images that could not be read, and that were removed since, keep their places among the others.
fn restore_removed(dataset: &mut Evaluated, out: &Out) {
    for row in out.rows() {
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
    settings: &'a dyn Fn() -> Result<Value>,
    out: Option<Out>,
    counts: Counts<'a>,
    progress: Option<Progress>,
    start: Instant,
    /// Images that this run has adapted to.
    done: usize,
    /// Whether the file has taken every row: if not, what was computed is told all the same.
    is_written: bool,
}

/// So many images without an answer by any learning rate end a run that has begun with them.
const HOPELESS: usize = 8;

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
            notice!("note: {name} counts as wrong by a learning rate: {error}");
        }
    }
    Ok(())
}

/// What the rows come to so far.
struct Counts<'a> {
    totals: Totals,
    watch: &'a mut dyn FnMut(&Row),
    /// Of the whole run.
    images: usize,
}

impl Counts<'_> {
    /// Counts a row that is kept. No run goes on for hours whose steps lead nowhere.
    fn take(&mut self, row: &Row) -> Result<()> {
        self.totals.add(row);
        (self.watch)(row);
        let Row::Record(record) = row else { return Ok(()) };
        let seen = self.totals.images();
        let mut steps = record.answers().filter(|(predictor, _)| predictor.rate().is_some());
        let leads_nowhere = steps.all(|(predictor, _)| self.totals.failures(predictor) == seen);
        ensure!(
            !leads_nowhere || seen < HOPELESS.min(self.images),
            "no learning rate leads to an answer for any of the first {seen} images"
        );
        Ok(())
    }
}

impl fleet::Run for Run<'_> {
    fn begin(&mut self) -> Result<Vec<usize>> {
        let mut there = BTreeSet::new();
        if let Some(out) = &mut self.out {
            out.begin(&(self.settings)()?)?;
            for row in out.rows() {
                let Row::Record(record) = row else { continue };
                answered(record, &self.counts.totals, self.strict)?;
                self.counts.take(row)?;
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
                answered(record, &self.counts.totals, self.strict)?;
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
        self.counts.take(&row)?;
        if let Some(progress) = &mut self.progress {
            progress.advance(&self.counts.totals);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;
    use crate::check::{fixtures, random};

    #[test]
    fn a_later_run_finds_the_model_on_the_device() {
        let folder = tempfile::tempdir().expect("a folder");
        for (number, class) in ["apple", "chimpanzee", "apple"].into_iter().enumerate() {
            let pixels = random(3 * 64, 127.0, number as u64).iter().map(|x| (x + 128.0) as u8).collect();
            let place = folder.path().join(class);
            std::fs::create_dir_all(&place).expect("a folder");
            let picture = image::RgbImage::from_raw(8, 8, pixels).expect("64 pixels");
            picture.save(place.join(format!("{number}.png"))).expect("a picture");
        }
        let device = std::env::var("MEMO_TEST_DEVICE").unwrap_or_else(|_| "virtual".to_string());
        let (model, data) = (fixtures().join("models/tiny"), folder.path().display().to_string());
        let flags = ["memo", "--model", &model.display().to_string(), "--data", &data, "--device", &device];
        let command = EvalOptions::augment_args(Command::new("memo"));
        let options = EvalOptions::from_arg_matches(&command.get_matches_from(flags)).expect("flags");

        // A step that is folded into the prediction, then several in place.
        let folded = AdaptOptions::mild(2, 1e-3);
        let in_place = AdaptOptions { steps: 2, ..folded.clone() };
        let rows_and_uploads = |adapts: &[&AdaptOptions]| -> Vec<(Vec<Row>, usize)> {
            let jobs = adapts.iter().map(|&adapt| Job { adapt: adapt.clone(), out: None }).collect();
            let mut evaluation = Evaluation::open(&options, jobs).expect("runs that can begin");
            let run = |number: usize| {
                let before = evaluation.streams[0].uploaded_bytes();
                let mut rows = Vec::new();
                evaluation.run(number, true, &mut |row| rows.push(row.clone())).run.expect("a run");
                (rows, evaluation.streams[0].uploaded_bytes() - before)
            };
            (0..adapts.len()).map(run).collect()
        };
        let layout = Checkpoint::open(&model, None).expect("a model").config().vision_layout();
        let weights = layout.total * size_of::<f32>();
        let [alone, alone_in_place] = [&folded, &in_place].map(|adapt| rows_and_uploads(&[adapt]).remove(0));
        let both = rows_and_uploads(&[&folded, &in_place, &folded]);
        assert!(both[0].1 >= weights && alone_in_place.1 >= weights, "each has weights to load by itself");
        assert!(both[1].1 < weights && both[2].1 < weights, "{} and {} bytes", both[1].1, both[2].1);
        assert_eq!((&both[0].0, &both[1].0, &both[2].0), (&alone.0, &alone_in_place.0, &alone.0));
        assert_eq!(alone.0.len(), 3);
    }
}
