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
        let images = images_below(class)?;
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

/// A class's images, those of folders inside it too, in the order of Python's `sorted(os.walk(class))`.
fn images_below(class: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![class.to_path_buf()];
    let mut next = 0;
    while next < folders.len() {
        // Links to folders are not followed: they may lead in a circle.
        let inside = entries(&folders[next])?;
        folders.extend(inside.into_iter().filter(|entry| entry.is_dir() && !entry.is_symlink()));
        next += 1;
    }
    folders.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut images = Vec::new();
    for folder in &folders {
        images.extend(entries(folder)?.into_iter().filter(|file| is_image(file) && !file.is_dir()));
    }
    Ok(images)
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
