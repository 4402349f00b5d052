//! Files that results go to beside stdout: opened before the work, so that none is lost for want of a place, and emptied
//! only once there is something to write.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::Usage;

/// A file that a flag names.
pub struct Output {
    flag: &'static str,
    path: PathBuf,
    file: File,
}

impl Output {
    /// # Errors
    /// It cannot be written to.
    pub fn open(flag: &'static str, path: &Path) -> Result<Output> {
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = opened
            .with_context(|| format!("{flag} {}: it cannot be written; name another file", path.display()))?;
        Ok(Output { flag, path: path.to_path_buf(), file })
    }

    /// # Errors
    /// [`Usage`] where the flags name one file twice.
    pub fn expect_apart(&self, flag: &str, other: &Path) -> Result<()> {
        let (own, theirs) = (self.file.metadata()?, std::fs::metadata(other));
        let is_same = |theirs: std::fs::Metadata| (own.dev(), own.ino()) == (theirs.dev(), theirs.ino());
        match own.is_file() && theirs.is_ok_and(is_same) {
            true => {
                Err(Usage(format!("{} and {flag} are one file, {}", self.flag, self.path.display())).into())
            }
            false => Ok(()),
        }
    }

    /// Writes all of it, in the place of what was there.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(mut self, bytes: &[u8]) -> Result<()> {
        let Output { flag, path, .. } = &self;
        let what = format!("{flag} {}: writing it", path.display());
        if self.file.metadata()?.is_file() {
            self.file.set_len(0).context(what.clone())?;
        }
        self.file.write_all(bytes).and_then(|()| self.file.flush()).context(what)
    }
}
