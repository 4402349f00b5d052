//! Where records go: a plain file that a run can go on from, or what passes them on.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Row;
use super::resume::{Asked, expect};
use super::run_file::RunFile;
use crate::data::Evaluated;
use crate::interrupt::ReaderGone;
use crate::output;

/// `--out`: a file's records lie in the order of their images, each once. What its results depend on is kept beside it, in
/// `OUT.run.json`, wherever links lead. Stdout, another device and a FIFO have their lines as they come and nothing beside.
pub struct Out {
    path: PathBuf,
    to: To,
}

enum To {
    Kept(Box<RunFile>),
    Passed(File),
}

impl Out {
    /// See [`RunFile::open`].
    ///
    /// # Errors
    /// Its own; `resume` of what is no plain file; a file that stdout goes to as well.
    pub fn open(path: &Path, resume: bool) -> Result<Out> {
        let open = || -> Result<To> {
            if let Some(file) = output::special(path)? {
                ensure!(!resume, "it is no plain file, so there is nothing to --resume");
                return Ok(To::Passed(file));
            }
            let file = RunFile::open(path, resume)?;
            ensure!(
                !is_where_stdout_goes(path),
                "stdout goes to the same file; say --out /dev/stdout, or redirect another"
            );
            Ok(To::Kept(Box::new(file)))
        };
        let to = open().with_context(|| format!("writing {}", path.display()))?;
        Ok(Out { path: path.to_path_buf(), to })
    }

    /// Whether records are what stdout is for, so that all else has to go elsewhere.
    pub fn is_stdout(&self) -> bool {
        output::is_stdout(&self.path)
    }

    /// Whether a run that has ended early can go on.
    pub fn is_kept(&self) -> bool {
        matches!(self.to, To::Kept(_))
    }

    /// What was there when it was opened, a line each.
    pub fn rows(&self) -> &[Row] {
        match &self.to {
            To::Kept(file) => file.rows(),
            To::Passed(_) => &[],
        }
    }

    /// Refuses records that such a run would not write; see [`expect`].
    ///
    /// # Errors
    /// The first of them.
    pub fn expect_rows(&self, asked: &Asked, dataset: &Evaluated) -> Result<()> {
        self.named(expect(self.rows(), asked, dataset))
    }

    /// Refuses settings that the run was not begun with; see [`super::settings::Settings::expect`].
    ///
    /// # Errors
    /// The first that is another.
    pub fn expect(&self, settings: &Value) -> Result<()> {
        match &self.to {
            To::Kept(file) => self.named(file.settings().expect(settings)),
            To::Passed(_) => Ok(()),
        }
    }

    /// See [`RunFile::begin`].
    ///
    /// # Errors
    /// Its own.
    pub fn begin(&mut self, settings: &Value) -> Result<()> {
        let begun = match &mut self.to {
            To::Kept(file) => file.begin(settings),
            To::Passed(_) => Ok(()),
        };
        self.named(begun)
    }

    /// See [`RunFile::write`].
    ///
    /// # Errors
    /// Its own; [`ReaderGone`].
    pub fn write(&mut self, row: &Row) -> Result<()> {
        let written = match &mut self.to {
            To::Kept(file) => file.write(row),
            To::Passed(file) => match file.write_all(row.line()?.as_bytes()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(ReaderGone.into()),
                result => result.map_err(Into::into),
            },
        };
        self.named(written)
    }

    /// See [`RunFile::finish`].
    ///
    /// # Errors
    /// Its own.
    pub fn finish(&mut self) -> Result<()> {
        let finished = match &mut self.to {
            To::Kept(file) => file.finish(),
            To::Passed(_) => Ok(()),
        };
        self.named(finished)
    }

    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| format!("writing {}", self.path.display()))
    }
}

fn is_where_stdout_goes(path: &Path) -> bool {
    let stdout = || File::from(std::io::stdout().as_fd().try_clone_to_owned().ok()?).metadata().ok();
    match (stdout(), std::fs::metadata(path)) {
        (Some(stdout), Ok(there)) => (stdout.dev(), stdout.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}
