//! The sizes of a model from its tensors' shapes, for a file that has no config.

use anyhow::{Context, Result, ensure};

use super::config::{Activation, ClipConfig, LOGIT_SCALE, TextConfig, TowerConfig};
use super::names::{Naming, block_of};
use super::weights::Weights;
use crate::ops::preprocess::Preprocess;

/// Widths beyond OpenAI's models: open_clip's there have heads of 80, 88 or 104.
const WIDEST: usize = 1024;

/// Sizes read from shapes; QuickGELU, heads of 64 and the preprocess as in all of OpenAI's models.
///
/// # Errors
/// A missing tensor or one of another rank, sizes that no model can have, heads that cannot be known.
pub fn config(weights: &Weights, naming: Naming) -> Result<ClipConfig> {
    let names = naming.vision();
    let [width, _, _, patch_size] = shape(weights, names.patch)?;
    let [tokens, _] = shape(weights, names.position)?;
    let across = tokens.saturating_sub(1).isqrt();
    ensure!(
        across * across + 1 == tokens,
        "{} has {tokens} rows, not a square of patches and one",
        names.position
    );
    let [rows, columns] = shape(weights, names.projection)?;
    let image_size = across.checked_mul(patch_size).context("its patches are too large")?;
    let config = ClipConfig {
        vision: tower(weights, naming, "vision", names.blocks, width)?,
        text: match weights.names().any(|name| naming.is_text(name)) {
            true => Some(text(weights, naming)?),
            false => None,
        },
        image_size,
        patch_size,
        embed_dim: if naming == Naming::HuggingFace { rows } else { columns },
        preprocess: Preprocess::clip(image_size),
        logit_scale: LOGIT_SCALE,
    };
    config.check()?;
    Ok(config)
}

fn text(weights: &Weights, naming: Naming) -> Result<TextConfig> {
    let names = naming.text();
    let [vocab_size, width] = shape(weights, names.token)?;
    let [context_length, _] = shape(weights, names.position)?;
    Ok(TextConfig { tower: tower(weights, naming, "text", names.blocks, width)?, vocab_size, context_length })
}

fn tower(weights: &Weights, naming: Naming, kind: &str, blocks: &str, width: usize) -> Result<TowerConfig> {
    ensure!(
        width.is_multiple_of(64) && width <= WIDEST,
        "its {kind} width is {width}, and the number of heads cannot be read from tensors (they are 64 wide in \
         OpenAI's models, up to width {WIDEST}): put the model's config.json or open_clip_config.json beside it"
    );
    let [mlp, _] = shape(weights, &format!("{blocks}.0.{}.weight", naming.fc1()))?;
    let last = weights.names().filter_map(|name| block_of(name, blocks)).max();
    Ok(TowerConfig {
        width,
        layers: last.map_or(0, |last| last.saturating_add(1)),
        heads: width / 64,
        mlp,
        eps: 1e-5,
        activation: Activation::QuickGelu,
    })
}

/// A tensor's shape without further ones in front.
fn shape<const RANK: usize>(weights: &Weights, name: &str) -> Result<[usize; RANK]> {
    let tensor = weights.tensor(name).with_context(|| format!("{name} is missing"))?;
    let shape = tensor.shape_of_rank(RANK);
    let expected = || format!("{name} has shape {:?}; {RANK} dimensions are expected", tensor.shape);
    <[usize; RANK]>::try_from(shape).ok().with_context(expected)
}
