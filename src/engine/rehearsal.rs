//! Kernels are made ready before the first batch: which ones a model needs is found by going through the motions.

use anyhow::Result;
use half::f16;

use super::{Batch, Item, Precision, Settings, Views, Vision, encode_text};
use crate::clip::ClipConfig;
use crate::data::Rgb8;
use crate::gpu::{Gpu, ModuleKey, Stream};
use crate::ops::linear::prove;

/// Compiles, in parallel, and loads the kernels that encoding labels and adapting to images takes; in float16 also those of
/// float32 alone, a sixth of all, so that the first image whose gradients overflow, maybe hours on, finds them. The backends of
/// products in float16 prove themselves first, and one that does not work here is replaced: see [`prove`].
///
/// # Errors
/// Sizes that no kernel takes; those of the compiler and of the driver, but for a backend that can be replaced.
pub fn prepare(stream: &Stream, config: &ClipConfig, classes: usize, settings: &Settings) -> Result<()> {
    let gpu = stream.gpu();
    let needed = || modules(gpu, config, classes, settings);
    if settings.precision == Precision::Fp32 {
        return gpu.load(&needed()?);
    }
    // That a backend does not compile or load is for its proof to tell, and then others are needed.
    let proof = |stream: &Stream| prove(stream, &config.vision);
    let _ = gpu.load(&[needed()?, gpu.rehearse(proof)?].concat());
    proof(stream)?;
    gpu.load(&needed()?)
}

/// The kernels' sources: by [`Gpu::load`] compiled all at once, rather than one by one in the first batch.
fn modules(gpu: &Gpu, config: &ClipConfig, classes: usize, settings: &Settings) -> Result<Vec<ModuleKey>> {
    gpu.rehearse(|stream| {
        if config.text.is_some() {
            // Never touched: the system gives zeros their memory when they are read.
            let layout = config.text_layout();
            let weights = vec![0.0; layout.total];
            encode_text(stream, config, &layout, &weights, &[vec![0; 2]], &[1], settings.precision)?;
        }
        let layout = config.vision_layout();
        let weights = vec![0.0; layout.total];
        let vision = Vision { config: config.clone(), layout };
        let text_features = vec![0.0; classes * config.embed_dim];
        let (text, settings) = (&text_features, settings.clone());
        let image = Rgb8 { width: 1, height: 1, pixels: vec![0; 3] };
        let items = [Item { image: &image, index: 0 }];
        if settings.precision == Precision::Fp32 {
            return Batch::<f32>::new(stream, vision, &weights, text, 1, settings)?
                .adapt(&items, &Views::Drawn);
        }
        let batch = Batch::<f16>::new(stream, vision, &weights, text, 1, settings)?;
        batch.adapt(&items, &Views::Drawn)?;
        batch.exact()?.adapt(&items, &Views::Drawn)
    })
}
