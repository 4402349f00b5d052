//! A folder with one subfolder of images a class, as torchvision's `ImageFolder` reads it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Dataset, Images};

const EXTENSIONS: [&str; 11] =
    ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pnm"];

/// Classes in the order of their folders' names, images in the order of theirs; `None` if there are no
/// subfolders.
pub fn open(path: &Path) -> Result<Option<Dataset>> {
    let classes: Vec<PathBuf> = entries(path)?.into_iter().filter(|entry| entry.is_dir()).collect();
    if classes.is_empty() {
        return Ok(None);
    }
    let (mut labels, mut files) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        let name = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let images: Vec<PathBuf> = entries(class)?.into_iter().filter(|file| is_image(file)).collect();
        ensure!(
            !images.is_empty(),
            "opening the dataset {}: its class folder {name} has no images",
            path.display()
        );
        labels.push(name);
        files.extend(images.into_iter().map(|image| (image, label)));
    }
    Ok(Some(Dataset { labels, images: Images::Files(files) }))
}

fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths =
            std::fs::read_dir(path)?.map(|e| Ok(e?.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    read().with_context(|| format!("opening the dataset {}", path.display()))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}
