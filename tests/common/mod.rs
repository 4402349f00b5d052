//! The small models of `make_models.py`, and what float64 PyTorch computes with them: it, `make_steps.py` and
//! `make_predictors.py` have stored that.

#![allow(dead_code)] // each test takes what it needs

use std::collections::HashMap;
use std::process::{Command, Output};

use anyhow::Result;
use memo::check::fixtures;
use memo::clip::{Activation, Checkpoint, ClipConfig, LOGIT_SCALE, Naming};
use memo::data::Rgb8;
use memo::engine::{Batch, Memo, Precision, Settings, Update, Views, Vision};
use memo::gpu::Stream;
use memo::ops::patches::patchify;
use memo::ops::{Element, Optimizer};
use memo::policy::Policy;
use safetensors::{Dtype, SafeTensors};

/// One model and what is expected of it.
pub struct Case {
    pub checkpoint: Checkpoint,
    pub naming: Naming,
    /// Tensors by name: shape and values.
    pub expected: HashMap<String, (Vec<usize>, Vec<f32>)>,
    pub image: Rgb8,
}

impl Case {
    /// A model of the fixtures by its name.
    pub fn open(model: &str) -> Case {
        let folder = fixtures().join("models");
        let naming = if model.ends_with(".safetensors") { Naming::OpenAi } else { Naming::HuggingFace };
        let activation = (naming == Naming::OpenAi).then_some(Activation::QuickGelu);
        let checkpoint = Checkpoint::open(&folder.join(model), activation).unwrap();
        let name = model.trim_end_matches(".safetensors");
        let read = |what: &str| std::fs::read(folder.join(format!("{name}.{what}.safetensors"))).unwrap();
        let all = ["expected", "steps", "predictors"].map(read);
        let all = all.each_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        let file = &all[0];
        let expected = all
            .iter()
            .flat_map(SafeTensors::iter)
            .filter(|(_, tensor)| tensor.dtype() == Dtype::F32)
            .map(|(name, tensor)| {
                (name.to_string(), (tensor.shape().to_vec(), bytemuck::pod_collect_to_vec(tensor.data())))
            })
            .collect();
        let image = file.tensor("image").unwrap();
        let side = image.shape()[0] as u32;
        let image = Rgb8 { width: side, height: side, pixels: image.data().to_vec() };
        Case { checkpoint, naming, expected, image }
    }

    pub fn values(&self, name: &str) -> &[f32] {
        &self.expected.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    /// PyTorch's views of an image.
    pub fn views(&self) -> usize {
        self.expected["views"].0[0]
    }

    /// The first `n` of these.
    pub fn given(&self, stream: &Stream, n: usize) -> Result<Views> {
        let config = self.checkpoint.config();
        let patches = patchify(self.values("views"), config.image_size, config.patch_size);
        let (rows, len) = (n * (config.tokens() - 1), config.patch_pitch());
        Ok(Views::Given(stream.upload([rows, len], &patches[..rows * len])?))
    }

    /// As PyTorch did it, on so many views and steps.
    pub fn settings(&self, precision: Precision, update: Update, views: usize, steps: usize) -> Settings {
        Settings { steps, ..plain_step(precision, update, views, self.values("lr")) }
    }

    /// The same with another optimizer, and a rate at which its steps are as long as PyTorch's were.
    pub fn optimized(&self, settings: Settings, optimizer: Optimizer) -> Settings {
        let learning_rates = match optimizer {
            Optimizer::Sgd { .. } => settings.learning_rates,
            Optimizer::AdamW { .. } => vec![1e-5],
        };
        Settings { optimizer, learning_rates, ..settings }
    }

    fn vision(&self, logit_scale: f32) -> Result<(Vision, Vec<f32>)> {
        let config = self.checkpoint.config();
        let layout = config.vision_layout();
        let weights = self.checkpoint.vision_params(&layout)?;
        let config = ClipConfig { logit_scale, ..config.clone() };
        Ok((Vision { config, layout }, weights))
    }

    /// For up to `images` at once. PyTorch was given text features times 100.
    pub fn batch<E: Element>(&self, stream: &Stream, images: usize, settings: &Settings) -> Result<Batch<E>> {
        self.batch_at(stream, LOGIT_SCALE, images, settings)
    }

    /// The same at another scale.
    pub fn batch_at<E: Element>(
        &self,
        stream: &Stream,
        logit_scale: f32,
        images: usize,
        settings: &Settings,
    ) -> Result<Batch<E>> {
        let (vision, weights) = self.vision(logit_scale)?;
        Batch::new(stream, vision, &weights, self.values("text"), images, settings.clone())
    }

    /// The same, whatever the precision.
    pub fn memo(&self, stream: &Stream, images: usize, settings: &Settings) -> Result<Memo> {
        let (vision, weights) = self.vision(LOGIT_SCALE)?;
        Memo::new(stream, vision, &weights, self.values("text"), images, settings.clone())
    }
}

/// One plain step at each rate.
pub fn plain_step(precision: Precision, update: Update, views: usize, learning_rates: &[f32]) -> Settings {
    Settings {
        views,
        learning_rates: learning_rates.to_vec(),
        update,
        precision,
        loss_scale: precision.loss_scale(),
        ..Settings::one_step(Policy::notebook())
    }
}

const CHILD: &str = "MEMO_TEST_CHILD";

/// Whether this is a process that [`in_child`] has started.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs a test in a process of its own, for settings that the virtual device reads when it starts.
pub fn in_child(test: &str, settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VCUDA_")) {
        command.env_remove(name);
    }
    command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").envs(settings.iter().copied());
    command.output().expect("this program runs again")
}
