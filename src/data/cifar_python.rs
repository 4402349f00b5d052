//! CIFAR in the form that torchvision downloads, Python 2 pickles of NumPy arrays, or pickled again by any later Python.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};

use super::Dataset;
use super::cifar::Cifar;
use super::cifar_binary::{PLANE, dataset};
use super::pickle::{Array, At, Pickle};

/// One of the two datasets' python forms.
pub struct PythonForm {
    pub cifar: Cifar,
    pub folder: &'static str,
    /// Pickle of a dict with `data` and labels.
    pub records: &'static str,
    /// Pickle of a dict with the class names.
    pub names: &'static str,
    labels_key: &'static str,
    names_key: &'static str,
    classes: usize,
}

pub static PYTHON_FORMS: [PythonForm; 2] = [
    PythonForm {
        cifar: Cifar::Cifar100,
        folder: "cifar-100-python",
        records: "test",
        names: "meta",
        labels_key: "fine_labels",
        names_key: "fine_label_names",
        classes: 100,
    },
    PythonForm {
        cifar: Cifar::Cifar10,
        folder: "cifar-10-batches-py",
        records: "test_batch",
        names: "batches.meta",
        labels_key: "labels",
        names_key: "label_names",
        classes: 10,
    },
];

impl PythonForm {
    /// The dataset from its two pickles.
    pub fn parse(&self, records: &[u8], names: &[u8]) -> Result<Dataset> {
        let labels = self.labels(names).context(self.names)?;
        let read = || -> Result<Dataset> {
            let records = Pickle::read(records).context(NOT_WHOLE)?;
            let classes = self.classes_of(&records)?;
            let data = records.top().field("data")?.array().context("`data` is not an array")?;
            let planes = rows(data, classes.len())?;
            ensure!(!classes.is_empty(), "it has no images");
            dataset(labels, classes, planes.into_owned())
        };
        read().context(self.records)
    }

    fn labels(&self, names: &[u8]) -> Result<Vec<String>> {
        let names = Pickle::read(names).context(NOT_WHOLE)?;
        let list = names.top().field(self.names_key)?.list().context("its names are not a list")?;
        let text = |name: &At| name.text().map(|text| text.into_owned()).context("a name that is not text");
        let labels = list.iter().map(text).collect::<Result<Vec<_>>>()?;
        ensure!(labels.len() == self.classes, "{} names; {} are expected", labels.len(), self.classes);
        Ok(labels)
    }

    fn classes_of(&self, records: &Pickle) -> Result<Vec<usize>> {
        let (key, count) = (self.labels_key, self.classes);
        let labels = records.top().field(key)?.ints();
        let label = |(record, label): (usize, i64)| match usize::try_from(label) {
            Ok(label) if label < count => Ok(label),
            _ => bail!("record {record} has label {label}; there are {count} classes"),
        };
        labels
            .with_context(|| format!("`{key}` is not a list of numbers"))?
            .into_iter()
            .enumerate()
            .map(label)
            .collect()
    }
}

const NOT_WHOLE: &str = "not a whole pickle of CIFAR's; download it again";

/// An array of uint8, `(count, 3072)`, or in planes, `(count, 3, 32, 32)`, row by row.
fn rows(array: Array<'_>, count: usize) -> Result<Cow<'_, [u8]>> {
    let Array { shape, dtype, fortran, bytes } = array;
    ensure!(dtype == "u1", "`data` is an array of {dtype}; uint8 is expected");
    ensure!(
        bytes.len() == count * 3 * PLANE && shape.first() == Some(&count),
        "`data` has {} bytes for {count} labels; {} an image are expected; download it again",
        bytes.len(),
        3 * PLANE
    );
    ensure!(
        !fortran || shape.len() == 2,
        "`data` has shape {shape:?} with columns first; (N, 3072) is expected"
    );
    Ok(match fortran {
        false => bytes,
        true => (0..bytes.len()).map(|at| bytes[at % (3 * PLANE) * count + at / (3 * PLANE)]).collect(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn short(text: &str) -> Vec<u8> {
        [&[b'U', text.len() as u8], text.as_bytes()].concat()
    }

    /// What Python 2's cPickle writes for `{'data': uint8 array (n, 3072), 'fine_labels': [...]}`.
    pub fn records(labels: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = b"\x80\x02}q\x01(".to_vec();
        out.extend(short("data"));
        out.extend(
            b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04",
        );
        out.extend(
            [b"(K\x01K".as_slice(), &[labels.len() as u8], b"M\x00\x0c\x86cnumpy\ndtype\nq\x05"].concat(),
        );
        out.extend(
            b"U\x02u1K\x00K\x01\x87Rq\x06(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T",
        );
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(data);
        out.extend(b"tb");
        out.extend(short("fine_labels"));
        out.extend(b"]q\x07(");
        labels.iter().for_each(|&label| out.extend([b'K', label]));
        out.extend(b"eu.");
        out
    }

    pub fn names(count: usize) -> Vec<u8> {
        let mut out = b"\x80\x02}q\x01".to_vec();
        out.extend(short("fine_label_names"));
        out.extend(b"]q\x02(");
        (0..count).for_each(|i| out.extend(short(&format!("class_{i}"))));
        out.extend(b"es.");
        out
    }

    #[test]
    fn an_array_and_its_labels_are_read() {
        let data: Vec<u8> = (0..2 * 3 * PLANE).map(|i| (i / PLANE * 40 + i % 7) as u8).collect();
        let set = PYTHON_FORMS[0].parse(&records(&[7, 99], &data), &names(100)).unwrap();
        assert_eq!((set.len(), set.labels()[99].as_str()), (2, "class_99"));
        let sample = set.get(1).unwrap();
        assert_eq!(sample.label, 99);
        let at = |plane: usize, pixel: usize| data[3 * PLANE + plane * PLANE + pixel];
        assert_eq!(sample.image.pixels[3..6], [at(0, 1), at(1, 1), at(2, 1)]);
    }

    #[test]
    fn columns_first_is_the_same_array() {
        let data: Vec<u8> = (0..2 * 3 * PLANE).map(|i| (i * 7 % 251) as u8).collect();
        let columns: Vec<u8> = (0..data.len()).map(|at| data[at % 2 * 3 * PLANE + at / 2]).collect();
        let mut fortran = records(&[1, 2], &columns);
        let flag = fortran.windows(4).position(|bytes| bytes == b"tb\x89T").unwrap();
        fortran[flag + 2] = 0x88;
        let [rows, columns] = [records(&[1, 2], &data), fortran].map(|pickle| {
            let set = PYTHON_FORMS[0].parse(&pickle, &names(100)).unwrap();
            [set.get(0).unwrap(), set.get(1).unwrap()]
        });
        assert_eq!(rows, columns);
    }

    #[test]
    fn faults_are_named() {
        let data = vec![0; 2 * 3 * PLANE];
        let whole = records(&[1, 2], &data);
        let cases = [
            (PYTHON_FORMS[0].parse(&whole[..whole.len() / 2], &names(100)), "test: not a whole pickle"),
            (PYTHON_FORMS[0].parse(&records(&[1, 200], &data), &names(100)), "record 1 has label 200"),
            (
                PYTHON_FORMS[0].parse(&records(&[1, 2, 3], &data), &names(100)),
                "`data` has 6144 bytes for 3 labels",
            ),
            (PYTHON_FORMS[0].parse(&whole, &names(3)), "meta: 3 names; 100 are expected"),
            (PYTHON_FORMS[0].parse(&names(100), &names(100)), "it has no `fine_labels`"),
            (PYTHON_FORMS[0].parse(&records(&[], &[]), &names(100)), "it has no images"),
        ];
        for (result, want) in cases {
            let error = format!("{:#}", result.err().expect(want));
            assert!(error.contains(want), "{error}");
        }
    }
}
