//! `open_clip_config.json`, with open_clip's defaults (its `CLIPVisionCfg`, `CLIPTextCfg` and `PreprocessCfg`).

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::config::{Activation, ClipConfig, LOGIT_SCALE, TextConfig, TowerConfig};
use super::fields::Section;
use super::preprocess;

/// What of the model is read here, or says nothing about what it computes.
const MODEL: &[&str] =
    &["embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "init_logit_scale", "nonscalar_logit_scale"];
const VISION: &[&str] = &[
    "image_size",
    "layers",
    "width",
    "patch_size",
    "head_width",
    "mlp_ratio",
    "patch_dropout",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "pos_embed_type", // either kind lies in the checkpoint
    "output_tokens",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
];
const TEXT: &[&str] = &[
    "context_length",
    "vocab_size",
    "width",
    "heads",
    "layers",
    "mlp_ratio",
    "pad_id",
    "eos_id",
    "output_tokens",
    "hf_tokenizer_name",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
];

/// Values of further fields that are as good as leaving them out.
const PLAIN: &[(&str, &str)] =
    &[("pool_type", "tok"), ("pool_type", "argmax"), ("proj_type", "linear"), ("block_type", "default")];

/// The sizes, the activation and the preprocess.
///
/// # Errors
/// A field of another kind, one that asks for more than CLIP's plain towers, or sizes that no model can
/// have: named.
pub fn config(json: &Value) -> Result<ClipConfig> {
    let file = Section::file(json)?;
    let model = file.required("model_cfg")?;
    let (vision, text) = (model.required("vision_cfg")?, model.required("text_cfg")?);
    for (section, known) in [(&model, MODEL), (&vision, VISION), (&text, TEXT)] {
        refuse_others(section, known)?;
    }
    let resnet = vision.get("layers").is_some_and(Value::is_array);
    ensure!(!resnet, "{} is a list: a ResNet; only vision transformers are known", vision.called("layers"));
    let activation = match model.get("quick_gelu") {
        None | Some(Value::Bool(false)) => Activation::Gelu,
        Some(Value::Bool(true)) => Activation::QuickGelu,
        Some(value) => bail!("{} is {value}, not true or false", model.called("quick_gelu")),
    };
    let tower = |section: &Section, width: usize, heads: usize| -> Result<TowerConfig> {
        Ok(TowerConfig {
            width,
            layers: section.size("layers", 12)?,
            heads,
            mlp: (width as f64 * section.number("mlp_ratio", 4.0)?) as usize, // cut off, as Python's int()
            eps: 1e-5,
            activation,
        })
    };
    let (width, head_width) = (vision.size("width", 768)?, vision.size("head_width", 64)?);
    ensure!(head_width > 0, "{} is 0", vision.called("head_width"));
    let embed_dim = model.get("embed_dim").and(Some(model.size("embed_dim", 0)?));
    let image_size = square(&vision, "image_size", 224)?;
    let config = ClipConfig {
        vision: tower(&vision, width, width / head_width)?,
        text: Some(TextConfig {
            tower: tower(&text, text.size("width", 512)?, text.size("heads", 8)?)?,
            vocab_size: text.size("vocab_size", 49408)?,
            context_length: text.size("context_length", 77)?,
        }),
        image_size,
        patch_size: square(&vision, "patch_size", 16)?,
        embed_dim: embed_dim.with_context(|| format!("{} is missing", model.called("embed_dim")))?,
        preprocess: preprocess::open_clip(&file.section("preprocess_cfg")?, image_size)?,
        logit_scale: LOGIT_SCALE,
    };
    config.check()?;
    if let Some(name) = text.get("hf_tokenizer_name") {
        bail!("{} is {name}; labels are encoded with CLIP's own tokenizer", text.called("hf_tokenizer_name"));
    }
    Ok(config)
}

/// A side, which may be given as height and width, `[224, 224]`.
fn square(section: &Section, field: &str, default: usize) -> Result<usize> {
    let Some(Value::Array(sides)) = section.get(field) else { return section.size(field, default) };
    match &sides[..] {
        [height, width] if height == width => {
            let side = height.as_u64().and_then(|side| usize::try_from(side).ok());
            side.with_context(|| format!("{} is [{height},{width}], not two sizes", section.called(field)))
        }
        _ => bail!("{} is {}; squares are known", section.called(field), Value::from(sides.clone())),
    }
}

/// Refuses fields that are neither known nor off: they may change what the model computes.
fn refuse_others(section: &Section, known: &[&str]) -> Result<()> {
    for (field, value) in section.fields() {
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Object(fields) => fields.is_empty(), // `norm_kwargs: {}`
            Value::Array(values) => values.is_empty(),
            other => other.as_f64() == Some(0.0),
        };
        let plain = PLAIN.iter().any(|&(name, plain)| name == field && value == plain);
        if !off && !plain && !known.contains(&field.as_str()) {
            bail!(
                "{} is {value}; only CLIP's plain towers are known, which have none",
                section.called(field)
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::pillow::Filter;
    use crate::ops::preprocess::{Preprocess, Resize, Scale};
    use serde_json::json;

    /// ViT-H-14, as open_clip has it.
    fn vit_h_14() -> Value {
        json!({
            "model_cfg": {
                "embed_dim": 1024,
                "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16, "layers": 24},
            },
            "preprocess_cfg": {
                "mean": [0.48145466, 0.4578275, 0.40821073],
                "std": [0.26862954, 0.26130258, 0.27577711],
                "interpolation": "bicubic", "resize_mode": "shortest",
            },
        })
    }

    #[test]
    fn sizes_are_open_clips() {
        let config = config(&vit_h_14()).unwrap();
        let vision = &config.vision;
        assert_eq!((vision.width, vision.layers, vision.heads, vision.mlp), (1280, 32, 16, 5120));
        assert_eq!((config.embed_dim, config.patch_size, config.tokens()), (1024, 14, 257));
        let text = config.text.as_ref().unwrap();
        assert_eq!((text.tower.width, text.tower.heads, text.tower.mlp), (1024, 16, 4096));
        assert_eq!((vision.activation, text.tower.activation), (Activation::Gelu, Activation::Gelu));
    }

    #[test]
    fn absent_fields_have_open_clips_defaults() {
        let json =
            json!({"model_cfg": {"embed_dim": 512, "quick_gelu": true, "vision_cfg": {}, "text_cfg": {}}});
        let config = config(&json).unwrap();
        let vision = &config.vision;
        assert_eq!((vision.width, vision.layers, vision.heads, vision.mlp), (768, 12, 12, 3072));
        assert_eq!((config.patch_size, vision.activation), (16, Activation::QuickGelu));
    }

    #[test]
    fn sides_may_be_pairs_and_nothing_may_be_an_empty_object() {
        let mut json = vit_h_14();
        let vision = &mut json["model_cfg"]["vision_cfg"];
        vision["image_size"] = json!([280, 280]);
        vision["patch_size"] = json!([28, 28]);
        vision["norm_kwargs"] = json!({});
        json["model_cfg"]["text_cfg"]["act_kwargs"] = json!({});
        let config = config(&json).unwrap();
        assert_eq!((config.image_size, config.patch_size), (280, 28));
    }

    /// ViT-bigG-14: 1664 · 4.9231 is 8192.04.
    #[test]
    fn the_mlp_is_cut_off_to_whole_columns() {
        let mut json = vit_h_14();
        json["model_cfg"]["vision_cfg"]["width"] = json!(1664);
        json["model_cfg"]["vision_cfg"]["head_width"] = json!(104);
        json["model_cfg"]["vision_cfg"]["mlp_ratio"] = json!(4.9231);
        let config = config(&json).unwrap();
        assert_eq!((config.vision.mlp, config.vision.heads), (8192, 16));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let cases = [
            ("/model_cfg", json!(null), "model_cfg is missing"),
            ("/model_cfg/text_cfg", json!(null), "model_cfg.text_cfg is missing"),
            ("/model_cfg/embed_dim", json!(null), "model_cfg.embed_dim is missing"),
            ("/model_cfg/quick_gelu", json!("yes"), "model_cfg.quick_gelu is \"yes\""),
            ("/model_cfg/custom_text", json!(true), "model_cfg.custom_text is true"),
            (
                "/model_cfg/vision_cfg/layers",
                json!([3, 4, 6, 3]),
                "model_cfg.vision_cfg.layers is a list: a ResNet",
            ),
            ("/model_cfg/vision_cfg/layers", json!(0), "vision layers is 0"),
            (
                "/model_cfg/vision_cfg/norm_kwargs",
                json!({"eps": 1e-6}),
                "vision_cfg.norm_kwargs is {\"eps\":",
            ),
            (
                "/model_cfg/vision_cfg/image_size",
                json!([224, 336]),
                "vision_cfg.image_size is [224,336]; squares",
            ),
            ("/model_cfg/vision_cfg/image_size", json!([-1, -1]), "image_size is [-1,-1], not two sizes"),
            ("/model_cfg/vision_cfg/image_size", json!([224]), "image_size is [224]; squares"),
            ("/model_cfg/vision_cfg/head_width", json!(0), "vision_cfg.head_width is 0"),
            ("/model_cfg/vision_cfg/mlp_ratio", json!(1e300), "vision MLP width"),
            ("/model_cfg/vision_cfg/timm_model_name", json!("vit"), "vision_cfg.timm_model_name is \"vit\""),
            ("/model_cfg/vision_cfg/attentional_pool", json!(true), "vision_cfg.attentional_pool is true"),
            ("/model_cfg/vision_cfg/pool_type", json!("avg"), "vision_cfg.pool_type is \"avg\""),
            ("/model_cfg/vision_cfg/ls_init_value", json!(1e-4), "vision_cfg.ls_init_value"),
            ("/model_cfg/vision_cfg/newer", json!("on"), "vision_cfg.newer is \"on\""),
            ("/model_cfg/text_cfg/hf_model_name", json!("roberta-base"), "text_cfg.hf_model_name"),
            ("/model_cfg/text_cfg/no_causal_mask", json!(true), "text_cfg.no_causal_mask is true"),
            ("/preprocess_cfg/mean", json!(0.5), "preprocess_cfg.mean is 0.5, not three numbers"),
            ("/preprocess_cfg/std", json!([0.5]), "preprocess_cfg.std is [0.5], not three numbers"),
            ("/preprocess_cfg/std", json!([0.5, 0, 1]), "preprocess_cfg.std has a 0"),
            ("/preprocess_cfg/resize_mode", json!("longest"), "preprocess_cfg.resize_mode is \"longest\""),
            (
                "/preprocess_cfg/interpolation",
                json!("lanczos"),
                "preprocess_cfg.interpolation is \"lanczos\"",
            ),
            ("/preprocess_cfg/mode", json!("L"), "preprocess_cfg.mode is \"L\"; RGB is known"),
        ];
        for (at, value, want) in cases {
            let mut json = vit_h_14();
            let (section, field) = at.rsplit_once('/').unwrap();
            json.pointer_mut(section).unwrap()[field] = value;
            let error = format!("{:#}", config(&json).expect_err(want));
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn its_preprocess_is_read() {
        let of = |cfg: Value| {
            let mut json = vit_h_14();
            json["preprocess_cfg"] = cfg;
            config(&json).unwrap().preprocess
        };
        assert_eq!(of(vit_h_14()["preprocess_cfg"].clone()), Preprocess::clip(224));
        assert_eq!(of(json!({"size": [336, 336], "fill_color": 0, "mode": "RGB"})), Preprocess::clip(224));
        let squash = of(
            json!({"resize_mode": "squash", "interpolation": "bilinear", "mean": [0, 0.5, 1], "std": [1, 2, 3]}),
        );
        let scale = Scale { divisor: 255.0, mean: [0.0, 0.5, 1.0], std: [1.0, 2.0, 3.0] };
        let resize = Resize::Exact { width: 224, height: 224 };
        assert_eq!(squash, Preprocess { resize, filter: Filter::Bilinear, scale });
    }

    #[test]
    fn another_tokenizer_is_refused() {
        let mut json = vit_h_14();
        let text = &mut json["model_cfg"]["text_cfg"];
        text["hf_tokenizer_name"] = json!("facebook/xlm-v-base");
        let error = config(&json).unwrap_err().to_string();
        assert!(error.contains("text_cfg.hf_tokenizer_name"), "{error}");
    }
}
