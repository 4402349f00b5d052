//! CIFAR's binary form: label bytes and three 32x32 planes a record.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use anyhow::{Context, Result, bail, ensure};

use super::cifar::Cifar;
use super::memory::Memory;
use super::{Classes, Dataset, labels};

const SIDE: usize = 32;
/// Pixels of a plane; an image is its red, green and blue planes.
pub const PLANE: usize = SIDE * SIDE;

/// One of the two datasets' binary forms.
pub struct BinaryForm {
    pub cifar: Cifar,
    pub folder: &'static str,
    pub records: &'static str,
    pub names: &'static str,
    /// Label bytes of a record; the last is the one that counts (CIFAR-100's first is the coarse one).
    label_bytes: usize,
    classes: usize,
}

pub static BINARY_FORMS: [BinaryForm; 2] = [
    BinaryForm {
        cifar: Cifar::Cifar100,
        folder: "cifar-100-binary",
        records: "test.bin",
        names: "fine_label_names.txt",
        label_bytes: 2,
        classes: 100,
    },
    BinaryForm {
        cifar: Cifar::Cifar10,
        folder: "cifar-10-batches-bin",
        records: "test_batch.bin",
        names: "batches.meta.txt",
        label_bytes: 1,
        classes: 10,
    },
];

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
    Dataset::new(labels, Classes::Numbers, Memory { pixels, width: side, height: side, classes })
}

impl BinaryForm {
    /// The dataset from its two files.
    pub fn parse(&self, records: &[u8], names: &[u8]) -> Result<Dataset> {
        let labels = labels::parse(names).context(self.names)?.names();
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
pub mod tests {
    use super::*;

    /// Records and class names of CIFAR-100 with `count` images.
    pub fn files(count: usize) -> (Vec<u8>, Vec<u8>) {
        let names: String = (0..100).map(|i| format!("class_{i}\n")).collect();
        let record = |i: usize| {
            let mut bytes = vec![(i % 20) as u8, (i * 7 % 100) as u8];
            bytes.extend((0..3 * PLANE).map(|at| (at / PLANE * 100 + at % PLANE % 90 + i) as u8));
            bytes
        };
        ((0..count).flat_map(record).collect(), names.into_bytes())
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
    }
}
