//! The config beside a checkpoint's weights: Hugging Face's or open_clip's.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::config::ClipConfig;
use super::names::Naming;
use super::weights::Weights;
use super::{hugging_face, open_clip, preprocess};

pub(super) const HUGGING_FACE: &str = "config.json";
const OPEN_CLIP: &str = "open_clip_config.json";

/// The config beside `weights`, that of their own naming first, with the preprocess that goes with it. A folder must have one; beside a bare file
/// there may be none, or another model's `config.json`, which is passed over with a notice.
///
/// # Errors
/// A folder without one; what is wrong in it, with file and field.
pub fn find(
    weights: &Weights,
    naming: Naming,
    folder: bool,
    notices: &mut Vec<String>,
) -> Result<Option<ClipConfig>> {
    let names = match naming {
        Naming::HuggingFace => [HUGGING_FACE, OPEN_CLIP],
        Naming::OpenAi => [OPEN_CLIP, HUGGING_FACE],
    };
    let (stored, weights) = (weights, weights.path());
    for name in names {
        let path = weights.with_file_name(name);
        if !path.is_file() {
            continue;
        }
        let reading = || format!("reading {}", path.display());
        let json = json(&path).with_context(reading)?;
        if name == OPEN_CLIP {
            return open_clip::config(&json).map(Some).with_context(reading);
        }
        if hugging_face::is_clip(&json) {
            let mut config = hugging_face::config(&json).with_context(reading)?;
            if let Some(dtype) = hugging_face::narrower(&json, stored) {
                notices.push(format!(
                    "{}: dtype is {dtype}, and weights are stored as float32: they are used as stored (transformers 5 rounds them \
                     when it loads them, transformers 4 does not)",
                    path.display()
                ));
            }
            if let Some(preprocess) = preprocess::beside(weights, config.image_size)? {
                config.preprocess = preprocess;
            }
            return Ok(Some(config));
        }
        let model_type = json.get("model_type").map_or("missing".to_string(), Value::to_string);
        let other = format!("{} is no CLIP's: model_type is {model_type}, not \"clip\"", path.display());
        ensure!(!folder, "{other}");
        notices.push(format!("{other}; it is passed over"));
    }
    ensure!(
        !folder,
        "reading {}: neither {HUGGING_FACE} nor {OPEN_CLIP} is beside it; put the model's there, or give the file \
         itself to have its sizes read from its tensors",
        weights.display()
    );
    Ok(None)
}

pub(super) fn json(path: &Path) -> Result<Value> {
    serde_json::from_str(&std::fs::read_to_string(path)?).context("not JSON")
}
