//! A random model as every kind of checkpoint there is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memo::check::random;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tensors by name: shape and values.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub const LAYERS: usize = 2;
/// Both towers' width: one head of a bare file.
pub const C: usize = 64;
pub const M: usize = 24;
pub const D: usize = 20;

/// A random model in Hugging Face's naming: patches of 2 in images of 4, 12 tokens, 7 positions.
pub fn hugging_face() -> Tensors {
    let mut shapes = vec![
        ("vision_model.embeddings.class_embedding".to_string(), vec![C]),
        ("vision_model.embeddings.patch_embedding.weight".to_string(), vec![C, 3, 2, 2]),
        ("vision_model.embeddings.position_embedding.weight".to_string(), vec![5, C]),
        ("text_model.embeddings.token_embedding.weight".to_string(), vec![12, C]),
        ("text_model.embeddings.position_embedding.weight".to_string(), vec![7, C]),
        ("visual_projection.weight".to_string(), vec![D, C]),
        ("text_projection.weight".to_string(), vec![D, C]),
        ("logit_scale".to_string(), vec![]),
    ];
    let mut affine = |name: String, shape: Vec<usize>| {
        shapes.push((format!("{name}.bias"), shape[..1].to_vec()));
        shapes.push((format!("{name}.weight"), shape));
    };
    for norm in ["vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"] {
        affine(norm.to_string(), vec![C]);
    }
    for tower in ["vision_model", "text_model"] {
        for i in 0..LAYERS {
            let at = format!("{tower}.encoder.layers.{i}");
            for part in ["q", "k", "v", "out"] {
                affine(format!("{at}.self_attn.{part}_proj"), vec![C, C]);
            }
            affine(format!("{at}.layer_norm1"), vec![C]);
            affine(format!("{at}.layer_norm2"), vec![C]);
            affine(format!("{at}.mlp.fc1"), vec![M, C]);
            affine(format!("{at}.mlp.fc2"), vec![C, M]);
        }
    }
    let values = |seed: usize, shape: &[usize]| {
        // Multiples of 1/64 below two: exact in every dtype.
        let exact = |v: f32| (v * 64.0).round() / 64.0;
        random(shape.iter().product(), 1.9, seed as u64).into_iter().map(exact).collect()
    };
    shapes
        .into_iter()
        .enumerate()
        .map(|(i, (name, shape))| (name, (shape.clone(), values(i, &shape))))
        .collect()
}

/// The same in OpenAI's naming.
pub fn openai(model: &Tensors) -> Tensors {
    let mut out = Tensors::new();
    for (name, (shape, values)) in model {
        let (mut shape, mut values) = (shape.clone(), values.clone());
        if name == "visual_projection.weight" || name == "text_projection.weight" {
            values = (0..C * D).map(|i| values[i % D * C + i / D]).collect();
            shape = vec![C, D];
        }
        let mut new = name.clone();
        for (from, to) in [
            ("vision_model.embeddings.patch_embedding", "visual.conv1"),
            ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
            ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
            ("vision_model.pre_layrnorm", "visual.ln_pre"),
            ("vision_model.post_layernorm", "visual.ln_post"),
            ("vision_model.encoder.layers", "visual.transformer.resblocks"),
            ("text_model.embeddings.token_embedding", "token_embedding"),
            ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
            ("text_model.final_layer_norm", "ln_final"),
            ("text_model.encoder.layers", "transformer.resblocks"),
            ("visual_projection.weight", "visual.proj"),
            ("text_projection.weight", "text_projection"),
            ("self_attn.out_proj", "attn.out_proj"),
            ("layer_norm1", "ln_1"),
            ("layer_norm2", "ln_2"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ] {
            new = new.replace(from, to);
        }
        match new.split_once(".self_attn.q_proj.") {
            Some((at, kind)) => {
                for part in ["k", "v"] {
                    let (more, rest) = &model[&name.replace("q_proj", &format!("{part}_proj"))];
                    shape[0] += more[0];
                    values.extend(rest);
                }
                out.insert(format!("{at}.attn.in_proj_{kind}"), (shape, values));
            }
            None if new.contains("self_attn") => {}
            None => drop(out.insert(new, (shape, values))),
        }
    }
    out
}

/// What the buffers must hold: in the order in which data flows, each group padded to 64 floats.
pub fn buffer(model: &Tensors, groups: &[&[&str]], tower: &str) -> Vec<f32> {
    let block: [&[&str]; 10] = [
        &["layer_norm1.weight", "layer_norm1.bias"],
        &["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
        &["self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"],
        &["self_attn.out_proj.weight"],
        &["self_attn.out_proj.bias"],
        &["layer_norm2.weight", "layer_norm2.bias"],
        &["mlp.fc1.weight"],
        &["mlp.fc1.bias"],
        &["mlp.fc2.weight"],
        &["mlp.fc2.bias"],
    ];
    let mut out = Vec::new();
    let mut group = |names: Vec<String>| {
        for name in names {
            let (shape, values) = &model[&name];
            // A patch is a row, and zeros up to a multiple of 8.
            let len = if shape.len() == 4 { shape[1..].iter().product() } else { values.len() };
            for row in values.chunks(len) {
                out.extend(row);
                let zeros = if shape.len() == 4 { len.next_multiple_of(8) - len } else { 0 };
                out.extend(vec![0.0; zeros]);
            }
        }
        out.resize(out.len().next_multiple_of(64), 0.0);
    };
    for names in groups {
        if *names == ["blocks"] {
            for i in 0..LAYERS {
                let full = |name: &&str| format!("{tower}.encoder.layers.{i}.{name}");
                block.iter().for_each(|names| group(names.iter().map(full).collect()));
            }
        } else {
            group(names.iter().map(|name| name.to_string()).collect());
        }
    }
    out
}

pub fn vision_buffer(model: &Tensors) -> Vec<f32> {
    let groups: [&[&str]; 7] = [
        &["vision_model.embeddings.class_embedding"],
        &["vision_model.embeddings.patch_embedding.weight"],
        &["vision_model.embeddings.position_embedding.weight"],
        &["vision_model.pre_layrnorm.weight", "vision_model.pre_layrnorm.bias"],
        &["blocks"],
        &["vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"],
        &["visual_projection.weight"],
    ];
    buffer(model, &groups, "vision_model")
}

pub fn text_buffer(model: &Tensors) -> Vec<f32> {
    let groups: [&[&str]; 5] = [
        &["text_model.embeddings.token_embedding.weight"],
        &["text_model.embeddings.position_embedding.weight"],
        &["blocks"],
        &["text_model.final_layer_norm.weight", "text_model.final_layer_norm.bias"],
        &["text_projection.weight"],
    ];
    buffer(model, &groups, "text_model")
}

/// A safetensors file's bytes.
pub fn file(tensors: &Tensors, dtype: Dtype) -> Vec<u8> {
    let stored: Vec<(&String, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = |v: &f32| match dtype {
                Dtype::F32 => v.to_le_bytes().to_vec(),
                Dtype::F16 => f16::from_f32(*v).to_le_bytes().to_vec(),
                Dtype::BF16 => bf16::from_f32(*v).to_le_bytes().to_vec(),
                other => panic!("{other:?}"),
            };
            (name, &shape[..], values.iter().flat_map(bytes).collect())
        })
        .collect();
    let views = stored
        .iter()
        .map(|(name, shape, bytes)| (*name, TensorView::new(dtype, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

pub fn config() -> Value {
    json!({
        "model_type": "clip", "projection_dim": D,
        "vision_config": {"hidden_size": C, "intermediate_size": M, "num_hidden_layers": LAYERS,
            "num_attention_heads": 4, "image_size": 4, "patch_size": 2},
        "text_config": {"hidden_size": C, "intermediate_size": M, "num_hidden_layers": LAYERS,
            "num_attention_heads": 2, "vocab_size": 12, "max_position_embeddings": 7},
    })
}

pub fn open_clip_config() -> Value {
    json!({"model_cfg": {
        "embed_dim": D,
        "vision_cfg": {"image_size": 4, "patch_size": 2, "layers": LAYERS, "width": C, "head_width": 16, "mlp_ratio": 0.375},
        "text_cfg": {"context_length": 7, "vocab_size": 12, "layers": LAYERS, "width": C, "heads": 2, "mlp_ratio": 0.375},
    }})
}

/// A folder with files in it.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Hugging Face's folder of a model.
    pub fn of(tensors: &Tensors) -> Folder {
        let folder = Folder::new();
        folder.write("model.safetensors", file(tensors, Dtype::F32));
        folder.write("config.json", config().to_string());
        folder
    }

    /// The model in two files and an index.
    pub fn sharded(tensors: &Tensors) -> Folder {
        let folder = Folder::new();
        let (mut shards, mut map) = ([Tensors::new(), Tensors::new()], json!({}));
        for (i, (name, tensor)) in tensors.iter().enumerate() {
            shards[i % 2].insert(name.clone(), tensor.clone());
            map[name] = json!(format!("model-0000{}-of-00002.safetensors", 1 + i % 2));
        }
        for (i, shard) in shards.iter().enumerate() {
            folder.write(&format!("model-0000{}-of-00002.safetensors", 1 + i), file(shard, Dtype::F32));
        }
        folder.write("model.safetensors.index.json", json!({"metadata": {}, "weight_map": map}).to_string());
        folder.write("config.json", config().to_string());
        folder
    }
}
