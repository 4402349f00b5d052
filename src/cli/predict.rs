//! `memo predict`: the notebook's sanity check, image by image.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use super::options::{AdaptOptions, Batch, ModelOptions};
use super::pipeline::{Source, adapt_each};
use super::{print, session};
use crate::data::{Rgb8, labels, names, read_image};
use crate::engine::{Outcome, Prediction, Views};
use crate::report::decimal;
use crate::{interrupt, notice};

const EXAMPLES: &str = "\
Examples:
  memo predict --model MODEL --labels labels.txt photo.jpg
  memo predict --model MODEL --labels labels.txt --json *.jpg

An image's place on the command line, from 0, is its index. The index and --seed decide its random views, so the same \
image in another place may have another result.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Predict {
    /// Images to classify. One that cannot be read is named, the others are classified, and the exit code is 1
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    #[command(flatten, next_help_heading = "Model")]
    model: ModelOptions,
    /// Class names: one a line, a JSON list or object, or CSV
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    labels: PathBuf,
    #[command(flatten, next_help_heading = "Adaptation")]
    adapt: AdaptOptions,
    /// Use these views instead of drawing any: safetensors with `views` (N, 3, H, H) float32, normalised
    #[arg(long, value_name = "FILE", conflicts_with_all = ["views", "seed", "policy"], help_heading = "Adaptation")]
    views_in: Option<PathBuf>,
    /// Print a JSON object for each image instead of text
    #[arg(long, help_heading = "Output")]
    json: bool,
}

impl Predict {
    pub fn run(self) -> Result<()> {
        let named = names::alone(&labels::read(&self.labels)?)
            .with_context(|| format!("naming the classes by {}", self.labels.display()))?;
        notice!("note: {}", named.header_alone());
        let labels = named.names;
        let checkpoint = session::open_checkpoint(&self.model)?;
        let config = checkpoint.config();
        let mut adapt = self.adapt.clone();
        let given = match &self.views_in {
            None => None,
            Some(path) => {
                let views = crate::data::views::read(path, config.image_size, &config.preprocess.scale)?;
                adapt.views = views.count as u32;
                Some(views)
            }
        };
        let stream = session::open_device(self.model.device)?;
        let mut memo =
            session::classifier(&stream, &checkpoint, &labels, &adapt, Batch::Auto, self.images.len())?;
        let views = match given {
            Some(views) => {
                let (rows, len) = (views.count * (config.tokens() - 1), config.patch_len());
                Views::Given(stream.upload([rows, len], &views.patches(config.patch_size))?)
            }
            None => Views::Drawn,
        };
        let indices: Vec<usize> = (0..self.images.len()).collect();
        let (mut failed, mut unanswered) = (0, 0);
        interrupt::catch()?;
        adapt_each(&mut memo, &views, &Paths(&self.images), &indices, None, &mut |index, adapted| {
            let name = self.images[index].display().to_string();
            if let Err(error) = &adapted {
                failed += 1;
                notice!("error: {error:#}");
            }
            let without = adapted
                .iter()
                .flat_map(|(_, outcome)| &outcome.memo)
                .filter_map(|after| after.as_ref().err());
            for error in without {
                unanswered += 1;
                notice!("error: {name}: {error}");
            }
            match (adapted, self.json) {
                (Ok((_, outcome)), true) => {
                    let mut object = as_json(&name, &labels, &adapt.lr, &outcome);
                    object["logit_scale"] = decimal(config.logit_scale).into();
                    print(&format!("{object}\n"))
                }
                (Ok((_, outcome)), false) => print(&as_text(&name, &labels, &adapt.lr, &outcome)),
                (Err(error), true) => {
                    print(&format!("{}\n", json!({ "image": name, "error": format!("{error:#}") })))
                }
                (Err(_), false) => Ok(()),
            }
        })?;
        interrupt::check()?;
        match self.images.len() {
            1 => ensure!(failed == 0, "the image could not be read"),
            all => ensure!(failed == 0, "{failed} of {all} images could not be read"),
        }
        ensure!(
            unanswered == 0,
            "{unanswered} predictions are not finite; those by other learning rates are"
        );
        Ok(())
    }
}

/// Images by the paths that the user gave, each numbered by its place among them.
struct Paths<'a>(&'a [PathBuf]);

impl Source for Paths<'_> {
    type Image = Rgb8;

    fn read(&self, index: usize) -> Result<Rgb8> {
        read_image(&self.0[index])
    }

    fn name(&self, index: usize) -> String {
        self.0[index].display().to_string()
    }
}

fn as_json(image: &str, labels: &[String], rates: &[f32], outcome: &Outcome) -> serde_json::Value {
    let prediction = |p: &Prediction| json!({ "index": p.index, "label": labels[p.index], "confidence": p.confidence, "logits": p.logits });
    let memo = match &outcome.memo[..] {
        [Ok(one)] => prediction(one),
        several => {
            let with_rate = |(after, lr): (&Result<Prediction, String>, &f32)| {
                let mut object = match after {
                    Ok(p) => prediction(p),
                    Err(error) => json!({ "error": error }),
                };
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
    let after = |(name, after): (&String, &Result<Prediction, String>)| match after {
        Ok(p) => line(name, p),
        Err(_) => format!("  {name:<width$} not finite\n"),
    };
    let memo: String = names.iter().zip(&outcome.memo).map(after).collect();
    let entropy: Vec<String> = outcome.entropy.iter().map(|h| format!("{h:.4}")).collect();
    format!(
        "{image}\n{}{memo}  {:<width$} {} nats\n",
        line("zero-shot", &outcome.zero_shot),
        "entropy",
        entropy.join(", ")
    )
}
