//! A whole ViT-B/32 step on a checkpoint of the real one's size (605 MB of float32, random weights
//! that float16 holds, made on first use): `cargo bench --bench vit_b32 [-- --views 8 --images 1 --no-warm-up …]`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use half::f16;
use memo::check::random;

const CONFIG: &str = r#"{
  "model_type": "clip", "projection_dim": 512,
  "vision_config": { "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5 },
  "text_config": { "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
    "num_attention_heads": 8, "vocab_size": 49408, "max_position_embeddings": 77,
    "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5 }
}
"#;

fn main() {
    // cargo passes --bench to every benchmark.
    let given: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let model = folder();
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let run = || -> Result<ExitStatus> {
        make_checkpoint(&model).with_context(|| format!("making {}", model.display()))?;
        let mut command = Command::new(&program);
        command.args(["bench", "--model"]).arg(&model);
        match given.is_empty() {
            true => {
                command.args(["--views", "8", "--images", "1", "--no-warm-up", "--classes", "10", "--stages"])
            }
            false => command.args(given),
        };
        command.status().with_context(|| format!("running {}", program.display()))
    };
    match run() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::exit(1);
        }
    }
}

/// In the target folder, found from this program's own place.
fn folder() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().unwrap_or(Path::new(".")).join("vit-b32-fp16")
}

/// Name and shape of every tensor, in Hugging Face's naming.
fn tensors() -> Vec<(String, Vec<usize>)> {
    let mut all = vec![
        ("logit_scale".into(), vec![]),
        ("text_model.embeddings.token_embedding.weight".into(), vec![49408, 512]),
        ("text_model.embeddings.position_embedding.weight".into(), vec![77, 512]),
        ("text_model.final_layer_norm.weight".into(), vec![512]),
        ("text_model.final_layer_norm.bias".into(), vec![512]),
        ("text_projection.weight".into(), vec![512, 512]),
        ("vision_model.embeddings.class_embedding".into(), vec![768]),
        ("vision_model.embeddings.patch_embedding.weight".into(), vec![768, 3, 32, 32]),
        ("vision_model.embeddings.position_embedding.weight".into(), vec![50, 768]),
        ("vision_model.pre_layrnorm.weight".into(), vec![768]),
        ("vision_model.pre_layrnorm.bias".into(), vec![768]),
        ("vision_model.post_layernorm.weight".into(), vec![768]),
        ("vision_model.post_layernorm.bias".into(), vec![768]),
        ("visual_projection.weight".into(), vec![512, 768]),
    ];
    for (tower, c) in [("text_model", 512), ("vision_model", 768)] {
        for layer in 0..12 {
            let at = format!("{tower}.encoder.layers.{layer}");
            for linear in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                all.push((format!("{at}.self_attn.{linear}.weight"), vec![c, c]));
                all.push((format!("{at}.self_attn.{linear}.bias"), vec![c]));
            }
            for norm in ["layer_norm1", "layer_norm2"] {
                all.push((format!("{at}.{norm}.weight"), vec![c]));
                all.push((format!("{at}.{norm}.bias"), vec![c]));
            }
            for (linear, rows, columns) in [("fc1", 4 * c, c), ("fc2", c, 4 * c)] {
                all.push((format!("{at}.mlp.{linear}.weight"), vec![rows, columns]));
                all.push((format!("{at}.mlp.{linear}.bias"), vec![rows]));
            }
        }
    }
    all
}

/// Random values at the scale of CLIP's own initialisation, exact in float16; norms near one.
fn values(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let len = shape.iter().product();
    if name == "logit_scale" {
        return vec![100f32.ln()];
    }
    let is_norm = name.contains("norm") && name.ends_with("weight");
    let spread =
        if shape.len() >= 2 { (3.0 / shape[1..].iter().product::<usize>() as f32).sqrt() } else { 0.02 };
    let spread = if name.contains("embedding.weight") && shape.len() == 2 { 0.02 } else { spread };
    let mut values = random(len, spread, seed);
    if is_norm {
        values.iter_mut().for_each(|v| *v += 1.0);
    }
    // As OpenAI's are.
    values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
    values
}

/// Written tensor by tensor: the whole never lies in memory.
fn make_checkpoint(folder: &Path) -> Result<()> {
    let path = folder.join("model.safetensors");
    let tensors = tensors();
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, shape) in &tensors {
        let bytes = 4 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, offset + bytes] }),
        );
        offset += bytes;
    }
    let mut header = serde_json::Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let size = (8 + header.len() + offset) as u64;
    if fs::metadata(&path).is_ok_and(|file| file.len() == size) {
        return Ok(());
    }
    eprintln!("making {} ({} MB)", path.display(), size / 1_000_000);
    fs::create_dir_all(folder)?;
    fs::write(folder.join("config.json"), CONFIG)?;
    let partial = folder.join("model.partial");
    let mut file = BufWriter::new(File::create(&partial)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    for (seed, (name, shape)) in tensors.iter().enumerate() {
        file.write_all(bytemuck::cast_slice(&values(name, shape, seed as u64)))?;
    }
    file.into_inner()?.sync_all()?;
    fs::rename(partial, path)?;
    Ok(())
}
