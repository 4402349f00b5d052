//! Checkpoints: a Hugging Face or open_clip folder, or one safetensors file.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::config::{Activation, ClipConfig, LOGIT_SCALE};
use super::layout::{TextLayout, VisionLayout};
use super::names::{Naming, block_of};
use super::sources::Source;
use super::summary::{Summary, shortened};
use super::tokenizer::{END_OF_TEXT, Tokenizer};
use super::weights::Weights;
use super::{config_file, convert, preprocess, sizes};

/// Of CLIP's vocabulary, of which the end of text is the last.
const CLIP_TOKENS: usize = END_OF_TEXT as usize + 1;

/// An open checkpoint: each tensor that is there has the name and the shape that its sizes ask for; values
/// are read when asked for.
pub struct Checkpoint {
    weights: Weights,
    naming: Naming,
    config: ClipConfig,
    /// There is a config, which says what its tensors cannot.
    described: bool,
    notices: Vec<String>,
    scale_is: &'static str,
}

/// What a float16 makes of the largest logit scale is no more than this much larger.
const ROUNDED: f32 = 1.001;

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
        let mut notices = weights.notices().to_vec();
        let found = config_file::find(&weights, naming, path.is_dir(), &mut notices)?;
        let described = found.is_some();
        let says = if described { "the config says" } else { "the rest of the file says" };
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
                let mut config = sizes::config(&weights, naming).with_context(reading)?;
                // Beside another model's config, which was passed over, it is that one's.
                if !weights.path().with_file_name(config_file::HUGGING_FACE).is_file()
                    && let Some(preprocess) = preprocess::beside(weights.path(), config.image_size)?
                {
                    config.preprocess = preprocess;
                }
                config
            }
        };
        if !weights.names().any(|name| naming.is_text(name)) {
            config.text = None;
        }
        check(&weights, naming, &config, says).with_context(reading)?;
        let surplus = outside(&weights, naming).with_context(reading)?;
        if !surplus.is_empty() {
            let (file, surplus) = (weights.path().display(), shortened(&surplus));
            notices.push(format!("{file}: {surplus}: no part of a CLIP, passed over"));
        }
        if let Some(activation) = activation {
            config.vision.activation = activation;
            config.text.iter_mut().for_each(|text| text.tower.activation = activation);
        }
        let trained = trained_scale(&weights).with_context(reading)?;
        config.logit_scale = trained.map_or(LOGIT_SCALE, |scale| scale.min(LOGIT_SCALE));
        if let Some(scale) = trained.filter(|scale| *scale > ROUNDED * LOGIT_SCALE) {
            notices.push(format!(
                "its logit scale is {scale:.2}, which CLIP's training keeps to {LOGIT_SCALE}: that is taken (--logit-scale \
                 {scale:.2} for its own)"
            ));
        }
        let scale_is = if trained.is_some() { "the checkpoint's" } else { "CLIP's: the checkpoint has none" };
        let checkpoint = Checkpoint { weights, naming, config, described, notices, scale_is };
        if checkpoint.config.text.is_some() {
            Tokenizer::check(naming, checkpoint.weights.path())?; // what labels cannot be encoded for is known early
        }
        Ok(checkpoint)
    }

    /// Takes another logit scale than the checkpoint's.
    pub fn set_logit_scale(&mut self, scale: f32) {
        self.config.logit_scale = scale;
        self.scale_is = "by --logit-scale";
    }

    /// Whose the config's logit scale is, for a person to read.
    pub fn scale_is(&self) -> &'static str {
        self.scale_is
    }

    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The tokenizer for its labels.
    ///
    /// # Errors
    /// Tokenizer's files beside the weights that are not CLIP's, named.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::open(self.naming, self.weights.path())
    }

    /// What had to be assumed, for a person to read.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether it can classify images by labels: both towers are whole, and the text tower knows CLIP's tokens.
    ///
    /// # Errors
    /// What it lacks.
    pub fn check_complete(&self) -> Result<()> {
        let check = || -> Result<()> {
            let text = self.config.text()?;
            self.check_present(&self.config.vision_sources(self.naming))?;
            self.check_present(&self.config.text_sources(self.naming))?;
            let tokens = text.vocab_size;
            // With a config, what is beside it says more.
            let clips = if self.described { tokens >= CLIP_TOKENS } else { tokens == CLIP_TOKENS };
            ensure!(
                clips,
                "its vocabulary has {tokens} tokens, CLIP's has {CLIP_TOKENS}: it is not CLIP's tokenizer that labels must \
                 be encoded with"
            );
            Ok(())
        };
        check().with_context(|| format!("reading {}", self.weights.path().display()))
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
            self.check_present(sources)?;
            let mut buffer = vec![0.0; total];
            convert::fill(&mut buffer, sources, &self.weights)?;
            Ok(buffer)
        };
        read().with_context(|| format!("reading {}", self.weights.path().display()))
    }

    fn check_present(&self, sources: &[Source]) -> Result<()> {
        let missing = self.missing(sources);
        ensure!(
            missing.is_empty(),
            "{} of {} tensors are missing: {}",
            missing.len(),
            sources.len(),
            shortened(&missing)
        );
        Ok(())
    }

    fn missing(&self, sources: &[Source]) -> Vec<String> {
        let absent = |source: &&Source| self.weights.tensor(&source.name).is_none();
        sources.iter().filter(absent).map(|source| source.name.clone()).collect()
    }

    /// What makes the model: its sizes, and a digest of each file of weights. Runs of different models differ in it.
    ///
    /// # Errors
    /// A file that has become shorter; the disk's own.
    pub fn fingerprint(&self) -> Result<Value> {
        let file = |(name, digest)| json!({ "file": name, "digest": digest });
        let weights: Vec<Value> = self.weights.digests()?.into_iter().map(file).collect();
        Ok(json!({ "config": serde_json::to_value(&self.config)?, "weights": weights }))
    }

    /// What the checkpoint holds, for people.
    pub fn summary(&self) -> Summary {
        let tensors = || self.weights.names().filter_map(|name| self.weights.tensor(name));
        let dtypes: BTreeSet<String> = tensors().map(|tensor| format!("{:?}", tensor.dtype)).collect();
        let (vision, text) = (self.config.vision_sources(self.naming), self.config.text_sources(self.naming));
        let count = |sources: &[Source]| sources.iter().map(Source::count).sum();
        Summary {
            file: self.weights.path().display().to_string(),
            files: self.weights.file_bytes().len(),
            bytes: self.weights.file_bytes().sum::<u64>() as usize,
            naming: self.naming,
            dtypes: dtypes.into_iter().collect(),
            tensors: self.weights.names().len(),
            vision_parameters: count(&vision),
            vision_missing: self.missing(&vision),
            text_parameters: count(&text),
            text_missing: self.missing(&text),
            logit_scale: self.config.logit_scale,
            logit_scale_is: self.scale_is,
            preprocess: self.config.preprocess,
            config: self.config.clone(),
        }
    }
}

/// `exp(logit_scale)`, as large as it was trained to be.
fn trained_scale(weights: &Weights) -> Result<Option<f32>> {
    let Some(tensor) = weights.tensor("logit_scale") else { return Ok(None) };
    let mut log = [0.0];
    ensure!(
        tensor.shape.iter().product::<usize>() == 1,
        "logit_scale has shape {:?}; one number is expected",
        tensor.shape
    );
    convert::convert(&tensor, &mut log).context("logit_scale")?;
    let scale = f64::from(log[0]).exp() as f32;
    ensure!(scale.is_normal(), "logit_scale is {}, whose exponential is {scale}", log[0]);
    Ok(Some(scale))
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

/// The tensors that are of neither tower, nor the logit scale, nor what OpenAI's files say of sizes.
///
/// # Errors
/// A bias of the logits.
fn outside(weights: &Weights, naming: Naming) -> Result<Vec<String>> {
    const KNOWN: [&str; 4] = ["logit_scale", "input_resolution", "context_length", "vocab_size"];
    let is_of_tower = |name: &str| naming.is_vision(name) || naming.is_text(name);
    let outside = weights.names().filter(|name| !is_of_tower(name) && !KNOWN.contains(name));
    let outside: Vec<String> = outside.map(str::to_string).collect();
    ensure!(
        !outside.iter().any(|name| name == "logit_bias"),
        "it has logit_bias: it was trained with a sigmoid for each label (SigLIP), not with CLIP's softmax over them"
    );
    Ok(outside)
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
