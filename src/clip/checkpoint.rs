//! Checkpoints: a Hugging Face folder, or one safetensors file.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::config::{Activation, ClipConfig, TowerConfig};
use super::layout::{TextLayout, VisionLayout};
use super::names::{Naming, Source};

/// An open checkpoint: its sizes are known and fit its tensors' names; values are read when asked for.
pub struct Checkpoint {
    path: PathBuf,
    bytes: Mmap,
    naming: Naming,
    config: ClipConfig,
    notices: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder with `config.json` and `model.safetensors`, or a safetensors file, whose sizes are
    /// then those of its tensors. `activation` overrides what the config says, for a file that has none.
    ///
    /// # Errors
    /// What is missing, cut or lying, with the file and the field.
    pub fn open(path: &Path, activation: Option<Activation>) -> Result<Checkpoint> {
        let metadata =
            std::fs::metadata(path).with_context(|| format!("opening the model {}", path.display()))?;
        let (file, config_file) = match metadata.is_dir() {
            true => (path.join("model.safetensors"), Some(path.join("config.json"))),
            false => {
                (path.to_path_buf(), path.parent().map(|p| p.join("config.json")).filter(|p| p.is_file()))
            }
        };
        let bytes = map(&file)?;
        let open = || -> Result<(Naming, Option<ClipConfig>)> {
            let tensors = parse(&bytes)?;
            let naming = naming(&tensors)?;
            Ok((naming, if config_file.is_none() { Some(sizes(&tensors, naming)?) } else { None }))
        };
        let (naming, sizes) = open().with_context(|| format!("reading {}", file.display()))?;
        let mut notices = Vec::new();
        let mut config = match (sizes, &config_file) {
            (Some(config), _) => {
                if activation.is_none() {
                    notices.push(format!(
                        "{} does not say its activation; QuickGELU is assumed, as OpenAI's models have \
                         (--activation gelu for open_clip's plain ones)",
                        file.display()
                    ));
                }
                config
            }
            (None, Some(path)) => {
                let read = || ClipConfig::from_json(&std::fs::read_to_string(path)?);
                read().with_context(|| format!("reading {}", path.display()))?
            }
            (None, None) => bail!("reading {}: no config", file.display()),
        };
        no_further_layers(&bytes, naming, &config).with_context(|| format!("reading {}", file.display()))?;
        if let Some(activation) = activation {
            config.vision.activation = activation;
            config.text.activation = activation;
        }
        Ok(Checkpoint { path: file, bytes, naming, config, notices })
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
    /// A missing tensor, another shape or dtype, a value that is not finite.
    pub fn vision_params(&self, layout: &VisionLayout) -> Result<Vec<f32>> {
        self.params(&self.config.vision_sources(self.naming), layout.total)
    }

    /// The text tower's parameters, likewise.
    ///
    /// # Errors
    /// As [`Checkpoint::vision_params`].
    pub fn text_params(&self, layout: &TextLayout) -> Result<Vec<f32>> {
        self.params(&self.config.text_sources(self.naming), layout.total)
    }

    fn params(&self, sources: &[Source], total: usize) -> Result<Vec<f32>> {
        let read = || -> Result<Vec<f32>> {
            let tensors = parse(&self.bytes)?;
            let absent: Vec<&str> = sources
                .iter()
                .map(|s| s.name.as_str())
                .filter(|name| tensors.tensor(name).is_err())
                .collect();
            if let Some(first) = absent.first() {
                bail!("{} of {} tensors are missing, {first} first", absent.len(), sources.len());
            }
            // Shapes first: a lying config must not make us reserve what it says.
            for source in sources {
                let tensor = tensors.tensor(&source.name)?;
                ensure!(
                    tensor.shape() == source.shape,
                    "{} has shape {:?}; the config says {:?}",
                    source.name,
                    tensor.shape(),
                    source.shape
                );
            }
            let mut buffer = vec![0.0; total];
            for source in sources {
                let values = floats(&tensors.tensor(&source.name)?).context(source.name.clone())?;
                let to = &mut buffer[source.range.clone()];
                match source.transposed {
                    false => to.copy_from_slice(&values),
                    true => {
                        let (rows, columns) = (source.shape[1], source.shape[0]);
                        (0..to.len()).for_each(|i| to[i] = values[i % columns * rows + i / columns]);
                    }
                }
            }
            Ok(buffer)
        };
        read().with_context(|| format!("reading {}", self.path.display()))
    }

    /// A digest of the file and the sizes: runs of different models differ in it.
    pub fn fingerprint(&self) -> Result<String> {
        let mut digest = Sha256::new();
        digest.update(serde_json::to_string(&self.config)?);
        digest.update(&self.bytes[..]);
        Ok(digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What the file holds, for people.
    ///
    /// # Errors
    /// As the file's own.
    pub fn summary(&self) -> Result<Summary> {
        let tensors = parse(&self.bytes).with_context(|| format!("reading {}", self.path.display()))?;
        let count = |sources: &[Source]| -> Option<usize> {
            let len = |source: &Source| {
                tensors.tensor(&source.name).ok().map(|t| t.shape().iter().product::<usize>())
            };
            sources.iter().map(len).sum()
        };
        let mut dtypes: Vec<String> =
            tensors.tensors().iter().map(|(_, t)| format!("{:?}", t.dtype())).collect();
        dtypes.sort();
        dtypes.dedup();
        Ok(Summary {
            file: self.path.display().to_string(),
            bytes: self.bytes.len(),
            naming: self.naming,
            dtypes,
            tensors: tensors.len(),
            vision_parameters: count(&self.config.vision_sources(self.naming)),
            text_parameters: count(&self.config.text_sources(self.naming)),
            logit_scale: tensors
                .tensor("logit_scale")
                .ok()
                .and_then(|t| floats(&t).ok()?.first().map(|s| s.exp())),
            config: self.config.clone(),
        })
    }
}

/// What `memo inspect` tells.
#[derive(Serialize)]
pub struct Summary {
    pub file: String,
    pub bytes: usize,
    pub naming: Naming,
    pub dtypes: Vec<String>,
    pub tensors: usize,
    /// `None` where tensors are missing.
    pub vision_parameters: Option<usize>,
    pub text_parameters: Option<usize>,
    /// As trained; MEMO always uses 100.
    pub logit_scale: Option<f32>,
    pub config: ClipConfig,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let naming = match self.naming {
            Naming::HuggingFace => "Hugging Face",
            Naming::OpenAi => "OpenAI/open_clip",
        };
        let parameters =
            |count: Option<usize>| count.map_or("incomplete".to_string(), |n| format!("{n} parameters"));
        let tower = |t: &TowerConfig| {
            format!(
                "{} layers, width {}, {} heads, MLP {}, {:?}, eps {:e}",
                t.layers, t.width, t.heads, t.mlp, t.activation, t.eps
            )
        };
        let c = &self.config;
        writeln!(f, "file         {} ({:.1} MB)", self.file, self.bytes as f64 / 1e6)?;
        writeln!(f, "tensors      {}, {}, {naming} names", self.tensors, self.dtypes.join("/"))?;
        writeln!(f, "vision       {}; {}", tower(&c.vision), parameters(self.vision_parameters))?;
        writeln!(
            f,
            "             {0}x{0} pixels, patches of {1}, {2} tokens",
            c.image_size,
            c.patch_size,
            c.tokens()
        )?;
        writeln!(f, "text         {}; {}", tower(&c.text), parameters(self.text_parameters))?;
        writeln!(f, "             vocabulary {}, {} tokens", c.vocab_size, c.context_length)?;
        write!(f, "features     {}", c.embed_dim)?;
        match self.logit_scale {
            Some(scale) => writeln!(f, ", trained logit scale {scale:.2}"),
            None => writeln!(f),
        }
    }
}

fn map(path: &Path) -> Result<Mmap> {
    let reading = || format!("reading {}", path.display());
    let file = File::open(path).with_context(reading)?;
    ensure!(file.metadata().with_context(reading)?.is_file(), "reading {}: not a file", path.display());
    // SAFETY: the file is read as it is now; a program that cuts it meanwhile ends this one, as with any
    // mapped file.
    let bytes = unsafe { Mmap::map(&file) }.with_context(reading)?;
    ensure!(!bytes.is_empty(), "reading {}: the file is empty", path.display());
    let pickle = bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02");
    ensure!(
        !pickle,
        "reading {}: this is a PyTorch pickle; load it in PyTorch and save it with safetensors.torch.save_file",
        path.display()
    );
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<SafeTensors<'_>> {
    SafeTensors::deserialize(bytes).context("not a whole safetensors file")
}

fn naming(tensors: &SafeTensors) -> Result<Naming> {
    let has = |name| tensors.tensor(name).is_ok();
    match (has("vision_model.embeddings.patch_embedding.weight"), has("visual.conv1.weight")) {
        (true, false) => Ok(Naming::HuggingFace),
        (false, true) => Ok(Naming::OpenAi),
        (true, true) => bail!("it has both Hugging Face's and OpenAI's vision tensors"),
        (false, false) => bail!(
            "no CLIP vision tower: neither vision_model.embeddings.patch_embedding.weight (Hugging Face) nor \
             visual.conv1.weight (OpenAI, open_clip) is there"
        ),
    }
}

/// Refuses a file with more layers than the config has: it would run as another, shorter model.
fn no_further_layers(bytes: &[u8], naming: Naming, config: &ClipConfig) -> Result<()> {
    let [vision, text] = match naming {
        Naming::HuggingFace => ["vision_model.encoder.layers", "text_model.encoder.layers"],
        Naming::OpenAi => ["visual.transformer.resblocks", "transformer.resblocks"],
    };
    let tensors = parse(bytes)?;
    for (prefix, layers) in [(vision, config.vision.layers), (text, config.text.layers)] {
        let next = format!("{prefix}.{layers}.");
        if let Some(name) = tensors.names().into_iter().find(|name| name.starts_with(&next)) {
            bail!("it has {name}, but the config says {layers} layers");
        }
    }
    Ok(())
}

/// The sizes of a bare file; heads are 64 wide, as in all of OpenAI's models.
fn sizes(tensors: &SafeTensors, naming: Naming) -> Result<ClipConfig> {
    let shape = |name: &str, rank: usize| -> Result<Vec<usize>> {
        let shape = tensors.tensor(name).with_context(|| format!("tensor {name}"))?.shape().to_vec();
        ensure!(shape.len() == rank, "{name} has shape {shape:?}; {rank} dimensions are expected");
        Ok(shape)
    };
    let layers = |prefix: &str, part: &str| {
        (0..).take_while(|i| tensors.tensor(&format!("{prefix}.{i}.{part}")).is_ok()).count()
    };
    let hf = naming == Naming::HuggingFace;
    let [patch, position, vision, text, token, text_position, projection] = match naming {
        Naming::HuggingFace => [
            "vision_model.embeddings.patch_embedding.weight",
            "vision_model.embeddings.position_embedding.weight",
            "vision_model.encoder.layers",
            "text_model.encoder.layers",
            "text_model.embeddings.token_embedding.weight",
            "text_model.embeddings.position_embedding.weight",
            "visual_projection.weight",
        ],
        Naming::OpenAi => [
            "visual.conv1.weight",
            "visual.positional_embedding",
            "visual.transformer.resblocks",
            "transformer.resblocks",
            "token_embedding.weight",
            "positional_embedding",
            "visual.proj",
        ],
    };
    let fc1 = if hf { "mlp.fc1.weight" } else { "mlp.c_fc.weight" };
    let (patch_shape, tokens) = (shape(patch, 4)?, shape(position, 2)?[0]);
    let (vocabulary, context) = (shape(token, 2)?, shape(text_position, 2)?[0]);
    let across = tokens.saturating_sub(1).isqrt();
    ensure!(across * across + 1 == tokens, "{position} has {tokens} rows, not a square of patches and one");
    let tower = |prefix: &str, width: usize| -> Result<TowerConfig> {
        Ok(TowerConfig {
            width,
            layers: layers(prefix, fc1),
            heads: width / 64,
            mlp: shape(&format!("{prefix}.0.{fc1}"), 2)?[0],
            eps: 1e-5,
            activation: Activation::QuickGelu,
        })
    };
    let projection = shape(projection, 2)?;
    let image_size = across.checked_mul(patch_shape[3]).context("its patches are too large")?;
    let config = ClipConfig {
        vision: tower(vision, patch_shape[0])?,
        text: tower(text, vocabulary[1])?,
        image_size,
        patch_size: patch_shape[3],
        embed_dim: if hf { projection[0] } else { projection[1] },
        vocab_size: vocabulary[0],
        context_length: context,
    };
    config.check()?;
    Ok(config)
}

/// A tensor's values as float32, all finite.
fn floats(tensor: &TensorView) -> Result<Vec<f32>> {
    let data = tensor.data();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => bytemuck::pod_collect_to_vec(data),
        Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        other => bail!("its dtype is {other:?}; F32, F16 and BF16 are known"),
    };
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        bail!("element {i} is {}", values[i]);
    }
    Ok(values)
}
