//! The sizes of a CLIP model.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::ops::patches::patch_pitch;
use crate::ops::preprocess::Preprocess;

/// CLIP's logit scale at the end of its training, where it was clipped.
pub const LOGIT_SCALE: f32 = 100.0;

/// An MLP's activation. open_clip's plain models use GELU where OpenAI's use QuickGELU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`
    QuickGelu,
    /// `x · Φ(x)`
    Gelu,
}

impl Activation {
    /// As flags and Hugging Face's configs call it.
    pub fn name(self) -> &'static str {
        match self {
            Activation::QuickGelu => "quick_gelu",
            Activation::Gelu => "gelu",
        }
    }
}

/// One of the two transformers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TowerConfig {
    /// `C`
    pub width: usize,
    /// `L`
    pub layers: usize,
    /// `NH`
    pub heads: usize,
    /// Width of the MLP's hidden layer, `M`.
    pub mlp: usize,
    /// Of the layer norms.
    pub eps: f32,
    pub activation: Activation,
}

/// The causal transformer for text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextConfig {
    #[serde(flatten)]
    pub tower: TowerConfig,
    pub vocab_size: usize,
    /// Tokens of a prompt, at most.
    pub context_length: usize,
}

/// A CLIP model: a ViT for images, a causal transformer for text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClipConfig {
    pub vision: TowerConfig,
    /// `None` for a vision tower alone.
    pub text: Option<TextConfig>,
    /// Pixels of an image's side, a multiple of `patch_size`.
    pub image_size: usize,
    /// `P`
    pub patch_size: usize,
    /// Width of the features, `D`.
    pub embed_dim: usize,
    /// Of pictures. What it is and the logit scale are told of by themselves, not among the sizes.
    #[serde(skip)]
    pub preprocess: Preprocess,
    /// What similarities are multiplied by.
    #[serde(skip)]
    pub logit_scale: f32,
}

impl ClipConfig {
    /// The vision tower of OpenAI's smallest model, for those who ask about a machine and name none.
    pub fn vit_b_32() -> ClipConfig {
        let vision = TowerConfig {
            width: 768,
            layers: 12,
            heads: 12,
            mlp: 3072,
            eps: 1e-5,
            activation: Activation::QuickGelu,
        };
        ClipConfig {
            vision,
            text: None,
            image_size: 224,
            patch_size: 32,
            embed_dim: 512,
            preprocess: Preprocess::clip(224),
            logit_scale: LOGIT_SCALE,
        }
    }

    /// The vision tower of OpenAI's largest model, of 224 pixels.
    pub fn vit_l_14() -> ClipConfig {
        let base = ClipConfig::vit_b_32();
        let vision = TowerConfig { width: 1024, layers: 24, heads: 16, mlp: 4096, ..base.vision };
        ClipConfig { vision, patch_size: 14, embed_dim: 768, ..base }
    }

    /// `T`: the patches and the class token.
    pub fn tokens(&self) -> usize {
        let across = self.image_size / self.patch_size;
        across * across + 1
    }

    /// Values of a patch: `3 · P · P`.
    pub fn patch_len(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// From one patch to the next: see [`patch_pitch`].
    pub fn patch_pitch(&self) -> usize {
        patch_pitch(self.patch_size)
    }

    /// The text tower.
    ///
    /// # Errors
    /// There is none.
    pub fn text(&self) -> Result<&TextConfig> {
        self.text
            .as_ref()
            .context("it has no text tower, which encodes the labels: a model with both is needed")
    }

    /// Refuses sizes that do not fit together or that no model has.
    pub(super) fn check(&self) -> Result<()> {
        self.vision.check("vision")?;
        in_range("vision", "patch size", self.patch_size, 1, 1024)?;
        in_range("vision", "image size", self.image_size, self.patch_size, 4096)?;
        ensure!(
            self.image_size.is_multiple_of(self.patch_size),
            "image size {} is not a multiple of patch size {}",
            self.image_size,
            self.patch_size
        );
        in_range("projection", "width", self.embed_dim, 1, 16_384)?;
        if let Some(text) = &self.text {
            text.tower.check("text")?;
            in_range("text", "vocabulary", text.vocab_size, 1, 10_000_000)?;
            in_range("text", "context length", text.context_length, 3, 4096)?;
        }
        Ok(())
    }
}

impl TowerConfig {
    fn check(&self, name: &str) -> Result<()> {
        let TowerConfig { width, layers, heads, mlp, eps, .. } = *self;
        in_range(name, "width", width, 1, 16_384)?;
        in_range(name, "layers", layers, 1, 256)?;
        in_range(name, "heads", heads, 1, 1024)?;
        in_range(name, "MLP width", mlp, 1, 65_536)?;
        ensure!(width.is_multiple_of(heads), "{name} width {width} is not a multiple of its {heads} heads");
        ensure!((0.0..1.0).contains(&eps), "{name} layer norm epsilon is {eps}");
        Ok(())
    }
}

fn in_range(tower: &str, what: &str, value: usize, least: usize, most: usize) -> Result<()> {
    ensure!((least..=most).contains(&value), "{tower} {what} is {value}; it must be {least} to {most}");
    Ok(())
}
