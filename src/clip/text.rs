//! CLIP's text tower on the device: prompts to unit features, once a run.

use anyhow::Result;

use super::config::{ClipConfig, TowerConfig};
use super::layout::TextLayout;
use super::tower::{Tower, halves};
use crate::gpu::{Stream, Tensor};
use crate::ops::head::{normalize_forward, rows_gather};
use crate::ops::layernorm::{Normed, layernorm_forward};
use crate::ops::linear::Linear;
use crate::ops::token_embed::token_embed_forward;

/// Prompts encoded at once: bounds the activations of a long list of labels.
const PROMPTS_AT_ONCE: usize = 64;

/// Unit text features `(K, D)` of `k` prompts.
///
/// * `weights`: the text tower's parameters in `layout`'s order.
/// * `ids`: `(K, 77)` token ids, zero-padded. `ends`: each prompt's end-of-text position.
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
) -> Result<Vec<f32>> {
    let params = stream.vector(weights)?;
    let t = ends.iter().max().map_or(0, |end| end + 1);
    let b = ids.len().min(PROMPTS_AT_ONCE);
    let tower = Tower::for_inference(stream, &config.text()?.tower, b, t, true)?;
    let mut features = Vec::with_capacity(ids.len() * config.embed_dim);
    for (ids, ends) in ids.chunks(PROMPTS_AT_ONCE).zip(ends.chunks(PROMPTS_AT_ONCE)) {
        let ids: Vec<i32> = ids.iter().flat_map(|row| &row[..t]).copied().collect();
        features.extend(encode_batch(stream, config, layout, &params, &tower, &ids, ends, t)?);
    }
    Ok(features)
}

#[allow(clippy::too_many_arguments)] // the tower's state, spelled out; one caller
fn encode_batch(
    stream: &Stream,
    config: &ClipConfig,
    layout: &TextLayout,
    params: &Tensor<f32>,
    tower: &Tower,
    ids: &[i32],
    ends: &[usize],
    t: usize,
) -> Result<Vec<f32>> {
    let TowerConfig { width: c, eps, .. } = config.text()?.tower;
    let (b, d) = (ends.len(), config.embed_dim);
    let w = |range: &std::ops::Range<usize>| params.slice(range.clone());
    let ends: Vec<i32> = ends.iter().map(|&end| end as i32).collect();
    let position = w(&layout.position_embedding).slice(0..t * c);
    let x = stream.alloc(b * t * c)?;
    token_embed_forward(stream, &x, &stream.vector(ids)?, &w(&layout.token_embedding), &position, (b, t, c))?;
    let last = tower.forward(stream, params, &layout.blocks, &x, b)?;
    let end = stream.alloc(b * c)?;
    rows_gather(stream, &end, &last, &stream.vector(&ends)?, (b, t, c))?;
    let normed = Normed::new(stream, b, c)?;
    let [weight, bias] = halves(&w(&layout.final_ln));
    layernorm_forward(stream, &normed, &end, [&weight, &bias], (b, c), eps)?;
    let (features, unit, norm) = (stream.alloc(b * d)?, stream.alloc(b * d)?, stream.alloc(b)?);
    let projection = w(&layout.projection).view([d, c]);
    Linear::nt(&normed.out.view([b, c]), &projection, &features.view([b, d])).run(stream)?;
    normalize_forward(stream, &unit, &norm, &features, (b, d))?;
    stream.read(&unit)
}
