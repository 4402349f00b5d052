//! `memo inspect`: what a checkpoint holds, and whether it can be used.

use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

use super::print;
use crate::clip::{Activation, Checkpoint};

#[derive(Args)]
pub struct Inspect {
    /// Hugging Face or open_clip folder, or safetensors file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The activation, for a safetensors file without a config, which does not say its own
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
            crate::notice!("note: {notice}");
        }
        let summary = checkpoint.summary();
        match self.json {
            true => print(&format!("{}\n", serde_json::to_string(&summary)?))?,
            false => print(&summary.to_string())?,
        }
        checkpoint.check_complete()
    }
}
