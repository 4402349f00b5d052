//! What `memo inspect` tells of a checkpoint.

use std::fmt;

use serde::Serialize;

use super::config::{ClipConfig, TowerConfig};
use super::names::Naming;
use crate::ops::preprocess::Preprocess;

/// What a checkpoint holds.
#[derive(Serialize)]
pub struct Summary {
    /// The safetensors file, or the index of several.
    pub file: String,
    pub files: usize,
    /// Of all files.
    pub bytes: usize,
    pub naming: Naming,
    pub dtypes: Vec<String>,
    pub tensors: usize,
    /// Of the whole tower, missing tensors included.
    pub vision_parameters: usize,
    pub vision_missing: Vec<String>,
    pub text_parameters: usize,
    pub text_missing: Vec<String>,
    /// As it is used, and whose that is.
    pub logit_scale: f32,
    pub logit_scale_is: &'static str,
    pub preprocess: Preprocess,
    pub config: ClipConfig,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let naming = match self.naming {
            Naming::HuggingFace => "Hugging Face",
            Naming::OpenAi => "OpenAI/open_clip",
        };
        let tower = |t: &TowerConfig, parameters: usize| {
            format!(
                "{} layers, width {}, {} heads, MLP {}, {}, eps {:e}; {parameters} parameters",
                t.layers,
                t.width,
                t.heads,
                t.mlp,
                t.activation.name(),
                t.eps
            )
        };
        let files = if self.files == 1 { String::new() } else { format!(" in {} files", self.files) };
        let c = &self.config;
        writeln!(f, "file         {} ({:.1} MB{files})", self.file, self.bytes as f64 / 1e6)?;
        writeln!(f, "tensors      {}, {}, {naming} names", self.tensors, self.dtypes.join("/"))?;
        writeln!(f, "vision       {}", tower(&c.vision, self.vision_parameters))?;
        writeln!(
            f,
            "             {0}x{0} pixels, patches of {1}, {2} tokens",
            c.image_size,
            c.patch_size,
            c.tokens()
        )?;
        writeln!(f, "pictures     {}", self.preprocess)?;
        write_missing(f, &self.vision_missing)?;
        match &c.text {
            Some(text) => {
                writeln!(f, "text         {}", tower(&text.tower, self.text_parameters))?;
                writeln!(f, "             vocabulary {}, {} tokens", text.vocab_size, text.context_length)?;
                write_missing(f, &self.text_missing)?;
            }
            None => writeln!(f, "text         none: a vision tower alone")?,
        }
        writeln!(
            f,
            "features     {}, logit scale {:.2}, {}",
            c.embed_dim, self.logit_scale, self.logit_scale_is
        )
    }
}

fn write_missing(f: &mut fmt::Formatter<'_>, missing: &[String]) -> fmt::Result {
    match missing.len() {
        0 => Ok(()),
        n => writeln!(f, "             incomplete, {n} tensors are missing: {}", shortened(missing)),
    }
}

/// The first five names, and how many more there are.
pub(super) fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let (shown, rest) = names.split_at(names.len().min(SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", shown.join(", "))
}
