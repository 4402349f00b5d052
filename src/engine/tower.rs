//! A model on a device: what classifiers by different settings share, since none of them writes to it.

use anyhow::Result;
use half::f16;

use super::fine::Loaded;
use super::needs::Needs;
use super::outcome::{Precision, Settings};
use super::vision::Vision;
use super::weights::Params;
use crate::gpu::{Stream, Tensor};
use crate::ops::Element;

/// A vision tower as products of one precision take it, and the labels' features. A clone shares the device's memory.
#[derive(Clone)]
pub struct Tower<E> {
    pub vision: Vision,
    pub params: Params<E>,
    pub loaded: Loaded<E>,
    pub text: Tensor<f32>, // (K, D): unit text features times the logit scale
}

impl<E: Element> Tower<E> {
    /// * `weights`: the vision tower's parameters in the layout's order.
    /// * `text_features`: `(K, D)`, of unit norm.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn load(stream: &Stream, vision: Vision, weights: &[f32], text_features: &[f32]) -> Result<Tower<E>> {
        let [k, d] = [text_features.len() / vision.config.embed_dim, vision.config.embed_dim];
        let scaled: Vec<f32> = text_features.iter().map(|v| v * vision.config.logit_scale).collect();
        let text = stream.upload([k, d], &scaled)?;
        let params = Params::new(stream, weights)?;
        let loaded = Loaded::new(stream, &params, weights, vision.layout.matrices())?;
        Ok(Tower { vision, params, loaded, text })
    }

    /// The same in float32, of the same weights.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn exact(&self, stream: &Stream) -> Result<Tower<f32>> {
        let params = Params::shared(stream, &self.params.flat)?;
        let loaded = Loaded::with(stream, &params, true)?;
        Ok(Tower { vision: self.vision.clone(), params, loaded, text: self.text.clone() })
    }
}

/// A tower of either precision.
#[derive(Clone)]
pub enum Model {
    Fp32(Tower<f32>),
    Fp16(Tower<f16>),
}

impl Model {
    /// See [`Tower::load`]; complete, for other streams too.
    ///
    /// # Errors
    /// Its own.
    pub fn load(
        stream: &Stream,
        vision: Vision,
        weights: &[f32],
        text_features: &[f32],
        precision: Precision,
    ) -> Result<Model> {
        let model = match precision {
            Precision::Fp32 => Model::Fp32(Tower::load(stream, vision, weights, text_features)?),
            Precision::Fp16 => Model::Fp16(Tower::load(stream, vision, weights, text_features)?),
        };
        stream.synchronize()?;
        Ok(model)
    }

    /// What a classifier by these settings takes, this model's own memory with it.
    ///
    /// # Errors
    /// Those of [`Needs::new`].
    pub fn needs<'a>(&'a self, settings: &'a Settings) -> Result<Needs<'a>> {
        let (vision, is_exact, text) = match self {
            Model::Fp32(Tower { vision, loaded, text, .. }) => (vision, loaded.is_exact(), text),
            Model::Fp16(Tower { vision, loaded, text, .. }) => (vision, loaded.is_exact(), text),
        };
        Needs::of(vision, is_exact, text.shape()[0], settings)
    }
}
