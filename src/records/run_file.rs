//! A plain file of records: this process's alone, whole lines in the order of their images, as far as the disk has them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::settings::{Settings, is_settings};
use super::{Row, parse};
use crate::{notice, output};

/// The disk has all but what was written since.
const SYNC_EVERY: Duration = Duration::from_secs(10);

/// `--out`, locked against other processes from the start, and what its run was begun with.
pub struct RunFile {
    /// Where links lead.
    path: PathBuf,
    file: File,
    settings: Settings,
    /// What was there.
    rows: Vec<Row>,
    /// What is there now.
    bytes: u64,
    digest: Sha256,
    /// The image of the last line.
    last: Option<usize>,
    /// Lines whose place is before the last one: of images that have failed, or that were not asked for.
    late: BTreeMap<usize, String>,
    next_sync: Instant,
    /// Whether it is to be removed if nothing is written.
    is_new: bool,
}

impl RunFile {
    /// Opens a file to be begun, or one to be continued; nothing in it is changed before [`RunFile::begin`].
    ///
    /// # Errors
    /// One that is there without `resume`; one that another process writes; a line that is no record or out of order;
    /// settings that are missing or none; a path that cannot be written.
    pub fn open(path: &Path, resume: bool) -> Result<RunFile> {
        let path = output::target(path)?;
        ensure!(!is_settings(&path), "a run's settings are kept under such a name; choose another");
        let is_new = !path.exists();
        let file = locked(&path)?;
        let (settings, mut bytes) = (Settings::new(&path), Vec::new());
        (&file).read_to_end(&mut bytes)?;
        let next_sync = Instant::now() + SYNC_EVERY;
        let (digest, last, late) = (Sha256::new(), None, BTreeMap::new());
        let mut opened = RunFile {
            path,
            file,
            settings,
            rows: Vec::new(),
            bytes: 0,
            digest,
            last,
            late,
            next_sync,
            is_new,
        };
        // An empty file was never begun: the run was killed before its first line.
        if resume && bytes.is_empty() {
            let what = if is_new { "is not there yet" } else { "is empty" };
            notice!("note: {} {what}: the run begins", opened.path.display());
        }
        if !bytes.is_empty() {
            ensure!(resume, "it is there already; --resume continues it, or choose another name");
            opened.settings.read()?;
            let (rows, whole) = parse(&bytes)?;
            opened.holds(&bytes[..whole]);
            (opened.last, opened.rows) = (rows.last().map(Row::index), rows);
        }
        Ok(opened)
    }

    /// What was there when it was opened.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Begins or goes on, with these settings. A last line that was cut by a kill is dropped, to be written anew.
    ///
    /// # Errors
    /// Other settings than those that it was begun with; a full disk.
    pub fn begin(&mut self, settings: &Value) -> Result<()> {
        self.settings.begin(settings)?;
        self.file.set_len(self.bytes)?;
        self.is_new = false;
        output::sync_folder(&self.path)?;
        self.sync()
    }

    /// Takes the next image's row; the file has it in its place, at once where that is the end.
    ///
    /// # Errors
    /// A full disk, for one; the file is then as it was before. One that others have changed.
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let (index, line) = (row.index(), row.line()?);
        if self.rows.binary_search_by_key(&index, Row::index).is_ok_and(|at| self.rows[at] == *row) {
            return Ok(()); // one that has failed in the same way again
        }
        if self.last.is_some_and(|last| index <= last) {
            self.late.insert(index, line);
        } else {
            if let Err(error) = self.file.write_all(line.as_bytes()) {
                // No half line stays. (Its own error is not as telling.)
                if self.file.metadata().is_ok_and(|file| file.len() > self.bytes) {
                    let _ = self.file.set_len(self.bytes);
                }
                return Err(error.into());
            }
            self.bytes += line.len() as u64;
            self.digest.update(&line);
            self.last = Some(index);
        }
        if Instant::now() >= self.next_sync {
            self.sync()?;
        }
        Ok(())
    }

    /// All that was written is on the disk, and there to be found.
    ///
    /// # Errors
    /// As [`RunFile::write`].
    fn sync(&mut self) -> Result<()> {
        if !self.late.is_empty() {
            self.expect_own()?;
            self.merge()?;
        }
        self.file.sync_data()?;
        self.next_sync = Instant::now() + SYNC_EVERY;
        self.expect_own()
    }

    /// Ends: the disk has what was written, and that is what is there.
    ///
    /// # Errors
    /// As [`RunFile::write`].
    pub fn finish(&mut self) -> Result<()> {
        self.sync()?;
        let mut digest = Sha256::new();
        digest.update(self.read()?);
        ensure!(
            digest.finalize() == self.digest.clone().finalize(),
            "others have changed it while the run went on"
        );
        Ok(())
    }

    /// Whether this is still the file of that name, with as much in it as was written.
    fn expect_own(&self) -> Result<()> {
        let own = self.file.metadata()?;
        let records =
            if own.nlink() == 0 { "its records are lost" } else { "its records are where it is now" };
        match std::fs::metadata(&self.path) {
            Ok(there) => {
                let is_own = (there.dev(), there.ino()) == (own.dev(), own.ino());
                ensure!(is_own, "another file has taken its place while the run went on; {records}");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let what = if own.nlink() == 0 { "removed" } else { "moved" };
                bail!("it was {what} while the run went on; {records}")
            }
            Err(error) => return Err(error.into()),
        }
        let (bytes, written) = (own.len(), self.bytes);
        ensure!(bytes >= written, "it was cut to {bytes} of {written} bytes while the run went on");
        ensure!(bytes == written, "{} bytes were added to it while the run went on", bytes - written);
        Ok(())
    }

    /// Puts the late lines in their places: the file that has them takes the place of the one that has not, so that a kill
    /// leaves one of the two.
    fn merge(&mut self) -> Result<()> {
        let bytes = self.read()?;
        let mut late = std::mem::take(&mut self.late);
        let mut merged = Vec::with_capacity(bytes.len());
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let index = Row::parse(line)?.index();
            let behind = late.split_off(&index);
            late.values().for_each(|before| merged.extend(before.as_bytes()));
            late = behind;
            match late.remove(&index) {
                Some(instead) => merged.extend(instead.into_bytes()),
                None => merged.extend(line),
            }
        }
        let mut new = output::beside(&self.path)?;
        lock(new.as_file())?; // before it has the name by which others open it
        new.write_all(&merged)?;
        self.file = output::put(new, &self.path)?;
        self.holds(&merged);
        Ok(())
    }

    fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.bytes as usize);
        (&self.file).seek(SeekFrom::Start(0))?; // it is appended to all the same
        (&self.file).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn holds(&mut self, bytes: &[u8]) {
        self.bytes = bytes.len() as u64;
        self.digest = Sha256::new_with_prefix(bytes);
    }
}

impl Drop for RunFile {
    /// A run that has not begun leaves nothing behind.
    fn drop(&mut self) {
        if self.is_new && self.expect_own().is_ok() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A file to be appended to, made if it is not there, that no other process has.
fn locked(path: &Path) -> Result<File> {
    loop {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        lock(&file)?;
        // Between the two the one who had it may have removed it, or put another in its place.
        let own = file.metadata()?;
        if std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())) {
            return Ok(file);
        }
    }
}

fn lock(file: &File) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            bail!("another process is writing it; wait for that one to end, or choose another name")
        }
        Err(TryLockError::Error(error))
            if error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(libc::ENOLCK) =>
        {
            crate::notice!("note: no file can be locked here, so keep --out for this one process: {error}");
            Ok(())
        }
        Err(TryLockError::Error(error)) => Err(error).context("locking it"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::records::tests::{failure, record};
    use crate::records::{Answer, Choice, Record};

    /// A folder, and the file in it.
    fn place() -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        (folder, path)
    }

    fn begun(path: &Path, resume: bool) -> RunFile {
        let mut file = RunFile::open(path, resume).unwrap();
        file.begin(&json!({ "seed": 1 })).unwrap();
        file
    }

    fn row(index: usize) -> Row {
        Row::Record(record(index))
    }

    /// The error of a result, which says all this.
    #[track_caller]
    fn refused<T>(result: Result<T>, parts: &[&str]) {
        let error = format!("{:#}", result.err().unwrap_or_else(|| panic!("accepted: {parts:?}")));
        assert!(parts.iter().all(|part| error.contains(part)), "{error}: {parts:?}");
    }

    #[test]
    fn a_run_killed_anywhere_ends_with_the_same_file() {
        let (_folder, path) = place();
        let mut file = begun(&path, false);
        (0..4).for_each(|i| file.write(&row(i)).unwrap());
        drop(file);
        let whole = fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut file = begun(&path, true);
            let there = file.rows().to_vec();
            assert!(there.iter().enumerate().all(|(i, r)| *r == row(i)));
            (there.len()..4).for_each(|i| file.write(&row(i)).unwrap());
            file.finish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let (_folder, path) = place();
        let mut file = begun(&path, false);
        let mut bits = 1u64;
        let written: Vec<Row> = (0..2000)
            .map(|index| {
                // Knuth's MMIX generator; the top 53 bits make a fraction.
                bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let fraction = (bits >> 11) as f64 / (1u64 << 53) as f64;
                let mut record: Record = record(index);
                let choice = Choice { confidence: fraction, ..record.zero_shot.clone() };
                record.memo[0] = Answer::Choice(choice);
                // A second learning rate, in every other record.
                let other = Answer::Choice(record.zero_shot.clone());
                record.memo.extend((index % 2 == 0).then_some(other));
                record.entropy = vec![fraction as f32 * 4.6];
                Row::Record(record)
            })
            .collect();
        written.iter().for_each(|row| file.write(row).unwrap());
        drop(file);
        assert_eq!(RunFile::open(&path, true).unwrap().rows(), written);
    }

    #[test]
    fn a_run_killed_before_its_first_line_begins_anew() {
        let (folder, path) = place();
        fs::write(&path, "").unwrap();
        fs::write(folder.path().join("run.jsonl.run.json"), "{ \"se").unwrap();
        begun(&path, true).write(&row(0)).unwrap();
        assert_eq!(RunFile::open(&path, true).unwrap().rows(), [row(0)]);
    }

    #[test]
    fn nothing_is_lost_or_mixed() {
        let (folder, path) = place();
        drop(RunFile::open(&path, false).unwrap());
        assert!(!path.exists(), "what was not begun leaves nothing");
        let mut file = begun(&path, false);
        file.write(&row(0)).unwrap();
        refused(RunFile::open(&path, false), &["another process"]);
        drop(file);
        let whole = fs::read(&path).unwrap();
        refused(RunFile::open(&path, false), &["--resume continues it"]);
        let mut other = RunFile::open(&path, true).unwrap();
        refused(other.begin(&json!({ "seed": 2 })), &["begun with seed 1, not 2"]);
        drop(other);
        assert_eq!(fs::read(&path).unwrap(), whole);
        fs::write(&path, "{}\n").unwrap();
        refused(RunFile::open(&path, true), &["line 1 is no record"]);
        fs::remove_file(folder.path().join("run.jsonl.run.json")).unwrap();
        refused(RunFile::open(&path, true), &["run.jsonl.run.json is missing"]);
        refused(RunFile::open(&folder.path().join("no/run.jsonl"), false), &["there is no folder"]);
        refused(RunFile::open(folder.path(), false), &["directory"]);
    }

    #[test]
    fn rows_that_come_late_are_put_in_their_places() {
        let (folder, path) = place();
        let link = folder.path().join("link.jsonl");
        std::os::unix::fs::symlink("run.jsonl", &link).unwrap();
        let mut file = begun(&path, false);
        (0..8).for_each(|i| file.write(&row(i)).unwrap());
        drop(file);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();

        let mut file = begun(&link, false);
        for index in [1, 2, 4, 6] {
            let failed = index == 2 || index == 6;
            file.write(&if failed { Row::Failure(failure(index)) } else { row(index) }).unwrap();
        }
        drop(file);
        let mut file = begun(&link, true);
        for index in [0, 2, 3, 5] {
            file.write(&row(index)).unwrap();
        }
        // As after ten seconds; it is this process's all the same.
        file.sync().unwrap();
        refused(RunFile::open(&path, true), &["another process"]);
        file.write(&row(6)).unwrap();
        file.write(&row(7)).unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert!(link.is_symlink());
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["link.jsonl", "run.jsonl", "run.jsonl.run.json"], "nothing else is left");
    }

    #[test]
    fn a_file_that_others_change_is_an_error() {
        type Change = fn(&Path);
        let changes: [(Change, &str); 5] = [
            (|path| fs::remove_file(path).unwrap(), "it was removed"),
            (|path| fs::rename(path, path.with_extension("old")).unwrap(), "it was moved"),
            (
                |path| {
                    let copy = path.with_extension("copy");
                    fs::copy(path, &copy).unwrap();
                    fs::rename(copy, path).unwrap();
                },
                "another file has taken its place",
            ),
            (|path| OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap(), "cut to 10 of"),
            (
                |path| fs::write(path, fs::read_to_string(path).unwrap() + "{}\n").unwrap(),
                "3 bytes were added",
            ),
        ];
        for (change, want) in changes {
            let (_folder, path) = place();
            let mut file = begun(&path, false);
            (0..2).for_each(|i| file.write(&row(i)).unwrap());
            change(&path);
            refused(file.finish(), &[want, "while the run went on"]);
        }
        let (_folder, path) = place();
        let mut file = begun(&path, false);
        file.write(&row(0)).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("0.3", "0.4")).unwrap();
        refused(file.finish(), &["others have changed it"]);
        // Some of it is found as soon as the disk is to have what was written.
        fs::remove_file(&path).unwrap();
        file.next_sync = Instant::now();
        refused(file.write(&row(1)), &["it was removed"]);
    }
}
