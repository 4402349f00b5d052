//! Flags that several commands share.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::Usage;
use crate::clip::Activation;
use crate::engine::{Settings, Update};
use crate::gpu::DeviceChoice;
use crate::policy::Policy;

/// The prompt whose features stand for a class; `{}` is the label.
pub const PROMPT: &str = "a photo of a {}";

/// Which model, on what.
#[derive(Args)]
pub struct ModelOptions {
    /// Hugging Face or open_clip folder, or a safetensors file in either naming
    #[arg(long, short, value_name = "PATH")]
    pub model: PathBuf,
    /// Activation of a bare safetensors file, which does not say its own
    #[arg(long, value_enum)]
    pub activation: Option<Activation>,
    #[command(flatten)]
    pub device: DeviceOptions,
}

#[derive(Args, Clone, Copy)]
pub struct DeviceOptions {
    /// auto, gpu, gpu:N or virtual (the CPU, through the virtual CUDA driver)
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
}

/// How to adapt: the same flags wherever MEMO runs.
#[derive(Args, Clone)]
pub struct AdaptOptions {
    /// Random views of each image
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000), allow_negative_numbers = true)]
    pub views: u32,
    /// Learning rate of the SGD step
    #[arg(long, default_value = "1e-5", value_name = "RATE", value_parser = learning_rate, allow_negative_numbers = true)]
    pub lr: f32,
    /// SGD steps an image, each on fresh views
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), allow_negative_numbers = true)]
    pub steps: u32,
    /// Seed of the views
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub seed: u64,
    /// How views are drawn: notebook or mild, with changes such as mild:rotation=10,scale=0.5..1
    #[arg(long, default_value = "notebook")]
    pub policy: Policy,
    /// Text for each class; {} is the label
    #[arg(long, default_value = PROMPT, value_parser = prompt)]
    pub prompt: String,
    /// Arithmetic of the matrix products
    #[arg(long, value_enum, default_value_t = Precision::Fp32)]
    pub precision: Precision,
    /// How the step is taken; by default implicit where it is one
    #[arg(long, value_enum)]
    pub update: Option<Update>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// float16 operands, float32 sums, on tensor cores
    Fp16,
    /// float32 throughout, as the notebook computes
    Fp32,
}

impl AdaptOptions {
    /// The engine's settings.
    ///
    /// # Errors
    /// [`Usage`] for a precision or an update that this version does not have.
    pub fn settings(&self) -> Result<Settings> {
        if self.precision != Precision::Fp32 {
            let why = "--precision fp16: this version computes in float32 only; leave it out or say fp32";
            return Err(Usage(why.to_string()).into());
        }
        let update = self.update();
        if update == Update::Implicit && self.steps > 1 {
            let why = format!(
                "--update implicit --steps {}: one step alone can be folded into the prediction; say in-place, or leave it out",
                self.steps
            );
            return Err(Usage(why).into());
        }
        Ok(Settings {
            views: self.views as usize,
            learning_rate: self.lr,
            steps: self.steps as usize,
            seed: self.seed,
            policy: self.policy.clone(),
            update,
        })
    }

    /// How the step is taken.
    pub fn update(&self) -> Update {
        self.update.unwrap_or(if self.steps == 1 { Update::Implicit } else { Update::InPlace })
    }
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
            (_, Ok(images @ 1..=65_536)) => Ok(Batch::Images(images)),
            _ => Err("expected auto or a number of images, 1 to 65536".to_string()),
        }
    }
}

fn learning_rate(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        Ok(_) => Err("it must be finite and not negative".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn prompt(text: &str) -> Result<String, String> {
    match text.matches("{}").count() {
        1 => Ok(text.to_string()),
        _ => Err("it must contain {} once, where the label goes".to_string()),
    }
}
