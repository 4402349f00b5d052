//! What a file is that is not read as a dataset, by its first bytes, for a message that does not send people astray.

use std::io::Read;
use std::path::Path;

use crate::plain_file;

/// First bytes, at an offset, and what begins so.
const KINDS: [(usize, &[u8], &str); 18] = [
    (0, b"\x93NUMPY", "a NumPy array (.npy), which is read with labels beside it"),
    (0, b"PAR1", "a Parquet table; its name must end in .parquet, or be given by itself"),
    (0, b"ARROW1", "an Arrow table"),
    (0, b"\xff\xff\xff\xff", "an Arrow stream"),
    (0, b"PK\x03\x04", "a ZIP archive (also .npz, .pt), which is read by itself"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: extract it"),
    (0, b"Rar!", "a RAR archive: extract it"),
    (0, b"BZh", "compressed by bzip2: extract it"),
    (0, b"\xfd7zXZ", "compressed by xz: extract it"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: extract it"),
    (257, b"ustar", "a tar archive; its name must end in .tar, or be given by itself"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file, of which SVHN's are read, by their names"),
    (0, b"\x89PNG", "one image: `memo predict` classifies it"),
    (0, b"\xff\xd8\xff", "one image: `memo predict` classifies it"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself: `git lfs pull` gets it"),
    (0, b"<!DOCTYPE", "a web page: the download was refused"),
    (0, b"<html", "a web page: the download was refused"),
];

/// What of a file must be seen to tell.
pub const HEAD_BYTES: usize = 512;

/// What a file that begins so is, of what is not read here.
pub fn kind(head: &[u8]) -> Option<&'static str> {
    let begins =
        |&&(at, magic, _): &&(usize, &[u8], _)| head.get(at..).is_some_and(|head| head.starts_with(magic));
    KINDS.iter().find(begins).map(|&(_, _, kind)| kind)
}

/// The same of a plain file; `None` also where it cannot be read.
pub fn kind_of(path: &Path) -> Option<&'static str> {
    kind(&head(path))
}

/// How a plain file begins; nothing where it cannot be read.
pub fn head(path: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok((file, _)) = plain_file::open(path) {
        let read = file.take(HEAD_BYTES as u64).read_to_end(&mut head);
        head.truncate(read.unwrap_or(0));
    }
    head
}
