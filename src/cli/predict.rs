//! `memo predict`: the notebook's sanity check, one image at a time.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::options::{AdaptOptions, Batch, ModelOptions};
use super::{print, session};
use crate::data::{labels, read_image};
use crate::engine::{Item, Outcome, Prediction, Views};
use crate::report::decimal;

#[derive(Args)]
pub struct Predict {
    #[command(flatten)]
    model: ModelOptions,
    /// Class names, one a line
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    #[command(flatten)]
    adapt: AdaptOptions,
    /// Use these views instead of drawing any: safetensors with `views` (N, 3, H, H) float32, normalised
    #[arg(long, value_name = "FILE", conflicts_with_all = ["views", "seed", "policy"])]
    views_in: Option<PathBuf>,
    /// One JSON object an image
    #[arg(long)]
    json: bool,
    /// Images to classify
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

impl Predict {
    pub fn run(self) -> Result<()> {
        let labels = labels::read(&self.labels)?;
        let checkpoint = session::open_checkpoint(&self.model)?;
        let config = checkpoint.config();
        let mut adapt = self.adapt.clone();
        let given = match &self.views_in {
            None => None,
            Some(path) => {
                let views = crate::data::views::read(path, config.image_size)?;
                adapt.views = views.count as u32;
                Some(views)
            }
        };
        let images = self.images.iter().map(|path| read_image(path)).collect::<Result<Vec<_>>>()?;

        let stream = session::open_device(self.model.device)?;
        let mut memo = session::classifier(&stream, &checkpoint, &labels, &adapt, Batch::Auto, images.len())?;
        let views = match given {
            Some(views) => {
                let (rows, len) = (views.count * (config.tokens() - 1), config.patch_len());
                Views::Given(stream.upload([rows, len], &views.patches(config.patch_size))?)
            }
            None => Views::Drawn,
        };
        let items: Vec<Item> = images.iter().zip(0..).map(|(image, index)| Item { image, index }).collect();
        let mut paths = self.images.iter();
        let mut left = &items[..];
        while !left.is_empty() {
            let (batch, rest) = left.split_at(left.len().min(memo.batch()));
            left = rest;
            for (outcome, path) in memo.adapt(batch, &views)?.into_iter().zip(&mut paths) {
                let (name, outcome) = (
                    path.display().to_string(),
                    outcome.with_context(|| format!("adapting to {}", path.display()))?,
                );
                match self.json {
                    true => print(&format!("{}\n", as_json(&name, &labels, &adapt.lr, &outcome)))?,
                    false => print(&as_text(&name, &labels, &adapt.lr, &outcome))?,
                }
            }
        }
        Ok(())
    }
}

fn as_json(image: &str, labels: &[String], rates: &[f32], outcome: &Outcome) -> serde_json::Value {
    let prediction = |p: &Prediction| json!({ "index": p.index, "label": labels[p.index], "confidence": p.confidence, "logits": p.logits });
    let memo = match &outcome.memo[..] {
        [one] => prediction(one),
        several => {
            let with_rate = |(p, lr): (&Prediction, &f32)| {
                let mut object = prediction(p);
                object["lr"] = decimal(*lr).into();
                object
            };
            several.iter().zip(rates).map(with_rate).collect()
        }
    };
    json!({
        "image": image,
        "labels": labels.len(),
        "zero_shot": prediction(&outcome.zero_shot),
        "memo": memo,
        "entropy": outcome.entropy,
    })
}

fn as_text(image: &str, labels: &[String], rates: &[f32], outcome: &Outcome) -> String {
    let names = match rates {
        [_] => vec!["MEMO".to_string()],
        _ => rates.iter().map(|lr| format!("MEMO {lr:e}")).collect(),
    };
    let width = names.iter().map(String::len).fold(10, usize::max);
    let line = |name: &str, p: &Prediction| {
        format!("  {name:<width$} {:<24} {:6.2} %\n", labels[p.index], 100.0 * p.confidence)
    };
    let memo: String = names.iter().zip(&outcome.memo).map(|(name, p)| line(name, p)).collect();
    let entropy: Vec<String> = outcome.entropy.iter().map(|h| format!("{h:.4}")).collect();
    format!(
        "{image}\n{}{memo}  {:<width$} {} nats\n",
        line("zero-shot", &outcome.zero_shot),
        "entropy",
        entropy.join(", ")
    )
}
