//! From flags to a classifier that is ready to adapt.

use anyhow::{Context, Result, ensure};

use super::options::{AdaptOptions, DeviceOptions, ModelOptions};
use crate::clip::{Checkpoint, END_OF_TEXT, Tokenizer, VisionTower, encode_text};
use crate::episode::{self, Memo};
use crate::gpu::{Gpu, Stream};
use crate::ops::augment::Augmenter;

/// A stream of the device, opened; says on stderr when that is not a GPU though nobody asked for the CPU.
pub fn open_device(options: DeviceOptions) -> Result<Stream> {
    let gpu = Gpu::open(options.device)?;
    if gpu.driver().is_virtual() && options.device == crate::gpu::DeviceChoice::Auto {
        eprintln!("note: no NVIDIA GPU here; running on the CPU through the virtual CUDA driver");
    }
    gpu.stream()
}

/// Opens a checkpoint and passes on what it had to assume.
pub fn open_checkpoint(options: &ModelOptions) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(&options.model, options.activation)?;
    for notice in checkpoint.notices() {
        eprintln!("note: {notice}");
    }
    Ok(checkpoint)
}

/// A classifier over `labels`, adapting as `adapt` says.
///
/// # Errors
/// Anything about the model, the device, or the labels.
pub fn classifier(
    stream: &Stream,
    checkpoint: &Checkpoint,
    labels: &[String],
    adapt: &AdaptOptions,
) -> Result<Memo> {
    let settings = adapt.settings()?;
    let config = checkpoint.config();
    let (gpu, vision) = (stream.gpu(), &config.vision);
    gpu.load(&episode::modules(gpu, vision.activation, vision.width)?)?;

    let layout = config.text_layout();
    let weights = checkpoint.text_params(&layout)?;
    let text = config.text()?;
    let tokenizer = Tokenizer::new();
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    for label in labels {
        let tokens = tokenizer.encode(&adapt.prompt.replace("{}", label));
        ends.push(tokens.iter().position(|&token| token == END_OF_TEXT).unwrap_or(0));
        ensure!(
            tokens.len() <= text.context_length,
            "encoding the label {label:?}: its prompt has {} tokens; the model takes {}",
            tokens.len(),
            text.context_length
        );
        let mut row = vec![0; text.context_length];
        for (slot, token) in row.iter_mut().zip(tokens) {
            ensure!(
                (token as usize) < text.vocab_size,
                "encoding the label {label:?}: token {token} is not in the model's vocabulary of {}",
                text.vocab_size
            );
            *slot = token as i32;
        }
        ids.push(row);
    }
    let text = encode_text(stream, config, &layout, &weights, &ids, &ends).context("encoding the labels")?;
    drop(weights);

    let layout = config.vision_layout();
    let weights = checkpoint.vision_params(&layout)?;
    let vision = VisionTower::new(stream, config, layout, &weights, settings.views + 1)
        .with_context(|| format!("making room for {} views; fewer (--views) need less", settings.views))?;
    let augmenter = Augmenter::new(stream, config.image_size, config.patch_size)?;
    Memo::new(stream, vision, augmenter, &text, settings)
}
