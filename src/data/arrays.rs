//! Images and labels in NumPy's files: `.npy` with the labels in another beside it, or both in one `.npz`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::bytes::Bytes;
use super::folder::entries;
use super::numpy::{Array, MAGIC};
use super::pixels::{Pixels, Rows, classes_of};
use super::{DataSource, Dataset, choose, known, unread, zip};

/// A file of images, an archive of both, or a folder with such files.
pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let opening = || format!("opening the dataset {}", path.display());
    if path.is_dir() {
        return match in_folder(path, source).with_context(opening)? {
            Some((images, split)) => one(&images, source, split),
            None => Ok(None),
        };
    }
    if unread::head(path).starts_with(MAGIC) {
        return one(path, source, None);
    }
    let Some(archive) = zip::Archive::open(path)? else { return Ok(None) };
    if !archive.names().all(|name| name.ends_with(".npy")) || archive.names().next().is_none() {
        return Ok(None);
    }
    npz(path, &archive, source).with_context(|| format!("reading the dataset {}", path.display())).map(Some)
}

/// The file of images in a folder, and of several versions, as CIFAR-10.1 has them, which.
fn in_folder(path: &Path, source: &DataSource) -> Result<Option<(PathBuf, Option<String>)>> {
    let arrays: Vec<PathBuf> = entries(path)?
        .into_iter()
        .filter(|entry| !entry.is_folder && entry.path.extension().is_some_and(|end| end == "npy"))
        .map(|entry| entry.path)
        .collect();
    let mut images = Vec::new();
    for file in &arrays {
        if !beside(file)?.is_empty() {
            images.push(file.clone());
        }
    }
    let versions: Vec<String> = images.iter().filter_map(|file| version(file)).collect();
    if versions.len() == images.len() && !images.is_empty() {
        let (at, split) = choose(&versions, source.split.as_deref())?;
        return Ok(Some((images.swap_remove(at), split)));
    }
    match &images[..] {
        [] if arrays.is_empty() => Ok(None),
        [] => {
            bail!("it has {}, and no labels beside it (labels.npy)", name(&arrays[0]));
        }
        [images] => Ok(Some((images.clone(), None))),
        several => {
            let names: Vec<String> = several.iter().map(|file| name(file)).collect();
            bail!(
                "it has several files of images, {}; say which by --data {}",
                names.join(", "),
                several[0].display()
            )
        }
    }
}

/// `v6` of CIFAR-10.1's `cifar10.1_v6_data.npy`.
fn version(images: &Path) -> Option<String> {
    let name = name(images);
    Some(name.strip_prefix("cifar10.1_")?.strip_suffix("_data.npy")?.to_string())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What images are called, and what their labels are called then.
const PAIRS: [(&str, &str); 6] = [
    ("data", "labels"),
    ("images", "labels"),
    ("imgs", "labels"),
    ("data", "targets"),
    ("x", "y"),
    ("X", "y"),
];

/// Names of labels for images of this name, most like it first; labels have none themselves.
fn labels_of(images: &str) -> Vec<String> {
    let words = |text: &str| -> Vec<String> { text.split(['_', '-', '.']).map(str::to_string).collect() };
    if PAIRS.iter().any(|(_, labels)| words(images).iter().any(|word| word == labels)) {
        return Vec::new();
    }
    let mut names = Vec::new();
    for (of_images, of_labels) in PAIRS {
        let at = words(images).iter().position(|word| word == of_images);
        if let Some(at) = at {
            let start: usize = words(images)[..at].iter().map(|word| word.len() + 1).sum();
            names.push(format!("{}{of_labels}{}", &images[..start], &images[start + of_images.len()..]));
        }
    }
    names.extend([format!("{images}_labels"), format!("{images}-labels"), "labels".to_string()]);
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// The files that may be the labels of a file of images.
fn beside(images: &Path) -> Result<Vec<PathBuf>> {
    let stem = images.file_stem().context("it has no name")?.to_string_lossy();
    let files = labels_of(&stem).into_iter().map(|name| images.with_file_name(format!("{name}.npy")));
    Ok(files.filter(|file| file.is_file()).collect())
}

fn one(path: &Path, source: &DataSource, split: Option<String>) -> Result<Option<Dataset>> {
    let reading = |what: &str, file: &Path| format!("reading the {what} {}", file.display());
    let images = || Array::open(&Bytes::open(path)?)?.images();
    let images = images().with_context(|| reading("images", path))?;
    let labels = match &beside(path)?[..] {
        [labels] => labels.clone(),
        [] => bail!(
            "{}: no labels beside it; they are looked for as {}",
            reading("images", path),
            labels_of(&name(path).replace(".npy", ""))
                .iter()
                .map(|n| format!("{n}.npy"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        [first, second, ..] => bail!(
            "{}: both {} and {} may be its labels; move one of them elsewhere",
            reading("images", path),
            first.display(),
            second.display()
        ),
    };
    let read = || Array::open(&Bytes::open(&labels)?)?.integers();
    let numbers = read().with_context(|| reading("labels", &labels))?;
    let all = numbers.clone();
    let mut dataset =
        together(images, numbers, &all, path, source).with_context(|| reading("labels", &labels))?;
    dataset.took.split = split;
    Ok(Some(dataset))
}

/// * `all`: labels of whatever split, whose classes these are.
fn together(
    images: Pixels,
    labels: Vec<i64>,
    all: &[i64],
    path: &Path,
    source: &DataSource,
) -> Result<Dataset> {
    let (count, n) = (labels.len(), images.len());
    ensure!(count == n, "{count} labels for {n} images");
    let cifar = source.cifar.or_else(|| known::cifar_of(path));
    let (names, kind) = known::numbered(cifar, all);
    let classes = classes_of(labels, names.len())?;
    let mut dataset = Dataset::new(names, kind, Rows::of(images, classes));
    dataset.format = "NumPy's arrays";
    dataset.took.cifar = cifar;
    Ok(dataset)
}

/// Images and labels by their names, those of one split, where there are several.
fn npz(path: &Path, archive: &zip::Archive, source: &DataSource) -> Result<Dataset> {
    let array = |key: &str| -> Result<Array> { Array::open(&archive.open_member(&format!("{key}.npy"))?) };
    let keys: Vec<String> = archive.names().map(|name| name.trim_end_matches(".npy").to_string()).collect();
    let mut pairs: Vec<(&String, Vec<String>)> = Vec::new();
    for key in &keys {
        let labels: Vec<String> = labels_of(key).into_iter().filter(|name| keys.contains(name)).collect();
        if !labels.is_empty() && array(key).with_context(|| format!("its array {key}"))?.looks_like_images() {
            pairs.push((key, labels));
        }
    }
    ensure!(
        !pairs.is_empty(),
        "it has {}; none are images (uint8, such as images, x_test, test_images) with labels (labels, y_test, test_labels)",
        keys.join(", ")
    );
    let splits: Vec<String> = pairs.iter().map(|(key, _)| split_of(key)).collect();
    let (at, split) = choose(&splits, source.split.as_deref())?;
    let (key, labels) = &pairs[at];
    let [labels] = &labels[..] else {
        bail!("both its {} and its {} may be the labels of {key}", labels[0], labels[1]);
    };
    let images = array(key).and_then(|array| array.images()).with_context(|| format!("its array {key}"))?;
    let numbers =
        array(labels).and_then(|array| array.integers()).with_context(|| format!("its array {labels}"))?;
    let mut all = numbers.clone();
    for (_, others) in &pairs {
        for other in others {
            all.extend(
                array(other)
                    .and_then(|array| array.integers())
                    .with_context(|| format!("its array {other}"))?,
            );
        }
    }
    let mut dataset =
        together(images, numbers, &all, path, source).with_context(|| format!("its array {labels}"))?;
    dataset.took.split = split;
    Ok(dataset)
}

/// What is left of `x_test` or `test_images` without the word for images.
fn split_of(key: &str) -> String {
    let is_images = |word: &&str| PAIRS.iter().any(|(images, _)| images == word);
    let words: Vec<&str> = key.split(['_', '-', '.']).filter(|word| !is_images(word)).collect();
    if words.is_empty() { key.to_string() } else { words.join("_") }
}
