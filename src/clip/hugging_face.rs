//! Hugging Face's `config.json` of a CLIP; what it leaves out has `transformers`' defaults.

use anyhow::{Result, bail, ensure};
use safetensors::Dtype;
use serde_json::Value;

use super::config::{Activation, ClipConfig, LOGIT_SCALE, TextConfig, TowerConfig};
use super::fields::Section;
use super::weights::Weights;
use crate::ops::preprocess::Preprocess;

/// Whether this is a CLIP's config and not, say, timm's or BERT's.
pub fn is_clip(json: &Value) -> bool {
    match json.get("model_type") {
        Some(kind) => kind == "clip" || kind == "clip_vision_model",
        None => json.get("vision_config").is_some(),
    }
}

/// The sizes of a `CLIPModel`, with OpenAI's preprocess, or of a `CLIPVisionModelWithProjection`, which has no text tower.
///
/// # Errors
/// A field of another kind, or sizes that no model can have: named.
pub fn config(json: &Value) -> Result<ClipConfig> {
    let file = Section::file(json)?;
    if let Some(quantized) = file.get("quantization_config") {
        let method = quantized.get("quant_method").unwrap_or(quantized);
        bail!("quantization_config is there ({method}): weights are used as they are stored, not quantized");
    }
    let alone = file.get("model_type").is_some_and(|kind| kind == "clip_vision_model");
    // transformers takes the older `…_dict` where a config has both.
    let section =
        |name, older| if file.get(older).is_some() { file.section(older) } else { file.section(name) };
    let vision = if alone { Section::file(json)? } else { section("vision_config", "vision_config_dict")? };
    let text = section("text_config", "text_config_dict")?;
    let text = || -> Result<TextConfig> {
        Ok(TextConfig {
            tower: tower(&text, [512, 12, 8, 2048])?,
            vocab_size: text.size("vocab_size", 49408)?,
            context_length: text.size("max_position_embeddings", 77)?,
        })
    };
    let image_size = vision.size("image_size", 224)?;
    let config = ClipConfig {
        vision: tower(&vision, [768, 12, 12, 3072])?,
        text: if alone { None } else { Some(text()?) },
        image_size,
        patch_size: vision.size("patch_size", 32)?,
        embed_dim: file.size("projection_dim", 512)?,
        preprocess: Preprocess::clip(image_size),
        logit_scale: LOGIT_SCALE,
    };
    let channels = vision.size("num_channels", 3)?;
    ensure!(channels == 3, "{} is {channels}; images have 3", vision.called("num_channels"));
    config.check()?;
    Ok(config)
}

/// The config's dtype where some weights are stored with more bits.
pub fn narrower<'a>(json: &'a Value, weights: &Weights) -> Option<&'a str> {
    let dtype = json.get("dtype").or_else(|| json.get("torch_dtype"))?.as_str()?;
    let is_float32 = |name| weights.tensor(name).is_some_and(|tensor| tensor.dtype == Dtype::F32);
    (["float16", "bfloat16"].contains(&dtype) && weights.names().any(is_float32)).then_some(dtype)
}

fn tower(section: &Section, [width, layers, heads, mlp]: [usize; 4]) -> Result<TowerConfig> {
    let activation = match section.get("hidden_act").map(|value| (value, value.as_str())) {
        None | Some((_, Some("quick_gelu"))) => Activation::QuickGelu,
        Some((_, Some("gelu"))) => Activation::Gelu,
        Some((value, _)) => {
            bail!("{} is {value}; quick_gelu and gelu are known", section.called("hidden_act"))
        }
    };
    Ok(TowerConfig {
        width: section.size("hidden_size", width)?,
        layers: section.size("num_hidden_layers", layers)?,
        heads: section.size("num_attention_heads", heads)?,
        mlp: section.size("intermediate_size", mlp)?,
        eps: section.number("layer_norm_eps", 1e-5)? as f32,
        activation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_config_is_vit_b_32() {
        let config = config(&json!({})).unwrap();
        assert_eq!((config.tokens(), config.patch_len()), (50, 3072));
        assert_eq!((config.vision.width, config.vision.heads, config.vision.mlp), (768, 12, 3072));
        let text = config.text.unwrap();
        assert_eq!((text.tower.width, text.vocab_size, text.context_length), (512, 49408, 77));
    }

    #[test]
    fn a_vision_model_is_its_own_section() {
        let json = json!({"model_type": "clip_vision_model", "hidden_size": 64, "num_attention_heads": 4});
        let config = config(&json).unwrap();
        assert_eq!((config.vision.width, config.vision.heads, config.text), (64, 4, None));
    }

    #[test]
    fn the_older_dict_is_taken() {
        let json = json!({
            "vision_config": {"hidden_act": "quick_gelu"},
            "vision_config_dict": {"hidden_act": "gelu", "patch_size": 16},
            "text_config_dict": null,
        });
        let config = config(&json).unwrap();
        assert_eq!((config.vision.activation, config.patch_size), (Activation::Gelu, 16));
        assert_eq!(config.text.unwrap().tower.activation, Activation::QuickGelu);
    }

    #[test]
    fn impossible_sizes_are_named() {
        let cases = [
            (json!([]), "not a JSON object"),
            (json!({"vision_config": {"num_attention_heads": 0}}), "vision heads is 0"),
            (json!({"vision_config": {"patch_size": 0}}), "patch size is 0"),
            (json!({"vision_config": {"hidden_size": 1u64 << 40}}), "vision width is 1099511627776"),
            (json!({"text_config": {"hidden_size": -1}}), "text_config.hidden_size is -1, not a size"),
            (json!({"vision_config": {"hidden_size": 769}}), "not a multiple of its 12 heads"),
            (json!({"vision_config": {"image_size": 225}}), "not a multiple of patch size"),
            (json!({"vision_config": {"hidden_act": "relu"}}), "vision_config.hidden_act is \"relu\""),
            (json!({"vision_config": 5}), "vision_config is 5, not an object"),
            (json!({"projection_dim": "x"}), "projection_dim is \"x\""),
            (json!({"vision_config": {"num_channels": 4}}), "num_channels is 4"),
            (
                json!({"quantization_config": {"quant_method": "hqq"}}),
                "quantization_config is there (\"hqq\")",
            ),
            (json!({"vision_config": {"layer_norm_eps": "a"}}), "layer_norm_eps"),
        ];
        for (json, want) in cases {
            let error = format!("{:#}", config(&json).expect_err(want));
            assert!(error.contains(want), "{error}");
        }
    }
}
