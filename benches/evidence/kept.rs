//! What has been found out and is kept in the target folder, so that a run that was stopped goes on where it was.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// A folder of results, each in a file named by all that it depends on.
pub struct Kept(PathBuf);

impl Kept {
    /// In the target folder, found from this program's own place.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn open() -> Result<Kept> {
        let program = std::env::current_exe().context("finding this program")?;
        let folder = program.parent().context("finding this program's folder")?.join("evidence");
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Kept(folder))
    }

    /// What `find` has found before, or finds now.
    ///
    /// # Errors
    /// Its own.
    pub fn get<T: Serialize + DeserializeOwned>(
        &self,
        depends_on: &[&str],
        find: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let mut digest = Sha256::new();
        for part in depends_on {
            digest.update(part);
            digest.update([0]);
        }
        let name: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let path = self.0.join(name + ".json");
        let kept = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let found = find()?;
        let file = tempfile::NamedTempFile::new_in(&self.0).context("keeping a result")?;
        serde_json::to_writer(&file, &found).context("keeping a result")?;
        file.persist(&path).with_context(|| format!("keeping {}", path.display()))?;
        Ok(found)
    }
}
