//! `memo eval`: zero-shot CLIP and MEMO over a dataset.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::evaluation::{Ended, EvalOptions, Evaluation, Job};
use super::options::AdaptOptions;
use super::predictors::PredictorOptions;
use super::seeds::Seeds;
use super::{Usage, print};
use crate::interrupt::{self, ReaderGone};
use crate::notice;
use crate::records::Out;
use crate::report;

const EXAMPLES: &str = "\
Examples:
  memo eval --model MODEL --data cifar-100-binary.tar.gz --limit 500 --out run.jsonl
  memo eval --model MODEL --data cifar-100-binary.tar.gz --limit 500 --out run.jsonl --resume
  memo eval --model MODEL --data imagenet/val --limit 1000 --lr 1e-6,1e-5,1e-4
  memo eval --model MODEL --data imagenet/val --limit 1000 --seeds 5     how much is the seed's
  memo eval --model MODEL --data photos --views 8 --limit 20     a try on the CPU";

/// Each has a file open.
const MOST_SEEDS: u64 = 256;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Eval {
    #[command(flatten)]
    of: EvalOptions,
    #[command(flatten, next_help_heading = "Adaptation")]
    adapt: AdaptOptions,
    /// Evaluate by N seeds, from --seed on, on the same images, and say how much of each accuracy is the seed's. --out run.jsonl then
    /// has a file for each, run-seed0.jsonl and so on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(2..=MOST_SEEDS), allow_negative_numbers = true,
        help_heading = "Adaptation")]
    seeds: Option<u64>,
    #[command(flatten, next_help_heading = "Predictors")]
    predictors: PredictorOptions,
    /// Write a line of JSON for each image, as it goes. To /dev/stdout too, where the table then goes to stderr
    #[arg(long, value_name = "run.jsonl", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Continue the run in --out; images that could not be read are tried again
    #[arg(long, help_heading = "Output")]
    resume: bool,
    /// End at the first image that cannot be read, with exit code 1; otherwise it is named, recorded and left out of all figures.
    /// Also at one for which a learning rate leads to no number; otherwise that counts as wrong
    #[arg(long, help_heading = "Output")]
    strict: bool,
    /// End with a JSON object instead of the table
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Eval {
    pub fn run(mut self) -> Result<()> {
        self.adapt.fixed.predictors = self.predictors.clone();
        if self.resume && self.out.is_none() {
            return Err(
                Usage("--resume: it continues the file that --out names; give both".to_string()).into()
            );
        }
        self.adapt.settings()?;
        if let Some(count) = self.seeds {
            let Eval { of, adapt, resume, strict, json, .. } = &self;
            let (out, resume, strict, json) = (self.out.as_deref(), *resume, *strict, *json);
            return Seeds { of, adapt, count, out, resume, strict, json }.run();
        }
        let out = self.out.as_deref().map(|path| Out::open(path, self.resume)).transpose()?;
        let job = Job { adapt: self.adapt.clone(), out };
        let mut evaluation = Evaluation::open(&self.of, vec![job])?;
        let Ended { totals, images_per_s, is_written, out, run, kept } =
            evaluation.run(0, self.strict, &mut |_| ());
        let (asked, learning_rates) = (evaluation.indices.len(), &self.adapt.lr[..]);
        let logit_scale = (evaluation.checkpoint.config().logit_scale, evaluation.checkpoint.scale_is());
        let totals = &totals;
        let summary =
            report::Summary { totals, asked, learning_rates, logit_scale, images_per_s: Some(images_per_s) };
        let is_read = !run.as_ref().is_err_and(|error| error.is::<ReaderGone>());
        // A shard may have no image of a class, which a script reads too.
        let is_of_none = self.json && run.is_ok() && evaluation.of_class() == 0;
        if (totals.images() > 0 || is_of_none) && is_read && (run.is_ok() || !is_written) {
            self.show(&summary, out.as_ref())?;
        }
        run?;
        kept?;
        if let (1.., Some(interrupted)) = (summary.left(), interrupt::asked()) {
            let how = match out.is_some_and(|out| out.is_kept()) {
                true => "the same command with --resume goes on",
                false => "there is no --out file to go on from",
            };
            notice!("note: ended by {interrupted} after {} of {asked} images; {how}", asked - summary.left());
            bail!(interrupted);
        }
        evaluation.expect_images(totals)
    }

    /// The table or its JSON, where records do not go.
    fn show(&self, summary: &report::Summary, out: Option<&Out>) -> Result<()> {
        let text = match self.json {
            true => format!("{}\n", summary.json()),
            false => summary.to_string(),
        };
        match out.is_some_and(Out::is_stdout) {
            true => notice!("{}", text.trim_end()),
            false => print(&text)?,
        }
        Ok(())
    }
}
