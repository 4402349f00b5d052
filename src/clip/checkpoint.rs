//! Checkpoints: a Hugging Face or open_clip folder, or one safetensors file.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::config::{Activation, ClipConfig};
use super::layout::{TextLayout, VisionLayout};
use super::names::{Naming, block_of};
use super::sources::Source;
use super::summary::{Summary, shortened};
use super::weights::Weights;
use super::{config_file, convert, sizes};

/// An open checkpoint: each tensor that is there has the name and the shape that its sizes ask for; values
/// are read when asked for.
pub struct Checkpoint {
    weights: Weights,
    naming: Naming,
    config: ClipConfig,
    notices: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder with a config (`config.json`, `open_clip_config.json`) and weights (one safetensors file,
    /// or several with their index), or a safetensors file with or without a config beside it: without, its
    /// sizes are those of its tensors. `activation` overrides what the config says.
    ///
    /// # Errors
    /// What is missing, cut, lying or of another kind of model, with the file and the field or tensor.
    pub fn open(path: &Path, activation: Option<Activation>) -> Result<Checkpoint> {
        let weights = Weights::open(path)?;
        let reading = || format!("reading {}", weights.path().display());
        let naming = naming(&weights).with_context(reading)?;
        let mut notices = Vec::new();
        let found = config_file::find(weights.path(), naming, path.is_dir(), &mut notices)?;
        let says = if found.is_some() { "the config says" } else { "the rest of the file says" };
        let mut config = match found {
            Some(config) => config,
            None => {
                let quick = match activation {
                    None => "QuickGELU (--activation gelu for open_clip's plain models) and ",
                    Some(_) => "",
                };
                let file = weights.path().display();
                notices.push(format!(
                    "{file} has no config beside it: {quick}heads 64 wide are assumed, as in OpenAI's models"
                ));
                sizes::config(&weights, naming).with_context(reading)?
            }
        };
        if !weights.names().any(|name| naming.is_text(name)) {
            config.text = None;
        }
        check(&weights, naming, &config, says).with_context(reading)?;
        if let Some(activation) = activation {
            config.vision.activation = activation;
            config.text.iter_mut().for_each(|text| text.tower.activation = activation);
        }
        Ok(Checkpoint { weights, naming, config, notices })
    }

    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// What had to be assumed, for a person to read.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// The vision tower's parameters in its layout's order, as float32.
    ///
    /// # Errors
    /// Missing tensors, another dtype, a value that is not finite.
    pub fn vision_params(&self, layout: &VisionLayout) -> Result<Vec<f32>> {
        self.params(&self.config.vision_sources(self.naming), layout.total)
    }

    /// The text tower's parameters, likewise.
    ///
    /// # Errors
    /// As [`Checkpoint::vision_params`]; a checkpoint without a text tower.
    pub fn text_params(&self, layout: &TextLayout) -> Result<Vec<f32>> {
        self.config.text().with_context(|| format!("reading {}", self.weights.path().display()))?;
        self.params(&self.config.text_sources(self.naming), layout.total)
    }

    fn params(&self, sources: &[Source], total: usize) -> Result<Vec<f32>> {
        let read = || -> Result<Vec<f32>> {
            let missing = self.missing(sources);
            if !missing.is_empty() {
                bail!("{} of {} tensors are missing: {}", missing.len(), sources.len(), shortened(&missing));
            }
            let mut buffer = vec![0.0; total];
            convert::fill(&mut buffer, sources, &self.weights)?;
            Ok(buffer)
        };
        read().with_context(|| format!("reading {}", self.weights.path().display()))
    }

    fn missing(&self, sources: &[Source]) -> Vec<String> {
        let absent = |source: &&Source| self.weights.tensor(&source.name).is_none();
        sources.iter().filter(absent).map(|source| source.name.clone()).collect()
    }

    /// A digest of the weights and the sizes: runs of different models differ in it.
    pub fn fingerprint(&self) -> Result<String> {
        let mut digest = Sha256::new();
        digest.update(serde_json::to_string(&self.config)?);
        self.weights.files().for_each(|bytes| digest.update(bytes));
        Ok(digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What the checkpoint holds, for people.
    pub fn summary(&self) -> Summary {
        let tensors = || self.weights.names().filter_map(|name| self.weights.tensor(name));
        let dtypes: BTreeSet<String> = tensors().map(|tensor| format!("{:?}", tensor.dtype)).collect();
        let (vision, text) = (self.config.vision_sources(self.naming), self.config.text_sources(self.naming));
        let count = |sources: &[Source]| sources.iter().map(|source| source.range.len()).sum();
        let mut scale = [0.0];
        let scaled = self.weights.tensor("logit_scale").filter(|tensor| {
            tensor.shape.iter().product::<usize>() == 1 && convert::convert(tensor, &mut scale).is_ok()
        });
        Summary {
            file: self.weights.path().display().to_string(),
            files: self.weights.files().len(),
            bytes: self.weights.files().map(<[u8]>::len).sum(),
            naming: self.naming,
            dtypes: dtypes.into_iter().collect(),
            tensors: self.weights.names().len(),
            vision_parameters: count(&vision),
            vision_missing: self.missing(&vision),
            text_parameters: count(&text),
            text_missing: self.missing(&text),
            logit_scale: scaled.map(|_| scale[0].exp()),
            config: self.config.clone(),
        }
    }
}

fn naming(weights: &Weights) -> Result<Naming> {
    let has = |prefix| weights.names().any(|name: &str| name.starts_with(prefix));
    ensure!(
        !has("visual.layer1."),
        "its vision tower is a ResNet; only CLIP's vision transformers are known"
    );
    match (has("vision_model."), has("visual.")) {
        (true, false) => Ok(Naming::HuggingFace),
        (false, true) => Ok(Naming::OpenAi),
        (true, true) => bail!("it has both Hugging Face's and OpenAI's vision tensors"),
        (false, false) => bail!(
            "no CLIP vision tower: it has no tensor named vision_model.… (Hugging Face) or visual.… (OpenAI, open_clip)"
        ),
    }
}

/// Refuses a tensor of another shape, which a lying config could make us reserve memory for, and one that is
/// no part of the towers, such as a further layer's: it would run as another model.
fn check(weights: &Weights, naming: Naming, config: &ClipConfig, says: &str) -> Result<()> {
    let sources = [config.vision_sources(naming), config.text_sources(naming)].concat();
    for source in &sources {
        let Some(tensor) = weights.tensor(&source.name) else { continue };
        ensure!(
            tensor.shape_of_rank(source.shape.len()) == source.shape,
            "{} has shape {:?}; {says} {:?}",
            source.name,
            tensor.shape,
            source.shape
        );
    }
    let known: BTreeSet<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let towers = [
        (naming.vision().blocks, config.vision.layers),
        (naming.text().blocks, config.text.as_ref().map_or(0, |text| text.tower.layers)),
    ];
    for name in weights.names().filter(|name| naming.is_vision(name) || naming.is_text(name)) {
        for (blocks, layers) in towers {
            let further = block_of(name, blocks).is_some_and(|block| block >= layers);
            ensure!(!further, "it has {name}, but {says} {layers} layers");
        }
        let buffer = name.ends_with(".position_ids");
        ensure!(known.contains(name) || buffer, "it has {name}, which is no part of a plain CLIP");
    }
    Ok(())
}
