//! The same images from every format that datasets come in, as the formats' own libraries write them: `make_sources.py` has, and what
//! torchvision reads of its own data sets. And every format's faults.

mod corruptions;
mod damage;
mod faults;
mod formats;
mod program;

use std::fs;
use std::path::Path;

use memo::check::fixtures;
use memo::data::{Cifar, DataSource, Dataset};

fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::open(fixtures().join("sources.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(folder.path()).unwrap();
    folder
}

/// `PATH --split NAME --corruptions A,B --severity 1,2 --dataset cifar-10`
fn source(top: &Path, text: &str) -> DataSource {
    let mut words = text.split(' ');
    let mut source = DataSource { path: top.join(words.next().unwrap()), ..DataSource::default() };
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        match flag {
            "--split" => source.split = Some(value.to_string()),
            "--corruptions" => source.corruptions = value.split(',').map(str::to_string).collect(),
            "--severity" => source.severities = value.split(',').map(|one| one.parse().unwrap()).collect(),
            "--dataset" => source.cifar = Some(Cifar::Cifar10),
            "--extensions" => source.extensions = vec![value.to_string()],
            other => panic!("{other}"),
        }
    }
    source
}

fn open(top: &Path, text: &str) -> anyhow::Result<Dataset> {
    Dataset::open(&source(top, text))
}

/// Names and pixels of all images.
fn samples(set: &Dataset) -> Vec<(String, Vec<u8>)> {
    let sample = |index: usize| {
        let sample = set.get(index).unwrap();
        assert_eq!(set.digest(index).unwrap(), sample.digest);
        assert_eq!(set.label(index), sample.label);
        (set.labels()[sample.label].clone(), sample.image.pixels)
    };
    (0..set.len()).map(sample).collect()
}

fn refused<T>(result: anyhow::Result<T>, parts: &[&str]) {
    let error = format!("{:#}", result.err().unwrap_or_else(|| panic!("accepted: {parts:?}")));
    assert!(parts.iter().all(|part| error.contains(part)), "{error}: {parts:?}");
}
