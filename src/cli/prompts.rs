//! Which texts stand for a class: flags.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::clip::prompts::{self, Descriptions, Prompts};
use crate::data::digest_of;

/// The prompt whose features stand for a class; `{}` is the label.
pub const PROMPT: &str = "a photo of a {}";

#[derive(Args, Clone, Default)]
pub struct PromptOptions {
    /// The text for each class; {} stands for its name. Of several a class's feature is the mean [default: "a photo of a {}"]
    #[arg(long, value_name = "TEXT", value_parser = template)]
    prompt: Vec<String>,
    /// More of these: a file with one a line, or openai-imagenet (80), openai-imagenet-simple (7), cifar (18), aircraft, caltech101,
    /// cars, country211, dtd, eurosat, fer2013, flowers, food101, gtsrb, mnist, pets, resisc45, stl10, sun397 or svhn, as OpenAI
    /// and CLIP_benchmark have them
    #[arg(long, value_name = "FILE|LIST")]
    templates: Option<String>,
    /// Sentences about each class, as CuPL writes them: JSON {"CLASS": ["SENTENCE", ..]}, beside prompts and templates if any are given
    #[arg(long, value_name = "FILE.json")]
    descriptions: Option<PathBuf>,
    /// Cut prompts that are longer than the model takes, instead of refusing them
    #[arg(long)]
    pub truncate: bool,
}

impl PromptOptions {
    /// Whether nothing is asked for.
    pub fn is_default(&self) -> bool {
        self.prompt.is_empty() && self.templates.is_none() && self.descriptions.is_none()
    }

    /// What they ask for.
    ///
    /// # Errors
    /// A file that cannot be read or is none of its kind.
    pub fn read(&self) -> Result<Prompts> {
        let mut templates = self.prompt.clone();
        if let Some(name) = &self.templates {
            templates.extend(prompts::templates(name)?);
        }
        let descriptions = self.descriptions.as_deref().map(Descriptions::read).transpose()?;
        if templates.is_empty() && descriptions.is_none() {
            templates.push(PROMPT.to_string());
        }
        Ok(Prompts { templates, descriptions })
    }

    /// For runs to be compared by: one template is a text, several are a list, and descriptions are what is in their file.
    ///
    /// # Errors
    /// As [`PromptOptions::read`].
    pub fn fields(&self) -> Result<Value> {
        let Prompts { templates, .. } = self.read()?;
        let prompt = match &templates[..] {
            [one] => json!(one),
            several => json!(several),
        };
        let digest = match &self.descriptions {
            Some(path) => json!({
                "file": path.file_name().map(|name| name.to_string_lossy()),
                "digest": digest_of(&std::fs::read(path)?),
            }),
            None => Value::Null,
        };
        Ok(json!({ "prompt": prompt, "descriptions": digest, "truncate": self.truncate }))
    }
}

fn template(text: &str) -> Result<String, String> {
    prompts::template(text).map_err(str::to_string)
}
