//! Files that are cut or changed anywhere.

use std::fs;
use std::path::{Path, PathBuf};

use super::{fixture, open, samples};

/// Whatever is changed in a file: the same images, fewer, others where pixels lie bare, or an error; never a panic.
#[test]
fn damage_never_panics() {
    let top = fixture();
    let top = top.path();
    for (text, file) in [
        ("arrays", "arrays/images.npy"),
        ("arrays", "arrays/labels.npy"),
        ("cifar10-compressed.npz", "cifar10-compressed.npz"),
        ("folder.zip", "folder.zip"),
        ("webdataset", "webdataset/test/1.tar"),
        ("plain.parquet", "plain.parquet"),
        ("zstd.parquet", "zstd.parquet"),
        ("parquet --split test", "parquet/data/test-00000-of-00002.parquet"),
        ("named.tsv --split test", "named.tsv"),
        ("torchvision/svhn", "torchvision/svhn/test_32x32.mat"),
    ] {
        let path: PathBuf = top.join(file);
        let whole = fs::read(&path).unwrap();
        let want = samples(&open(top, text).unwrap());
        let images = |top: &Path| -> anyhow::Result<Vec<Vec<u8>>> {
            let set = open(top, text)?;
            (0..set.len()).map(|index| Ok(set.get(index)?.image.pixels)).collect()
        };
        for at in (0..whole.len()).step_by(1 + whole.len() / 40) {
            fs::write(&path, &whole[..at]).unwrap();
            if let Ok(images) = images(top) {
                let same = images.iter().zip(&want).all(|(got, (_, want))| got == want);
                assert!(same, "{text} cut at {at}");
            }
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            let _ = images(top);
        }
        // Headers and footers say what the rest is.
        for at in (0..whole.len().min(80)).chain(whole.len().saturating_sub(80)..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] = !damaged[at];
            fs::write(&path, damaged).unwrap();
            let _ = images(top);
        }
        fs::write(&path, whole).unwrap();
    }
}
