//! ZIP archives, read in place: members by their names, by several threads at once.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::read::DeflateDecoder;
use rawzip::{
    CompressionMethod, RECOMMENDED_BUFFER_SIZE, ReaderAt, ZipArchive, ZipArchiveEntryWayfinder, ZipLocator,
};

use super::bytes::Bytes;
use super::unread;

/// What an archive begins with; an empty one, with the second.
const MAGICS: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// The most that a member may have once it is inflated.
const MAX_MEMBER_BYTES: u64 = 16 << 30;

/// An archive that is open.
pub struct Archive {
    archive: ZipArchive<Bytes>,
    members: Vec<Member>,
    by_name: HashMap<String, usize>,
    folders: Vec<String>,
}

/// A file in it.
struct Member {
    name: String,
    at: ZipArchiveEntryWayfinder,
    is_deflated: bool,
}

impl ReaderAt for Bytes {
    fn read_at(&self, into: &mut [u8], start: u64) -> std::io::Result<usize> {
        self.read_some(start, into)
    }
}

impl Archive {
    /// `None` if it is none.
    ///
    /// # Errors
    /// An archive that is cut, in parts, or has a member twice; a member that is encrypted or compressed by another method than
    /// deflate. It is named.
    pub fn open(path: &Path) -> Result<Option<Archive>> {
        let head = unread::head(path);
        if !MAGICS.iter().any(|magic| head.starts_with(magic)) {
            return Ok(None);
        }
        let read = || Archive::of(Bytes::open(path)?);
        read().with_context(|| format!("reading the archive {}", path.display())).map(Some)
    }

    fn of(bytes: Bytes) -> Result<Archive> {
        let (end, mut buffer) = (bytes.len(), vec![0; RECOMMENDED_BUFFER_SIZE]);
        let located = ZipLocator::new().locate_in_reader(bytes, &mut buffer, end);
        let archive =
            located.map_err(|(_, error)| anyhow!("not a whole ZIP archive; download it again: {error}"))?;
        let (mut members, mut by_name, mut folders, mut seen) = (Vec::new(), HashMap::new(), Vec::new(), 0);
        let mut entries = archive.entries(&mut buffer);
        while let Some(entry) = entries.next_entry().context("not a whole ZIP archive; download it again")? {
            seen += 1;
            let path = entry.file_path();
            let name = std::str::from_utf8(path.as_ref()).map_err(|_| {
                anyhow!(
                    "the name of its member {seen} is not UTF-8: {}",
                    String::from_utf8_lossy(path.as_ref())
                )
            })?;
            if entry.is_dir() {
                folders.push(name.to_string());
                continue;
            }
            ensure!(!entry.flags().is_encrypted(), "its member {name} is encrypted; extract the archive");
            let is_deflated = match entry.compression_method() {
                CompressionMethod::STORE => false,
                CompressionMethod::DEFLATE => true,
                other => bail!(
                    "its member {name} is compressed by method {}; stored and deflated ones are read: extract the archive",
                    other.as_u16()
                ),
            };
            let twice = by_name.insert(name.to_string(), members.len()).is_some();
            ensure!(!twice, "its member {name} is in it twice");
            members.push(Member { name: name.to_string(), at: entry.wayfinder(), is_deflated });
        }
        ensure!(
            seen == archive.entries_hint(),
            "it has {seen} members, and says that there are {}; download it again",
            archive.entries_hint()
        );
        Ok(Archive { archive, members, by_name, folders })
    }

    /// Its files, in the order of the archive.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| &*member.name)
    }

    /// Folders that it names by themselves, each with a slash at its end.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.folders.iter().map(|folder| &**folder)
    }

    /// A member, whole; its sum is compared.
    ///
    /// # Errors
    /// No such member, or a damaged one.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let Member { at, is_deflated, .. } = self.member(name)?;
        let damaged = || format!("its member {name} is damaged");
        let entry = self.archive.get_entry(*at).with_context(damaged)?;
        let len = at.uncompressed_size_hint();
        ensure!(len <= MAX_MEMBER_BYTES, "its member {name} has {len} bytes, more than is read");
        let mut bytes = Vec::new();
        let read = match is_deflated {
            false => entry.verifying_reader(entry.reader()).read_to_end(&mut bytes),
            // A byte more than it should have is enough to tell that it has more.
            true => entry
                .verifying_reader(DeflateDecoder::new(entry.reader()).take(len + 1))
                .read_to_end(&mut bytes),
        };
        read.with_context(damaged)?;
        Ok(bytes)
    }

    /// A member to be read in parts: where it lies, if it is stored, and its sum is not compared; else in memory.
    ///
    /// # Errors
    /// As [`Archive::read`].
    pub fn open_member(&self, name: &str) -> Result<Bytes> {
        let Member { at, is_deflated, .. } = self.member(name)?;
        if *is_deflated {
            return Ok(Bytes::in_memory(self.read(name)?));
        }
        let entry = self.archive.get_entry(*at).with_context(|| format!("its member {name} is damaged"))?;
        let (start, end) = entry.compressed_data_range();
        self.archive.get_ref().part(start, end.saturating_sub(start))
    }

    fn member(&self, name: &str) -> Result<&Member> {
        let at = self.by_name.get(name).with_context(|| format!("it has no member {name}"))?;
        Ok(&self.members[*at])
    }
}
