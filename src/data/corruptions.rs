//! Corruptions and their severities, 1 to 5, as the sets of Hendrycks and Dietterich have them (<https://arxiv.org/abs/1903.12261>):
//! which of them are asked for, and CIFAR-10-C and CIFAR-100-C, an array a corruption.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::bytes::Bytes;
use super::folder::{self, Files, entries, subfolders};
use super::numpy::Array;
use super::pixels::{Part, Pixels, Rows, classes_of};
use super::{Classes, DataSource, Dataset, Parts, Several, known};

/// In the order of their tables: noise, blur, weather, digital, and the four extra ones.
pub const CORRUPTIONS: [&str; 19] = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
];

/// Severities of each.
pub const SEVERITIES: usize = 5;

/// Of all that there are, those that are asked for, in the tables' order; and the severities.
///
/// # Errors
/// Nothing asked for, one that is not there.
pub fn choose(there: &[String], source: &DataSource) -> Result<(Vec<String>, Vec<usize>)> {
    let DataSource { corruptions, severities, .. } = source;
    let names = there.join(", ");
    if corruptions.is_empty() && severities.is_empty() {
        let text = format!(
            "it holds {} corruptions: {names}; say --corruptions {} (or several, or all), and --severity 5 (or several, or all)",
            there.len(),
            there[0]
        );
        return Err(Several { parts: Parts::Corruptions, text }.into());
    }
    let all = corruptions.is_empty() || corruptions.iter().any(|corruption| corruption == "all");
    if let Some(other) = corruptions.iter().find(|one| *one != "all" && !there.contains(one)) {
        bail!("--corruptions {other}: there is none; there are {names}");
    }
    let mut chosen: Vec<String> =
        there.iter().filter(|one| all || corruptions.contains(one)).cloned().collect();
    let place = |one: &String| CORRUPTIONS.iter().position(|known| known == one).unwrap_or(CORRUPTIONS.len());
    chosen.sort_by(|a, b| place(a).cmp(&place(b)).then(a.cmp(b)));
    let severities = match severities.is_empty() {
        true => (1..=SEVERITIES).collect(),
        false => (1..=SEVERITIES).filter(|severity| severities.contains(severity)).collect(),
    };
    Ok((chosen, severities))
}

/// What ImageNet-C's downloads have corruptions in.
const KINDS: [&str; 5] = ["noise", "blur", "weather", "digital", "extra"];

/// Folders `CORRUPTION/SEVERITY/CLASS`, as ImageNet-C has them, also in folders of their kinds; or those of one corruption.
/// `None` where no corruption is asked for: a folder is then what its folders are.
pub fn open_tree(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let asked = !source.corruptions.is_empty() || !source.severities.is_empty();
    if !asked || !path.is_dir() {
        return Ok(None);
    }
    let opening = || format!("opening the dataset {}", path.display());
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let has_severities =
        |folder: &Path| (1..=SEVERITIES).any(|severity| folder.join(severity.to_string()).is_dir());
    let mut folders: Vec<PathBuf> = Vec::new();
    let whole = path.canonicalize().with_context(opening)?;
    if has_severities(path) {
        folders.push(whole.clone());
    }
    for folder in subfolders(path)? {
        if KINDS.contains(&&*name(&folder)) {
            folders.extend(subfolders(&folder)?.into_iter().filter(|folder| has_severities(folder)));
        }
        if has_severities(&folder) {
            folders.push(folder);
        }
    }
    if folders.is_empty() {
        return Ok(None);
    }
    let there: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    let (chosen, severities) = choose(&there, source).with_context(opening)?;
    let classes = DataSource { split: Some(".".into()), ..source.clone() };
    let (mut files, mut groups, mut labels, mut notices) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut first = PathBuf::new();
    for corruption in &chosen {
        let at =
            there.iter().position(|there| there == corruption).context("a corruption without a folder")?;
        ensure!(!there[at + 1..].contains(corruption), "{}: there are two folders {corruption}", opening());
        for severity in &severities {
            let folder = folders[at].join(severity.to_string());
            let listing = folder::list(&folder, &classes)?;
            let listing = listing
                .with_context(|| format!("opening the dataset {}: no class folders", folder.display()))?;
            if groups.is_empty() {
                (labels, first) = (listing.labels, folder);
            } else {
                ensure!(
                    labels == listing.labels,
                    "opening the dataset {}: its classes are not those of {}",
                    folder.display(),
                    first.display()
                );
            }
            groups.push((files.len(), format!("{corruption}/{severity}")));
            files.extend(listing.files.files);
            notices.extend(listing.notices);
        }
    }
    let root = if folders == [whole.clone()] { whole } else { path.to_path_buf() };
    let mut dataset = Dataset::new(labels, Classes::Folders, Files { root, files, groups });
    dataset.format = "folders of corrupted images";
    dataset.notices = notices;
    dataset.took.corruptions = true;
    dataset.took.extensions = true;
    Ok(Some(dataset))
}

/// A folder of `CORRUPTION.npy` and `labels.npy`, or one of the arrays by itself: rows are all images of severity 1, then of 2, and
/// so on to 5.
pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let opening = || format!("opening the dataset {}", path.display());
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let is_array = |path: &PathBuf| path.extension().is_some_and(|end| end == "npy");
    let is_known = |path: &PathBuf| is_array(path) && CORRUPTIONS.contains(&&*stem(path));
    let (folder, mut files) = match path.is_dir() {
        true => (path, entries(path)?.into_iter().map(|entry| entry.path).filter(is_array).collect()),
        false => (path.parent().unwrap_or(path), vec![path.to_path_buf()]),
    };
    let labels = folder.join("labels.npy");
    if !files.iter().any(is_known) || !labels.is_file() {
        return Ok(None);
    }
    files.retain(|file| *file != labels);
    let there: Vec<String> = files.iter().map(|file| stem(file)).collect();
    let one = DataSource { corruptions: vec!["all".into()], ..source.clone() };
    let asked = if path.is_dir() || !source.corruptions.is_empty() { source } else { &one };
    let (chosen, severities) = choose(&there, asked).with_context(opening)?;

    let read = || Array::open(&Bytes::open(&labels)?)?.integers();
    let classes = read().with_context(|| format!("reading the labels {}", labels.display()))?;
    let rows = classes.len();
    // Each severity has the same images: anything else is not cut into five.
    let severity = &classes[..rows / SEVERITIES];
    ensure!(
        classes.chunks(severity.len().max(1)).all(|labels| labels == severity),
        "reading the labels {}: {rows} labels are not the same {} for each of {SEVERITIES} severities, as in CIFAR-10-C; \
         arrays of one severity go without the corruption's name, as images.npy",
        labels.display(),
        severity.len()
    );
    let cifar = source.cifar.or_else(|| known::cifar_of(folder));
    let (names, kind) = known::numbered(cifar, &classes);
    let classes = classes_of(classes, names.len())
        .with_context(|| format!("reading the labels {}", labels.display()))?;
    let mut parts = Vec::new();
    for corruption in &chosen {
        let file = folder.join(format!("{corruption}.npy"));
        let read = || -> Result<Pixels> {
            let images = Array::open(&Bytes::open(&file)?)?.images()?;
            let count = images.len();
            ensure!(count == rows, "{count} images, and labels.npy has {rows} labels");
            ensure!(
                count.is_multiple_of(SEVERITIES),
                "{count} images are not {SEVERITIES} severities of equally many"
            );
            Ok(images)
        };
        let images = Arc::new(read().with_context(|| format!("reading the images {}", file.display()))?);
        for &severity in &severities {
            let count = rows / SEVERITIES;
            let (group, rows) =
                (format!("{corruption}/{severity}"), (severity - 1) * count..severity * count);
            parts.push(Part { group: Some(group), pixels: images.clone(), rows });
        }
    }
    let mut dataset = Dataset::new(names, kind, Rows::new(parts, classes));
    dataset.format = "arrays of corrupted images (.npy)";
    dataset.took.cifar = cifar;
    dataset.took.corruptions = true;
    Ok(Some(dataset))
}
