//! Class folders inside a ZIP archive: the classes, images and order that the folder has once it is extracted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::folder::{EXTENSIONS, IMAGENET_BY_NUMBER, is_hidden, is_imagenet};
use super::source::{Source, Stored};
use super::zip::Archive;
use super::{Classes, DataSource, Dataset, choose, names, splits};

struct Members {
    archive: Archive,
    place: String,
    /// What all members' names begin with.
    root: String,
    /// Names without it, and classes.
    images: Vec<(String, usize)>,
}

pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    if path.is_dir() {
        return Ok(None);
    }
    let Some(archive) = Archive::open(path)? else { return Ok(None) };
    dataset(path, archive, source)
        .with_context(|| format!("reading the dataset {}", path.display()))
        .map(Some)
}

fn dataset(path: &Path, archive: Archive, source: &DataSource) -> Result<Dataset> {
    let shown = |name: &&str| !name.split('/').any(|part| is_hidden(Path::new(part)));
    let is_image = |name: &str| {
        let extension =
            name.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, end)| end.to_lowercase());
        extension.is_some_and(|extension| {
            let more =
                source.extensions.iter().any(|more| more.trim_start_matches('.').to_lowercase() == extension);
            more || EXTENSIONS.contains(&&*extension)
        })
    };
    let images: Vec<&str> = archive.names().filter(shown).filter(|name| is_image(name)).collect();
    ensure!(
        !images.is_empty(),
        "it is a ZIP archive (.npz and .pt are such too) without images in class folders; their names end in {}",
        EXTENSIONS.join(", ")
    );
    // One folder around all is no class, where there are folders in it.
    let mut root = String::new();
    loop {
        let inside = |name: &&str| name[root.len()..].split('/').count();
        let first = images[0][root.len()..].split('/').next().unwrap_or_default();
        let around = format!("{root}{first}/");
        if images.iter().all(|name| name.starts_with(&around) && inside(name) > 2) {
            root = around;
        } else {
            break;
        }
    }
    let mut split = None;
    if source.split.as_deref() != Some(".") {
        let tree = tree(&images, &root);
        let folders: Vec<String> = tree.keys().map(|name| name.to_string()).collect();
        let last = root.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_string();
        let is_split = |folder: &String| splits::SPLITS.contains(&&*folder.to_lowercase());
        let deep = |folder: &String| !tree[&**folder].0.is_empty();
        let parts: Vec<String> =
            folders.iter().filter(|folder| is_split(folder) && deep(folder)).cloned().collect();
        if !parts.is_empty() {
            let (at, asked) = choose(&parts, source.split.as_deref())?;
            root = format!("{root}{}/", parts[at]);
            split = asked;
        } else if source.split.as_deref() == Some(&*last) {
            // The only one there is.
            split = Some(last);
        }
        if parts.is_empty() {
            let inside = |at: usize| {
                let (folders, has_files) = &tree[&*folders[at]];
                let folders = folders.iter().map(|name| name.to_string()).collect();
                Ok(splits::Inside { folders, has_files: *has_files })
            };
            if let Some(what) = splits::what_by(&folders, inside)? {
                bail!(
                    "its folders {} are {what}, no classes; extract the archive, and say --data with one of them (or --split . if they \
                     are classes)",
                    folders.join(", ")
                );
            }
        }
    }
    let (mut classes, mut loose): (Vec<&str>, usize) = (Vec::new(), 0);
    let mut members: Vec<(&str, &str, &str)> = Vec::new();
    for name in images.iter().filter_map(|name| name.strip_prefix(&*root)) {
        match name.split_once('/') {
            None => loose += 1,
            Some((class, _)) => {
                let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
                classes.push(class);
                members.push((class, folder, file));
            }
        }
    }
    let empty =
        archive.folders().filter(shown).filter_map(|name| name.strip_prefix(&*root)?.split('/').next());
    classes.sort_unstable();
    classes.dedup();
    for class in empty.filter(|class| !class.is_empty()) {
        ensure!(classes.binary_search(&class).is_ok(), "its class folder {class} has no images");
    }
    if classes.is_empty() {
        bail!("its images lie in no folders, which would be their classes");
    }
    // As a walk through the folders comes by them.
    members.sort_unstable();
    let class_of = |class: &str| classes.binary_search(&class).unwrap_or(0);
    let images =
        members.iter().map(|(class, folder, file)| (format!("{folder}/{file}"), class_of(class))).collect();
    let labels: Vec<String> = classes.iter().map(|class| class.to_string()).collect();
    let is_imagenet = is_imagenet(path) || root.to_lowercase().contains("imagenet");
    let names = is_imagenet.then(|| names::imagenet_by_number(&labels)).flatten();
    let members = Members { place: path.display().to_string(), root, images, archive };
    let mut dataset = Dataset::new(labels, Classes::Folders, members);
    if loose > 0 {
        dataset
            .notices
            .push(format!("{loose} images beside the class folders in {} are of no class", path.display()));
    }
    dataset.names = names.map(|names| (names, IMAGENET_BY_NUMBER));
    dataset.format = "a ZIP archive with a folder of images a class";
    dataset.took.split = split;
    dataset.took.extensions = true;
    Ok(dataset)
}

/// The folders below `root` that have images: the folders in each, and whether there are images beside these.
fn tree<'a>(images: &[&'a str], root: &str) -> BTreeMap<&'a str, (BTreeSet<&'a str>, bool)> {
    let mut tree: BTreeMap<&str, (BTreeSet<&str>, bool)> = BTreeMap::new();
    for name in images {
        let Some((folder, inside)) = name[root.len()..].split_once('/') else { continue };
        let (folders, has_files) = tree.entry(folder).or_default();
        match inside.split_once('/') {
            Some((folder, _)) => drop(folders.insert(folder)),
            None => *has_files = true,
        }
    }
    tree
}

impl Source for Members {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn label(&self, index: usize) -> usize {
        self.images[index].1
    }

    fn file(&self, index: usize) -> Option<String> {
        Some(self.images[index].0.clone())
    }

    fn name(&self, index: usize) -> String {
        format!("the image {}{} in {}", self.root, self.images[index].0, self.place)
    }

    fn read(&self, index: usize) -> Result<Stored<'_>> {
        let name = format!("{}{}", self.root, self.images[index].0);
        Ok(Stored::Encoded(self.archive.read(&name)?.into()))
    }
}
