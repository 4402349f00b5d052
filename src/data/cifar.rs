//! CIFAR-100 and CIFAR-10, extracted or not; their binary form: label bytes and three 32x32 planes a record.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::read::GzDecoder;

use super::cifar_python::PYTHON_FORMS;
use super::{Dataset, Images, labels};

/// One of the two datasets' binary forms.
struct BinaryForm {
    folder: &'static str,
    records: &'static str,
    names: &'static str,
    /// Label bytes of a record; the last is the one that counts (CIFAR-100's first is the coarse one).
    label_bytes: usize,
    classes: usize,
}

const BINARY_FORMS: [BinaryForm; 2] = [
    BinaryForm {
        folder: "cifar-100-binary",
        records: "test.bin",
        names: "fine_label_names.txt",
        label_bytes: 2,
        classes: 100,
    },
    BinaryForm {
        folder: "cifar-10-batches-bin",
        records: "test_batch.bin",
        names: "batches.meta.txt",
        label_bytes: 1,
        classes: 10,
    },
];

const SIDE: usize = 32;
pub const PLANE: usize = SIDE * SIDE;

/// A form of either kind: its folder, its two files, and how they are read.
struct Form {
    folder: &'static str,
    records: &'static str,
    names: &'static str,
    parse: fn(&[u8], &[u8]) -> Result<Dataset>,
}

fn forms() -> [Form; 4] {
    let [b100, b10] = &BINARY_FORMS;
    let [p100, p10] = &PYTHON_FORMS;
    [
        Form {
            folder: b100.folder,
            records: b100.records,
            names: b100.names,
            parse: |r, n| BINARY_FORMS[0].parse(r, n),
        },
        Form {
            folder: b10.folder,
            records: b10.records,
            names: b10.names,
            parse: |r, n| BINARY_FORMS[1].parse(r, n),
        },
        Form {
            folder: p100.folder,
            records: p100.records,
            names: p100.names,
            parse: |r, n| PYTHON_FORMS[0].parse(r, n),
        },
        Form {
            folder: p10.folder,
            records: p10.records,
            names: p10.names,
            parse: |r, n| PYTHON_FORMS[1].parse(r, n),
        },
    ]
}

/// The files' own folder or the one around it; `None` if no form's files are there.
pub fn open_folder(path: &Path) -> Result<Option<Dataset>> {
    for form in forms() {
        for folder in [path.to_path_buf(), path.join(form.folder)] {
            let (records, names) = (folder.join(form.records), folder.join(form.names));
            if records.is_file() && (names.is_file() || form.records != "test") {
                let read =
                    |file: &Path| std::fs::read(file).with_context(|| format!("reading {}", file.display()));
                let dataset = (form.parse)(&read(&records)?, &read(&names)?);
                return dataset.with_context(|| format!("reading {}", folder.display())).map(Some);
            }
        }
    }
    Ok(None)
}

/// A `.tar.gz` of either form, not extracted.
pub fn open_archive(path: &Path) -> Result<Dataset> {
    let read = || -> Result<Dataset> {
        let file = File::open(path)?;
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        let mut members: HashMap<String, Vec<u8>> = HashMap::new();
        let wanted = |name: &str| forms().iter().any(|form| name == form.records || name == form.names);
        for entry in archive.entries()? {
            let mut entry = entry.context("not a whole .tar.gz")?;
            let name =
                entry.path()?.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if wanted(&name) {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).with_context(|| format!("its member {name}"))?;
                members.insert(name, bytes);
            }
        }
        let form = forms().into_iter().find(|form| members.contains_key(form.records));
        let form = form.ok_or_else(|| {
            anyhow!("none of CIFAR's files inside (test.bin, test_batch.bin, test, test_batch)")
        })?;
        let names = members.get(form.names).ok_or_else(|| anyhow!("no {} inside", form.names))?;
        (form.parse)(&members[form.records], names)
    };
    read().with_context(|| format!("reading the dataset {}", path.display()))
}

/// A dataset of interleaved pixels from images of three planes.
pub fn dataset<'a>(
    labels: Vec<String>,
    classes: Vec<usize>,
    images: impl Iterator<Item = &'a [u8]>,
) -> Dataset {
    let mut pixels = Vec::with_capacity(classes.len() * 3 * PLANE);
    for planes in images {
        pixels.extend((0..3 * PLANE).map(|at| planes[at % 3 * PLANE + at / 3]));
    }
    let side = SIDE as u32;
    Dataset { labels, images: Images::Memory { pixels, width: side, height: side, classes } }
}

impl BinaryForm {
    fn parse(&self, records: &[u8], names: &[u8]) -> Result<Dataset> {
        let labels = labels::parse(names).context(self.names)?;
        let count = labels.len();
        ensure!(count == self.classes, "{}: {count} names; {} are expected", self.names, self.classes);
        let record_len = self.label_bytes + 3 * PLANE;
        ensure!(!records.is_empty(), "{} is empty", self.records);
        ensure!(
            records.len().is_multiple_of(record_len),
            "{} ends inside record {}: it has {} bytes, records have {record_len}; download it again",
            self.records,
            records.len() / record_len,
            records.len()
        );
        let mut classes = Vec::new();
        for (i, record) in records.chunks_exact(record_len).enumerate() {
            let label = usize::from(record[self.label_bytes - 1]);
            if label >= self.classes {
                bail!("{}: record {i} has label {label}; there are {} classes", self.records, self.classes);
            }
            classes.push(label);
        }
        Ok(dataset(
            labels,
            classes,
            records.chunks_exact(record_len).map(|record| &record[self.label_bytes..]),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn files(count: usize) -> (Vec<u8>, Vec<u8>) {
        let names: String = (0..100).map(|i| format!("class_{i}\n")).collect();
        let record = |i: usize| {
            let mut bytes = vec![(i % 20) as u8, (i * 7 % 100) as u8];
            bytes.extend((0..3 * PLANE).map(|at| (at / PLANE * 100 + at % PLANE % 90 + i) as u8));
            bytes
        };
        ((0..count).flat_map(record).collect(), names.into_bytes())
    }

    #[test]
    fn folder_and_archive_read_the_same() {
        let (records, names) = files(5);
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("cifar-100-binary");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("test.bin"), &records).unwrap();
        std::fs::write(inner.join("fine_label_names.txt"), &names).unwrap();
        let archive = folder.path().join("cifar.tar.gz");
        let encoder =
            flate2::write::GzEncoder::new(File::create(&archive).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(encoder);
        tar.append_dir_all("cifar-100-binary", &inner).unwrap();
        tar.into_inner().unwrap().finish().unwrap().flush().unwrap();

        let sets = [&inner, folder.path(), &archive].map(|path: &Path| Dataset::open(path).unwrap());
        for set in &sets {
            assert_eq!((set.len(), set.labels().len()), (5, 100));
            let sample = set.get(3).unwrap();
            assert_eq!(sample.label, 21);
            // Planes are interleaved: pixel (1, 0) is the second of each plane.
            assert_eq!(sample.image.pixels[3..6], [4, 104, 204]);
            assert_eq!(sample, sets[0].get(3).unwrap());
        }
    }

    #[test]
    fn faults_are_named() {
        let (records, names) = files(3);
        let form = &BINARY_FORMS[0];
        let mut wrong_label = records.clone();
        wrong_label[3074 + 1] = 200;
        let cases = [
            (form.parse(&records[..5000], &names), "ends inside record 1"),
            (form.parse(&wrong_label, &names), "record 1 has label 200"),
            (form.parse(&[], &names), "test.bin is empty"),
            (form.parse(&records, b"cat\ndog\n"), "2 names; 100 are expected"),
            (form.parse(&records, b"\xff"), "not UTF-8"),
        ];
        for (result, want) in cases {
            let error = format!("{:#}", result.err().expect(want));
            assert!(error.contains(want), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let cut = folder.path().join("cut.tar.gz");
        std::fs::write(&cut, b"\x1f\x8b\x08\x00cut").unwrap();
        assert!(format!("{:#}", open_archive(&cut).err().unwrap()).contains("cut.tar.gz"));
    }
}
