//! CIFAR-100 and CIFAR-10 in either form, extracted or not.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};

use super::cifar_binary::BINARY_FORMS;
use super::cifar_python::PYTHON_FORMS;
use super::unread;
use super::{DataSource, Dataset};

/// The most that one file of a dataset may hold; the largest has 31 MB.
const MEMBER_BYTES: u64 = 256 << 20;

/// What is read, for those who bring something else.
const READ: &str = "what is read is a folder with one subfolder of image files a class, CIFAR (folder or .tar.gz), .npy, .npz, .parquet, \
    WebDataset's .tar, .zip, .csv";

/// A dataset from its records and its class names.
type Parse = dyn Fn(&[u8], &[u8]) -> Result<Dataset>;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Cifar {
    #[value(name = "cifar-100")]
    #[serde(rename = "cifar-100")]
    Cifar100,
    #[value(name = "cifar-10")]
    #[serde(rename = "cifar-10")]
    Cifar10,
}

impl fmt::Display for Cifar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cifar::Cifar100 => "CIFAR-100",
            Cifar::Cifar10 => "CIFAR-10",
        })
    }
}

/// A form of either kind: its folder, its two files, and how they are read.
struct Form {
    cifar: Cifar,
    folder: &'static str,
    records: &'static str,
    names: &'static str,
    parse: Box<Parse>,
}

fn forms() -> Vec<Form> {
    let binary = BINARY_FORMS.iter().map(|form| Form {
        cifar: form.cifar,
        folder: form.folder,
        records: form.records,
        names: form.names,
        parse: Box::new(|records, names| form.parse(records, names)),
    });
    let python = PYTHON_FORMS.iter().map(|form| Form {
        cifar: form.cifar,
        folder: form.folder,
        records: form.records,
        names: form.names,
        parse: Box::new(|records, names| form.parse(records, names)),
    });
    binary.chain(python).collect()
}

/// The files' own folder or the one around it; `None` if no form's files are there. Of both CIFARs the one that is
/// `wanted`, or CIFAR-100, with a notice.
pub fn open_folder(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let wanted = source.cifar;
    let mut there = Vec::new();
    for form in forms() {
        for folder in [path.to_path_buf(), path.join(form.folder)] {
            let (records, names) = (folder.join(form.records), folder.join(form.names));
            if records.is_file() && (names.is_file() || form.records != "test") {
                there.push((form.cifar, records, names, form.parse));
                break;
            }
        }
    }
    let first = there.iter().map(|(cifar, ..)| *cifar).min_by_key(|cifar| *cifar == Cifar::Cifar10);
    let Some(first) = first else { return Ok(None) };
    let other = there.iter().find(|(cifar, ..)| *cifar != first).map(|(cifar, ..)| *cifar);
    let taken = wanted.unwrap_or(first);
    let Some((_, records, names, parse)) = there.into_iter().find(|(cifar, ..)| *cifar == taken) else {
        bail!("opening the dataset {}: no files of {taken} are there, only {first}'s", path.display());
    };
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("reading {}", file.display()));
    let folder = records.parent().unwrap_or(path);
    let mut dataset =
        parse(&read(&records)?, &read(&names)?).with_context(|| format!("reading {}", folder.display()))?;
    dataset = of_form(dataset, taken);
    if let (Some(other), None) = (other, wanted) {
        let place = path.display();
        dataset.notices.push(format!("{place} has {first} and {other}: {first} is taken; --dataset chooses"));
    }
    Ok(Some(dataset))
}

fn of_form(mut dataset: Dataset, cifar: Cifar) -> Dataset {
    dataset.took.cifar = Some(cifar);
    dataset.format = match cifar {
        Cifar::Cifar10 => "CIFAR-10's files",
        Cifar::Cifar100 => "CIFAR-100's files",
    };
    dataset
}

/// A `.tar.gz` of either form, not extracted.
pub fn open_archive(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    if path.is_dir() {
        return Ok(None);
    }
    let wanted = source.cifar;
    let read = || -> Result<Dataset> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
        let head = file.fill_buf()?;
        if let Some(kind) = unread::kind(&head[..head.len().min(unread::HEAD_BYTES)]) {
            bail!("it is {kind}; {READ}");
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let own = forms().into_iter().any(|form| [form.records, form.names].contains(&&*name));
        ensure!(!own, "it is one of CIFAR's files; give the folder that it lies in");
        ensure!(head.is_empty() || head.starts_with(&[0x1f, 0x8b]), "it is no .tar.gz; {READ}");
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        let mut members: HashMap<String, Vec<u8>> = HashMap::new();
        let is_member = |name: &str| forms().iter().any(|form| name == form.records || name == form.names);
        for entry in archive.entries()? {
            let mut entry = entry.context("not a whole .tar.gz; download it again")?;
            let name =
                entry.path()?.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if is_member(&name) {
                let mut bytes = Vec::new();
                let member = || format!("its member {name}");
                ensure!(entry.size() <= MEMBER_BYTES, "{}: larger than CIFAR's files are", member());
                entry.read_to_end(&mut bytes).with_context(member)?;
                members.insert(name, bytes);
            }
        }
        // Up to the checksum at the very end: a damaged download may inflate without complaint.
        let rest = std::io::copy(&mut archive.into_inner(), &mut std::io::sink());
        rest.context("not a whole .tar.gz; download it again")?;
        let form = forms().into_iter().find(|form| members.contains_key(form.records));
        let Some(form) = form else {
            bail!("none of CIFAR's files inside (test.bin, test_batch.bin, test, test_batch); {READ}");
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != form.cifar) {
            bail!("it holds {}, not {wanted}", form.cifar);
        }
        let names = members.get(form.names).with_context(|| format!("no {} inside", form.names))?;
        Ok(of_form((form.parse)(&members[form.records], names)?, form.cifar))
    };
    read().with_context(|| format!("reading the dataset {}", path.display())).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::cifar_binary::{PLANE, tests::files};
    use crate::data::{Sample, cifar_python::tests as python};
    use flate2::write::GzEncoder;

    fn archive(folder: &Path) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        tar.append_dir_all(folder.file_name().unwrap(), folder).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    /// CIFAR-100 in both forms, as folders in one, with their archives beside them.
    fn layouts(count: usize) -> tempfile::TempDir {
        let (binary, names) = files(count);
        let (mut classes, mut data) = (Vec::new(), Vec::new());
        for record in binary.chunks_exact(2 + 3 * PLANE) {
            classes.push(record[1]);
            data.extend(&record[2..]);
        }
        let top = tempfile::tempdir().unwrap();
        for (folder, files) in [
            ("cifar-100-binary", [("test.bin", binary), ("fine_label_names.txt", names)]),
            ("cifar-100-python", [("test", python::records(&classes, &data)), ("meta", python::names(100))]),
        ] {
            let folder = top.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
            std::fs::write(folder.with_extension("tar.gz"), archive(&folder)).unwrap();
        }
        top
    }

    fn open(path: &Path) -> Result<Dataset> {
        Dataset::open(&DataSource { path: path.to_path_buf(), ..DataSource::default() })
    }

    fn samples(set: &Dataset) -> Vec<Sample> {
        (0..set.len()).map(|i| set.get(i).unwrap()).collect()
    }

    #[test]
    fn every_layout_reads_the_same() {
        let top = layouts(5);
        let first = open(top.path()).unwrap();
        assert_eq!((first.len(), first.labels().len()), (5, 100));
        let sample = first.get(3).unwrap();
        assert_eq!(sample.label, 21);
        // Planes are interleaved: pixel (1, 0) is the second of each plane.
        assert_eq!(sample.image.pixels[3..6], [4, 104, 204]);
        for layout in
            ["cifar-100-binary", "cifar-100-python", "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"]
        {
            let set = open(&top.path().join(layout)).unwrap();
            assert_eq!(set.labels(), first.labels(), "{layout}");
            assert_eq!(samples(&set), samples(&first), "{layout}");
        }
    }

    #[test]
    fn a_damaged_archive_never_reads_differently() {
        let top = layouts(2);
        let path = top.path().join("cifar-100-binary.tar.gz");
        let whole = std::fs::read(&path).unwrap();
        let want = samples(&open(&path).unwrap());
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let error = open(&path).err().map(|error| format!("{error:#}"));
            assert!(error.is_some_and(|e| e.contains("cifar-100-binary.tar.gz")), "cut at {len}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(&path, &damaged).unwrap();
            // Some bytes say nothing of the contents: the time of compression, for one.
            if let Ok(set) = open(&path) {
                assert_eq!(samples(&set), want, "byte {at}");
            }
        }
    }
}
