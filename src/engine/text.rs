//! CLIP's text tower on the device: prompts to unit features, once a run, as exact as float32.

use std::ops::Range;

use anyhow::Result;
use half::f16;

use super::acts::BlockActs;
use super::block::Block;
use super::fine::{Fine, FineRoom, Loaded, Source};
use super::outcome::Precision;
use super::weights::{Params, Weights};
use crate::clip::{ClipConfig, TextLayout, TowerConfig};
use crate::gpu::{Plan, Stream, Tensor};
use crate::ops::feature::{normalize_forward, token_gather};
use crate::ops::norm::norm_forward;
use crate::ops::token_embed::token_embed_forward;
use crate::ops::{Element, Rows};

/// Prompts encoded at once: bounds the activations of a long list of labels.
const PROMPTS_AT_ONCE: usize = 64;

/// The tower's tensors, for B prompts of T tokens.
struct Text {
    ids: Tensor<i32>,        // (B, T)
    ends: Tensor<i32>,       // (B,)
    x: Tensor<f32>,          // (B·T, C)
    block: BlockActs<f32>,   // of all blocks, one after another
    end: Tensor<f32>,        // (B, C)
    normed: Tensor<f32>,     // (B, C)
    stats: [Tensor<f32>; 2], // (B,)
    features: Tensor<f32>,   // (B, D)
    norm: Tensor<f32>,       // (B,)
    unit: Tensor<f32>,       // (B, D)
}

impl Text {
    fn plan(plan: &mut Plan, [b, t]: [usize; 2], tower: &TowerConfig, d: usize) -> Result<Text> {
        let &TowerConfig { width: c, mlp: m, heads: nh, .. } = tower;
        Ok(Text {
            ids: plan.tensor("ids", [b, t])?,
            ends: plan.tensor("ends", b)?,
            x: plan.tensor("x", [b * t, c])?,
            block: BlockActs::plan(plan, [b, t, t], [c, m, nh], false)?,
            end: plan.tensor("end", [b, c])?,
            normed: plan.tensor("normed", [b, c])?,
            stats: [plan.tensor("mean", b)?, plan.tensor("rstd", b)?],
            features: plan.tensor("features", [b, d])?,
            norm: plan.tensor("norm", b)?,
            unit: plan.tensor("unit", [b, d])?,
        })
    }
}

/// Unit text features `(K, D)` of `k` prompts.
///
/// * `weights`: the text tower's parameters in `layout`'s order.
/// * `ids`: `(K, 77)` token ids, zero-padded. `ends`: each prompt's end-of-text position.
/// * `precision`: what products take.
///
/// The mask is causal, so tokens behind the last end of text change nothing and are not computed.
///
/// # Errors
/// A model without a text tower; out of device memory; a kernel's own.
pub fn encode_text(
    stream: &Stream,
    config: &ClipConfig,
    layout: &TextLayout,
    weights: &[f32],
    ids: &[Vec<i32>],
    ends: &[usize],
    precision: Precision,
) -> Result<Vec<f32>> {
    match precision {
        Precision::Fp16 => encode_all::<f16>(stream, config, layout, weights, ids, ends),
        Precision::Fp32 => encode_all::<f32>(stream, config, layout, weights, ids, ends),
    }
}

fn encode_all<E: Element>(
    stream: &Stream,
    config: &ClipConfig,
    layout: &TextLayout,
    weights: &[f32],
    ids: &[Vec<i32>],
    ends: &[usize],
) -> Result<Vec<f32>> {
    let params = Params::<E>::new(stream, weights)?;
    let loaded = Loaded::new(stream, &params, weights, layout.matrices())?;
    let tower = &config.text()?.tower;
    let t = ends.iter().max().map_or(0, |end| end + 1);
    let mut features = Vec::with_capacity(ids.len() * config.embed_dim);
    for (ids, ends) in ids.chunks(PROMPTS_AT_ONCE).zip(ends.chunks(PROMPTS_AT_ONCE)) {
        let shape = [ids.len(), t];
        let text = stream.arena(|plan| Text::plan(plan, shape, tower, config.embed_dim))?;
        let ids: Vec<i32> = ids.iter().flat_map(|row| &row[..t]).copied().collect();
        let ends: Vec<i32> = ends.iter().map(|&end| end as i32).collect();
        stream.write(&text.ids, &ids)?;
        stream.write(&text.ends, &ends)?;
        encode(stream, tower, layout, &loaded, &text)?;
        features.extend(stream.read(&text.unit)?);
    }
    Ok(features)
}

fn encode<E: Element>(
    stream: &Stream,
    tower: &TowerConfig,
    layout: &TextLayout,
    loaded: &Loaded<E>,
    text: &Text,
) -> Result<()> {
    let &TowerConfig { width: c, eps, .. } = tower;
    let &[b, t] = text.ids.shape() else { unreachable!("ids have two dimensions") };
    let weights = &Fine { source: Source::Loaded(loaded), room: &FineRoom::NONE };
    let flat = |range: &Range<usize>| loaded.flat.slice(range.clone());
    let position = flat(&layout.position_embedding).slice(0..t * c);
    let tokens = flat(&layout.token_embedding);
    token_embed_forward(stream, &text.x, &text.ids, &tokens, &position, (b, t, c))?;
    let mut x = &text.x;
    for at in &layout.blocks {
        let block = Block { config: tower, at, causal: true };
        // From the second block on the output takes the place of the input, which nothing reads that late.
        block.forward(stream, weights, &text.block, x)?;
        x = &text.block.out;
    }
    token_gather(stream, &text.end, &x.view([b, t, c]), Some(&text.ends))?;
    let [mean, rstd] = &text.stats;
    let norm = weights.vector(&layout.final_ln).halves();
    norm_forward(stream, Rows::new(&text.normed, E::TERMS > 1), [mean, rstd], &text.end, &norm, eps)?;
    weights.project(stream, &layout.projection, &text.normed, &text.features)?;
    normalize_forward(stream, &text.unit, &text.norm, &text.features)
}
