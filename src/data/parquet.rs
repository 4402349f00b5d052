//! Parquet tables as Hugging Face's `datasets` writes them: a column of images, each a struct of bytes and a path, and one of labels,
//! whose names stand in the file's metadata; `test-00000-of-00002.parquet` and so on make a split.
//! <https://huggingface.co/docs/datasets/image_dataset>

use std::collections::VecDeque;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow, bail, ensure};
use parquet::basic::{Compression, Type};
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;
use serde_json::Value;

use super::bytes::{Bytes, Reader};
use super::folder::{entries, subfolders};
use super::pixels::classes_of;
use super::source::{Source, Stored};
use super::{Classes, DataSource, Dataset, choose, known, unread};

const MAGIC: &[u8] = b"PAR1";

/// What columns are called where no metadata says which is which.
const IMAGES: [&str; 8] = ["image", "img", "images", "picture", "jpg", "png", "webp", "image_bytes"];
const LABELS: [&str; 7] = ["label", "fine_label", "labels", "target", "class", "cls", "category"];

/// Rows that are read at once have about so many bytes: a page of the file, as it mostly is.
const CHUNK_BYTES: u64 = 1 << 20;
const MAX_CHUNK_ROWS: usize = 512;
/// Chunks that are kept, since several threads go through one.
const CHUNKS_KEPT: usize = 16;
/// For the header of a page.
const READ_BYTES: usize = 4 << 10;

impl Length for Bytes {
    fn len(&self) -> u64 {
        Bytes::len(self)
    }
}

impl ChunkReader for Bytes {
    type T = BufReader<Reader>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::with_capacity(READ_BYTES, self.reader_from(start)))
    }

    fn get_bytes(&self, start: u64, len: usize) -> Result<bytes::Bytes, ParquetError> {
        let read = self.read(start, len).map_err(|error| ParquetError::EOF(error.to_string()))?;
        Ok(read.into_owned().into())
    }
}

/// Images in the rows of tables.
struct Table {
    shards: Vec<Shard>,
    /// Row groups in order: shard, group in it, first row of all.
    groups: Vec<Group>,
    labels: Vec<u32>,
    chunks: Mutex<VecDeque<Kept>>,
}

struct Shard {
    path: PathBuf,
    reader: SerializedFileReader<Bytes>,
    columns: Columns,
}

/// Columns by number.
#[derive(Clone, Copy)]
struct Columns {
    image: usize,
    label: usize,
}

struct Group {
    shard: usize,
    group: usize,
    first: usize,
    rows: usize,
    chunk_rows: usize,
}

/// Images of a chunk's rows; none where a row has no bytes.
type Chunk = Vec<Option<ByteArray>>;

/// A chunk by its group and number, once a thread has read it.
type Kept = ((usize, usize), Arc<OnceLock<Result<Chunk, String>>>);

/// A `.parquet` file, or a folder of such files, which may lie in a folder in it.
pub fn open(path: &Path, source: &DataSource) -> Result<Option<Dataset>> {
    let opening = || format!("opening the dataset {}", path.display());
    if !path.is_dir() {
        return match unread::head(path).starts_with(MAGIC) {
            true => dataset(vec![path.to_path_buf()], None).map(Some),
            false => Ok(None),
        };
    }
    let mut files = tables_in(path)?;
    if files.is_empty() {
        let mut folders = Vec::new();
        for folder in subfolders(path)? {
            let inside = tables_in(&folder)?;
            if !inside.is_empty() {
                folders.push((folder, inside));
            }
        }
        files = match &folders[..] {
            [] => return Ok(None),
            [(_, inside)] => inside.clone(),
            [(first, _), ..] => {
                let names: Vec<_> = folders
                    .iter()
                    .filter_map(|(folder, _)| Some(folder.file_name()?.to_string_lossy()))
                    .collect();
                bail!(
                    "{}: its folders {} have tables; say --data {}",
                    opening(),
                    names.join(", "),
                    first.display()
                )
            }
        };
    }
    if are_numbered(&files) {
        return dataset(files, None).map(Some);
    }
    let mut splits: Vec<String> = files.iter().map(|file| split_of(file).0).collect();
    splits.dedup();
    let (at, split) = choose(&splits, source.split.as_deref()).with_context(opening)?;
    files.retain(|file| split_of(file).0 == splits[at]);
    let of = files.iter().find_map(|file| split_of(file).1).map_or(files.len(), |(_, of)| of);
    for number in 0..of {
        let there =
            files.iter().any(|file| split_of(file).1.is_none_or(|(own, all)| own == number && all == of));
        ensure!(there, "{}: of {of} tables of {}, number {number} is missing", opening(), splits[at]);
    }
    ensure!(files.len() == of, "{}: {} has {} tables, and they say {of}", opening(), splits[at], files.len());
    dataset(files, split).map(Some)
}

fn tables_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_table = |path: &Path| path.extension().is_some_and(|end| end == "parquet");
    let files = entries(folder)?.into_iter().filter(|entry| !entry.is_folder && is_table(&entry.path));
    Ok(files.map(|entry| entry.path).collect())
}

/// Whether all are `0000.parquet`, `0001.parquet` and so on, as the hub converts a split to: parts in the order of their names.
fn are_numbered(files: &[PathBuf]) -> bool {
    let stem = |file: &PathBuf| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    (0..).zip(files).all(|(number, file)| stem(file) == format!("{number:04}"))
}

/// `test`, and 0 of 2, of `test-00000-of-00002.parquet`.
fn split_of(path: &Path) -> (String, Option<(usize, usize)>) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // Newer ones end in a sum of the contents too.
    let parts: Vec<&str> = stem.split('-').collect();
    let of = parts.iter().position(|part| *part == "of").filter(|&at| at >= 2 && at + 1 < parts.len());
    let numbers = of.and_then(|at| Some((parts[at - 1].parse().ok()?, parts[at + 1].parse().ok()?)));
    match (of, numbers) {
        (Some(at), Some(numbers)) => (parts[..at - 1].join("-"), Some(numbers)),
        _ => (stem.into_owned(), None),
    }
}

fn dataset(files: Vec<PathBuf>, split: Option<String>) -> Result<Dataset> {
    let (mut shards, mut groups, mut cells, mut names) = (Vec::new(), Vec::new(), Vec::new(), None);
    for path in files {
        let reading = || format!("reading the table {}", path.display());
        let open = || -> Result<(Shard, Option<Vec<String>>)> {
            let reader =
                SerializedFileReader::new(Bytes::open(&path)?).context("not a whole Parquet file")?;
            let (columns, names) = columns(reader.metadata())?;
            Ok((Shard { path: path.clone(), reader, columns }, names))
        };
        let (shard, own) = open().with_context(reading)?;
        ensure!(
            shards.is_empty() || names == own,
            "{}: its classes are not those of the table before it",
            reading()
        );
        names = own;
        for group in 0..shard.reader.num_row_groups() {
            let labels = labels_of(&shard, group).with_context(reading)?;
            let about = shard.reader.metadata().row_group(group).column(shard.columns.image);
            let bytes = u64::try_from(about.uncompressed_size()).unwrap_or(0) / labels.len().max(1) as u64;
            let chunk_rows = (CHUNK_BYTES / bytes.max(1)).clamp(1, MAX_CHUNK_ROWS as u64) as usize;
            let (first, rows) = (cells.len(), labels.len());
            if rows > 0 {
                groups.push(Group { shard: shards.len(), group, first, rows, chunk_rows });
            }
            cells.extend(labels);
        }
        shards.push(shard);
    }
    let reading = || match &shards[..] {
        [one] => format!("reading the table {}", one.path.display()),
        several => format!("reading the tables {} and on", several[0].path.display()),
    };
    ensure!(!cells.is_empty(), "{}: it has no rows", reading());
    let numbers = |cells: &[Cell]| -> Option<Vec<i64>> {
        cells.iter().map(|cell| if let Cell::Number(number) = cell { Some(*number) } else { None }).collect()
    };
    let (names, kind, classes) = match (numbers(&cells), names) {
        (Some(numbers), names) => {
            let (names, kind) = match names {
                Some(names) => (names, Classes::Numbers),
                None => known::numbered(None, &numbers),
            };
            let count = names.len();
            (names, kind, classes_of(numbers, count).with_context(reading)?)
        }
        (None, _) => {
            let texts = |cell: &Cell| match cell {
                Cell::Text(text) => text.clone(),
                Cell::Number(number) => number.to_string(),
            };
            let texts: Vec<String> = cells.iter().map(texts).collect();
            let mut names = texts.clone();
            names.sort();
            names.dedup();
            let classes = texts.iter().map(|text| names.binary_search(text).unwrap_or(0)).collect();
            (names, Classes::Folders, classes)
        }
    };
    let labels = classes.into_iter().map(|class| class as u32).collect();
    let table = Table { shards, groups, labels, chunks: Mutex::default() };
    let mut dataset = Dataset::new(names, kind, table);
    dataset.format = "a table of images (.parquet)";
    dataset.took.split = split;
    Ok(dataset)
}

/// Which columns are the images and the labels, and the names of the classes.
fn columns(metadata: &ParquetMetaData) -> Result<(Columns, Option<Vec<String>>)> {
    let schema = metadata.file_metadata().schema_descr();
    let paths: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let all = || paths.join(", ");
    let at = |path: &str| paths.iter().position(|there| there == path);
    let features = features(metadata)?;
    let of_type = |kind: &str| -> Vec<&String> {
        let is = |(_, feature): &(&String, &Value)| feature["_type"] == kind;
        features.iter().flatten().filter(is).map(|(name, _)| name).collect()
    };
    let bytes_at = |name: &str| at(&format!("{name}.bytes")).or_else(|| at(name));
    let one = |what: &str, declared: Vec<&String>, usual: &[&str]| -> Result<String> {
        let is_usual = |name: &&str| declared.is_empty() || declared.iter().any(|there| there == name);
        let there = |name: &&str| bytes_at(name).is_some();
        let found: Vec<String> = match &declared[..] {
            [only] if usual.contains(&&***only) => vec![only.to_string()],
            // What is called as usual may be meant as well: a number for a label beside a declared domain.
            [only] => std::iter::once(&***only)
                .chain(usual.iter().copied().filter(there))
                .map(str::to_string)
                .collect(),
            _ => usual.iter().copied().filter(is_usual).filter(there).map(str::to_string).collect(),
        };
        match &found[..] {
            [only] => Ok(only.clone()),
            [] if declared.is_empty() => bail!("no column of {what}; its columns are {}", all()),
            [] => bail!("its columns {declared:?} may all be the {what}; call one of them {}", usual[0]),
            [first, second, ..] => {
                bail!("its columns {first} and {second} may both be the {what}; rename one of them")
            }
        }
    };
    let image_name = one("images", of_type("Image"), &IMAGES)?;
    let label_name = one("labels", of_type("ClassLabel"), &LABELS)?;
    let image = bytes_at(&image_name)
        .with_context(|| format!("no column {image_name}; its columns are {}", all()))?;
    let label =
        at(&label_name).with_context(|| format!("no column {label_name}; its columns are {}", all()))?;
    for (column, what) in [(image, "images"), (label, "labels")] {
        let column = schema.column(column);
        let (path, kind) = (column.path().string(), column.physical_type());
        ensure!(column.max_rep_level() == 0, "its column {path} has several {what} a row");
        let fits = match what {
            "images" => kind == Type::BYTE_ARRAY,
            _ => [Type::INT32, Type::INT64, Type::BYTE_ARRAY].contains(&kind),
        };
        ensure!(fits, "its column {path} of {what} is of type {kind}, which is not read as such");
    }
    for (group, number) in metadata.row_groups().iter().zip(0..) {
        for column in [image, label].map(|at| group.column(at)) {
            let codec = column.compression();
            ensure!(
                matches!(codec, Compression::UNCOMPRESSED | Compression::SNAPPY),
                "its column {} (row group {number}) is compressed by {codec}; SNAPPY, which is usual, and none are read",
                column.column_path().string()
            );
        }
    }
    let feature = features.as_ref().and_then(|features| features.get(&label_name));
    let names = match feature.map(|feature| &feature["names"]) {
        None | Some(Value::Null) => None,
        Some(names) => {
            let name = |name: &Value| name.as_str().map(str::to_string);
            let names = names.as_array().and_then(|names| names.iter().map(name).collect::<Option<Vec<_>>>());
            let context =
                || format!("its metadata `huggingface`: `names` of {label_name} are no list of texts");
            Some(names.with_context(context)?)
        }
    };
    Ok((Columns { image, label }, names))
}

/// What `datasets` says of each column, by name.
fn features(metadata: &ParquetMetaData) -> Result<Option<serde_json::Map<String, Value>>> {
    let pairs = metadata.file_metadata().key_value_metadata().map_or(&[][..], |pairs| pairs);
    let Some(text) = pairs.iter().find(|pair| pair.key == "huggingface").and_then(|pair| pair.value.as_ref())
    else {
        return Ok(None);
    };
    let value: Value = serde_json::from_str(text).context("its metadata `huggingface` is no JSON")?;
    Ok(value["info"]["features"].as_object().cloned())
}

/// A label, as it is written.
enum Cell {
    Number(i64),
    Text(String),
}

/// The labels of a row group.
fn labels_of(shard: &Shard, group: usize) -> Result<Vec<Cell>> {
    let rows = rows_of(shard, group)?;
    let group_reader = shard.reader.get_row_group(group)?;
    let column = group_reader.get_column_reader(shard.columns.label)?;
    let name = || {
        let column = shard.reader.metadata().row_group(group).column(shard.columns.label);
        format!("its column {}, row group {group}", column.column_path().string())
    };
    let mut levels: Vec<i16> = Vec::new();
    macro_rules! read {
        ($reader:expr, $cell:expr) => {{
            let mut values = Vec::new();
            let (read, there, _) =
                $reader.read_records(rows, Some(&mut levels), None, &mut values).with_context(name)?;
            ensure!(read == rows, "{}: it has {read} rows of {rows}", name());
            ensure!(there == rows, "{}: {} rows have no label", name(), rows - there);
            values.into_iter().map($cell).collect()
        }};
    }
    match column {
        ColumnReader::Int32ColumnReader(mut reader) => {
            read!(reader, |number: i32| Ok(Cell::Number(number.into())))
        }
        ColumnReader::Int64ColumnReader(mut reader) => read!(reader, |number: i64| Ok(Cell::Number(number))),
        ColumnReader::ByteArrayColumnReader(mut reader) => read!(reader, |text: ByteArray| {
            let text = std::str::from_utf8(text.data())
                .with_context(|| format!("{}: a label that is not UTF-8", name()))?;
            Ok(Cell::Text(text.to_string()))
        }),
        _ => bail!("{}: its type is not read as labels", name()),
    }
}

fn rows_of(shard: &Shard, group: usize) -> Result<usize> {
    let rows = shard.reader.metadata().row_group(group).num_rows();
    usize::try_from(rows).with_context(|| format!("its row group {group} has {rows} rows"))
}

impl Table {
    /// Reads a chunk of a row group's images.
    fn chunk(&self, group: &Group, number: usize) -> Result<Chunk> {
        let shard = &self.shards[group.shard];
        let skip = number * group.chunk_rows;
        let rows = group.chunk_rows.min(group.rows - skip);
        let group_reader = shard.reader.get_row_group(group.group)?;
        let ColumnReader::ByteArrayColumnReader(mut reader) =
            group_reader.get_column_reader(shard.columns.image)?
        else {
            bail!("its images are no bytes");
        };
        let (mut values, mut levels) = (Vec::with_capacity(rows), Vec::new());
        let skipped = reader.skip_records(skip)?;
        let (read, ..) = reader.read_records(rows, Some(&mut levels), None, &mut values)?;
        ensure!(
            skipped == skip && read == rows,
            "its row group {} ends before row {}",
            group.group,
            skip + rows
        );
        let most = shard
            .reader
            .metadata()
            .row_group(group.group)
            .column(shard.columns.image)
            .column_descr()
            .max_def_level();
        if most == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        levels.iter().map(|&level| Ok((level == most).then(|| values.next()).flatten())).collect()
    }
}

impl Source for Table {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index] as usize
    }

    fn name(&self, index: usize) -> String {
        let at = self.groups.partition_point(|group| group.first <= index).saturating_sub(1);
        let group = &self.groups[at];
        let shard = &self.shards[group.shard];
        let before =
            self.groups.iter().find(|first| first.shard == group.shard).map_or(0, |first| first.first);
        format!("row {} of {}", index - before, shard.path.display())
    }

    fn read(&self, index: usize) -> Result<Stored<'_>> {
        let at = self.groups.partition_point(|group| group.first <= index).saturating_sub(1);
        let group = &self.groups[at];
        let (number, row) =
            ((index - group.first) / group.chunk_rows, (index - group.first) % group.chunk_rows);
        let slot = {
            let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
            match chunks.iter().find(|(key, _)| *key == (at, number)) {
                Some((_, slot)) => slot.clone(),
                None => {
                    let slot = Arc::new(OnceLock::new());
                    chunks.push_front(((at, number), slot.clone()));
                    chunks.truncate(CHUNKS_KEPT);
                    slot
                }
            }
        };
        let chunk = slot.get_or_init(|| self.chunk(group, number).map_err(|error| format!("{error:#}")));
        let chunk = chunk.as_ref().map_err(|error| anyhow!("{error}"))?;
        let bytes = chunk.get(row).and_then(Option::as_ref);
        let bytes = bytes.context("its row has no bytes, and what its path leads to is not read")?;
        Ok(Stored::Encoded(bytes.data().to_vec().into()))
    }
}
