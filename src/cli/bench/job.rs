//! The folder that programs of other libraries are given: a model, pictures, and the views that are drawn of them here.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::pictures::Pictures;
use crate::clip::ClipConfig;
use crate::data::views::ViewSet;
use crate::engine::Settings;
use crate::gpu::Stream;
use crate::ops::augmenter::{Augmenter, Images};
use crate::ops::draw::draw_views;

/// What the programs do.
pub struct Job<'a> {
    pub model: &'a Path,
    /// `cpu` or `cuda:N`.
    pub device: String,
    pub settings: &'a Settings,
    /// Images at once, where a program takes several.
    pub batch: usize,
    pub config: &'a ClipConfig,
    pub text_features: &'a [f32], // (K, D)
    pub pictures: &'a Pictures,
    /// How many of them it gets.
    pub images: usize,
}

impl Job<'_> {
    /// Writes `tensors.safetensors` and, in a folder for each precision, `job.json`.
    ///
    /// # Errors
    /// The device's; the file system's.
    pub fn write(&self, stream: &Stream, folder: &Path, precisions: &[&str]) -> Result<()> {
        let &Job { settings, config: &ClipConfig { image_size: size, embed_dim, .. }, images, .. } = self;
        let (mut originals, mut views) = (Vec::new(), Vec::new());
        for i in 0..images {
            let (original, drawn) = self.views(stream, i)?;
            originals.extend(original);
            views.extend(drawn);
        }
        let count = settings.views * settings.steps;
        let classes = self.text_features.len() / embed_dim;
        let mut tensors = HashMap::new();
        let floats = |shape: Vec<usize>, values| view(Dtype::F32, shape, bytemuck::cast_slice(values));
        tensors.insert("text".to_string(), floats(vec![classes, embed_dim], self.text_features)?);
        tensors.insert("originals".to_string(), floats(vec![images, 3, size, size], &originals)?);
        tensors.insert("views".to_string(), floats(vec![images, count, 3, size, size], &views)?);
        for i in 0..images {
            let image = self.pictures.get(i);
            let shape = vec![image.height as usize, image.width as usize, 3];
            tensors.insert(format!("image.{i}"), view(Dtype::U8, shape, &image.pixels)?);
        }
        let file = folder.join("tensors.safetensors");
        safetensors::serialize_to_file(tensors, None, &file).context("writing the job of other programs")?;
        for precision in precisions {
            let own = folder.join(precision);
            std::fs::create_dir_all(&own)?;
            std::fs::hard_link(&file, own.join("tensors.safetensors"))?;
            std::fs::write(own.join("job.json"), self.object(precision)?.to_string())?;
        }
        Ok(())
    }

    fn object(&self, precision: &str) -> Result<Value> {
        let model = self.model.canonicalize().with_context(|| format!("{}", self.model.display()))?;
        let model = model.to_str().with_context(|| {
            format!(
                "--against: the other programs are given paths in UTF-8, which {} is not",
                model.display()
            )
        })?;
        let &Settings { views, steps, seed, ref learning_rates, .. } = self.settings;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(json!({
            "model": model, "device": self.device, "threads": threads, "views": views, "lr": learning_rates[0],
            "steps": steps, "batch": self.batch, "precision": precision, "seed": seed,
            "logit_scale": self.config.logit_scale,
        }))
    }

    /// An image as it is predicted, `(3, H, H)`, and the views of all its steps, `(steps·N, 3, H, H)`.
    fn views(&self, stream: &Stream, index: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let &Settings { views: n, steps, seed, ref policy, .. } = self.settings;
        let (config, image) = (self.config, self.pictures.get(index));
        let size = config.image_size;
        // One patch as large as the view: the patches are then the view itself.
        let augmenter = Augmenter::new(size, size, config.preprocess, self.settings.pillow)?.policy(policy);
        let sizes = (image.width as usize, image.height as usize);
        let images = Images::upload(stream, &[(index as u64, sizes, &image.pixels)])?;
        let pixels = |patches: &[f32]| ViewSet::from_patches(patches, size, size).pixels;
        let original = stream.alloc::<f32>(augmenter.patches(1))?;
        augmenter.make(stream, &images, None, Some(&original))?;
        let (params, patches) = (stream.alloc([1, n])?, stream.alloc::<f32>(augmenter.patches(n))?);
        let mut all = Vec::new();
        for step in 0..steps {
            draw_views(stream, policy, (seed, (step * n) as u32), images.descs(), &params)?;
            augmenter.make(stream, &images, Some((&params, &patches)), None)?;
            all.extend(pixels(&stream.read(&patches)?));
        }
        Ok((pixels(&stream.read(&original)?), all))
    }
}

fn view(dtype: Dtype, shape: Vec<usize>, bytes: &[u8]) -> Result<TensorView<'_>> {
    Ok(TensorView::new(dtype, shape, bytes)?)
}
