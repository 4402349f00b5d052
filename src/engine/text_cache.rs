//! Text features on disk: an ensemble of prompts for a thousand classes is as much work as an evaluation of many images.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::outcome::Precision;
use crate::clip::{ClipConfig, TextLayout};
use crate::gpu::{Cache, Stream, find_virtual_driver};
use crate::notice;
use crate::ops::linear::serving;

/// Fewer prompts are encoded sooner than the tower's weights are digested.
pub const WORTH_KEEPING: usize = 256;

/// Where the features of these prompts are kept. Its name is a digest of all that their bits depend on.
pub struct TextCache {
    path: Option<PathBuf>,
    len: usize,
}

impl TextCache {
    /// * `weights`: the text tower's, in `layout`'s order. `ids`, `ends`: see [`super::encode_text`].
    ///
    /// # Errors
    /// The device does not say what it is.
    pub fn of(
        stream: &Stream,
        config: &ClipConfig,
        layout: &TextLayout,
        weights: &[f32],
        (ids, ends): (&[Vec<i32>], &[usize]),
        precision: Precision,
    ) -> Result<TextCache> {
        let gpu = stream.gpu();
        let mut digest = Sha256::new();
        let products = (precision == Precision::Fp16).then(|| serving(gpu.architecture()).kernel());
        let version = env!("CARGO_PKG_VERSION");
        // The kernels' sources too, as what a compiler made of them has other bits.
        digest.update(format!(
            "{version}\0{:?}\0{layout:?}\0{precision:?}\0{products:?}\0{}\0{}\0",
            config.text,
            gpu.target(),
            gpu.code_by()?
        ));
        if gpu.driver().is_virtual() {
            digest.update(virtual_driver(&find_virtual_driver()?, |name| std::env::var_os(name))?);
        }
        crate::gpu::SOURCES.iter().for_each(|(_, source)| digest.update(source));
        digest.update(bytemuck::cast_slice(weights));
        for (row, end) in ids.iter().zip(ends) {
            digest.update((*end as u64).to_le_bytes());
            digest.update(bytemuck::cast_slice(row));
        }
        let name: String = digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = Cache::from_environment().folder().map(PathBuf::from);
        let path = folder.map(|folder| folder.join(format!("text-{name}.f32")));
        Ok(TextCache { path, len: ids.len() * config.embed_dim })
    }

    /// The file; none without a folder for it.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What is kept, unless it is damaged or not there.
    pub fn read(&self) -> Option<Vec<f32>> {
        let bytes = crate::gpu::read_entry(self.path.as_deref()?)?;
        (bytes.len() == self.len * size_of::<f32>()).then(|| bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Keeps features. A folder that cannot be written only costs time, and says so.
    pub fn write(&self, features: &[f32]) {
        let Some(path) = &self.path else { return };
        if let Err(error) = crate::gpu::write_entry(path, bytemuck::cast_slice(features)) {
            notice!("note: text features cannot be kept in {}: {error:#}", path.display());
        }
    }
}

/// What the virtual driver's results depend on: the library, which has no version of its own, and what it is told.
fn virtual_driver(library: &Path, told: impl Fn(&str) -> Option<OsString>) -> Result<[u8; 32]> {
    let bytes = std::fs::read(library).with_context(|| format!("reading {}", library.display()))?;
    let mut digest = Sha256::new_with_prefix(Sha256::digest(bytes));
    for name in ["VCUDA_SUMS", "VCUDA_CHECK", "VCUDA_SEED"] {
        digest.update(told(name).unwrap_or_default().as_encoded_bytes());
        digest.update([0]);
    }
    Ok(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_virtual_driver_or_other_sums_have_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            path
        });
        let of = |library: &Path, set: &'static str, value: &'static str| {
            virtual_driver(library, |name| (name == set).then(|| value.into())).unwrap()
        };
        let plain = of(&old, "", "");
        assert_eq!(plain, of(&old, "VCUDA_PROFILE", "x"));
        let others = [of(&new, "", ""), of(&old, "VCUDA_SUMS", "h100"), of(&old, "VCUDA_CHECK", "approx")];
        assert!(others.iter().all(|other| *other != plain) && others[1] != others[2]);
        assert!(virtual_driver(&folder.path().join("none"), |_| None).is_err());
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let cache = |name: &str, len| TextCache { path: Some(folder.path().join(name)), len };
        let features = [0.5f32, -1.0, f32::MIN_POSITIVE];
        assert_eq!(cache("a", 3).read(), None);
        cache("a", 3).write(&features);
        assert_eq!(cache("a", 3).read().as_deref(), Some(&features[..]));
        assert_eq!(cache("a", 4).read(), None, "another number of them");
        let path = folder.path().join("a");
        let whole = std::fs::read(&path).unwrap();
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..whole.len() - 1], &whole[..10], &[], &other] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(cache("a", 3).read(), None);
        }
    }
}
