//! Files that a user names to be written: whole or not at all, where links lead, and through what is no plain file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::{Builder, NamedTempFile};

use crate::interrupt;

/// Written between two looks at whether the program is to end.
const CHUNK_BYTES: usize = 1 << 20;
/// Links that are followed from one to the next, as many as Linux does.
const MOST_LINKS: usize = 40;

/// Writes a file:
///
/// * what is no plain file, such as `/dev/stdout`, another device or a FIFO, is written to;
/// * else all goes to a file beside it, which takes its place once it is on the disk: until then, and if that fails, what
///   was there stays. A link stays one, a file keeps its mode and owner, and a new one has the mode that the umask leaves.
///   Where the folder takes no file, but there is one that can be written, it is written in its place.
///
/// # Errors
/// A path that cannot be written, with it; a full disk; [`interrupt::Interrupted`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        if let Some(mut file) = special(path)? {
            return in_chunks(&mut file, bytes);
        }
        let target = target(path)?;
        match beside(&target) {
            Ok(mut new) => {
                in_chunks(&mut new, bytes)?;
                put(new, &target)?;
            }
            Err(error) if is_shut(&error) && target.exists() => {
                let mut file = OpenOptions::new().write(true).truncate(true).open(&target)?;
                in_chunks(&mut file, bytes)?;
                file.sync_all()?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Whether [`write`] will find a place, before the work for it is done.
///
/// # Errors
/// It will not.
pub fn check(path: &Path) -> Result<()> {
    let check = || -> Result<()> {
        ensure!(!path.is_dir(), "it is a folder; name a file in it");
        if is_plain(path) {
            let target = target(path)?;
            match beside(&target) {
                Err(error) if is_shut(&error) && target.exists() => {
                    OpenOptions::new().write(true).open(&target)?;
                }
                made => drop(made?),
            }
        }
        Ok(())
    };
    check().with_context(|| format!("writing {}", path.display()))
}

/// Whether it is a file like any other, or could become one.
pub fn is_plain(path: &Path) -> bool {
    !is_descriptor(path) && fs::metadata(path).map_or(true, |found| found.is_file())
}

/// Whether it is this program's stdout, by one of the names that shells' users know.
pub fn is_stdout(path: &Path) -> bool {
    ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// An open file of this program: it is to be written from where it stands, also where it is a plain one.
fn is_descriptor(path: &Path) -> bool {
    is_stdout(path)
        || path == Path::new("/dev/stderr")
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc/self/fd")
}

/// What is no plain file, open to be written.
pub fn special(path: &Path) -> io::Result<Option<File>> {
    if is_stdout(path) {
        // Not by its name: that would begin a plain file from its start again.
        return Ok(Some(io::stdout().as_fd().try_clone_to_owned()?.into()));
    }
    match is_plain(path) {
        true => Ok(None),
        false => OpenOptions::new().append(true).open(path).map(Some),
    }
}

/// Where links lead; the last may lead to what is not there yet.
pub fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(_) => {
                let name = path.file_name().ok_or(ErrorKind::InvalidFilename)?;
                let folder = folder(&path);
                let whole = fs::canonicalize(folder).map_err(|error| match error.kind() {
                    ErrorKind::NotFound => {
                        let what = format!("there is no folder {}; make it first", folder.display());
                        io::Error::new(error.kind(), what)
                    }
                    _ => error,
                });
                return Ok(whole?.join(name));
            }
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that can take the place of `target`, with the mode and the owner that belong there; gone if it does not.
pub fn beside(target: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(target.file_name().unwrap_or_default());
    prefix.push(".");
    // The umask takes from this what it takes from any new file's.
    let new = Builder::new()
        .prefix(&prefix)
        .permissions(Permissions::from_mode(0o666))
        .append(true)
        .tempfile_in(folder(target))?;
    if let Ok(old) = fs::metadata(target) {
        if old.uid() != new.as_file().metadata()?.uid() || old.gid() != new.as_file().metadata()?.gid() {
            let _ = fchown(new.as_file(), Some(old.uid()), Some(old.gid())); // where one may
        }
        new.as_file().set_permissions(old.permissions())?;
    }
    Ok(new)
}

/// Puts a file in the place of `target`, once it is on the disk.
pub fn put(new: NamedTempFile, target: &Path) -> io::Result<File> {
    new.as_file().sync_all()?;
    let file = new.persist(target)?;
    sync_folder(target)?;
    Ok(file)
}

/// A name is on the disk once its folder is.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(folder(path))?.sync_all() {
        // Not every file system has this for folders.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

fn in_chunks(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    for chunk in bytes.chunks(CHUNK_BYTES) {
        interrupt::check()?;
        match to.write_all(chunk) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(interrupt::ReaderGone.into()),
            result => result?,
        }
    }
    Ok(to.flush()?)
}

/// A folder that takes no file.
fn is_shut(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
