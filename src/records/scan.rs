//! Reads a run's records where they lie: a block at a time, however many they are, also while they are still written.

use std::fs::TryLockError;
use std::io::Read;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use super::{Row, in_order};
use crate::plain_file;
use crate::threads::together;

/// What is read at once, and parsed on all cores.
const BLOCK_BYTES: usize = 4 << 20;

/// How a file of records ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Whole,
    /// In half a line, which was not taken: its run was killed.
    Cut,
    /// Its run goes on.
    Running,
}

/// Gives each row of a run's file to `take`, in order.
///
/// # Errors
/// A file that cannot be read; a line that is no record, or out of order, by its number; those of `take`.
pub fn scan(path: &Path, mut take: impl FnMut(Row) -> Result<()>) -> Result<End> {
    let mut scan = || -> Result<End> {
        let (mut file, _) = plain_file::open(path)?;
        let is_running = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        // Whoever goes on with the run is not to be held up.
        let _ = file.unlock();
        let (mut bytes, mut lines, mut last) = (Vec::new(), 0, None);
        loop {
            let read = (&mut file).take(BLOCK_BYTES as u64).read_to_end(&mut bytes)?;
            let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
            for row in parsed(&bytes[..whole]) {
                lines += 1;
                let row = row.with_context(|| format!("line {lines} is no record"))?;
                in_order(last, row.index(), lines)?;
                last = Some(row.index());
                take(row)?;
            }
            bytes.drain(..whole);
            if read == 0 {
                return Ok(match (is_running, bytes.is_empty()) {
                    (true, _) => End::Running,
                    (false, false) => End::Cut,
                    (false, true) => End::Whole,
                });
            }
        }
    };
    scan().with_context(|| format!("reading {}", path.display()))
}

/// A row, or why it is none, for each of some whole lines.
fn parsed(bytes: &[u8]) -> impl Iterator<Item = Result<Row>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let pieces = Mutex::new(pieces(bytes, cores).into_iter().enumerate());
    let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
    let rows = |piece: &[u8]| piece.split_inclusive(|&byte| byte == b'\n').map(Row::parse).collect();
    let work = || -> Vec<(usize, Vec<Result<Row>>)> {
        std::iter::from_fn(next).map(|(place, piece)| (place, rows(piece))).collect()
    };
    let mut done: Vec<_> = together(cores, work).into_iter().flatten().collect();
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().flat_map(|(_, rows)| rows)
}

/// Up to so many parts of about one length, each of whole lines.
fn pieces(mut bytes: &[u8], count: usize) -> Vec<&[u8]> {
    let length = bytes.len() / count + 1;
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let at = length.min(bytes.len() - 1);
        let end =
            bytes[at..].iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |more| at + more + 1);
        let (piece, rest) = bytes.split_at(end);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::super::tests::{failure, record};
    use super::*;

    fn file(rows: usize, end: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        fs::write(&path, lines(rows).concat() + end).unwrap();
        (folder, path)
    }

    fn row(index: usize) -> Row {
        if index % 5 == 3 { Row::Failure(failure(index)) } else { Row::Record(record(index)) }
    }

    fn lines(rows: usize) -> Vec<String> {
        (0..rows).map(|index| row(index).line().unwrap()).collect()
    }

    fn rows(path: &Path) -> Result<(Vec<Row>, End)> {
        let mut rows = Vec::new();
        let end = scan(path, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok((rows, end))
    }

    #[test]
    fn rows_come_in_order_however_many_there_are() {
        // The last is of several blocks.
        for count in [0, 1, 2, 7, 12_000] {
            let (_folder, path) = file(count, "");
            let (rows, end) = rows(&path).unwrap();
            assert_eq!((rows.len(), end), (count, End::Whole));
            assert!(rows.iter().enumerate().all(|(index, got)| *got == row(index)));
        }
    }

    #[test]
    fn how_it_ends_is_told() {
        let (_folder, path) = file(3, "{\"index\":3,");
        assert_eq!(rows(&path).unwrap().1, End::Cut);
        let writer = File::options().append(true).open(&path).unwrap();
        writer.try_lock().unwrap();
        let (rows, end) = rows(&path).unwrap();
        assert_eq!((rows.len(), end), (3, End::Running));
    }

    #[test]
    fn a_damaged_line_is_named() {
        let (_folder, path) = file(12_000, "");
        let whole = lines(12_000);
        type Change = fn(&mut Vec<String>);
        let changes: [(Change, &str); 4] = [
            (|lines| lines[11_000] = "{}\n".to_string(), "line 11001 is no record"),
            (
                |lines| lines[11_000] = lines[11_000].replace("0.3", "0.30"),
                "line 11001 is no record: memo writes it otherwise",
            ),
            (|lines| lines.swap(7, 8), "line 9 is image 7, behind image 8"),
            (|lines| lines[7] = lines[6].clone(), "line 8 is image 6 again, as line 7 is"),
        ];
        for (change, want) in changes {
            let mut lines = whole.clone();
            change(&mut lines);
            fs::write(&path, lines.concat()).unwrap();
            let error = format!("{:#}", rows(&path).unwrap_err());
            assert!(error.contains(want) && error.contains("run.jsonl"), "{error}");
        }
        let error = format!("{:#}", rows(path.parent().unwrap()).unwrap_err());
        assert!(error.contains("it is a folder"), "{error}");
    }
}
