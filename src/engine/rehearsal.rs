//! Which kernels a model needs, found by going through the motions.

use anyhow::Result;

use super::{Item, Memo, Settings, Views, Vision, encode_text};
use crate::clip::ClipConfig;
use crate::data::Rgb8;
use crate::gpu::{Gpu, ModuleKey};

/// The kernels' sources that encoding labels and adapting to images takes, for [`Gpu::load`]: compiled in parallel at the
/// start, rather than one by one in the first batch.
///
/// # Errors
/// Sizes that no kernel takes.
pub fn modules(
    gpu: &Gpu,
    config: &ClipConfig,
    classes: usize,
    settings: &Settings,
) -> Result<Vec<ModuleKey>> {
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
        let memo = Memo::new(stream, vision, &weights, &text_features, 1, settings.clone())?;
        let image = Rgb8 { width: 1, height: 1, pixels: vec![0; 3] };
        memo.adapt(&[Item { image: &image, index: 0 }], &Views::Drawn)
    })
}
