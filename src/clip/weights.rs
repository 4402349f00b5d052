//! A checkpoint's tensors: one mapped safetensors file, or several that an index ties together.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// Weights that a model's folder may hold, the first that is there is taken. open_clip's come first: its
/// folders may hold the same tower for timm as `model.safetensors`.
const FILES: [&str; 3] = ["open_clip_model.safetensors", "model.safetensors", "model.safetensors.index.json"];

/// What a folder has where nobody converted its weights.
const PICKLES: [&str; 2] = ["pytorch_model.bin", "open_clip_pytorch_model.bin"];

/// What turns a pickle into weights that can be read here.
const CONVERT: &str = "load it in PyTorch and save it with safetensors.torch.save_file as model.safetensors";

/// Tensors by name; their bytes stay in the mapped files.
pub struct Weights {
    path: PathBuf,
    files: Vec<Mmap>,
    tensors: BTreeMap<String, Entry>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// One tensor. `data` is as long as `shape` and `dtype` say.
pub struct Tensor<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub data: &'a [u8],
}

impl Tensor<'_> {
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
        let opening = || format!("opening the model {}", path.display());
        let folder = std::fs::metadata(path).with_context(opening)?.is_dir();
        let path = if folder { find(path).with_context(opening)? } else { path.to_path_buf() };
        let mut weights = Weights { path: path.clone(), files: Vec::new(), tensors: BTreeMap::new() };
        let read = match path.extension().is_some_and(|end| end == "json") {
            true => weights.add_shards(),
            false => weights.add_file(&path).map(|tensors| weights.tensors = tensors),
        };
        read.with_context(|| format!("reading {}", path.display()))?;
        Ok(weights)
    }

    /// The file, or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mapped files, whole, in the order of their names.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.files.iter().map(|file| &file[..])
    }

    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let Entry { file, dtype, shape, bytes } = self.tensors.get(name)?;
        Some(Tensor { dtype: *dtype, shape, data: self.files[*file].get(bytes.clone())? })
    }

    /// Maps a file; its tensors.
    fn add_file(&mut self, path: &Path) -> Result<BTreeMap<String, Entry>> {
        let bytes = map(path)?;
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).context("not a whole safetensors file")?;
        let data = size_of::<u64>() + header;
        let entry = |info: &safetensors::tensor::TensorInfo| Entry {
            file: self.files.len(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: data + info.data_offsets.0..data + info.data_offsets.1,
        };
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
        self.files.push(bytes);
        Ok(tensors)
    }

    /// Reads `{"weight_map": {tensor: file}}` and the files it names, which lie beside it.
    fn add_shards(&mut self) -> Result<()> {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&self.path)?).context("not JSON")?;
        let map = json
            .get("weight_map")
            .and_then(Value::as_object)
            .context("it has no weight_map, so it is no index of safetensors files")?;
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, file) in map {
            let file = file.as_str().with_context(|| format!("weight_map.{name} is {file}, not a file"))?;
            ensure!(
                Path::new(file).file_name().is_some_and(|plain| plain == file),
                "weight_map.{name} is {file:?}; a file beside the index is expected"
            );
            shards.entry(file).or_default().push(name);
        }
        for (file, names) in shards {
            let path = self.path.with_file_name(file);
            let mut tensors = self.add_file(&path).with_context(|| format!("reading {}", path.display()))?;
            for name in names {
                let (name, entry) = tensors
                    .remove_entry(name)
                    .with_context(|| format!("{name} is not in {file}, where weight_map has it"))?;
                self.tensors.insert(name, entry);
            }
        }
        Ok(())
    }
}

/// The weights of a folder.
fn find(folder: &Path) -> Result<PathBuf> {
    if let Some(path) = FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(path);
    }
    let pickle = PICKLES.iter().find(|name| folder.join(name).is_file());
    let found = pickle.map_or(String::new(), |name| format!(", only {name}, a PyTorch pickle"));
    bail!("it has none of {}{found}; if you have a pickle, {CONVERT}", FILES.join(", "))
}

fn map(path: &Path) -> Result<Mmap> {
    // Asked before opening: a named pipe would wait for its writer.
    ensure!(std::fs::metadata(path)?.is_file(), "not a file");
    let file = File::open(path)?;
    // SAFETY: the file is read as it is now; a program that cuts it meanwhile ends this one, as with any
    // mapped file.
    let bytes = unsafe { Mmap::map(&file) }?;
    ensure!(!bytes.is_empty(), "the file is empty");
    let pickle = bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02");
    ensure!(!pickle, "this is a PyTorch pickle; {CONVERT}");
    let pointer = bytes.starts_with(b"version https://git-lfs");
    ensure!(!pointer, "this is Git LFS's pointer to the weights; fetch them with `git lfs pull`");
    Ok(bytes)
}
