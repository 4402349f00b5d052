//! The command line: one file a subcommand. Results go to stdout, everything else to stderr.

mod augment;
mod bench;
mod data;
mod demo;
mod doctor;
mod eval;
mod evaluation;
mod fleet;
mod grid;
mod inspect;
mod merge;
mod options;
mod pipeline;
mod plan;
mod predict;
mod predictors;
mod prompts;
mod report;
mod seeds;
mod session;
mod sweep;

use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use clap::{Parser, Subcommand};

use crate::interrupt::{Interrupted, ReaderGone};
use crate::notice;

/// MEMO test-time adaptation of CLIP, on a GPU or on the virtual CUDA driver.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what MEMO gains, with the model and the images inside this repository
    Demo(demo::Demo),
    /// Evaluate zero-shot CLIP and MEMO on a dataset
    Eval(eval::Eval),
    /// Evaluate MEMO by every combination of several settings, and say which is best
    Sweep(sweep::Sweep),
    /// Put the files of a run's shards together
    Merge(merge::Merge),
    /// Classify images, before and after adapting to each
    Predict(predict::Predict),
    /// Say what runs have come to, as tables or a page; needs no model and no GPU
    Report(report::Report),
    /// Draw random views of an image, as eval does
    Augment(augment::Augment),
    /// Say what a folder or file of images is
    Data(data::Data),
    /// Say what a checkpoint holds
    Inspect(inspect::Inspect),
    /// Say which driver, device, compiler and cache are in use, and how to get what is missing
    Doctor(doctor::Doctor),
    /// Time MEMO on a checkpoint, stage by stage
    Bench(bench::Bench),
}

/// Runs one command.
///
/// # Errors
/// [`Usage`] where the arguments ask for what cannot be; else whatever failed.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Sweep(command) => command.run(),
        Command::Merge(command) => command.run(),
        Command::Predict(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Augment(command) => command.run(),
        Command::Data(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Bench(command) => command.run(),
    }
}

/// Arguments that are well formed and ask for what is not possible: exit code 2.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Tells of what has ended the program, and how: 1 failed, 2 misused, 128 and its number for a signal.
pub fn end(error: &Error) -> ExitCode {
    if let Some(gone) = error.downcast_ref::<ReaderGone>() {
        gone.end();
    }
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return ExitCode::from(interrupted.exit_code());
    }
    notice!("error: {error:#}");
    ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
}

/// Writes a result to stdout.
fn print(text: &str) -> Result<()> {
    written(std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()))
}

/// What came of writing to stdout.
///
/// # Errors
/// [`ReaderGone`], or another, which says where.
pub fn written(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => result.context("writing to stdout"),
    }
}
