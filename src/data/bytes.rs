//! Bytes that stay where they lie until they are asked for.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::plain_file;

/// A part of a file, read at positions, so that threads do not wait for each other; or of memory. A copy is the same bytes.
#[derive(Clone)]
pub struct Bytes {
    from: From,
    start: u64,
    len: u64,
}

#[derive(Clone)]
enum From {
    File(Arc<File>),
    Memory(Arc<[u8]>),
}

impl Bytes {
    /// A file's.
    ///
    /// # Errors
    /// The host's; the file is not named.
    pub fn open(path: &Path) -> Result<Bytes> {
        let (file, len) = plain_file::open(path)?;
        Ok(Bytes { from: From::File(Arc::new(file)), start: 0, len })
    }

    pub fn in_memory(bytes: Vec<u8>) -> Bytes {
        Bytes { start: 0, len: bytes.len() as u64, from: From::Memory(bytes.into()) }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// A part of them.
    ///
    /// # Errors
    /// If they end before it does.
    pub fn part(&self, start: u64, len: u64) -> Result<Bytes> {
        let end = start.checked_add(len).filter(|&end| end <= self.len);
        ensure!(end.is_some(), "it ends at byte {}, before byte {}", self.len, start.saturating_add(len));
        Ok(Bytes { from: self.from.clone(), start: self.start + start, len })
    }

    /// So many from `start` on.
    ///
    /// # Errors
    /// If there are not so many, or the host's.
    pub fn read(&self, start: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        let end = start.checked_add(len as u64).filter(|&end| end <= self.len);
        ensure!(
            end.is_some(),
            "it ends at byte {}, before byte {}",
            self.len,
            start.saturating_add(len as u64)
        );
        let start = self.start + start;
        match &self.from {
            From::Memory(bytes) => Ok(Cow::Borrowed(&bytes[start as usize..][..len])),
            From::File(file) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, start)?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// All of them.
    ///
    /// # Errors
    /// As [`Bytes::read`].
    pub fn all(&self) -> Result<Cow<'_, [u8]>> {
        self.read(0, self.len as usize)
    }

    /// As many as there are from `start` on, and fit; how many.
    ///
    /// # Errors
    /// The host's.
    pub fn read_some(&self, start: u64, into: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(start);
        let len = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (start, into) = (self.start + start, &mut into[..len]);
        match &self.from {
            From::File(file) => file.read_at(into, start),
            From::Memory(bytes) if len > 0 => {
                into.copy_from_slice(&bytes[start as usize..][..len]);
                Ok(len)
            }
            From::Memory(_) => Ok(0),
        }
    }

    /// A reader from their beginning on.
    pub fn reader(&self) -> Reader {
        self.reader_from(0)
    }

    /// A reader from `at` on.
    pub fn reader_from(&self, at: u64) -> Reader {
        Reader { bytes: self.clone(), at }
    }
}

/// Reads [`Bytes`] in order. A copy goes on from the same place by itself.
#[derive(Clone)]
pub struct Reader {
    bytes: Bytes,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read_some(self.at, into)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.bytes.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
