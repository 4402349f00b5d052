//! A user's own views in a safetensors file: tensor `views`, `(N, 3, H, H)` float32, normalised.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::Rgb8;
use crate::ops::augment::{MEAN, STD};

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
/// a value that is not finite: each names the file.
pub fn read(path: &Path, image_size: usize) -> Result<ViewSet> {
    let bytes = std::fs::read(path).with_context(|| format!("reading the views {}", path.display()))?;
    parse(&bytes, image_size).with_context(|| format!("reading the views {}", path.display()))
}

fn parse(bytes: &[u8], image_size: usize) -> Result<ViewSet> {
    let file = SafeTensors::deserialize(bytes).context("not a safetensors file")?;
    let Ok(tensor) = file.tensor("views") else {
        let names: Vec<&str> = file.names().into_iter().take(8).collect();
        bail!("no tensor named `views`; it holds {}", if names.is_empty() { "none".into() } else { names.join(", ") });
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
    /// In the tower's order: `(N, (H/P)², 3·P·P)`, patches row by row, in each channel, row, column.
    /// A rim that fills no patch is left out, as the patch convolution does.
    pub fn patches(&self, patch: usize) -> Vec<f32> {
        let (h, across) = (self.size, self.size / patch);
        let mut patches = Vec::with_capacity(self.count * across * across * 3 * patch * patch);
        for view in self.pixels.chunks(3 * h * h) {
            for place in 0..across * across {
                let (top, left) = (place / across * patch, place % across * patch);
                for row in (0..3).flat_map(|channel| (0..patch).map(move |y| channel * h + top + y)) {
                    patches.extend_from_slice(&view[row * h + left..][..patch]);
                }
            }
        }
        patches
    }

    /// The inverse of [`ViewSet::patches`], where `patch` divides `size`.
    pub fn from_patches(patches: &[f32], size: usize, patch: usize) -> ViewSet {
        let (across, view_len) = (size / patch, 3 * size * size);
        let mut pixels = vec![0.0; patches.len()];
        for (number, run) in patches.chunks(patch).enumerate() {
            // number counts (view, place, channel, y)
            let y = number % patch;
            let channel = number / patch % 3;
            let place = number / (3 * patch) % (across * across);
            let view = number / (3 * patch * across * across);
            let (row, left) = (place / across * patch + y, place % across * patch);
            let at = view * view_len + (channel * size + row) * size + left;
            pixels[at..at + patch].copy_from_slice(run);
        }
        ViewSet { count: patches.len() / view_len, size, pixels }
    }

    /// The 8-bit images that were normalised.
    pub fn pictures(&self) -> Vec<Rgb8> {
        let plane = self.size * self.size;
        let picture = |view: &[f32]| Rgb8 {
            width: self.size as u32,
            height: self.size as u32,
            pixels: (0..3 * plane)
                .map(|i| (i % 3, i / 3))
                .map(|(channel, at)| (view[channel * plane + at] * STD[channel] + MEAN[channel]) * 255.0)
                .map(|value| value.round() as u8)
                .collect(),
        };
        self.pixels.chunks(3 * plane).map(picture).collect()
    }

    /// Writes the file that [`read`] takes.
    ///
    /// # Errors
    /// The path cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let shape = vec![self.count, 3, self.size, self.size];
        let tensor = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&self.pixels))?;
        safetensors::serialize_to_file([("views", tensor)], None, path)
            .with_context(|| format!("writing the views {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, dtype: Dtype, shape: Vec<usize>, data: &[u8]) -> Vec<u8> {
        safetensors::serialize([(name, TensorView::new(dtype, shape, data).unwrap())], None).unwrap()
    }

    #[test]
    fn patches_and_back() {
        let pixels: Vec<f32> = (0..2 * 3 * 6 * 6).map(|i| i as f32).collect();
        let set = ViewSet { count: 2, size: 6, pixels: pixels.clone() };
        let patches = set.patches(3);
        assert_eq!(patches[..6], [0.0, 1.0, 2.0, 6.0, 7.0, 8.0]);
        assert_eq!(patches[9], 36.0); // the second channel begins
        assert_eq!(patches[27], 3.0); // the second patch, to the right
        assert_eq!(ViewSet::from_patches(&patches, 6, 3).pixels, pixels);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("views.safetensors");
        let set = ViewSet { count: 1, size: 2, pixels: (0..12).map(|i| i as f32 / 7.0).collect() };
        set.write(&path).unwrap();
        assert_eq!(read(&path, 2).unwrap().pixels, set.pixels);
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
            let error = format!("{:#}", parse(&bytes, 2).err().expect(want));
            assert!(error.contains(want), "{error}");
        }
    }
}
