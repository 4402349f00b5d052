//! The root of a dataset given instead of one split of it: its folders are no classes.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::folder::{entries, is_hidden, subfolders};
use super::{Parts, Several};

/// The one to suggest first.
pub const SPLITS: [&str; 12] = [
    "val",
    "test",
    "validation",
    "valid",
    "testing",
    "eval",
    "dev",
    "train",
    "training",
    "trainval",
    "train2017",
    "val2017",
];

/// ImageNet-C's corruptions (CIFAR-10-C's, Tiny-ImageNet-C's), and the folders that its downloads group them in.
const CORRUPTIONS: [&str; 25] = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "gaussian_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "spatter",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "saturate",
    "noise",
    "blur",
    "weather",
    "digital",
    "extra",
    "clean",
];

const CORRUPTED: &str = "corruptions";
const SEVERE: &str = "severities";

const SEVERITIES: [&str; 5] = ["1", "2", "3", "4", "5"];

/// Refuses folders that are no classes: splits; severities 1 to 5 or corruptions that hold folders; any that hold
/// the same two or more folders and no files. The error names the folder to take.
pub fn refuse(root: &Path, folders: &[PathBuf]) -> Result<()> {
    let Some(kind) = what(folders)? else { return Ok(()) };
    let mut take = choice(folders).to_path_buf();
    // A corruption's severities, and so on; links may lead in a circle.
    for _ in 0..4 {
        let inside = subfolders(&take)?;
        if what(&inside)?.is_some() {
            take = choice(&inside).to_path_buf();
        }
    }
    let names: Vec<_> = folders.iter().map(|folder| name(folder)).collect();
    let names = match &names[..] {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and so on"),
        few => few.join(", "),
    };
    let split = take.strip_prefix(root).unwrap_or(&take).display();
    let what = match folders {
        [_] => format!("its only folder, {names}, is one of {kind}, no class"),
        _ => format!("its folders {names} are {kind}, no classes"),
    };
    let (parts, also) = match kind {
        CORRUPTED | SEVERE => (Parts::Corruptions, "; --corruptions all or --severity 5 takes several"),
        _ => (Parts::Splits(folders.iter().map(|folder| name(folder)).collect()), ""),
    };
    let text = format!(
        "{what}; say --data {} or --split {split} (or --split . if they are classes){also}",
        take.display()
    );
    Err(Several { parts, text }.into())
}

/// What folders are if not classes.
fn what(folders: &[PathBuf]) -> Result<Option<&'static str>> {
    let names: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    what_by(&names, |at| {
        let mut inside = entries(&folders[at])?;
        inside.retain(|entry| !is_hidden(&entry.path));
        let has_files = inside.iter().any(|entry| !entry.is_folder);
        let folders = inside.iter().filter(|entry| entry.is_folder).map(|entry| name(&entry.path)).collect();
        Ok(Inside { folders, has_files })
    })
}

/// What a folder holds.
pub struct Inside {
    pub folders: Vec<String>,
    pub has_files: bool,
}

/// What folders are if not classes, by what they hold: a class may have folders too, but not the same as all others.
///
/// * `inside`: of the folder of this place among the names.
pub fn what_by(names: &[String], inside: impl Fn(usize) -> Result<Inside>) -> Result<Option<&'static str>> {
    let is = |name: &String, known: &[&str]| known.contains(&name.to_lowercase().as_str());
    let all = |known: &[&str]| names.iter().all(|name| is(name, known));
    if !names.is_empty() && all(&SPLITS) {
        return Ok(Some("splits"));
    }
    for at in (0..names.len()).filter(|&at| is(&names[at], &SPLITS)) {
        if inside(at)?.folders.len() > 1 {
            return Ok(Some("splits"));
        }
    }
    if names.is_empty() {
        return Ok(None);
    }
    let first = inside(0)?.folders;
    if first.len() < 2 {
        return Ok(None);
    }
    for (known, what) in [(&SEVERITIES[..], SEVERE), (&CORRUPTIONS, CORRUPTED)] {
        if all(known) {
            return Ok(Some(what));
        }
    }
    for at in 0..names.len() {
        let Inside { folders, has_files } = inside(at)?;
        if has_files || folders.len() != first.len() || !folders.iter().all(|name| first.contains(name)) {
            return Ok(None);
        }
    }
    Ok((names.len() > 1).then_some("splits or domains of the same classes"))
}

/// The folder to suggest: what is evaluated on, else the first.
fn choice(folders: &[PathBuf]) -> &Path {
    let split = |wanted: &&str| folders.iter().find(|folder| name(folder).eq_ignore_ascii_case(wanted));
    SPLITS.iter().find_map(split).unwrap_or(&folders[0])
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
