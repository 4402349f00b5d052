//! Where a model's weights lie: in the file that was named, in its folder, or in the hub's cache; or what lies there instead.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};

/// Weights that a model's folder may hold, the first that is there is taken. open_clip's come first: its
/// folders may hold the same tower for timm as `model.safetensors`.
const FILES: [&str; 3] = ["open_clip_model.safetensors", "model.safetensors", "model.safetensors.index.json"];

/// What turns a pickle into weights that can be read here.
const CONVERT: &str = "load it in PyTorch (OpenAI's own .pt with torch.jit.load(…).state_dict()) and save it with \
                       safetensors.torch.save_file as model.safetensors";

/// What OpenAI's program calls its models, where the hub has them, and where it has them as open_clip's safetensors.
const OPENAI: [[&str; 3]; 4] = [
    ["ViT-B/32", "openai/clip-vit-base-patch32", "timm/vit_base_patch32_clip_224.openai"],
    ["ViT-B/16", "openai/clip-vit-base-patch16", "timm/vit_base_patch16_clip_224.openai"],
    ["ViT-L/14", "openai/clip-vit-large-patch14", "timm/vit_large_patch14_clip_224.openai"],
    ["ViT-L/14@336px", "openai/clip-vit-large-patch14-336", "timm/vit_large_patch14_clip_336.openai"],
];

/// The weights at `path`: a safetensors file, the index of several, a model's folder, or a folder of the hub's cache
/// (`models--ORG--NAME`) with one snapshot in it.
///
/// # Errors
/// What is there instead, and what to do.
pub fn find(path: &Path, notices: &mut Vec<String>) -> Result<PathBuf> {
    let Ok(found) = std::fs::metadata(path) else {
        return Err(not_there(path));
    };
    if !found.is_dir() {
        return Ok(path.to_path_buf());
    }
    if let Some(snapshot) = snapshot(path)? {
        notices.push(format!(
            "{} is a folder of the hub's cache; its snapshot is {}",
            path.display(),
            snapshot.display()
        ));
        return in_folder(&snapshot);
    }
    in_folder(path)
}

fn not_there(path: &Path) -> anyhow::Error {
    let error = std::fs::metadata(path).err().map_or_else(String::new, |error| error.to_string());
    let name = path.to_string_lossy();
    let name = name.strip_prefix("hf-hub:").unwrap_or(&name);
    let plain = |part: &str| {
        part.starts_with(char::is_alphanumeric)
            && part.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
    };
    let openais = OPENAI.iter().find(|[openai, hub, _]| {
        *openai == name || hub.strip_prefix("openai/") == Some(name) || *hub == name
    });
    let name = openais.map_or(name, |[_, hub, _]| hub);
    let same = openais.map_or(String::new(), |[_, _, same]| {
        format!(" (where that has pickles alone, {same} has the same weights as safetensors)")
    });
    if name.split('/').count() != 2 || !name.split('/').all(plain) {
        return anyhow!("{error}; a model's folder or a safetensors file is expected");
    }
    anyhow!(
        "{error}. Models are not fetched by their names: if you mean one of the Hugging Face hub, `hf download {name}` \
         fetches it and prints its folder, which is what to give here{same}"
    )
}

/// The snapshot in a folder of the hub's cache; `None` if this is none.
fn snapshot(path: &Path) -> Result<Option<PathBuf>> {
    let folder = path.join("snapshots");
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?.path();
        if entry.is_dir() {
            found.push(entry);
        }
    }
    found.sort();
    match &found[..] {
        [one] => Ok(Some(one.clone())),
        [] => bail!("its folder snapshots is empty: nothing was fetched"),
        several => {
            let list: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            bail!("it has several snapshots; give one of them: {}", list.join(", "))
        }
    }
}

/// The weights of a model's folder.
fn in_folder(folder: &Path) -> Result<PathBuf> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let has = |name: &str| names.iter().any(|found| found == name);
    let ending = |ends: &[&str]| names.iter().find(|name| ends.iter().any(|end| name.ends_with(end)));
    if has("adapter_config.json") {
        let base = std::fs::read_to_string(folder.join("adapter_config.json")).ok().and_then(|text| {
            let json: serde_json::Value = serde_json::from_str(&text).ok()?;
            Some(format!(" ({})", json.get("base_model_name_or_path")?.as_str()?))
        });
        bail!(
            "it holds an adapter (adapter_config.json), which changes what another model{} computes; merge it into that \
             model with PEFT's merge_and_unload(), save_pretrained() the result, and give its folder",
            base.unwrap_or_default()
        );
    }
    if let Some(name) = FILES.iter().find(|name| folder.join(name).is_file()) {
        return Ok(folder.join(name));
    }
    let none = format!("it has none of {}", FILES.join(", "));
    if let Some(name) = ending(&[".safetensors", ".safetensors.index.json"]) {
        bail!("{none}, only {name}; if that is the model, give this file by its name");
    }
    if let Some(name) = ending(&[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".pkl"]) {
        bail!("{none}, only {name}, a PyTorch pickle; {CONVERT}");
    }
    if let Some(name) = ending(&[".msgpack", ".h5", ".onnx", ".gguf", ".tflite", ".mlpackage"]) {
        bail!(
            "{none}, only {name}, another program's weights; fetch the model in PyTorch's form, as safetensors"
        );
    }
    let cached: Vec<&String> = names.iter().filter(|name| name.starts_with("models--")).collect();
    ensure!(
        cached.is_empty(),
        "{none}; it is the hub's cache, so give one of its models: {}",
        cached.iter().map(|name| folder.join(name).display().to_string()).collect::<Vec<_>>().join(", ")
    );
    bail!("{none}; if you have a pickle, {CONVERT}")
}

/// Refuses what is no safetensors file by what it is.
pub fn check_start(bytes: &[u8]) -> Result<()> {
    ensure!(!bytes.is_empty(), "the file is empty");
    let begins = |starts: &[&[u8]]| starts.iter().any(|start| bytes.starts_with(start));
    let pickle = begins(&[b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"]);
    // A safetensors file begins with a length of 8 bytes and a brace, whatever the length's first byte is.
    let safetensors = bytes.get(8) == Some(&b'{');
    ensure!(safetensors || !pickle, "this is a PyTorch pickle; {CONVERT}");
    ensure!(
        !begins(&[b"version https://git-lfs"]),
        "this is Git LFS's pointer to the weights; fetch them with `git lfs pull`"
    );
    let others: [(&[&[u8]], &str); 6] = [
        (&[b"GGUF"], "GGUF"),
        (&[b"\x89HDF"], "HDF5 (Keras)"),
        (&[b"<!DOCTYPE", b"<!doctype", b"<html", b"<HTML"], "a web page, not what its address was to give"),
        (&[b"\x1f\x8b"], "a gzip archive; unpack it first"),
        (&[b"\x93NUMPY"], "a NumPy array"),
        (&[b"\xff\xd8\xff", b"\x89PNG"], "an image"),
    ];
    for (starts, what) in others {
        ensure!(safetensors || !begins(starts), "this is {what}; a safetensors file is expected");
    }
    Ok(())
}
