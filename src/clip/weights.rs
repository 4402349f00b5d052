//! A checkpoint's tensors: one safetensors file, or several that an index ties together.
//!
//! Bytes are read when they are asked for, not mapped: a mapped file that somebody else cuts ends the program.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::place;
use super::prefix::Prefix;
use super::summary::shortened;
use crate::plain_file;

/// Bytes of a safetensors file's header, at most: the format's own bound.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// Tensors by name; their bytes stay in the files.
pub struct Weights {
    path: PathBuf,
    files: Vec<Stored>,
    tensors: BTreeMap<String, Entry>,
    notices: Vec<String>,
}

/// An open file, as long as it was when it was opened.
struct Stored {
    path: PathBuf,
    file: File,
    bytes: u64,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<u64>,
}

/// One tensor, which has as many bytes as `shape` and `dtype` say.
pub struct Tensor<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    file: &'a Stored,
    bytes: Range<u64>,
}

impl Tensor<'_> {
    /// Reads its bytes from `offset` on.
    ///
    /// # Errors
    /// A file that has become shorter; the disk's own.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        let from = self.bytes.start + offset as u64;
        ensure!(
            from + out.len() as u64 <= self.bytes.end,
            "it ends at byte {}",
            self.bytes.end - self.bytes.start
        );
        self.file.read(from, out)
    }

    /// The shape without further ones in front: `(1, T, C)` is `(T, C)` to one who expects two dimensions.
    pub fn shape_of_rank(&self, rank: usize) -> &[usize] {
        match self.shape.len().checked_sub(rank) {
            Some(extra) if self.shape[..extra].iter().all(|&n| n == 1) => &self.shape[extra..],
            _ => self.shape,
        }
    }
}

impl Weights {
    /// Opens a folder's weights, a safetensors file, or the index of a model in several files.
    ///
    /// # Errors
    /// What is missing, cut or not safetensors, with the file.
    pub fn open(path: &Path) -> Result<Weights> {
        let mut notices = Vec::new();
        let path = place::find(path, &mut notices)
            .with_context(|| format!("opening the model {}", path.display()))?;
        let mut weights =
            Weights { path: path.clone(), files: Vec::new(), tensors: BTreeMap::new(), notices };
        let read = match path.extension().is_some_and(|end| end == "json") {
            true => weights.add_shards(),
            false => weights.add_file(&path).map(|tensors| weights.tensors = tensors),
        };
        read.and_then(|()| weights.drop_prefix()).with_context(|| format!("reading {}", path.display()))?;
        Ok(weights)
    }

    /// What was found elsewhere, or named otherwise than it is called here.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Gives the tensors CLIP's own names.
    fn drop_prefix(&mut self) -> Result<()> {
        let Some(prefix) = Prefix::of(self.names())? else { return Ok(()) };
        self.notices.push(format!("{}: {}", self.path.display(), prefix.notice()));
        for (name, entry) in std::mem::take(&mut self.tensors) {
            let plain = prefix.apply(&name);
            let twice = self.tensors.insert(plain.clone(), entry).is_some();
            ensure!(!twice, "it has {plain} twice, with and without {}", prefix.surplus);
        }
        Ok(())
    }

    /// The file, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of each file, in the order of their names.
    pub fn file_bytes(&self) -> impl ExactSizeIterator<Item = u64> {
        self.files.iter().map(|file| file.bytes)
    }

    /// Each file's name, and the first 32 hex digits of SHA-256 over it.
    ///
    /// # Errors
    /// A file that has become shorter; the disk's own.
    pub fn digests(&self) -> Result<Vec<(String, String)>> {
        let digest = |file: &Stored| -> Result<(String, String)> {
            let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
            for at in (0..file.bytes).step_by(buffer.len()) {
                let len = (file.bytes - at).min(buffer.len() as u64) as usize;
                file.read(at, &mut buffer[..len])?;
                digest.update(&buffer[..len]);
            }
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok((name, digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()))
        };
        let reading =
            |file: &Stored| digest(file).with_context(|| format!("reading {}", file.path.display()));
        self.files.iter().map(reading).collect()
    }

    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.tensors.keys().map(String::as_str)
    }

    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let Entry { file, dtype, shape, bytes } = self.tensors.get(name)?;
        Some(Tensor { dtype: *dtype, shape, file: &self.files[*file], bytes: bytes.clone() })
    }

    /// Opens a file; its tensors.
    fn add_file(&mut self, path: &Path) -> Result<BTreeMap<String, Entry>> {
        let file = Stored::open(path)?;
        let (data, metadata) = file.header().context("not a whole safetensors file")?;
        let entry = |info: &TensorInfo| Entry {
            file: self.files.len(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: data + info.data_offsets.0 as u64..data + info.data_offsets.1 as u64,
        };
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
        self.files.push(file);
        Ok(tensors)
    }

    /// Reads `{"weight_map": {tensor: file}}` and the files it names, which lie beside it: all that is in them, as transformers
    /// does.
    fn add_shards(&mut self) -> Result<()> {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&self.path)?).context("not JSON")?;
        let map = json.get("weight_map").and_then(Value::as_object).context(
            "it has no weight_map, so it is no index of safetensors files; give the model's folder",
        )?;
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, file) in map {
            let file = file.as_str().with_context(|| format!("weight_map.{name} is {file}, not a file"))?;
            ensure!(
                Path::new(file).file_name().is_some_and(|plain| plain == file),
                "weight_map.{name} is {file:?}; a file beside the index is expected"
            );
            shards.entry(file).or_default().push(name);
        }
        let mut surplus = Vec::new();
        for (file, names) in &shards {
            let path = self.path.with_file_name(file);
            let tensors = self.add_file(&path).with_context(|| format!("reading {}", path.display()))?;
            for name in names {
                ensure!(tensors.contains_key(*name), "{name} is not in {file}, where weight_map has it");
            }
            for (name, entry) in tensors {
                if !map.contains_key(&name) {
                    surplus.push(name.clone());
                }
                if let Some(other) = self.tensors.insert(name.clone(), entry) {
                    let other = &self.files[other.file].path;
                    bail!("{name} is in {file} and in {}", other.file_name().unwrap_or_default().display());
                }
            }
        }
        if !surplus.is_empty() {
            let (index, surplus) = (self.path.display(), shortened(&surplus));
            self.notices
                .push(format!("{index}: its files hold {surplus} too, which weight_map does not name"));
        }
        Ok(())
    }
}

impl Stored {
    fn open(path: &Path) -> Result<Stored> {
        let (file, bytes) = plain_file::open(path)?;
        let stored = Stored { path: path.to_path_buf(), file, bytes };
        let mut start = vec![0; bytes.min(1024) as usize];
        stored.read(0, &mut start)?;
        place::check_start(&start)?;
        Ok(stored)
    }

    fn read(&self, from: u64, out: &mut [u8]) -> Result<()> {
        let read = self.file.read_exact_at(out, from);
        read.with_context(|| {
            format!("it had {} bytes, and ends before byte {} now", self.bytes, from + out.len() as u64)
        })
    }

    /// Where the data begins, and what is in it: a length of 8 bytes, and so many of JSON. All bytes are some tensor's.
    fn header(&self) -> Result<(u64, Metadata)> {
        let mut len = [0; 8];
        self.read(0, &mut len)?;
        let len = u64::from_le_bytes(len);
        ensure!(len <= MOST_HEADER_BYTES.min(self.bytes - 8), "its header has {len} bytes of {}", self.bytes);
        let mut json = vec![0; len as usize];
        self.read(8, &mut json)?;
        let metadata: Metadata = serde_json::from_slice(&json)?;
        let data = 8 + len;
        let end = metadata.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
        ensure!(
            data + end == self.bytes,
            "it has {} bytes, and its header tells of {}",
            self.bytes,
            data + end
        );
        Ok((data, metadata))
    }
}
