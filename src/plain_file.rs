//! Files that are read and not waited for.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Result, ensure};

/// Opens a file and says its length in bytes. A named pipe in its place would be waited for without end, and a device has none.
///
/// # Errors
/// What is there instead of a file; the host's own.
pub fn open(path: &Path) -> Result<(File, u64)> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    ensure!(!metadata.is_dir(), "it is a folder; name a file in it");
    ensure!(metadata.is_file(), "it is a pipe or a device, not a file");
    Ok((file, metadata.len()))
}
