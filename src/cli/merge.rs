//! `memo merge`: the files of a run's shards, put together.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::print;
use crate::metrics::Totals;
use crate::notice;
use crate::output;
use crate::records::Merged;
use crate::report::Summary;

const EXAMPLES: &str = "\
Examples:
  memo eval --model MODEL --data DATA --shard 0/2 --out 0.jsonl     on one machine
  memo eval --model MODEL --data DATA --shard 1/2 --out 1.jsonl     on another
  memo merge 0.jsonl 1.jsonl --out run.jsonl";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Merge {
    /// The files that `memo eval --shard I/N --out` wrote, each with its settings (.run.json) beside it; in any order
    #[arg(required = true, value_name = "SHARD.jsonl")]
    shards: Vec<PathBuf>,
    /// Write the whole run's file: what one machine without shards writes, to the byte
    #[arg(long, value_name = "run.jsonl")]
    out: PathBuf,
    /// End with a JSON object instead of the table
    #[arg(long)]
    json: bool,
}

impl Merge {
    pub fn run(self) -> Result<()> {
        let merged = Merged::read(&self.shards)?;
        merged.write(&self.out)?;
        let mut totals = match merged.rows.iter().all(|row| row.label().is_some()) {
            true => Totals::default(),
            false => Totals::with_confidences(),
        };
        merged.rows.iter().for_each(|row| totals.add(row));
        let summary = Summary {
            totals: &totals,
            asked: merged.rows.len(),
            learning_rates: merged.learning_rates(),
            logit_scale: merged.logit_scale(),
            images_per_s: None,
        };
        let text = match self.json {
            true => format!("{}\n", summary.json()),
            false => summary.to_string(),
        };
        match output::is_stdout(&self.out) {
            true => notice!("{}", text.trim_end()),
            false => print(&text)?,
        }
        Ok(())
    }
}
