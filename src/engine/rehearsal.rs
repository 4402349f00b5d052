//! Kernels are made ready before the first batch: which ones a model needs is found by going through the motions.

use std::collections::BTreeSet;

use anyhow::Result;
use half::f16;

use super::{Batch, Item, Precision, Settings, Tower, Views, Vision, encode_text};
use crate::clip::ClipConfig;
use crate::data::Rgb8;
use crate::gpu::{Gpu, ModuleKey, Rehearsed, Stream};
use crate::ops::Element;
use crate::ops::attention::prove_attention;
use crate::ops::linear::{prove, rehearse_proofs};

/// Compiles, in parallel, and loads the kernels that encoding labels and adapting to images takes; in float16 also those of
/// float32 alone, a sixth of all, so that the first image whose gradients overflow, maybe hours on, finds them. The backends of
/// products in float16 prove themselves first, and one that does not work here is replaced: see [`prove`]; attention, which nothing
/// replaces, after them.
///
/// # Errors
/// Sizes that no kernel takes; those of the compiler and of the driver, but for a backend that can be replaced.
pub fn prepare(stream: &Stream, config: &ClipConfig, classes: usize, settings: &Settings) -> Result<()> {
    let gpu = stream.gpu();
    let needed = || kernels(gpu, gpu.architecture(), config, classes, settings);
    if settings.precision == Precision::Fp32 {
        return gpu.load(&needed()?.modules);
    }
    // That a backend does not compile or load is for its proof to tell, and then others are needed.
    let proof = |stream: &Stream| prove(stream, &config.vision);
    let _ = gpu.load(needed()?.modules.union(&gpu.rehearse(proof)?.modules));
    proof(stream)?;
    gpu.load(needed()?.modules.union(&gpu.rehearse(|stream| prove_attention(stream, config))?.modules))?;
    prove_attention(stream, config)
}

/// The sources of all that [`prepare`] may load on a device of this architecture.
///
/// # Errors
/// Sizes that no kernel takes.
pub fn modules(
    gpu: &Gpu,
    architecture: &str,
    config: &ClipConfig,
    classes: usize,
    settings: &Settings,
) -> Result<BTreeSet<ModuleKey>> {
    let mut modules = kernels(gpu, architecture, config, classes, settings)?.modules;
    if settings.precision == Precision::Fp16 {
        let proofs = |stream: &Stream| {
            rehearse_proofs(stream, &config.vision)?;
            prove_attention(stream, config)
        };
        modules.extend(gpu.rehearse_for(architecture, proofs)?.modules);
    }
    Ok(modules)
}

/// What a batch of these images needs on a device of this architecture, launch by launch, of a model whose matrices float16
/// holds, as it does OpenAI's.
///
/// # Errors
/// Sizes that no kernel takes.
pub fn rehearse_batch(
    gpu: &Gpu,
    architecture: &str,
    config: &ClipConfig,
    items: &[Item],
    classes: usize,
    settings: &Settings,
) -> Result<Rehearsed> {
    let of = |items: &[Item]| {
        gpu.rehearse_for(architecture, |stream| match settings.precision {
            Precision::Fp32 => go_through::<f32>(stream, config, items, classes, settings).map(|_| ()),
            Precision::Fp16 => go_through::<f16>(stream, config, items, classes, settings).map(|_| ()),
        })
    };
    // Without what is done once, before the first batch.
    let (mut all, before) = (of(items)?, of(&[])?);
    all.launches.drain(..before.launches.len());
    Ok(all)
}

/// Puts a model of zeros on the device and adapts to these images at once.
fn go_through<E: Element>(
    stream: &Stream,
    config: &ClipConfig,
    items: &[Item],
    classes: usize,
    settings: &Settings,
) -> Result<Batch<E>> {
    let layout = config.vision_layout();
    // Never touched: the system gives zeros their memory when they are read.
    let (weights, text) = (vec![0.0; layout.total], vec![0.0; classes * config.embed_dim]);
    let vision = Vision { config: config.clone(), layout };
    let mut batch = Batch::<E>::on(stream, Tower::load(stream, vision, &weights, &text)?, settings.clone())?;
    if !items.is_empty() {
        batch.resize(items.len())?;
        batch.adapt(items, &Views::Drawn)?;
    }
    Ok(batch)
}

/// The kernels' sources: by [`Gpu::load`] compiled all at once, rather than one by one in the first batch.
fn kernels(
    gpu: &Gpu,
    architecture: &str,
    config: &ClipConfig,
    classes: usize,
    settings: &Settings,
) -> Result<Rehearsed> {
    let image = Rgb8 { width: 1, height: 1, pixels: vec![0; 3] };
    let items = [Item { image: &image, index: 0 }];
    gpu.rehearse_for(architecture, |stream| {
        if config.text.is_some() {
            let layout = config.text_layout();
            let weights = vec![0.0; layout.total];
            encode_text(stream, config, &layout, &weights, &[vec![0; 2]], &[1], settings.precision)?;
        }
        if settings.precision == Precision::Fp32 {
            return go_through::<f32>(stream, config, &items, classes, settings).map(|_| ());
        }
        let batch = go_through::<f16>(stream, config, &items, classes, settings)?;
        batch.exact()?.adapt(&items, &Views::Drawn).map(|_| ())
    })
}
