//! From flags to a classifier that is ready to adapt.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use super::Usage;
use super::options::{AdaptOptions, Batch, DeviceOptions, ModelOptions};
use crate::clip::prompts::averages;
use crate::clip::{Checkpoint, END_OF_TEXT};
use crate::engine::{Memo, Model, Precision, TextCache, Vision, WORTH_KEEPING, encode_text, prepare};
use crate::gpu::{DeviceChoice, Gpu, Stream};

/// A stream of the device, opened; says on stderr when that is not a GPU though nobody asked for the CPU.
pub fn open_device(options: DeviceOptions) -> Result<Stream> {
    let mut streams = open_devices(options)?;
    match streams.len() {
        1 => Ok(streams.remove(0)),
        count => {
            Err(Usage(format!("--device: {count} devices at once are for `memo eval` alone; name one"))
                .into())
        }
    }
}

/// A stream of each device that is asked for.
pub fn open_devices(options: DeviceOptions) -> Result<Vec<Stream>> {
    let gpus = Gpu::open_all(options.device)?;
    if options.device == DeviceChoice::Auto && gpus.iter().any(|gpu| gpu.driver().is_virtual()) {
        crate::notice!("note: no NVIDIA GPU here; running on the CPU through the virtual CUDA driver");
    }
    gpus.iter().map(Gpu::stream).collect()
}

/// Opens a checkpoint and passes on what it had to assume.
pub fn open_checkpoint(options: &ModelOptions) -> Result<Checkpoint> {
    let mut checkpoint = Checkpoint::open(&options.model, options.activation)?;
    for notice in checkpoint.notices() {
        crate::notice!("note: {notice}");
    }
    if let Some(scale) = options.logit_scale {
        checkpoint.set_logit_scale(scale);
    }
    Ok(checkpoint)
}

/// A classifier over `labels`, adapting as `adapt` says, to up to `images` at once.
///
/// # Errors
/// Anything about the model, the device, or the labels.
pub fn classifier(
    stream: &Stream,
    checkpoint: &Checkpoint,
    labels: &[String],
    adapt: &AdaptOptions,
    batch: Batch,
    images: usize,
) -> Result<Memo> {
    prepare(stream, checkpoint.config(), labels.len(), &adapt.settings()?)?;
    let text_features = label_features(stream, checkpoint, labels, adapt)?;
    let model = model_on(stream, checkpoint, &text_features, adapt.fixed.precision)?;
    classifier_by(stream, &model, adapt, batch, images)
}

/// Unit text features of the labels in their prompts, `(K, D)`, on a device that is prepared.
///
/// # Errors
/// Prompts that cannot be read; one that is too long or that the model has no token for; the device's own.
pub fn label_features(
    stream: &Stream,
    checkpoint: &Checkpoint,
    labels: &[String],
    adapt: &AdaptOptions,
) -> Result<Vec<f32>> {
    checkpoint.check_complete()?;
    let config = checkpoint.config();
    let layout = config.text_layout();
    let weights = checkpoint.text_params(&layout)?;
    let text = config.text()?;
    let tokenizer = checkpoint.tokenizer()?;
    let texts = adapt.fixed.prompts.read()?.texts(labels)?;
    let (mut ids, mut ends) = (Vec::new(), Vec::new());
    for (label, prompt) in
        labels.iter().zip(&texts).flat_map(|(label, all)| all.iter().map(move |p| (label, p)))
    {
        let tokens = tokenizer
            .encode_within(prompt, text.context_length, adapt.fixed.prompts.truncate)
            .with_context(|| format!("encoding the label {label:?}"))?;
        ends.push(tokens.iter().position(|&token| token == END_OF_TEXT).unwrap_or(0));
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
    let encode = || {
        encode_text(stream, config, &layout, &weights, &ids, &ends, adapt.fixed.precision)
            .context("encoding the labels")
    };
    let features = if ids.len() < WORTH_KEEPING {
        encode()?
    } else {
        let cache = TextCache::of(stream, config, &layout, &weights, (&ids, &ends), adapt.fixed.precision)?;
        match cache.read() {
            Some(kept) => kept,
            None => {
                let features = encode()?;
                cache.write(&features);
                features
            }
        }
    };
    let features = averages(&features, texts.iter().map(Vec::len), config.embed_dim)?;
    if let Some((one, other)) = alike(&features, config.embed_dim) {
        let (first, second) = (&labels[one], &labels[other]);
        crate::notice!(
            "note: {first:?} and {second:?} have equal text features, so the first is always preferred: other prompts may tell them apart"
        );
    }
    Ok(features)
}

/// The first class whose features are an earlier one's to the bit, behind that.
///
/// * `features`: `(K, dim)`.
fn alike(features: &[f32], dim: usize) -> Option<(usize, usize)> {
    let mut seen = HashMap::new();
    features.chunks(dim).enumerate().find_map(|(number, row)| {
        let bits: &[u8] = bytemuck::cast_slice(row);
        let earlier = *seen.entry(bits).or_insert(number);
        (earlier != number).then_some((earlier, number))
    })
}

/// A model over labels of these features, put on a device that is prepared.
///
/// # Errors
/// Anything about the model or the device.
pub fn model_on(
    stream: &Stream,
    checkpoint: &Checkpoint,
    text_features: &[f32],
    precision: Precision,
) -> Result<Model> {
    let config = checkpoint.config();
    let layout = config.vision_layout();
    let weights = checkpoint.vision_params(&layout)?;
    let vision = Vision { config: config.clone(), layout };
    Model::load(stream, vision, &weights, text_features, precision).context(ON_DEVICE)
}

/// A classifier by a model that is on a device.
///
/// # Errors
/// The device's.
pub fn classifier_by(
    stream: &Stream,
    model: &Model,
    adapt: &AdaptOptions,
    batch: Batch,
    images: usize,
) -> Result<Memo> {
    let settings = adapt.settings()?;
    let batch = match batch {
        Batch::Images(batch) => batch.min(images.max(1)),
        Batch::Auto => {
            let needs = model.needs(&settings)?;
            let room = room(stream.gpu(), needs.weights + needs.text)?;
            needs.images_in(room, MOST_IMAGES.min(images)).max(1)
        }
    };
    Memo::on(stream, model, batch, settings).context(ON_DEVICE)
}

const ON_DEVICE: &str = "putting the model on the device";

/// Images at once that are worth it: by then the largest GPU is full.
pub const MOST_IMAGES: usize = 18;

/// Bytes that a batch's size is chosen for: most of the free memory; on the CPU, which has better use for it and is hardly
/// faster by more than four images, an eighth. The rest is for pictures, for what the driver keeps itself, and for what
/// allocations are rounded up to.
///
/// * `taken`: bytes that are part of the batch's needs and that it has already.
pub fn room(gpu: &Gpu, taken: usize) -> Result<usize> {
    let free = gpu.memory_bytes()?.0 + taken;
    Ok(if gpu.driver().is_virtual() { free / 8 } else { free / 10 * 9 })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use clap::{Args, Command, FromArgMatches};
    use safetensors::SafeTensors;

    use super::*;
    use crate::check::{Tolerance, assert_close, fixtures};
    use crate::device_test;

    /// By these flags.
    fn adapt(flags: &[&str]) -> AdaptOptions {
        let command = AdaptOptions::augment_args(Command::new("memo"));
        let matches = command.get_matches_from([&["memo", "--precision", "fp32"], flags].concat());
        AdaptOptions::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn equal_features_are_found() {
        assert_eq!(alike(&[1.0, 2.0, 1.0, 3.0, 0.5, 3.0], 2), None);
        assert_eq!(alike(&[1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0, 3.0], 2), Some((0, 2)));
        assert_eq!(alike(&[], 2), None);
    }

    // By `make_prompts.py`.
    device_test!(several_prompts_are_open_clips, |stream| {
        let checkpoint = Checkpoint::open(&fixtures().join("models/tiny"), None)?;
        let bytes = std::fs::read(fixtures().join("models/tiny.prompts.safetensors"))?;
        let file = SafeTensors::deserialize(&bytes)?;
        let labels = ["apple", "bear", "bee", "aquarium_fish"].map(str::to_string);
        for (name, flags) in [
            ("one", &[][..]),
            ("simple", &["--templates", "openai-imagenet-simple"]),
            // 320 prompts: worth keeping, and the second time they are there.
            ("imagenet", &["--templates", "openai-imagenet"]),
            ("imagenet", &["--templates", "openai-imagenet"]),
        ] {
            let got = label_features(&stream, &checkpoint, &labels, &adapt(flags))?;
            let want: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor(name)?.data());
            assert_close(&got, &want, Tolerance::absolute(2e-6));
        }
    });

    device_test!(features_are_kept_by_all_that_they_depend_on, |stream| {
        let checkpoint = Checkpoint::open(&fixtures().join("models/tiny"), None)?;
        let config = checkpoint.config();
        let layout = config.text_layout();
        let weights = checkpoint.text_params(&layout)?;
        let mut others = weights.clone();
        others[layout.projection.start] += 1.0;
        let (ids, ends) = ([vec![5, 6, 7]], [2]);
        let (cut, earlier) = ([vec![5, 6, 0]], [1]);
        let place = |weights: &[f32], ids: &[Vec<i32>], ends: &[usize], precision| -> Result<PathBuf> {
            let cache = TextCache::of(&stream, config, &layout, weights, (ids, ends), precision)?;
            Ok(cache.path().context("a folder")?.to_path_buf())
        };
        let all = [
            place(&weights, &ids, &ends, Precision::Fp32)?,
            place(&weights, &ids, &ends, Precision::Fp16)?,
            place(&others, &ids, &ends, Precision::Fp32)?,
            place(&weights, &cut, &ends, Precision::Fp32)?,
            place(&weights, &ids, &earlier, Precision::Fp32)?,
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all[0], place(&weights, &ids, &ends, Precision::Fp32)?);
    });
}
