//! `memo inspect`: what a checkpoint holds.

use anyhow::{Result, ensure};
use clap::Args;
use std::path::PathBuf;

use super::print;
use crate::clip::{Activation, Checkpoint};

#[derive(Args)]
pub struct Inspect {
    /// Hugging Face or open_clip folder, or safetensors file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Activation of a bare safetensors file, which does not say its own
    #[arg(long, value_enum)]
    activation: Option<Activation>,
    /// A JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(self) -> Result<()> {
        let checkpoint = Checkpoint::open(&self.model, self.activation)?;
        for notice in checkpoint.notices() {
            eprintln!("note: {notice}");
        }
        let summary = checkpoint.summary();
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string(&summary)?))?,
            false => print(&summary.to_string())?,
        }
        let missing = summary.vision_missing.len();
        ensure!(missing == 0, "{}: {missing} tensors of its vision tower are missing", summary.file);
        Ok(())
    }
}
