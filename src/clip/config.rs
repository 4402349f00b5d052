//! The sizes of a CLIP model, from `config.json` or from its tensors' shapes.

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

/// An MLP's activation. open_clip's plain models use GELU where OpenAI's use QuickGELU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Activation {
    /// `x · sigmoid(1.702 x)`
    QuickGelu,
    /// `x · Φ(x)`
    Gelu,
}

/// One of the two transformers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TowerConfig {
    /// `C`
    pub width: usize,
    /// `L`
    pub layers: usize,
    /// `NH`
    pub heads: usize,
    /// Width of the MLP's hidden layer, `M`.
    pub mlp: usize,
    /// Of the layer norms.
    pub eps: f32,
    pub activation: Activation,
}

/// A CLIP model: a ViT for images, a causal transformer for text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClipConfig {
    pub vision: TowerConfig,
    pub text: TowerConfig,
    /// Pixels of an image's side, a multiple of `patch_size`.
    pub image_size: usize,
    /// `P`
    pub patch_size: usize,
    /// Width of the features, `D`.
    pub embed_dim: usize,
    pub vocab_size: usize,
    /// Tokens of a prompt, at most.
    pub context_length: usize,
}

impl ClipConfig {
    /// `T`: the patches and the class token.
    pub fn tokens(&self) -> usize {
        let across = self.image_size / self.patch_size;
        across * across + 1
    }

    /// Values of a patch: `3 · P · P`.
    pub fn patch_len(&self) -> usize {
        3 * self.patch_size * self.patch_size
    }

    /// From Hugging Face's `config.json`; what it leaves out has `transformers`' defaults.
    ///
    /// # Errors
    /// Not JSON, a field of another kind, or sizes that no model can have: named.
    pub fn from_json(text: &str) -> Result<ClipConfig> {
        let json: Value = serde_json::from_str(text).context("not JSON")?;
        ensure!(json.is_object(), "not a JSON object");
        let section = |name: &str| match json.get(name) {
            None | Some(Value::Null) => Ok(Value::Null),
            Some(value) if value.is_object() => Ok(value.clone()),
            Some(value) => bail!("{name} is {value}, not an object"),
        };
        let (vision, text) = (section("vision_config")?, section("text_config")?);
        let config = ClipConfig {
            vision: tower(&vision, "vision_config", [768, 12, 12, 3072])?,
            text: tower(&text, "text_config", [512, 12, 8, 2048])?,
            image_size: size(&vision, "vision_config", "image_size", 224)?,
            patch_size: size(&vision, "vision_config", "patch_size", 32)?,
            embed_dim: size(&json, "", "projection_dim", 512)?,
            vocab_size: size(&text, "text_config", "vocab_size", 49408)?,
            context_length: size(&text, "text_config", "max_position_embeddings", 77)?,
        };
        let channels = size(&vision, "vision_config", "num_channels", 3)?;
        ensure!(channels == 3, "vision_config.num_channels is {channels}; images have 3");
        config.check()?;
        Ok(config)
    }

    /// Refuses sizes that do not fit together or that no model has.
    pub(super) fn check(&self) -> Result<()> {
        for (name, tower) in [("vision", &self.vision), ("text", &self.text)] {
            let TowerConfig { width, layers, heads, mlp, eps, .. } = *tower;
            in_range(name, "width", width, 1, 16_384)?;
            in_range(name, "layers", layers, 1, 256)?;
            in_range(name, "heads", heads, 1, 1024)?;
            in_range(name, "MLP width", mlp, 1, 65_536)?;
            ensure!(
                width.is_multiple_of(heads),
                "{name} width {width} is not a multiple of its {heads} heads"
            );
            ensure!((0.0..1.0).contains(&eps), "{name} layer norm epsilon is {eps}");
        }
        in_range("vision", "patch size", self.patch_size, 1, 1024)?;
        in_range("vision", "image size", self.image_size, self.patch_size, 4096)?;
        ensure!(
            self.image_size.is_multiple_of(self.patch_size),
            "image size {} is not a multiple of patch size {}",
            self.image_size,
            self.patch_size
        );
        in_range("projection", "width", self.embed_dim, 1, 16_384)?;
        in_range("text", "vocabulary", self.vocab_size, 1, 10_000_000)?;
        in_range("text", "context length", self.context_length, 3, 4096)
    }
}

fn in_range(tower: &str, what: &str, value: usize, least: usize, most: usize) -> Result<()> {
    ensure!((least..=most).contains(&value), "{tower} {what} is {value}; it must be {least} to {most}");
    Ok(())
}

fn tower(json: &Value, section: &str, [width, layers, heads, mlp]: [usize; 4]) -> Result<TowerConfig> {
    let eps = match json.get("layer_norm_eps") {
        None => 1e-5,
        Some(value) => {
            value.as_f64().ok_or_else(|| anyhow!("{section}.layer_norm_eps is {value}, not a number"))?
        }
    };
    let activation = match json.get("hidden_act").map(|value| (value, value.as_str())) {
        None | Some((_, Some("quick_gelu"))) => Activation::QuickGelu,
        Some((_, Some("gelu"))) => Activation::Gelu,
        Some((value, _)) => bail!("{section}.hidden_act is {value}; quick_gelu and gelu are known"),
    };
    Ok(TowerConfig {
        width: size(json, section, "hidden_size", width)?,
        layers: size(json, section, "num_hidden_layers", layers)?,
        heads: size(json, section, "num_attention_heads", heads)?,
        mlp: size(json, section, "intermediate_size", mlp)?,
        eps: eps as f32,
        activation,
    })
}

fn size(json: &Value, section: &str, field: &str, default: usize) -> Result<usize> {
    let dot = if section.is_empty() { "" } else { "." };
    match json.get(field) {
        None => Ok(default),
        Some(value) => {
            let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
            number.ok_or_else(|| anyhow!("{section}{dot}{field} is {value}, not a size"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_config_is_vit_b_32() {
        let config = ClipConfig::from_json("{}").unwrap();
        assert_eq!((config.tokens(), config.patch_len()), (50, 3072));
        assert_eq!((config.vision.width, config.vision.heads, config.vision.mlp), (768, 12, 3072));
        assert_eq!((config.text.width, config.vocab_size, config.context_length), (512, 49408, 77));
    }

    #[test]
    fn impossible_sizes_are_named() {
        let cases = [
            ("[", "not JSON"),
            ("[]", "not a JSON object"),
            (r#"{"vision_config": {"num_attention_heads": 0}}"#, "vision heads is 0"),
            (r#"{"vision_config": {"patch_size": 0}}"#, "patch size is 0"),
            (r#"{"vision_config": {"hidden_size": 1099511627776}}"#, "vision width is 1099511627776"),
            (r#"{"text_config": {"hidden_size": -1}}"#, "text_config.hidden_size is -1, not a size"),
            (r#"{"vision_config": {"hidden_size": 769}}"#, "not a multiple of its 12 heads"),
            (r#"{"vision_config": {"image_size": 225}}"#, "not a multiple of patch size"),
            (r#"{"vision_config": {"hidden_act": "relu"}}"#, "hidden_act is \"relu\""),
            (r#"{"vision_config": 5}"#, "vision_config is 5, not an object"),
            (r#"{"projection_dim": "x"}"#, "projection_dim is \"x\""),
            (r#"{"vision_config": {"num_channels": 4}}"#, "num_channels is 4"),
            (r#"{"vision_config": {"layer_norm_eps": "a"}}"#, "layer_norm_eps"),
        ];
        for (text, want) in cases {
            let error = format!("{:#}", ClipConfig::from_json(text).expect_err(want));
            assert!(error.contains(want), "{error}");
        }
    }
}
