//! The config beside a checkpoint's weights: Hugging Face's or open_clip's.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::config::ClipConfig;
use super::fields::Section;
use super::names::Naming;
use super::{hugging_face, open_clip};

const HUGGING_FACE: &str = "config.json";
const OPEN_CLIP: &str = "open_clip_config.json";

/// The config beside `weights`, that of their own naming first. A folder must have one; beside a bare file
/// there may be none, or another model's `config.json`, which is passed over with a notice.
///
/// # Errors
/// A folder without one; what is wrong in it, with file and field.
pub fn find(
    weights: &Path,
    naming: Naming,
    folder: bool,
    notices: &mut Vec<String>,
) -> Result<Option<ClipConfig>> {
    let names = match naming {
        Naming::HuggingFace => [HUGGING_FACE, OPEN_CLIP],
        Naming::OpenAi => [OPEN_CLIP, HUGGING_FACE],
    };
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
            check_preprocessor(&weights.with_file_name("preprocessor_config.json"))?;
            return hugging_face::config(&json).map(Some).with_context(reading);
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

/// Refuses a model whose images are not normalised as CLIP's.
fn check_preprocessor(path: &Path) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let check = || Section::file(&json(path)?)?.check_pixels("image_mean", "image_std");
    check().with_context(|| format!("reading {}", path.display()))
}

fn json(path: &Path) -> Result<Value> {
    serde_json::from_str(&std::fs::read_to_string(path)?).context("not JSON")
}
