//! `memo bench`: how long MEMO takes on a checkpoint, where the time goes, and what that is beside the least possible.

mod against;
mod batches;
mod checked;
mod earlier;
mod job;
mod output;
mod pictures;
mod process;
mod programs;
mod report;
mod rival;
mod roofline;
mod samples;
mod shapes;
mod trace;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::options::{AdaptOptions, Batch, DataOptions, LabelOptions, ModelOptions};
use super::{Usage, print, session};
use crate::engine::{Dims, Item, Memo, prepare, rehearse_batch};
use crate::gpu::trace::Profiler;
use crate::gpu::{Rehearsed, Stream};
use crate::ops::preprocess::Preprocess;
use crate::report::{decimal, decimals};
use batches::Batches;
use earlier::Earlier;
use job::Job;
use output::Output;
use pictures::{Pictures, Sizes};
use rival::Variant;
use samples::Samples;

const EXAMPLES: &str = "\
Examples:
  memo bench --model MODEL
  memo bench --model MODEL --views 8 --batch 1 --images 1     short enough for a CPU
  memo bench --model MODEL --stages --json > old.json
  memo bench --model MODEL --stages --compare old.json
  memo bench --model MODEL --against libtorch:notebook,libtorch:tuned";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Bench {
    #[command(flatten, next_help_heading = "Model")]
    model: ModelOptions,
    #[command(flatten, next_help_heading = "Adaptation")]
    adapt: AdaptOptions,
    /// Images at once: what is timed depends on it, but no image's result
    #[arg(long, default_value = "auto", value_name = "auto|S", help_heading = "Timing")]
    batch: Batch,
    /// Seconds to time, in whole batches, three at least, after one that is not counted; on a GPU two, of which the second is
    /// recorded as a graph
    #[arg(long, default_value_t = 10.0, value_parser = seconds, conflicts_with = "images", allow_negative_numbers = true,
        help_heading = "Timing")]
    seconds: f64,
    /// Images to time instead, in whole batches
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000), allow_negative_numbers = true,
        help_heading = "Timing")]
    images: Option<u32>,
    /// Your own images and classes, as eval takes them, instead of made ones
    #[arg(long, value_name = "DATA", conflicts_with_all = ["pictures", "classes"], help_heading = "Data")]
    data: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Data")]
    part: DataOptions,
    #[command(flatten, next_help_heading = "Data")]
    labels: LabelOptions,
    /// Sizes of made images
    #[arg(long, value_enum, default_value_t = Sizes::Cifar, help_heading = "Data")]
    pictures: Sizes,
    /// Classes of made images
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true,
        help_heading = "Data")]
    classes: u32,
    /// Also time each stage, between events on the device; batches are then not launched as graphs
    #[arg(long, help_heading = "Timing")]
    stages: bool,
    /// Also count what a batch's launches do, on the virtual device, and say what GPUs would take for it at least: a model, not a
    /// measurement, and longer than the batch itself
    #[arg(long, conflicts_with = "against", help_heading = "Timing")]
    roofline: bool,
    /// Do not run what is not counted
    #[arg(long, help_heading = "Timing")]
    no_warm_up: bool,
    /// Also say how many times as fast this is as an earlier run of the same settings, whose --json this file is
    #[arg(long, value_name = "OLD.json", help_heading = "Timing")]
    compare: Option<PathBuf>,
    /// Instead, each matrix product of a batch by itself; needs --batch, and nothing of the checkpoint but its sizes
    #[arg(long, conflicts_with_all = ["against", "roofline", "stages", "compare", "csv", "seconds", "images", "no_warm_up", "data",
        "pictures", "classes", "lr", "seed", "policy", "prompt", "truncate", "loss_scale"], help_heading = "Timing")]
    shapes: bool,
    /// Other programs at the same job, in turn with this one: libtorch[:VARIANT[:PRECISION]], of notebook, tuned, vmap, implicit
    /// and tch, in float32, tf32 or bf16
    #[arg(long, value_name = "LIBRARY", value_delimiter = ',', conflicts_with_all = ["stages", "compare", "csv", "images", "no_warm_up"],
        help_heading = "Timing")]
    against: Vec<Variant>,
    /// Seconds that another program may take for one answer, be it its start, its check or a turn; then it is stopped, and the
    /// others go on
    #[arg(long, default_value_t = 600.0, value_parser = seconds, requires = "against", value_name = "SECONDS", allow_negative_numbers = true,
        help_heading = "Timing")]
    answer_limit: f64,
    /// Every sample, a line each, to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    csv: Option<PathBuf>,
    /// Afterwards, a few batches as they run and one launch by launch, to this file, for ui.perfetto.dev: the host's threads, and
    /// copies, graphs, stages and kernels between events on the device
    #[arg(long, value_name = "FILE.json", conflicts_with_all = ["against", "shapes", "stages"], help_heading = "Output")]
    trace: Option<PathBuf>,
    /// A JSON object instead of text
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Images whose steps are held against other programs'.
const CHECKED: usize = 2;

/// Batches to time at least, where a time is given and no number.
const LEAST: usize = 3;

/// The best rate of large products that was seen on these devices, by a part of their names, in TFLOP/s: what MEMO's
/// arithmetic would take at it is the floor.
const PEAKS: [(&str, f64); 2] = [("H100", 790.0), ("H200", 790.0)];

/// When batches were done.
struct Timed {
    /// Seconds an image, of each batch.
    samples: Samples,
    /// From when a batch was queued to when its results were there.
    latency: Samples,
    batch: usize,
    /// Of a batch.
    launches: usize,
    graphs: usize,
}

/// Seconds before the first batch.
struct Start {
    checkpoint: f64,
    kernels: f64,
    /// Its labels' features and its weights on the device.
    model: f64,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let earlier = self.compare.as_deref().map(Earlier::open).transpose()?;
        let settings = self.adapt.settings()?;
        if !self.against.is_empty() {
            against::expect_comparable(&settings, &self.against).map_err(|error| Usage(error.to_string()))?;
        }
        let shapes_of = match (self.shapes, self.batch) {
            (false, _) => None,
            (true, Batch::Images(images)) => Some(images),
            (true, Batch::Auto) => {
                return Err(Usage("--shapes: how many images at once? Say --batch S".to_string()).into());
            }
        };
        // Before the work, so that none is lost for want of a place.
        let csv = self.csv.as_deref().map(|path| Output::open("--csv", path)).transpose()?;
        let trace = self.trace.as_deref().map(|path| Output::open("--trace", path)).transpose()?;
        for output in [&csv, &trace].into_iter().flatten() {
            self.compare.iter().try_for_each(|old| output.expect_apart("--compare", old))?;
        }
        if let (Some(csv), Some(trace)) = (&csv, &self.trace) {
            csv.expect_apart("--trace", trace)?;
        }
        let (pictures, labels) = match &self.data {
            Some(data) => {
                let dataset = self.part.open(data)?;
                (Pictures::of(&dataset)?, self.labels.names(&dataset, data)?)
            }
            None => {
                (Pictures::made(self.pictures), (0..self.classes).map(|i| format!("class {i}")).collect())
            }
        };
        let mut object = self.asked(labels.len())?;
        if let Some(earlier) = &earlier {
            earlier.expect_same(&object)?;
        }
        let clock = Instant::now();
        let checkpoint = session::open_checkpoint(&self.model)?;
        let opened = clock.elapsed().as_secs_f64();
        let stream = session::open_device(self.model.device)?;
        let gpu = stream.gpu();
        let (free_bytes, _) = gpu.memory_bytes()?;
        let clock = Instant::now();
        prepare(&stream, checkpoint.config(), labels.len(), &settings)?;
        let kernels = clock.elapsed().as_secs_f64();
        if let Some(images) = shapes_of {
            let dims = Dims::new(checkpoint.config(), images, settings.views, labels.len());
            object["device"] = gpu.name()?.into();
            object["batch"] = images.into();
            object["shapes"] = shapes::time(&stream, &dims, &settings)?.into();
            return print(&if self.json { format!("{object}\n") } else { report::shapes(&object)? });
        }
        let clock = Instant::now();
        let text_features = session::label_features(&stream, &checkpoint, &labels, &self.adapt)?;
        let (adapt, batch) = (&self.adapt, self.batch);
        let at_most = match (batch, self.images) {
            (Batch::Auto, Some(images)) => images as usize,
            _ => usize::MAX,
        };
        let model = session::model_on(&stream, &checkpoint, &text_features, settings.precision)?;
        let mut memo = session::classifier_by(&stream, &model, adapt, batch, at_most)?;
        let start = Start { checkpoint: opened, kernels, model: clock.elapsed().as_secs_f64() };

        if !self.against.is_empty() {
            let config = checkpoint.config();
            ensure!(
                config.preprocess == Preprocess::clip(config.image_size),
                "--against: the other programs preprocess as OpenAI's CLIP, this model does not: {}",
                config.preprocess
            );
            let job = Job {
                model: &self.model.model,
                device: match gpu.driver().is_virtual() {
                    true => "cpu".to_string(),
                    false => format!("cuda:{}", gpu.ordinal()),
                },
                settings: &settings,
                batch: memo.batch(),
                config,
                text_features: &text_features,
                pictures: &pictures,
                images: CHECKED,
            };
            object["device"] = gpu.name()?.into();
            let limits =
                against::Limits { seconds: self.seconds, answer: Duration::from_secs_f64(self.answer_limit) };
            let rows = against::run(&stream, free_bytes, &mut memo, &job, &self.against, &limits)?;
            extend(&mut object, rows);
            print(&if self.json { format!("{object}\n") } else { report::against(&object)? })?;
            let failed = object["failed"].as_array().map_or(&[][..], Vec::as_slice);
            ensure!(failed.is_empty(), "--against: {}", against::failures(failed));
            return Ok(());
        }
        let mut batches = Batches::new(&stream, &mut memo, &pictures);
        let timed = self.time(&stream, &mut batches)?;
        let device_bytes = free_bytes.saturating_sub(gpu.memory_bytes()?.0);
        let items: Vec<Item> =
            (0..timed.batch).map(|i| Item { image: pictures.get(i), index: i as u64 }).collect();
        let (architecture, config) = (gpu.architecture(), checkpoint.config());
        let needs = rehearse_batch(gpu, architecture, config, &items, labels.len(), &settings)?;
        measured(&mut object, &stream, &timed, &start, &needs)?;
        object["peak_device_bytes"] = json!(device_bytes);
        object["stages"] = stages(batches.memo);
        let mut written = csv.map(|file| (file, csv_of(&timed))).into_iter().collect::<Vec<_>>();
        if let (Some(file), Some(path)) = (trace, &self.trace) {
            written.push((file, trace::record(&stream, &mut batches)?.to_string()));
            object["trace"] = path.display().to_string().into();
        }
        if let Some(earlier) = &earlier {
            let [ratio, least, most] = earlier.speed_of(&timed.samples);
            object["compared"] =
                json!({ "with": earlier.describe(), "ratio": ratio, "from": least, "to": most });
        }
        if self.roofline {
            drop(memo); // its memory is needed
            object["roofline"] = roofline::model(&one_batch(timed.batch))?.into();
        }
        let text = if self.json { format!("{object}\n") } else { report::text(&object)? };
        // What can be written is, whatever becomes of the rest.
        let written: Vec<Result<()>> =
            written.into_iter().map(|(file, text)| file.write(text.as_bytes())).collect();
        print(&text)?;
        written.into_iter().collect()
    }

    fn time(&self, stream: &Stream, batches: &mut Batches) -> Result<Timed> {
        if !self.no_warm_up {
            batches.warm_up()?;
        }
        if self.stages {
            batches.memo.keep_stage_times();
        }
        let batch = batches.memo.batch(); // fewer, where memory has run out
        let profiler = Profiler::start(stream)?;
        let (launched, recorded, clock) = (stream.launches(), stream.graphs(), Instant::now());
        let (seconds, latency) = batches.run(|done| match self.images {
            Some(images) => done >= (images as usize).div_ceil(batch),
            None => done >= LEAST && clock.elapsed().as_secs_f64() >= self.seconds,
        })?;
        drop(profiler);
        let count = seconds.len();
        // All batches have as many launches, but the first of all may not be a graph.
        let (launches, graphs) =
            ((stream.launches() - launched) / count, (stream.graphs() - recorded).div_ceil(count));
        let samples = |times| Samples::new(times).context("timing: no time has passed");
        let of_image = seconds.into_iter().map(|time| time / batch as f64).collect();
        Ok(Timed { samples: samples(of_image)?, latency: samples(latency)?, batch, launches, graphs })
    }

    /// What was asked for: what makes two runs comparable.
    fn asked(&self, classes: usize) -> Result<Value> {
        let settings = self.adapt.settings()?;
        let whole = |path: &Path| path.canonicalize().unwrap_or(path.to_path_buf());
        let pictures = match &self.data {
            Some(data) => whole(data).display().to_string(),
            None => format!("{:?}", self.pictures).to_lowercase(),
        };
        Ok(json!({
            "model": whole(&self.model.model).file_name().map(|name| name.to_string_lossy()),
            "activation": self.model.activation.map(|activation| format!("{activation:?}")),
            "pictures": pictures,
            "classes": classes,
            "views": self.adapt.views,
            "steps": self.adapt.steps,
            "lr": settings.learning_rates.iter().map(|&lr| decimal(lr)).collect::<Vec<f64>>(),
            "optimizer": decimals(&settings.optimizer)?,
            "update": settings.update,
            "precision": settings.precision,
            "loss_scale": decimals(&settings.loss_scale)?,
            "policy": settings.policy.to_string(),
            "seed": settings.seed,
            "prompt": self.adapt.fixed.prompts.fields()?["prompt"],
            "timed_by_stage": self.stages,
        }))
    }
}

/// What there is to say of a run beside [`Bench::asked`].
fn measured(
    object: &mut Value,
    stream: &Stream,
    timed: &Timed,
    start: &Start,
    needs: &Rehearsed,
) -> Result<()> {
    let (device, samples) = (stream.gpu().name()?, &timed.samples);
    let of_image = |work: u64| work as f64 / timed.batch as f64;
    let (flops, bytes) = (of_image(needs.flops()), of_image(needs.bytes()));
    let peak = PEAKS.iter().find(|(part, _)| device.contains(part)).map(|&(_, tflops)| tflops);
    let tflops = flops / samples.median() / 1e12;
    let all = json!({
        "device": device,
        "batch": timed.batch,
        "launches": timed.launches,
        "graphs": timed.graphs,
        "images": samples.seconds.len() * timed.batch,
        "images_per_s": samples.rates(),
        "median_s": samples.median(),
        "latency_s": { "median": timed.latency.median(), "quartiles": timed.latency.quartiles() },
        "samples_s": samples.seconds,
        "outliers": samples.outliers(),
        "start_s": { "checkpoint": start.checkpoint, "kernels": start.kernels, "model": start.model },
        "work": {
            "flops": flops, "bytes": bytes, "tflop_per_s": tflops,
            "gb_per_s": bytes / samples.median() / 1e9, "share_of_floor": peak.map(|peak| tflops / peak),
        },
        "peak_host_bytes": peak_host_bytes(),
    });
    extend(object, all);
    Ok(())
}

fn extend(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// Shares of the time that stages took together.
fn stages(memo: &Memo) -> Value {
    let times = memo.stage_times();
    let total: f64 = times.iter().map(|(_, time)| time.as_secs_f64()).sum();
    let share = |(name, time): &(&str, Duration)| {
        (name.to_string(), json!(time.as_secs_f64() / total.max(f64::MIN_POSITIVE)))
    };
    Value::Object(times.iter().map(share).collect())
}

/// The arguments that this process was given, but for those of its output and of what is timed: instead, one batch.
fn one_batch(images: usize) -> Vec<OsString> {
    let mut args = Vec::new();
    let mut given = std::env::args_os().skip(1);
    while let Some(arg) = given.next() {
        let text = arg.to_string_lossy();
        let (flag, has_value) = text.split_once('=').map_or((&*text, false), |(flag, _)| (flag, true));
        match flag {
            "--roofline" | "--json" | "--no-warm-up" | "--stages" => {}
            "--images" | "--seconds" | "--batch" | "--compare" | "--csv" | "--trace" | "--device" => {
                if !has_value {
                    given.next();
                }
            }
            _ => args.push(arg),
        }
    }
    let images = images.to_string();
    let more = ["--images", &images, "--batch", &images, "--device", "virtual", "--no-warm-up", "--json"];
    args.extend(more.map(OsString::from));
    args
}

/// A line for each batch.
fn csv_of(timed: &Timed) -> String {
    let mut text = "batch,images,seconds_per_image,latency_s\n".to_string();
    for (i, (seconds, latency)) in timed.samples.seconds.iter().zip(&timed.latency.seconds).enumerate() {
        text += &format!("{i},{},{seconds},{latency}\n", timed.batch);
    }
    text
}

fn seconds(text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        Ok(_) => bail!("it must be from 0 to 86400"),
        Err(error) => bail!(error),
    }
}

/// The most memory this process has held, as the kernel counts it.
fn peak_host_bytes() -> usize {
    // SAFETY: rusage is plain data, and getrusage fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage.ru_maxrss as usize * 1024
    }
}
