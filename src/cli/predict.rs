//! `memo predict`: the notebook's sanity check, image by image.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::options::{AdaptOptions, Batch, ModelOptions};
use super::pipeline::{Source, adapt_each};
use super::predictors::PredictorOptions;
use super::{print, session};
use crate::data::{Rgb8, labels, names, read_image};
use crate::engine::{Guard, Outcome, Prediction, Views};
use crate::records::Predictor;
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
    #[command(flatten, next_help_heading = "Predictors")]
    predictors: PredictorOptions,
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
        self.adapt.fixed.prompts.read()?.texts(&labels)?;
        let checkpoint = session::open_checkpoint(&self.model)?;
        let config = checkpoint.config();
        let mut adapt = self.adapt.clone();
        adapt.fixed.predictors = self.predictors.clone();
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
                let (rows, len) = (views.count * (config.tokens() - 1), config.patch_pitch());
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
                .flat_map(|(_, outcome)| outcome.memo.iter().chain(&outcome.memo_confident))
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
        ensure!(unanswered == 0, "{unanswered} predictions are not finite; all others are above");
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

fn as_json(image: &str, labels: &[String], rates: &[f32], outcome: &Outcome) -> Value {
    let prediction = |p: &Prediction| {
        let mut object = json!({ "index": p.index, "label": labels[p.index], "confidence": p.confidence });
        // JSON has no infinity, such as the logit of a class that nothing voted for.
        if p.logits.iter().all(|logit| logit.is_finite()) {
            object["logits"] = json!(p.logits);
        }
        if let Some(guard) = p.guard {
            object["guard"] = json!(guard);
        }
        object
    };
    let by_rate = |answers: &[Result<Prediction, String>]| match answers {
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
    let mut object = json!({
        "image": image,
        "labels": labels.len(),
        "zero_shot": prediction(&outcome.zero_shot),
        "view_average": prediction(&outcome.view_average),
        "confident_average": prediction(&outcome.confident_average),
        "vote": prediction(&outcome.vote),
    });
    for (memo, entropy, names) in [
        (&outcome.memo, &outcome.entropy, ["memo", "entropy"]),
        (&outcome.memo_confident, &outcome.confident_entropy, ["memo_confident", "confident_entropy"]),
    ] {
        if !memo.is_empty() {
            object[names[0]] = by_rate(memo);
            object[names[1]] = json!(entropy);
        }
    }
    object
}

fn as_text(image: &str, labels: &[String], rates: &[f32], outcome: &Outcome) -> String {
    let stepless = [
        (Predictor::ZeroShot, &outcome.zero_shot),
        (Predictor::ViewAverage, &outcome.view_average),
        (Predictor::ConfidentAverage, &outcome.confident_average),
        (Predictor::Vote, &outcome.vote),
    ];
    let all = (0..).zip(&outcome.memo).map(|(rate, after)| (Predictor::Memo { rate }, after.as_ref().ok()));
    let confident = (0..).zip(&outcome.memo_confident);
    let confident = confident.map(|(rate, after)| (Predictor::MemoConfident { rate }, after.as_ref().ok()));
    let stepless = stepless.into_iter().map(|(predictor, answer)| (predictor, Some(answer)));
    let rows: Vec<(String, Option<&Prediction>)> = stepless
        .chain(all)
        .chain(confident)
        .map(|(predictor, answer)| (predictor.title(rates), answer))
        .collect();
    let width = rows.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
    let line = |(title, answer): &(String, Option<&Prediction>)| match answer {
        Some(p) => {
            let guard = match p.guard {
                None => "",
                Some(Guard::Skipped) => "  no step: zero-shot is confident",
                Some(Guard::RolledBack) => "  taken back: a collapse",
            };
            format!("  {title:<width$} {:<24} {:6.2} %{guard}\n", labels[p.index], 100.0 * p.confidence)
        }
        None => format!("  {title:<width$} not finite\n"),
    };
    let rows: String = rows.iter().map(line).collect();
    let losses = [("entropy", &outcome.entropy), ("of confident", &outcome.confident_entropy)];
    let entropies = losses.into_iter().filter(|(_, steps)| !steps.is_empty()).map(|(title, steps)| {
        let steps: Vec<String> =
            steps.iter().map(|h| if h.is_nan() { "not finite".into() } else { format!("{h:.4}") }).collect();
        format!("  {title:<width$} {} nats\n", steps.join(", "))
    });
    format!("{image}\n{rows}{}", entropies.collect::<String>())
}
