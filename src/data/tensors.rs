//! Images in a safetensors file: bytes `(N, H, W, 3)` by name, and `labels` `(N,)`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors};

use super::memory::Memory;
use super::{Classes, Dataset, labels};

pub fn open(path: &Path, tensor: &str, labels_path: &Path) -> Result<Dataset> {
    let reading = || format!("reading the images {}", path.display());
    let bytes = std::fs::read(path).with_context(reading)?;
    let labels = labels::read(labels_path)?.names();
    let read = || -> Result<Memory> {
        let file = SafeTensors::deserialize(&bytes).context("not a whole safetensors file")?;
        let images = file.tensor(tensor).with_context(|| format!("tensor {tensor}"))?;
        let classes = file.tensor("labels").context("tensor labels")?;
        ensure!(images.dtype() == Dtype::U8 && classes.dtype() == Dtype::U8, "its tensors must be U8");
        let &[n, height, width, 3] = images.shape() else {
            bail!("{tensor} has shape {:?}; (N, H, W, 3) is expected", images.shape());
        };
        ensure!(n > 0 && width > 0 && height > 0, "{tensor} has shape {:?}: no pixels", images.shape());
        ensure!(classes.shape() == [n], "labels has shape {:?} for {n} images", classes.shape());
        let classes: Vec<usize> = classes.data().iter().map(|&label| label.into()).collect();
        if let Some(i) = classes.iter().position(|&label| label >= labels.len()) {
            bail!("image {i} has label {}; there are {} classes", classes[i], labels.len());
        }
        let (width, height) = (u32::try_from(width)?, u32::try_from(height)?);
        Ok(Memory { pixels: images.data().to_vec(), width, height, classes })
    };
    let images = read().with_context(reading)?;
    Ok(Dataset::new(labels, Classes::Numbers, images))
}
