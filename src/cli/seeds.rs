//! `memo eval --seeds`: one evaluation by several seeds.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::evaluation::{Ended, EvalOptions, Evaluation, Job};
use super::options::AdaptOptions;
use super::{Usage, print};
use crate::records::Out;
use crate::report::seeds::{Answers, Stability};
use crate::{interrupt, notice, output};

/// Runs that differ in their seeds alone, from the first on.
pub struct Seeds<'a> {
    pub of: &'a EvalOptions,
    /// By the first seed, which also chooses the images of all.
    pub adapt: &'a AdaptOptions,
    pub count: u64,
    /// Whose name each seed's file has, with the seed.
    pub out: Option<&'a Path>,
    pub resume: bool,
    pub strict: bool,
    pub json: bool,
}

impl Seeds<'_> {
    /// Runs all, and prints what is the seed's.
    ///
    /// # Errors
    /// The first of any run's.
    pub fn run(&self) -> Result<()> {
        let first = self.adapt.fixed.seed;
        let last = first.checked_add(self.count - 1).ok_or_else(|| {
            Usage(format!("--seed {first} --seeds {}: there are no seeds above {}", self.count, u64::MAX))
        })?;
        let seeds: Vec<u64> = (first..=last).collect();
        if let Some(out) = self.out.filter(|out| !output::is_plain(out)) {
            let why = "each seed has a file of its own, so a plain file's name is expected";
            return Err(Usage(format!("--seeds --out {}: {why}", out.display())).into());
        }
        let files: Vec<PathBuf> = seeds.iter().filter_map(|&seed| Some(named(self.out?, seed))).collect();
        let job = |(at, &seed): (usize, &u64)| -> Result<Job> {
            let mut adapt = self.adapt.clone();
            adapt.fixed.seed = seed;
            let out = files.get(at).map(|file| Out::open(file, self.resume && file.exists()));
            Ok(Job { adapt, out: out.transpose()? })
        };
        let jobs = seeds.iter().enumerate().map(job).collect::<Result<_>>()?;
        let mut evaluation = Evaluation::open(self.of, jobs)?;
        let asked = evaluation.indices.len();
        let mut all = Vec::new();
        for (at, seed) in seeds.iter().enumerate() {
            notice!("note: seed {seed}, {} of {}", at + 1, self.count);
            let mut answers = Answers::default();
            let Ended { totals, run, kept, .. } =
                evaluation.run(at, self.strict, &mut |row| answers.add(row));
            run?;
            kept?;
            if totals.images() + totals.of_no_class() + totals.failed() < asked {
                break; // a signal has ended it
            }
            evaluation.expect_images(&totals)?;
            if totals.failed() > 0 {
                notice!("note: {} of {asked} images could not be read: left out", totals.failed());
            }
            all.push(answers);
        }
        let done = all.len();
        if done > 0 {
            let runs: Vec<String> = files.iter().take(done).map(|file| file.display().to_string()).collect();
            let stability = Stability::of(&seeds[..done], &runs, all, &self.adapt.lr);
            print(&if self.json { stability.json()? } else { stability.text() })?;
        }
        if let (true, Some(interrupted)) = (done < seeds.len(), interrupt::asked()) {
            let how = match self.out {
                Some(_) => "the same command with --resume goes on",
                None => "there is no --out file to go on from",
            };
            notice!("note: ended by {interrupted} after {done} of {} seeds; {how}", self.count);
            bail!(interrupted);
        }
        Ok(())
    }
}

/// `run.jsonl` as `run-seed3.jsonl`.
fn named(out: &Path, seed: u64) -> PathBuf {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let end = out.extension().map_or(String::new(), |end| format!(".{}", end.to_string_lossy()));
    out.with_file_name(format!("{stem}-seed{seed}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_seed_in_its_name() {
        for (out, want) in [
            ("run.jsonl", "run-seed3.jsonl"),
            ("a.b/run", "a.b/run-seed3"),
            ("../run.x.jsonl", "../run.x-seed3.jsonl"),
        ] {
            assert_eq!(named(Path::new(out), 3), Path::new(want));
        }
    }
}
