//! Flags that several commands share.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::Usage;
use super::predictors::PredictorOptions;
use super::prompts::PromptOptions;
use crate::clip::Activation;
use crate::data::corruptions::SEVERITIES;
use crate::data::{Cifar, DataSource, Dataset, labels, names};
use crate::engine::{Precision, Settings, Update};
use crate::gpu::DeviceChoice;
use crate::ops::Optimizer;
use crate::ops::pillow::Pillow;
use crate::policy::Policy;

/// Which model, on what.
#[derive(Args)]
pub struct ModelOptions {
    /// The CLIP model: a Hugging Face or open_clip folder, or a safetensors file in either naming
    #[arg(long, short, value_name = "PATH")]
    pub model: PathBuf,
    /// The activation, for a safetensors file without a config, which does not say its own
    #[arg(long, value_enum)]
    pub activation: Option<Activation>,
    /// What similarities are multiplied by, instead of the checkpoint's own exp(logit_scale), at most 100
    #[arg(long, value_name = "X", value_parser = positive, allow_negative_numbers = true)]
    pub logit_scale: Option<f32>,
    #[command(flatten, next_help_heading = "Device")]
    pub device: DeviceOptions,
}

/// Which part of --data.
#[derive(Args, Clone)]
pub struct DataOptions {
    /// The folder inside --data to take, or the split of its files, such as val; `.` takes --data itself, whatever its folders look like
    #[arg(long, value_name = "FOLDER", requires = "data")]
    split: Option<String>,
    /// Which CIFAR, where --data holds both
    #[arg(long, value_enum, requires = "data")]
    dataset: Option<Cifar>,
    /// Also take images of these extensions, such as gif,pnm, which torchvision's ImageFolder leaves out
    #[arg(long, value_name = "EXT", value_delimiter = ',', requires = "data", value_parser = extension)]
    extensions: Vec<String>,
    /// Of CIFAR-10-C, ImageNet-C and their like, the corruptions to take, such as fog,snow, or all
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "data")]
    corruptions: Vec<String>,
    /// And their severities: 1 to 5, such as 3,5, or all
    #[arg(long, value_name = "1..5", value_delimiter = ',', requires = "data", value_parser = severity, allow_negative_numbers = true)]
    severity: Vec<Severity>,
}

/// `--severity`
#[derive(Clone, Copy)]
enum Severity {
    All,
    One(usize),
}

fn severity(text: &str) -> Result<Severity, String> {
    match (text, text.parse()) {
        ("all", _) => Ok(Severity::All),
        (_, Ok(one @ 1..=SEVERITIES)) => Ok(Severity::One(one)),
        _ => Err("expected 1 to 5, several with commas between them, or all".to_string()),
    }
}

fn extension(text: &str) -> Result<String, String> {
    let plain = text.strip_prefix('.').unwrap_or(text);
    match !plain.is_empty() && plain.chars().all(char::is_alphanumeric) {
        true => Ok(plain.to_string()),
        false => Err("the end of a name is expected, such as gif".to_string()),
    }
}

impl DataOptions {
    /// What is asked for of what lies at `path`.
    pub fn source(&self, path: &Path) -> DataSource {
        let DataOptions { split, dataset, extensions, corruptions, severity } = self.clone();
        let severities = severity.into_iter().flat_map(|severity| match severity {
            Severity::All => 1..=SEVERITIES,
            Severity::One(one) => one..=one,
        });
        let (path, severities) = (path.to_path_buf(), severities.collect());
        DataSource { path, split, cifar: dataset, extensions, corruptions, severities }
    }

    /// Opens the dataset at `path`, see [`opened`].
    ///
    /// # Errors
    /// Its own.
    pub fn open(&self, path: &Path) -> Result<Dataset> {
        opened(&self.source(path))
    }
}

/// Opens a dataset and passes on what was left out or chosen.
///
/// # Errors
/// The dataset's.
pub fn opened(source: &DataSource) -> Result<Dataset> {
    let dataset = Dataset::open(source)?;
    for notice in dataset.notices() {
        crate::notice!("note: {notice}");
    }
    Ok(dataset)
}

/// Names for the classes of a dataset.
#[derive(Args, Clone)]
pub struct LabelOptions {
    /// Class names instead of the dataset's own: one a line or a JSON list; or with their folders, as JSON {"FOLDER": "NAME"} or CSV
    #[arg(long, value_name = "FILE", requires = "data")]
    labels: Option<PathBuf>,
    /// The name of one class, by its folder; may be repeated
    #[arg(long, value_name = "FOLDER=NAME", requires = "data", value_parser = folder_and_name)]
    labels_for: Vec<(String, String)>,
}

impl LabelOptions {
    /// The names of a dataset's classes, in their order; says on stderr which are the first ones'.
    ///
    /// # Errors
    /// Names that do not belong to its classes.
    pub fn names(&self, dataset: &Dataset, data: &Path) -> Result<Vec<String>> {
        let labels = self.labels.as_deref().map(labels::read).transpose()?;
        let place = self.labels.as_deref().unwrap_or(data).display();
        let named = names::find(dataset, labels.as_ref(), &self.labels_for)
            .with_context(|| format!("naming the classes by {place}"))?;
        crate::notice!("note: {}", named.header(dataset));
        Ok(named.names)
    }
}

fn folder_and_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((folder, name)) if !folder.is_empty() && !name.trim().is_empty() => {
            Ok((folder.to_string(), name.trim().to_string()))
        }
        _ => Err("expected FOLDER=NAME".to_string()),
    }
}

#[derive(Args, Clone, Copy)]
pub struct DeviceOptions {
    /// auto (a GPU if there is one), gpu, gpu:N, or virtual (the CPU, through the virtual CUDA driver)
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// How to adapt: the same flags wherever MEMO runs.
#[derive(Args, Clone)]
pub struct AdaptOptions {
    /// Random views of each image
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_VIEWS), allow_negative_numbers = true)]
    pub views: u32,
    /// Learning rate; several, such as 1e-5,1e-4, are compared in one run, each from the loaded weights
    #[arg(long, default_value = "1e-5", value_name = "RATE", value_delimiter = ',', value_parser = not_negative, allow_hyphen_values = true)]
    pub lr: Vec<f32>,
    /// Steps for each image, each on fresh views
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_STEPS), allow_negative_numbers = true)]
    pub steps: u32,
    /// How views are drawn: notebook, mild, tpt, augmix, augmix-cifar, randaugment or none, with changes such as
    /// mild:rotation=10,scale=0.5..1
    #[arg(long, default_value = "notebook")]
    pub policy: Policy,
    #[command(flatten)]
    pub fixed: FixedOptions,
}

/// Of how to adapt, what a sweep does not vary.
#[derive(Args, Clone)]
pub struct FixedOptions {
    /// The optimizer, as torch.optim defines it
    #[arg(long, value_enum, default_value_t = Rule::Sgd)]
    pub optimizer: Rule,
    /// Momentum of sgd, from each step to the next; by default 0
    #[arg(long, value_name = "FACTOR", value_parser = momentum, allow_negative_numbers = true)]
    pub momentum: Option<f32>,
    /// Weight decay of all parameters; by default 0 with sgd, 0.01 with adamw
    #[arg(long, value_name = "FACTOR", value_parser = not_negative, allow_negative_numbers = true)]
    pub weight_decay: Option<f32>,
    /// Seed of the views
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// The Pillow release whose resizing is reproduced to the bit
    #[arg(long, value_enum, default_value_t)]
    pub pillow: Pillow,
    #[command(flatten)]
    pub prompts: PromptOptions,
    /// Arithmetic of the matrix products
    #[arg(long, value_enum, default_value_t = Precision::Fp16)]
    pub precision: Precision,
    /// Power of two that gradients are scaled by on their way; by default 4096 in fp16, 1 in fp32
    #[arg(long, value_name = "SCALE", value_parser = power_of_two, allow_negative_numbers = true)]
    pub loss_scale: Option<f32>,
    /// How the step is taken; by default implicit for one sgd step without weight decay, else in-place
    #[arg(long, value_enum)]
    pub update: Option<Update>,
    /// Flags of their own, where a command has them.
    #[arg(skip)]
    pub predictors: PredictorOptions,
}

/// Of an image.
pub const MOST_VIEWS: i64 = 1_000_000;
pub const MOST_STEPS: i64 = 1000;

impl AdaptOptions {
    /// One plain step on mild views; all else as the flags have it by default.
    pub fn mild(views: u32, lr: f32) -> AdaptOptions {
        let fixed = FixedOptions {
            optimizer: Rule::Sgd,
            momentum: None,
            weight_decay: None,
            seed: 0,
            pillow: Pillow::default(),
            prompts: PromptOptions::default(),
            precision: Precision::Fp16,
            update: None,
            loss_scale: None,
            predictors: PredictorOptions::default(),
        };
        AdaptOptions { views, lr: vec![lr], steps: 1, policy: Policy::mild(), fixed }
    }

    /// The engine's settings.
    ///
    /// # Errors
    /// [`Usage`] for flags that do not go together.
    pub fn settings(&self) -> Result<Settings> {
        let fixed = &self.fixed;
        let mut settings = Settings {
            views: self.views as usize,
            learning_rates: self.lr.clone(),
            steps: self.steps as usize,
            optimizer: fixed.optimizer()?,
            seed: fixed.seed,
            policy: self.policy.clone(),
            pillow: fixed.pillow,
            update: Update::InPlace,
            precision: fixed.precision,
            loss_scale: fixed.loss_scale.unwrap_or(fixed.precision.loss_scale()),
            confident: fixed.predictors.confident,
            losses: fixed.predictors.losses(),
            guards: fixed.predictors.guards(),
        };
        let implicit = settings.is_one_plain_step();
        settings.update = fixed.update.unwrap_or(if implicit { Update::Implicit } else { Update::InPlace });
        if settings.update == Update::Implicit && !implicit {
            let other = match settings.optimizer {
                _ if self.steps > 1 => format!("--steps {}", self.steps),
                Optimizer::Sgd { weight_decay, .. } => format!("--weight-decay {weight_decay}"),
                Optimizer::AdamW { .. } => "--optimizer adamw".to_string(),
            };
            let why = "one step of sgd without weight decay can be folded into the prediction, and no other";
            return Err(
                Usage(format!("--update implicit {other}: {why}; say in-place, or leave it out")).into()
            );
        }
        if let Some(at) = (1..self.lr.len()).find(|&at| self.lr[..at].contains(&self.lr[at])) {
            return Err(Usage(format!("--lr: {:e} is there twice", self.lr[at])).into());
        }
        if self.lr.len() > 1 && self.steps > 1 {
            let why = format!(
                "--lr with {} rates and --steps {}: several rates share the views of one step; give one, or one step",
                self.lr.len(),
                self.steps
            );
            return Err(Usage(why).into());
        }
        Ok(settings)
    }
}

impl FixedOptions {
    fn optimizer(&self) -> Result<Optimizer> {
        match (self.optimizer, self.momentum, self.weight_decay) {
            (Rule::Sgd, momentum, weight_decay) => Ok(Optimizer::Sgd {
                momentum: momentum.unwrap_or(0.0),
                weight_decay: weight_decay.unwrap_or(0.0),
            }),
            (Rule::Adamw, None, weight_decay) => {
                Ok(Optimizer::AdamW { weight_decay: weight_decay.unwrap_or(0.01) })
            }
            (Rule::Adamw, Some(momentum), _) => {
                let why = "adamw has no momentum to choose; leave it out, or say --optimizer sgd";
                Err(Usage(format!("--momentum {momentum} --optimizer adamw: {why}")).into())
            }
        }
    }
}

/// `--optimizer`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Rule {
    /// Stochastic gradient descent
    Sgd,
    /// Adam with decoupled weight decay, its betas 0.9 and 0.999
    Adamw,
}

/// `--batch`: images at once.
#[derive(Clone, Copy, Debug)]
pub enum Batch {
    Auto,
    Images(usize),
}

impl FromStr for Batch {
    type Err = String;

    fn from_str(text: &str) -> Result<Batch, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Batch::Auto),
            (_, Ok(images @ 1..=65_535)) => Ok(Batch::Images(images)),
            _ => Err("expected auto or a number of images, 1 to 65535".to_string()),
        }
    }
}

fn momentum(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(momentum) if (0.0..1.0).contains(&momentum) => Ok(momentum),
        Ok(_) => Err("it must be at least 0 and below 1".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

pub fn not_negative(text: &str) -> Result<f32, String> {
    match (text.parse::<f32>(), text.parse::<f64>()) {
        (Ok(0.0), Ok(wide)) if wide != 0.0 => {
            Err(format!("float32 has no number of that size but 0; its smallest is {:e}", f32::from_bits(1)))
        }
        (Ok(f32::INFINITY), Ok(wide)) if wide.is_finite() => {
            Err(format!("float32's largest number is {:e}", f32::MAX))
        }
        (Ok(factor), _) if factor.is_finite() && factor >= 0.0 => Ok(factor),
        (Ok(_), _) => Err("it must be finite and not negative".to_string()),
        (Err(error), _) => Err(error.to_string()),
    }
}

fn positive(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(scale) if scale.is_normal() && scale > 0.0 => Ok(scale),
        Ok(_) => Err("it must be finite and above 0".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// From 2⁻²⁰ to 2²⁰, so that neither it nor the rate over it leaves float32.
fn power_of_two(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(scale) if scale > 0.0 && scale.log2().fract() == 0.0 && scale.log2().abs() <= 20.0 => Ok(scale),
        Ok(_) => Err("it must be a power of two, from 2^-20 to 2^20 = 1048576".to_string()),
        Err(error) => Err(error.to_string()),
    }
}
