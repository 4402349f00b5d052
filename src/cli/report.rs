//! `memo report`: what runs have come to, from their records alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::options::{DataOptions, opened};
use super::{Usage, print};
use crate::data::{DataSource, Dataset};
use crate::records::is_settings;
use crate::report::document::{self, RunReport};
use crate::report::run::Run;
use crate::report::{csv, html, markdown, pictures, tables};
use crate::{notice, output};

const EXAMPLES: &str = "\
Examples:
  memo report run.jsonl                                   tables
  memo report run.jsonl --out report.html --out report.csv
  memo report run.jsonl --out report.html --data photos   pictures from where they lie now
  memo report seed0.jsonl seed1.jsonl seed2.jsonl         side by side, and how much is the seed's";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Report {
    /// What memo eval --out has written; several are compared, each with the first
    #[arg(required = true, value_name = "RUN.jsonl")]
    runs: Vec<PathBuf>,
    /// Write the report, as what its name ends in: .html is one page that needs nothing else; .json, .csv, .md; may be repeated
    #[arg(long, value_name = "FILE")]
    out: Vec<PathBuf>,
    /// Print a JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// How many of the images that were fixed and of those that were broken to show
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1000), allow_negative_numbers = true)]
    examples: u64,
    /// Where the images lie, to show them on a page; by default where the run had them. Which part of what lies there is the
    /// run's too, unless flags say otherwise
    #[arg(long, short, value_name = "PATH", help_heading = "Data")]
    data: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Data")]
    part: DataOptions,
}

/// What a file is written as.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Html,
    Json,
    Csv,
    Markdown,
}

impl Report {
    pub fn run(self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for run in &self.runs {
            if !seen.insert(run.canonicalize().unwrap_or_else(|_| run.clone())) {
                return Err(Usage(format!("{}: it is named twice", run.display())).into());
            }
        }
        let outs: Vec<(Form, &Path)> =
            self.out.iter().map(|out| Ok((form(out)?, out.as_path()))).collect::<Result<_>>()?;
        outs.iter().try_for_each(|(_, out)| output::check(out))?;
        let runs: Vec<Run> = self.runs.iter().map(|run| Run::read(run)).collect::<Result<_>>()?;
        let mut report = document::Report::of(&runs, self.examples as usize);
        if outs.iter().any(|(form, _)| *form == Form::Html) {
            report.runs.iter_mut().try_for_each(|run| self.add_pictures(run))?;
        }
        for note in report.runs.iter().flat_map(|run| &run.notes).chain(&report.notes) {
            notice!("note: {note}");
        }
        for (form, out) in &outs {
            let text = match form {
                Form::Html => html::page(&report)?,
                Form::Json => report.json()?,
                Form::Csv => csv::csv(&report)?,
                Form::Markdown => markdown::markdown(&report),
            };
            output::write(out, text.as_bytes())?;
        }
        match (self.json, outs.is_empty()) {
            (true, _) => print(&report.json()?),
            (false, true) => print(&markdown::head(&report)),
            (false, false) => Ok(()),
        }
    }

    /// From `--data`, or from where the run had its images, if they are still there.
    fn add_pictures(&self, run: &mut RunReport) -> Result<()> {
        if run.fixed.is_empty() && run.broken.is_empty() {
            return Ok(());
        }
        match self.dataset(run) {
            Ok(dataset) => pictures::add(run, &dataset),
            Err(error) if self.data.is_some() => {
                return Err(
                    error.context(format!("pictures of {} (--data is where all runs have theirs)", run.file))
                );
            }
            Err(error) => {
                run.notes.push(format!("there are no pictures: {error:#}; --data says where they are"))
            }
        }
        Ok(())
    }

    /// Of what lies there, that which is asked for; where nothing is, what the run was made with.
    fn dataset(&self, run: &RunReport) -> Result<Dataset> {
        let selection = run.settings.get("selection").unwrap_or(&Value::Null);
        let place = self.data.clone().or_else(|| selection["data"].as_str().map(PathBuf::from));
        let path = place.context("the run does not say where its images lay")?;
        let asked = self.part.source(&path);
        if asked != (DataSource { path: path.clone(), ..DataSource::default() }) || !selection.is_object() {
            return opened(&asked);
        }
        let recorded: DataSource =
            serde_json::from_value(selection.clone()).context("`selection` of the run's settings")?;
        let fields = serde_json::to_value(&recorded)?;
        let flags = fields.as_object().into_iter().flatten();
        let flags: Vec<String> =
            flags.map(|(flag, of)| format!("--{flag} {}", tables::value(of).replace(", ", ","))).collect();
        let opened = opened(&DataSource { path, ..recorded });
        match flags.is_empty() {
            true => opened,
            false => opened.with_context(|| format!("by {}, as the run had its images", flags.join(" "))),
        }
    }
}

/// # Errors
/// [`Usage`] for a name that is of no form, or that a run's settings have.
fn form(out: &Path) -> Result<Form> {
    let name = out.display();
    if is_settings(out) {
        return Err(Usage(format!(
            "--out {name}: a run's settings are kept under such a name; choose another"
        ))
        .into());
    }
    match out.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase).as_deref() {
        Some("html" | "htm") => Ok(Form::Html),
        Some("json") => Ok(Form::Json),
        Some("csv") => Ok(Form::Csv),
        Some("md" | "markdown") => Ok(Form::Markdown),
        _ => {
            Err(Usage(format!("--out {name}: a name that ends in .html, .json, .csv or .md is expected"))
                .into())
        }
    }
}
