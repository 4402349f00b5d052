//! WebDataset's tar files, as CLIP_benchmark writes them: `KEY.jpg`, `.png` or `.webp` and beside it `KEY.cls`, a class's number; the
//! shards' count in `nshards.txt`, names of classes and prompts in `classnames.txt` and `zeroshot_classification_templates.txt`.
//! <https://github.com/LAION-AI/CLIP_benchmark#webdataset-example>

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::EntryType;

use super::bytes::Bytes;
use super::folder::{EXTENSIONS, entries, is_hidden, subfolders};
use super::pixels::classes_of;
use super::source::{Source, Stored};
use super::{Classes, DataSource, Dataset, choose, known, labels, unread};

/// The most digits that a class's number is read from.
const MAX_LABEL_BYTES: u64 = 32;

/// What a tar file is made of.
const BLOCK_BYTES: u64 = 512;

/// Images inside tar files.
struct Shards {
    shards: Vec<Shard>,
    samples: Vec<Sample>,
}

struct Shard {
    name: String,
    path: PathBuf,
    bytes: Bytes,
}

/// Where an image lies.
struct Sample {
    shard: u32,
    label: u32,
    start: u64,
    len: u64,
    /// Its member's name.
    member: Box<str>,
}

/// A tar file, a folder of such files, or one with a folder of such files for each split.
pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let opening = || format!("opening the dataset {}", path.display());
    if !path.is_dir() {
        return match unread::head(path).get(257..262) {
            Some(b"ustar") => dataset(path, vec![path.to_path_buf()], None).with_context(opening).map(Some),
            _ => Ok(None),
        };
    }
    let here = shards_in(path)?;
    if !here.is_empty() {
        return dataset(path, here, None).with_context(opening).map(Some);
    }
    let mut splits = Vec::new();
    for folder in subfolders(path)? {
        let shards = shards_in(&folder)?;
        if !shards.is_empty() {
            splits.push((
                folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                folder,
                shards,
            ));
        }
    }
    if splits.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = splits.iter().map(|(name, ..)| name.clone()).collect();
    let (at, split) = choose(&names, source.split.as_deref()).with_context(opening)?;
    let (_, folder, shards) = splits.swap_remove(at);
    dataset(&folder, shards, split).with_context(opening).map(Some)
}

/// The tar files of a folder, `2.tar` before `10.tar`.
fn shards_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_shard = |path: &Path| path.extension().is_some_and(|end| end == "tar") && !is_hidden(path);
    let files = entries(folder)?.into_iter().filter(|entry| !entry.is_folder && is_shard(&entry.path));
    let mut files: Vec<PathBuf> = files.map(|entry| entry.path).collect();
    files.sort_by_key(|path| by_numbers(&path.file_stem().unwrap_or_default().to_string_lossy()));
    Ok(files)
}

/// A name in parts, each a text and the number behind it.
fn by_numbers(name: &str) -> Vec<(String, u64)> {
    let (mut parts, mut rest) = (Vec::new(), name);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (text, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        parts.push((text.to_string(), behind[..end].parse().unwrap_or(u64::MAX)));
        rest = &behind[end..];
    }
    parts
}

/// * `place`: the folder of the shards, or the only one; names are there or in the folder around it.
fn dataset(place: &Path, paths: Vec<PathBuf>, split: Option<String>) -> Result<Dataset> {
    let folder = if place.is_dir() { place } else { place.parent().unwrap_or(place) };
    let beside = |name: &str| {
        let files = [folder.join(name), folder.join("..").join(name)];
        files.into_iter().find(|file| file.is_file())
    };
    if let Some(file) = Some(folder.join("nshards.txt")).filter(|file| place.is_dir() && file.is_file()) {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let count: usize = text
            .trim()
            .parse()
            .with_context(|| format!("{}: {:?} is no number", file.display(), text.trim()))?;
        ensure!(
            paths.len() == count,
            "{} says {count} shards, and there are {}",
            file.display(),
            paths.len()
        );
    }
    let (mut shards, mut samples, mut labels_of, mut keys) =
        (Vec::new(), Vec::new(), Vec::new(), HashSet::new());
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let reading = || format!("reading the shard {}", path.display());
        let bytes = Bytes::open(&path).with_context(reading)?;
        let shard = shards.len() as u32;
        for (label, sample) in samples_in(&bytes, shard, &mut keys).with_context(reading)? {
            labels_of.push(label);
            samples.push(sample);
        }
        shards.push(Shard { name, path, bytes });
    }
    ensure!(!samples.is_empty(), "its tar files have no images");
    let (names, kind, from) = match beside("classnames.txt") {
        Some(file) => (labels::read(&file)?.names()?, Classes::Numbers, Some(file)),
        None => {
            let (names, kind) = known::numbered(None, &labels_of);
            (names, kind, None)
        }
    };
    let classes = classes_of(labels_of, names.len()).with_context(|| match &from {
        Some(file) => format!("the classes of {}", file.display()),
        None => "its .cls members".to_string(),
    })?;
    samples.iter_mut().zip(classes).for_each(|(sample, class)| sample.label = class as u32);
    let mut dataset = Dataset::new(names, kind, Shards { shards, samples });
    dataset.format = "WebDataset's tar files";
    dataset.took.split = split;
    dataset.templates = beside("zeroshot_classification_templates.txt");
    Ok(dataset)
}

/// A shard's samples and their labels. Members of one sample follow each other.
fn samples_in(bytes: &Bytes, shard: u32, keys: &mut HashSet<String>) -> Result<Vec<(i64, Sample)>> {
    struct Open {
        key: String,
        image: Option<Sample>,
        label: Option<i64>,
    }
    let mut samples = Vec::new();
    let mut open: Option<Open> = None;
    let mut finish = |open: Option<Open>, samples: &mut Vec<(i64, Sample)>| -> Result<()> {
        let Some(Open { key, image, label }) = open else { return Ok(()) };
        match (image, label) {
            (Some(image), Some(label)) => samples.push((label, image)),
            (None, _) => bail!("its sample {key} has no image (.jpg, .png, .webp)"),
            (Some(_), None) => bail!("its sample {key} has no label ({key}.cls)"),
        }
        let first = keys.insert(key.clone());
        ensure!(first, "its sample {key} is there twice, in places apart or in two shards");
        Ok(())
    };
    let mut archive = tar::Archive::new(bytes.reader());
    let mut end = 0;
    for entry in archive.entries_with_seek()? {
        let mut entry = entry.context("not a whole tar file; download it again")?;
        end = (entry.raw_file_position() + entry.size()).next_multiple_of(BLOCK_BYTES);
        let name = std::str::from_utf8(&entry.path_bytes())
            .context("the name of a member is not UTF-8")?
            .to_string();
        let (folder, file) = name.rsplit_once('/').map_or(("", &*name), |(folder, file)| (folder, file));
        let kind = entry.header().entry_type();
        // Folders, headers of whole archives, and what systems leave behind.
        if matches!(kind, EntryType::Directory | EntryType::XGlobalHeader)
            || is_hidden(Path::new(file))
            || file.starts_with("__")
        {
            continue;
        }
        ensure!(
            matches!(kind, EntryType::Regular | EntryType::Continuous),
            "its member {name} is a link or another special file"
        );
        let (base, extension) =
            file.split_once('.').with_context(|| format!("its member {name} has no extension"))?;
        let key = if folder.is_empty() { base.to_string() } else { format!("{folder}/{base}") };
        if open.as_ref().is_none_or(|open| open.key != key) {
            let done = open.replace(Open { key, image: None, label: None });
            finish(done, &mut samples)?;
        }
        let Some(open) = &mut open else { continue };
        let extension = extension.to_lowercase();
        let (start, len) = (entry.raw_file_position(), entry.size());
        if extension == "cls" {
            let mut text = String::new();
            let read = entry.by_ref().take(MAX_LABEL_BYTES).read_to_string(&mut text);
            read.with_context(|| format!("its member {name}"))?;
            let label = text.trim().parse().ok();
            let label = label
                .with_context(|| format!("its member {name} is {:?}, not a class's number", text.trim()))?;
            ensure!(open.label.replace(label).is_none(), "its member {name} is there twice");
        } else if EXTENSIONS.contains(&&*extension) {
            bytes.part(start, len).with_context(|| format!("its member {name} is cut"))?;
            ensure!(open.image.is_none(), "its sample {} has two images, the second {name}", open.key);
            open.image = Some(Sample { shard, label: 0, start, len, member: name.into() });
        }
    }
    // An archive ends with blocks of zeros: one that is cut between two members looks whole but for these.
    ensure!(
        end + BLOCK_BYTES <= bytes.len(),
        "it is cut, or was never closed: it has no end mark; download it again"
    );
    finish(open, &mut samples)?;
    Ok(samples)
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn label(&self, index: usize) -> usize {
        self.samples[index].label as usize
    }

    fn file(&self, index: usize) -> Option<String> {
        let Sample { shard, member, .. } = &self.samples[index];
        Some(format!("{}/{member}", self.shards[*shard as usize].name))
    }

    fn name(&self, index: usize) -> String {
        let Sample { shard, member, .. } = &self.samples[index];
        format!("the image {member} in {}", self.shards[*shard as usize].path.display())
    }

    fn read(&self, index: usize) -> Result<Stored<'_>> {
        let Sample { shard, start, len, .. } = &self.samples[index];
        Ok(Stored::Encoded(self.shards[*shard as usize].bytes.read(*start, *len as usize)?))
    }
}
