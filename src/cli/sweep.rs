//! `memo sweep`: MEMO by every combination of several policies, numbers of views and steps, and rates.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::evaluation::{Ended, EvalOptions, Evaluation, Job};
use super::grid::{Grid, Member};
use super::options::FixedOptions;
use super::predictors::PredictorOptions;
use super::{Usage, print};
use crate::data::chosen_on;
use crate::engine::Loss;
use crate::interrupt;
use crate::notice;
use crate::output;
use crate::records::{Out, Predictor, Row};
use crate::report::html;
use crate::report::sweep::{Point, Score, Sweep as Report};

const EXAMPLES: &str = "\
Examples:
  memo sweep --model MODEL --data DATA --limit 500 --lr 1e-6,1e-5,1e-4 --views 16,50 --out sweep --html sweep.html
  memo sweep --model MODEL --data DATA --limit 500 --lr 1e-6,1e-5,1e-4 --views 16,50 --out sweep --resume
  memo sweep --model MODEL --data DATA --policy notebook,mild,augmix --lr 1e-6,1e-5,1e-4 --holdout
  memo report sweep/*.jsonl --out report.html

A run for each policy, number of views and of steps has all rates, since those of one step share its views, forward and backward. Of \
several steps the second depends on the rate, so each rate has a run of its own. Each run's file in --out is what memo eval with its \
settings writes.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Sweep {
    #[command(flatten)]
    of: EvalOptions,
    #[command(flatten, next_help_heading = "Grid: several values with commas between them")]
    grid: Grid,
    #[command(flatten, next_help_heading = "Adaptation")]
    fixed: FixedOptions,
    #[command(flatten, next_help_heading = "Predictors")]
    predictors: PredictorOptions,
    /// Choose the best on one half of the images and report it on the other: within each class the images go to the halves in turn
    #[arg(long, help_heading = "Output")]
    holdout: bool,
    /// Write the records of each run to a file of its own in this folder
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Continue the runs in --out; values that are new in the grid get runs of their own, but for rates, which a run of one step shares
    #[arg(long, help_heading = "Output")]
    resume: bool,
    /// End at the first image that cannot be read, and at the first run that fails, with exit code 1. Otherwise such a run is told in
    /// the end, also with exit code 1, and the others go on
    #[arg(long, help_heading = "Output")]
    strict: bool,
    /// Write a page with a plot and the table
    #[arg(long, value_name = "sweep.html", help_heading = "Output")]
    html: Option<PathBuf>,
    /// End with a JSON object instead of the table
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Sweep {
    pub fn run(mut self) -> Result<()> {
        self.fixed.predictors = self.predictors.clone();
        let members = self.grid.members(&self.fixed)?;
        if self.resume && self.out.is_none() {
            return Err(Usage("--resume: it continues the runs that --out has; give both".to_string()).into());
        }
        if let Some(page) = &self.html {
            let is_page = page.extension().is_some_and(|end| end == "html" || end == "htm");
            if !is_page {
                let why = "a name that ends in .html is expected";
                return Err(Usage(format!("--html {}: {why}", page.display())).into());
            }
            output::check(page)?;
        }
        let folder = self.out.as_deref().map(|out| Folder::open(out, &members)).transpose()?;
        let open = |member: &Member| -> Result<Job> {
            let out = self.out.as_deref().map(|folder| folder.join(&member.name));
            let out = out.map(|out| Out::open(&out, self.resume && out.exists())).transpose()?;
            Ok(Job { adapt: member.adapt.clone(), out })
        };
        let jobs = members.iter().map(open).collect::<Result<_>>()?;
        let mut evaluation = Evaluation::open(&self.of, jobs)?;
        let (report, failed) = self.evaluate(&mut evaluation, &members)?;
        drop(evaluation);
        drop(folder);

        match self.json {
            true => print(&report.json()?)?,
            false => print(&report.text())?,
        }
        if let (None, Some(interrupted)) = (&report.best, interrupt::asked()) {
            let how = match self.out {
                Some(_) => "the same command with --resume goes on",
                None => "there is no --out folder to go on from",
            };
            notice!("note: ended by {interrupted} before all runs were done; {how}");
            bail!(interrupted);
        }
        if let Some(page) = &self.html {
            let name =
                |path: &Path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            let title = format!("{} on {}", name(&self.of.model.model), name(&self.of.data));
            output::write(page, html::sweep::page(&report, &title)?.as_bytes())?;
        }
        match &failed[..] {
            [] => Ok(()),
            [first, ..] => {
                bail!("{} of {} runs have failed, the first of them {first}", failed.len(), members.len())
            }
        }
    }

    /// Runs all, one after another; what they have come to, and which have failed.
    fn evaluate(&self, evaluation: &mut Evaluation, members: &[Member]) -> Result<(Report, Vec<String>)> {
        let out = self.out.as_ref().map(|out| out.display().to_string());
        let mut report = Report { out, failed: 0, holdout: self.holdout, points: Vec::new(), best: None };
        let is_chosen_on = self.holdout.then(|| chosen_on(evaluation.dataset.data()));
        let asked = evaluation.indices.len();
        let mut failed = Vec::new();
        for (number, member) in members.iter().enumerate() {
            let (name, count) = (member.name.trim_end_matches(".jsonl"), members.len());
            notice!("note: run {} of {count}: {name}", number + 1);
            let mut scores: BTreeMap<Predictor, [Score; 2]> = BTreeMap::new();
            let mut watch = |row: &Row| {
                let Row::Record(record) = row else { return };
                let Some(label) = record.label else { return };
                let half = is_chosen_on.as_ref().map_or(0, |chosen| usize::from(!chosen[record.index]));
                for (predictor, after) in record.answers().filter(|(who, _)| who.rate().is_some()) {
                    scores.entry(predictor).or_default()[half].add(label, &record.zero_shot, after);
                }
            };
            let Ended { totals, run, kept, .. } = evaluation.run(number, self.strict, &mut watch);
            let done = totals.images() + totals.of_no_class() + totals.failed();
            let ended = run.and(kept).with_context(|| name.to_string());
            if self.strict {
                ended?;
            } else if let Err(error) = ended {
                ensure!(interrupt::asked().is_none() || done == asked, error);
                let error = format!("{error:#}");
                notice!("note: a run has failed: {error}");
                report.points.extend(points(member, Err(&error)));
                failed.push(error);
                continue;
            }
            if done < asked {
                return Ok((report, failed)); // a signal has ended it
            }
            evaluation.expect_images(&totals)?;
            report.failed = report.failed.max(totals.failed());
            report.points.extend(points(member, Ok(&scores)));
        }
        report.choose();
        Ok((report, failed))
    }
}

/// The points of one run: each loss by each rate.
fn points<'a>(
    Member { adapt, name }: &'a Member,
    scores: Result<&'a BTreeMap<Predictor, [Score; 2]>, &'a str>,
) -> impl Iterator<Item = Point> + 'a {
    let of = |loss: Loss, rate: usize| match loss {
        Loss::All => Predictor::Memo { rate },
        Loss::Confident => Predictor::MemoConfident { rate },
    };
    let losses = adapt.fixed.predictors.losses();
    let who =
        losses.into_iter().flat_map(move |loss| (0..adapt.lr.len()).map(move |rate| (of(loss, rate), rate)));
    who.map(move |(predictor, rate)| {
        let [figures, held_out] = match scores {
            Ok(scores) => {
                scores.get(&predictor).copied().unwrap_or_default().map(|score| Some(score.figures()))
            }
            Err(_) => [None, None],
        };
        Point {
            policy: adapt.policy.to_string(),
            views: adapt.views,
            steps: adapt.steps,
            lr: crate::report::decimal(adapt.lr[rate]),
            predictor: predictor.field(),
            file: name.clone(),
            error: scores.err().map(str::to_string),
            figures,
            held_out,
        }
    })
}

/// `--out`: a folder that has files of this grid's runs alone. One that was made for it is gone again if no run has begun.
struct Folder<'a> {
    made: Option<&'a Path>,
}

impl<'a> Folder<'a> {
    fn open(path: &'a Path, members: &[Member]) -> Result<Folder<'a>> {
        let there = || format!("--out {}", path.display());
        ensure!(path.is_dir() || !path.exists(), "{}: it is no folder; name one, or a new one", there());
        if !path.exists() {
            fs::create_dir_all(path).with_context(there)?;
            return Ok(Folder { made: Some(path) });
        }
        let entries = fs::read_dir(path).with_context(there)?;
        let names =
            entries.map(|entry| Ok(entry.with_context(there)?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<Result<_>>()?;
        names.sort();
        for name in names {
            let records = name.strip_suffix(".run.json").unwrap_or(&name);
            let is_own = members.iter().any(|member| member.name == records);
            ensure!(
                is_own || !records.ends_with(".jsonl"),
                "{}: {name} in it is of no run of this grid; choose another folder, or add its settings to the grid",
                there()
            );
        }
        Ok(Folder { made: None })
    }
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.made {
            let _ = fs::remove_dir(path); // refused where there is anything in it
        }
    }
}
