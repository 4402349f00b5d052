//! What besides zero-shot and MEMO answers, and where MEMO's answer is not taken: flags of the commands that show it.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::engine::{Guards, Loss, Settings};

#[derive(Args, Clone, Debug)]
pub struct PredictorOptions {
    /// The share of the views that counts as confident: of N views the int(N·SHARE) whose predictions have the smallest entropies, at
    /// least one, as TPT and ZERO have it
    #[arg(long, default_value_t = Settings::CONFIDENT, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub confident: f64,
    /// Which views' average prediction MEMO makes surer of itself. The confident views' is a predictor of its own, memo_confident,
    /// and both takes another backward pass
    #[arg(long, value_enum, default_value_t = LossChoice::All)]
    pub loss: LossChoice,
    /// Take no step where zero-shot's confidence is above this: its answer stands
    #[arg(long, value_name = "CONFIDENCE", value_parser = confidence, allow_negative_numbers = true)]
    pub skip_above: Option<f64>,
    /// Take a step back that has left no doubt (an entropy below 0.01 nats) about a class that neither any view nor zero-shot had
    /// chosen: zero-shot's answer stands
    #[arg(long)]
    pub roll_back: bool,
}

/// `--loss`
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
pub enum LossChoice {
    /// All views'
    All,
    /// The confident views'
    Confident,
    /// Each by itself
    Both,
}

impl Default for PredictorOptions {
    fn default() -> PredictorOptions {
        PredictorOptions {
            confident: Settings::CONFIDENT,
            loss: LossChoice::All,
            skip_above: None,
            roll_back: false,
        }
    }
}

impl PredictorOptions {
    pub fn losses(&self) -> Vec<Loss> {
        match self.loss {
            LossChoice::All => vec![Loss::All],
            LossChoice::Confident => vec![Loss::Confident],
            LossChoice::Both => vec![Loss::All, Loss::Confident],
        }
    }

    pub fn guards(&self) -> Guards {
        Guards { skip_above: self.skip_above, roll_back: self.roll_back }
    }

    /// For a resumed run to be compared with.
    pub fn fields(&self) -> Value {
        json!({
            "confident": self.confident, "loss": self.losses(), "skip_above": self.skip_above,
            "roll_back": self.roll_back,
        })
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        Ok(_) => Err("it must be above 0 and at most 1".to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn confidence(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(confidence) if (0.0..=1.0).contains(&confidence) => Ok(confidence),
        Ok(_) => Err("it must be from 0 to 1".to_string()),
        Err(error) => Err(error.to_string()),
    }
}
