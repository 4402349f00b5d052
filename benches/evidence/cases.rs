//! What is looked at: models, ways of the step, batches, architectures.

use anyhow::Result;
use memo::check::random;
use memo::clip::ClipConfig;
use memo::data::Rgb8;
use memo::engine::{Item, Settings, Update, rehearse_batch};
use memo::gpu::{Gpu, Launched};
use memo::policy::Policy;
use vcuda::exec::profile::{self, gpu};

pub const CLASSES: usize = 100;
pub const VIEWS: usize = 50;

pub struct Model {
    pub name: &'static str,
    pub config: fn() -> ClipConfig,
}

pub const MODELS: [Model; 2] = [
    Model { name: "ViT-B/32", config: ClipConfig::vit_b_32 },
    Model { name: "ViT-L/14", config: ClipConfig::vit_l_14 },
];

pub const UPDATES: [(&str, Update); 2] = [("implicit", Update::Implicit), ("in place", Update::InPlace)];

/// Images at once.
pub const BATCHES: [usize; 2] = [1, 9];

/// What kernels are compiled for.
pub struct Architecture {
    /// Such as `90a`.
    pub name: &'static str,
    /// A GPU of it.
    pub gpu: profile::Gpu,
    /// As which the virtual device plays when launches are counted: its own, or that whose kernels are the same but for how many
    /// stages a product keeps.
    pub counted_as: &'static str,
}

pub const ARCHITECTURES: [Architecture; 4] = [
    Architecture { name: "80", gpu: gpu::A100, counted_as: "80" },
    Architecture { name: "90a", gpu: gpu::H100, counted_as: "90a" },
    Architecture { name: "100", gpu: gpu::B200, counted_as: "80" },
    Architecture { name: "120", gpu: gpu::RTX5090, counted_as: "80" },
];

/// A batch of one of the models.
#[derive(Clone, Copy)]
pub struct Case {
    pub model: &'static Model,
    pub way: &'static str,
    pub update: Update,
    pub images: usize,
    pub views: usize,
}

impl Case {
    pub fn all() -> Vec<Case> {
        let mut all = Vec::new();
        for model in &MODELS {
            for images in BATCHES {
                all.extend(UPDATES.map(|(way, update)| Case { model, way, update, images, views: VIEWS }));
            }
        }
        all
    }

    /// What is run to count this one: itself, or a smaller batch where this one would take hours.
    pub fn counted_by(&self, architecture: &str) -> Case {
        match (self.model.name, architecture, self.update) {
            ("ViT-B/32", "90a", Update::Implicit) => *self,
            ("ViT-B/32", ..) => Case { images: 1, ..*self },
            _ => Case { images: 1, views: 10, ..*self },
        }
    }

    /// Such as `ViT-B/32, implicit, S = 9`.
    pub fn name(&self) -> String {
        format!("{}, {}, S = {}", self.model.name, self.way, self.images)
    }

    pub fn settings(&self) -> Settings {
        Settings { views: self.views, update: self.update, ..Settings::one_step(Policy::notebook()) }
    }

    /// The model with so many blocks.
    pub fn config(&self, layers: usize) -> ClipConfig {
        let mut config = (self.model.config)();
        config.vision.layers = layers;
        config
    }

    /// The launches of a batch, of the model with so many blocks, on a device of this architecture.
    ///
    /// # Errors
    /// Those of going through it.
    pub fn launches(&self, gpu: &Gpu, architecture: &str, layers: usize) -> Result<Vec<Launched>> {
        self.launches_by(Policy::notebook(), gpu, architecture, layers)
    }

    /// The same with views of another policy.
    ///
    /// # Errors
    /// As there.
    pub fn launches_by(
        &self,
        policy: Policy,
        gpu: &Gpu,
        architecture: &str,
        layers: usize,
    ) -> Result<Vec<Launched>> {
        let pictures = self.pictures();
        let settings = Settings { policy, ..self.settings() };
        let (items, config) = (items(&pictures), self.config(layers));
        Ok(rehearse_batch(gpu, architecture, &config, &items, CLASSES, &settings)?.launches)
    }

    /// Of CIFAR's size, one for each image of the batch.
    pub fn pictures(&self) -> Vec<Rgb8> {
        let pixels =
            |seed: usize| random(3 * 32 * 32, 128.0, seed as u64).iter().map(|x| (x + 128.0) as u8).collect();
        (0..self.images).map(|seed| Rgb8 { width: 32, height: 32, pixels: pixels(seed) }).collect()
    }
}

/// One for each picture.
pub fn items(pictures: &[Rgb8]) -> Vec<Item<'_>> {
    pictures.iter().zip(0..).map(|(image, index)| Item { image, index }).collect()
}
