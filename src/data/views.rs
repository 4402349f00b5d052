//! A user's own views in a safetensors file: tensor `views`, `(N, 3, H, H)` float32, normalised; those that were made here say by
//! what, in the file's metadata `scale`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::Rgb8;
use crate::ops::patches::{patchify, to_rgb8, unpatchify};
use crate::ops::preprocess::Scale;

/// In a file's metadata: the [`Scale`] of its views, as JSON.
const SCALE: &str = "scale";

/// Views of one image, or of none: the caller knows.
pub struct ViewSet {
    /// `N`.
    pub count: usize,
    /// `H`, the model's image size.
    pub size: usize,
    /// `(N, 3, H, H)`.
    pub pixels: Vec<f32>,
}

/// Reads `--views-in`.
///
/// # Errors
/// No such file, not safetensors, no tensor `views`, another dtype, shape or size, no view at all,
/// a value that is not finite, views that say they were normalised by another scale than the model's: each names the file.
pub fn read(path: &Path, image_size: usize, scale: &Scale) -> Result<ViewSet> {
    let bytes = std::fs::read(path).with_context(|| format!("reading the views {}", path.display()))?;
    parse(&bytes, image_size, scale).with_context(|| format!("reading the views {}", path.display()))
}

fn parse(bytes: &[u8], image_size: usize, scale: &Scale) -> Result<ViewSet> {
    let file = SafeTensors::deserialize(bytes).context("not a safetensors file")?;
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    if let Some(theirs) = header.metadata().as_ref().and_then(|metadata| metadata.get(SCALE)) {
        let ours = serde_json::to_string(scale)?;
        ensure!(
            *theirs == ours,
            "its views were normalised by {theirs}, the model asks for {ours}: make them with `memo augment --model`"
        );
    }
    let Ok(tensor) = file.tensor("views") else {
        let names: Vec<&str> = file.names().into_iter().take(8).collect();
        bail!(
            "no tensor named `views`; it holds {}",
            if names.is_empty() { "none".into() } else { names.join(", ") }
        );
    };
    ensure!(tensor.dtype() == Dtype::F32, "`views` is {:?}; it must be F32", tensor.dtype());
    let &[count, 3, height, width] = tensor.shape() else {
        bail!("`views` has shape {:?}; it must be (N, 3, {image_size}, {image_size})", tensor.shape());
    };
    ensure!(
        height == image_size && width == image_size,
        "`views` has shape {:?}; this model takes (N, 3, {image_size}, {image_size})",
        tensor.shape()
    );
    ensure!(count > 0, "`views` is empty; give at least one view");
    let pixels: Vec<f32> = bytemuck::pod_collect_to_vec(tensor.data());
    if let Some(i) = pixels.iter().position(|v| !v.is_finite()) {
        bail!("`views` element {i} (view {}) is {}", i / (3 * height * width), pixels[i]);
    }
    Ok(ViewSet { count, size: image_size, pixels })
}

impl ViewSet {
    /// In the tower's order, see [`patchify`].
    pub fn patches(&self, patch: usize) -> Vec<f32> {
        patchify(&self.pixels, self.size, patch)
    }

    /// The inverse of [`ViewSet::patches`].
    pub fn from_patches(patches: &[f32], size: usize, patch: usize) -> ViewSet {
        let pixels = unpatchify(patches, size, patch);
        ViewSet { count: pixels.len() / (3 * size * size), size, pixels }
    }

    /// The 8-bit images that were normalised, by this scale.
    pub fn pictures(&self, scale: &Scale) -> Vec<Rgb8> {
        let side = self.size as u32;
        let picture = |pixels: &[u8]| Rgb8 { width: side, height: side, pixels: pixels.to_vec() };
        to_rgb8(&self.pixels, self.size, scale).chunks(3 * self.size * self.size).map(picture).collect()
    }

    /// The file that [`read`] takes.
    ///
    /// * `scale`: what the views were normalised by.
    ///
    /// # Errors
    /// More than its header can say.
    pub fn serialized(&self, scale: &Scale) -> Result<Vec<u8>> {
        let shape = vec![self.count, 3, self.size, self.size];
        let tensor = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&self.pixels))?;
        let metadata = HashMap::from([(SCALE.to_string(), serde_json::to_string(scale)?)]);
        Ok(safetensors::serialize([("views", tensor)], Some(metadata))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, dtype: Dtype, shape: Vec<usize>, data: &[u8]) -> Vec<u8> {
        safetensors::serialize([(name, TensorView::new(dtype, shape, data).unwrap())], None).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("views.safetensors");
        let set = ViewSet { count: 1, size: 2, pixels: (0..12).map(|i| i as f32 / 7.0).collect() };
        std::fs::write(&path, set.serialized(&Scale::CLIP).unwrap()).unwrap();
        assert_eq!(read(&path, 2, &Scale::CLIP).unwrap().pixels, set.pixels);
        let other = Scale { mean: [0.5; 3], ..Scale::CLIP };
        let error = format!("{:#}", read(&path, 2, &other).err().expect("another scale"));
        assert!(error.contains("[0.5,0.5,0.5]") && error.contains("memo augment --model"), "{error}");
    }

    #[test]
    fn faults_are_named() {
        let zeros = [0u8; 48];
        let mut nan = [0u8; 48];
        nan[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
        let cases = [
            (b"not safetensors".to_vec(), "not a safetensors file"),
            (file("image", Dtype::F32, vec![1, 3, 2, 2], &zeros), "no tensor named `views`; it holds image"),
            (file("views", Dtype::I32, vec![1, 3, 2, 2], &zeros), "`views` is I32"),
            (file("views", Dtype::F32, vec![3, 2, 2], &zeros), "it must be (N, 3, 2, 2)"),
            (file("views", Dtype::F32, vec![1, 3, 1, 4], &zeros), "this model takes (N, 3, 2, 2)"),
            (file("views", Dtype::F32, vec![0, 3, 2, 2], &[]), "`views` is empty"),
            (file("views", Dtype::F32, vec![1, 3, 2, 2], &nan), "`views` element 5 (view 0) is NaN"),
        ];
        for (bytes, want) in cases {
            let error = format!("{:#}", parse(&bytes, 2, &Scale::CLIP).err().expect(want));
            assert!(error.contains(want), "{error}");
        }
    }
}
