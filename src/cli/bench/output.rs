//! Files that results go to beside stdout: looked at before the work, so that none is lost for want of a place.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cli::Usage;
use crate::output;

/// A file that a flag names.
pub struct Output {
    flag: &'static str,
    path: PathBuf,
}

impl Output {
    /// # Errors
    /// It cannot be written to.
    pub fn open(flag: &'static str, path: &Path) -> Result<Output> {
        output::check(path).context(flag)?;
        Ok(Output { flag, path: path.to_path_buf() })
    }

    /// # Errors
    /// [`Usage`] where the flags name one file twice.
    pub fn expect_apart(&self, flag: &str, other: &Path) -> Result<()> {
        let is_same =
            output::is_plain(&self.path) && output::target(&self.path).ok() == output::target(other).ok();
        match is_same {
            true => {
                Err(Usage(format!("{} and {flag} are one file, {}", self.flag, self.path.display())).into())
            }
            false => Ok(()),
        }
    }

    /// Writes all of it, in the place of what was there.
    ///
    /// # Errors
    /// See [`output::write`].
    pub fn write(self, bytes: &[u8]) -> Result<()> {
        output::write(&self.path, bytes).context(self.flag)
    }
}
