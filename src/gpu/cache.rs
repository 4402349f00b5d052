//! Compiled kernels on disk, so that a program starts in milliseconds.
//!
//! An entry's name is a digest of everything its content depends on: source (with the paths that line information
//! names), flags, architecture and the compiler itself. A shared folder serves every user who may read it. An entry begins with a
//! digest of its own payload: one that is cut, or that something else wrote, does not match and is compiled again. Entries are
//! renamed into place, so processes that fill the cache at once each leave a whole file (the scheme of DeepGEMM's JIT).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::nvrtc::{Nvrtc, Target};
use crate::{notice, plain_file};

/// Bytes of an entry before its payload: a SHA-256 in hexadecimal and a newline.
const HEADER_BYTES: usize = 65;

/// The kernel cache: `MEMO_CACHE`, else `$XDG_CACHE_HOME/memo`, else `~/.cache/memo`.
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    pub fn from_environment() -> Cache {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set("MEMO_CACHE")
            .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("memo")))
            .or_else(|| set("HOME").map(|home| home.join(".cache/memo")));
        Cache { folder }
    }

    /// The folder in use; `None` without any home.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Whose the folder is, if not this user's.
    ///
    /// # Errors
    /// It is no folder, or nothing can be kept in it.
    pub fn owner(&self) -> Result<Option<u32>> {
        let folder = self.folder().context("no home folder; set MEMO_CACHE to a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        tempfile::tempfile_in(folder).with_context(|| format!("writing to {}", folder.display()))?;
        let owner = fs::metadata(folder)?.uid();
        // SAFETY: it asks for a number.
        Ok((owner != unsafe { libc::geteuid() }).then_some(owner))
    }

    /// The compiled form of `source`, from disk or from NVRTC.
    ///
    /// # Errors
    /// Compilation. A cache that cannot be read or written only costs time.
    pub fn compiled(&self, nvrtc: &Nvrtc, stem: &str, source: &str, target: Target) -> Result<Vec<u8>> {
        let place = |folder: &PathBuf| -> Option<PathBuf> {
            Some(folder.join(entry_name(nvrtc.fingerprint().ok()?, stem, source, target)))
        };
        let path = self.folder.as_ref().and_then(place);
        if let Some(payload) = path.as_deref().and_then(read_entry) {
            return Ok(payload);
        }
        let payload = nvrtc.compile(stem, source, target)?;
        ensure!(!payload.is_empty(), "kernels/{stem}.cu: NVRTC returned nothing");
        if let Some(path) = path {
            static TOLD: Once = Once::new();
            if let Err(error) = write_entry(&path, &payload) {
                let folder = path.parent().unwrap_or(Path::new(".")).display();
                TOLD.call_once(|| {
                    notice!("note: compiled kernels cannot be kept in {folder}, so each start compiles them: {error:#}")
                });
            }
        }
        Ok(payload)
    }
}

fn entry_name(compiler: &str, stem: &str, source: &str, target: Target) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{compiler}\0{}\0", target.extension()));
    for option in target.options(source) {
        digest.update(option);
        digest.update([0]);
    }
    digest.update(source);
    format!("{stem}-{}.{}", &hex(&digest.finalize())[..32], target.extension())
}

/// The payload of a file that [`write_entry`] has left; none if it is damaged or not there.
pub fn read_entry(path: &Path) -> Option<Vec<u8>> {
    let (mut file, _) = plain_file::open(path).ok()?;
    let mut entry = Vec::new();
    file.read_to_end(&mut entry).ok()?;
    let payload = entry.get(HEADER_BYTES..)?;
    let header = format!("{}\n", hex(&Sha256::digest(payload)));
    entry.starts_with(header.as_bytes()).then(|| entry.split_off(HEADER_BYTES))
}

/// Writes a file, behind a digest of itself, all at once.
///
/// # Errors
/// The folder's own.
pub fn write_entry(path: &Path, payload: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // As any new file: readable by whom the user's mask lets.
    let permissions = fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(permissions).tempfile_in(folder)?;
    writeln!(file, "{}", hex(&Sha256::digest(payload)))?;
    file.write_all(payload)?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Form;

    const SOURCE: &str = "extern \"C\" __global__ void f(int* p) { *p = VALUE; }";

    fn compile(folder: &Path, source: &str, architecture: &str) -> Vec<u8> {
        let cache = Cache { folder: Some(folder.to_path_buf()) };
        let target = Target { form: Form::Ptx, architecture };
        cache.compiled(Nvrtc::any().unwrap(), "f", source, target).unwrap()
    }

    fn entries(folder: &Path) -> Vec<PathBuf> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn every_ingredient_has_its_own_entry() {
        let folder = tempfile::tempdir().unwrap();
        let one = SOURCE.replace("VALUE", "1");
        compile(folder.path(), &one, "90a");
        assert_eq!(entries(folder.path()).len(), 1);
        compile(folder.path(), &one, "90a");
        assert_eq!(entries(folder.path()).len(), 1);
        compile(folder.path(), &SOURCE.replace("VALUE", "2"), "90a");
        compile(folder.path(), &one, "80");
        compile(folder.path(), &format!("// nvrtc: --fmad=false\n{one}"), "90a");
        assert_eq!(entries(folder.path()).len(), 4);
        let target = Target { form: Form::Ptx, architecture: "90a" };
        assert_ne!(entry_name("one", "f", &one, target), entry_name("another", "f", &one, target));
    }

    #[test]
    fn an_entry_is_as_readable_as_any_new_file() {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path(), &SOURCE.replace("VALUE", "5"), "90a");
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(entries(folder.path()).iter().all(|entry| mode(entry) == mode(&plain)));
    }

    #[test]
    fn a_damaged_entry_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let source = SOURCE.replace("VALUE", "3");
        let good = compile(folder.path(), &source, "90a");
        let entry = entries(folder.path()).remove(0);
        let whole = fs::read(&entry).unwrap();
        for damaged in [&whole[..0], &whole[..40], &whole[..whole.len() - 1], b"foreign".as_slice()] {
            fs::write(&entry, damaged).unwrap();
            assert_eq!(compile(folder.path(), &source, "90a"), good);
            assert_eq!(fs::read(&entry).unwrap(), whole);
        }
    }

    #[test]
    fn a_pipe_in_an_entrys_place_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let source = SOURCE.replace("VALUE", "6");
        let good = compile(folder.path(), &source, "90a");
        let entry = entries(folder.path()).remove(0);
        fs::remove_file(&entry).unwrap();
        let name = std::ffi::CString::new(entry.to_str().unwrap()).unwrap();
        // SAFETY: a name that ends.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert_eq!(compile(folder.path(), &source, "90a"), good);
    }

    #[test]
    fn a_folder_is_judged() {
        let place = tempfile::tempdir().unwrap();
        let judged = |folder: PathBuf| Cache { folder: Some(folder) }.owner();
        assert_eq!(judged(place.path().join("new/cache")).unwrap(), None);
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        for wrong in [file, PathBuf::from("/proc/memo")] {
            let error = format!("{:#}", judged(wrong.clone()).unwrap_err());
            assert!(error.contains(wrong.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn many_may_fill_it_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let source = SOURCE.replace("VALUE", "4");
        let all: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| compile(folder.path(), &source, "90a"))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(entries(folder.path()).len(), 1);
    }
}
