//! Kernels are made ready before the first batch: which ones a model needs is found by going through the motions.

use anyhow::Result;
use half::f16;

use super::{Batch, Item, Precision, Settings, Views, Vision, encode_text};
use crate::clip::ClipConfig;
use crate::data::Rgb8;
use crate::gpu::{Gpu, Rehearsed, Stream};
use crate::ops::Element;
use crate::ops::linear::prove;

/// Compiles, in parallel, and loads the kernels that encoding labels and adapting to images takes; in float16 also those of
/// float32 alone, a sixth of all, so that the first image whose gradients overflow, maybe hours on, finds them. The backends of
/// products in float16 prove themselves first, and one that does not work here is replaced: see [`prove`].
///
/// # Errors
/// Sizes that no kernel takes; those of the compiler and of the driver, but for a backend that can be replaced.
pub fn prepare(stream: &Stream, config: &ClipConfig, classes: usize, settings: &Settings) -> Result<()> {
    let gpu = stream.gpu();
    let needed = || kernels(gpu, config, classes, settings);
    if settings.precision == Precision::Fp32 {
        return gpu.load(&needed()?.modules);
    }
    // That a backend does not compile or load is for its proof to tell, and then others are needed.
    let proof = |stream: &Stream| prove(stream, &config.vision);
    let _ = gpu.load(needed()?.modules.union(&gpu.rehearse(proof)?.modules));
    proof(stream)?;
    gpu.load(&needed()?.modules)
}

/// What a batch of `images` needs, were they of one pixel: kernels launched, arithmetic and traffic.
///
/// # Errors
/// Sizes that no kernel takes.
pub fn rehearse_batch(
    gpu: &Gpu,
    config: &ClipConfig,
    images: usize,
    classes: usize,
    settings: &Settings,
) -> Result<Rehearsed> {
    let of = |images: usize| {
        gpu.rehearse(|stream| match settings.precision {
            Precision::Fp32 => go_through::<f32>(stream, config, images, classes, settings).map(|_| ()),
            Precision::Fp16 => go_through::<f16>(stream, config, images, classes, settings).map(|_| ()),
        })
    };
    // Without what is done once, before the first batch.
    let (all, before) = (of(images)?, of(0)?);
    Ok(Rehearsed {
        modules: all.modules,
        launches: all.launches - before.launches,
        flops: all.flops - before.flops,
        bytes: all.bytes - before.bytes,
    })
}

/// Puts a model of zeros on the device and adapts to so many images at once.
fn go_through<E: Element>(
    stream: &Stream,
    config: &ClipConfig,
    images: usize,
    classes: usize,
    settings: &Settings,
) -> Result<Batch<E>> {
    let layout = config.vision_layout();
    // Never touched: the system gives zeros their memory when they are read.
    let (weights, text) = (vec![0.0; layout.total], vec![0.0; classes * config.embed_dim]);
    let vision = Vision { config: config.clone(), layout };
    let mut batch = Batch::<E>::load(stream, vision, &weights, &text, settings.clone())?;
    if images > 0 {
        batch.resize(images)?;
        let image = Rgb8 { width: 1, height: 1, pixels: vec![0; 3] };
        let item = |index| Item { image: &image, index };
        batch.adapt(&(0..images as u64).map(item).collect::<Vec<_>>(), &Views::Drawn)?;
    }
    Ok(batch)
}

/// The kernels' sources: by [`Gpu::load`] compiled all at once, rather than one by one in the first batch.
fn kernels(gpu: &Gpu, config: &ClipConfig, classes: usize, settings: &Settings) -> Result<Rehearsed> {
    gpu.rehearse(|stream| {
        if config.text.is_some() {
            let layout = config.text_layout();
            let weights = vec![0.0; layout.total];
            encode_text(stream, config, &layout, &weights, &[vec![0; 2]], &[1], settings.precision)?;
        }
        if settings.precision == Precision::Fp32 {
            return go_through::<f32>(stream, config, 1, classes, settings).map(|_| ());
        }
        let batch = go_through::<f16>(stream, config, 1, classes, settings)?;
        let image = Rgb8 { width: 1, height: 1, pixels: vec![0; 3] };
        batch.exact()?.adapt(&[Item { image: &image, index: 0 }], &Views::Drawn).map(|_| ())
    })
}
