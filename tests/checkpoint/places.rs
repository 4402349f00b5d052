//! Models as programs leave them: with prefixes before their names, in the hub's cache, as adapters, as another program's files.

use std::fs;

use memo::clip::Checkpoint;
use safetensors::Dtype;
use serde_json::json;

use crate::models::{C, D, Folder, LAYERS, M, Tensors, config, file, hugging_face, openai};
use crate::refused::assert_refused;
use crate::{assert_holds, bits, memo, open, vision_buffer};

fn renamed(model: &Tensors, name: impl Fn(&str) -> String) -> Tensors {
    model.iter().map(|(old, tensor)| (name(old), tensor.clone())).collect()
}

#[test]
fn prefixes_are_left_out_with_a_note() {
    let model = hugging_face();
    let prefixes =
        ["module.", "_orig_mod.", "model.", "base_model.model.", "module._orig_mod.", "model.module.clip."];
    for prefix in prefixes {
        for tensors in [model.clone(), openai(&model)] {
            let tensors = renamed(&tensors, |name| format!("{prefix}{name}"));
            for folder in [Folder::of(&tensors), Folder::sharded(&tensors)] {
                let checkpoint = open(folder.path());
                assert_holds(&checkpoint, &model);
                let [note] = checkpoint.notices() else { panic!("{:?}", checkpoint.notices()) };
                assert!(note.contains(&format!("without the {prefix} before their names")), "{note}");
                assert_eq!(checkpoint.scale_is(), "the checkpoint's", "{prefix}logit_scale");
            }
        }
    }
    // One name that is not under it does not matter, unless it is one of the model's.
    let mut tensors = renamed(&model, |name| format!("module.{name}"));
    tensors.insert("step".to_string(), (vec![1], vec![7.0]));
    assert_holds(&open(Folder::of(&tensors).path()), &model);
    tensors.insert("logit_scale".to_string(), (vec![], vec![1.0]));
    assert_refused(Folder::of(&tensors).path(), &["it has logit_scale twice, with and without module."]);
    tensors.remove("logit_scale");
    tensors.extend(renamed(&model, |name| format!("ema.{name}")));
    assert_refused(
        Folder::of(&tensors).path(),
        &["more than one vision tower", "ema.vision_model", "module.vision"],
    );
}

/// As transformers 5.24's CLIPVisionModel and open_clip's `model.visual` are saved.
#[test]
fn towers_alone_have_no_prefix_of_their_own() {
    let model = hugging_face();
    let mut vision = model.clone();
    vision.retain(|name, _| name.starts_with("vision_model."));
    let vision = renamed(&vision, |name| name.trim_start_matches("vision_model.").to_string());
    let folder = Folder::of(&vision);
    let alone = json!({"model_type": "clip_vision_model", "projection_dim": D, "hidden_size": C,
        "intermediate_size": M, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "image_size": 4, "patch_size": 2});
    folder.write("config.json", alone.to_string());
    let checkpoint = open(folder.path());
    assert!(checkpoint.notices()[0].contains("a vision tower's alone; they are read as vision_model."));
    assert_eq!(checkpoint.summary().vision_missing, ["visual_projection.weight"]);
    let error = format!("{:#}", checkpoint.check_complete().unwrap_err());
    assert!(error.contains("it has no text tower"), "{error}");

    let mut visual = openai(&model);
    visual.retain(|name, _| name.starts_with("visual."));
    let visual = renamed(&visual, |name| name.trim_start_matches("visual.").to_string());
    let checkpoint = open(&Folder::of(&visual).path().join("model.safetensors"));
    let got = checkpoint.vision_params(&checkpoint.config().vision_layout()).unwrap();
    assert_eq!(bits(&got), bits(&vision_buffer(&model)));
}

#[test]
fn adapters_are_refused_by_what_they_are() {
    let model = hugging_face();
    let folder = Folder::of(&model);
    folder.write("adapter_config.json", r#"{"base_model_name_or_path": "openai/clip-vit-base-patch32"}"#);
    folder.write("adapter_model.safetensors", file(&model, Dtype::F32));
    let want = ["an adapter", "(openai/clip-vit-base-patch32)", "merge_and_unload()"];
    assert_refused(folder.path(), &want);
    let lora = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight";
    let mut tensors = renamed(&model, |name| format!("base_model.model.{name}"));
    tensors.insert(lora.to_string(), (vec![2, C], vec![0.0; 2 * C]));
    assert_refused(Folder::of(&tensors).path(), &[lora, "merge_and_unload()"]);
}

#[test]
fn the_hubs_cache_has_one_snapshot_or_is_refused() {
    let (model, hub) = (hugging_face(), Folder::new());
    let cache = hub.path().join("models--openai--clip");
    let snapshot = |name: &str| {
        let folder = cache.join("snapshots").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("model.safetensors"), file(&model, Dtype::F32)).unwrap();
        fs::write(folder.join("config.json"), config().to_string()).unwrap();
        folder
    };
    assert_refused(hub.path(), &["it has none of"]);
    fs::create_dir_all(cache.join("snapshots")).unwrap();
    assert_refused(&cache, &["its folder snapshots is empty"]);
    assert_refused(hub.path(), &["it is the hub's cache", "models--openai--clip"]);
    let first = snapshot("0a1b");
    let checkpoint = open(&cache);
    assert_holds(&checkpoint, &model);
    assert!(checkpoint.notices()[0].contains("its snapshot is") && checkpoint.notices()[0].contains("0a1b"));
    assert_eq!(checkpoint.config().vision.heads, 4, "the config beside the snapshot's weights");
    assert_eq!(checkpoint.fingerprint().unwrap(), open(&first).fingerprint().unwrap());
    snapshot("2c3d");
    assert_refused(&cache, &["several snapshots", "0a1b", "2c3d"]);
}

#[test]
fn what_is_there_instead_is_named() {
    let folder = Folder::new();
    let hub = "openai/clip-vit-base-patch32";
    for name in [hub, "hf-hub:openai/clip-vit-base-patch32", "clip-vit-base-patch32", "ViT-B/32"] {
        let wanted =
            [name, "`hf download openai/clip-vit-base-patch32`", "timm/vit_base_patch32_clip_224.openai"];
        assert_refused(name.as_ref(), &wanted);
    }
    for name in ["./model", "/nowhere/model", "model", "a/b/c"] {
        let error = format!("{:#}", Checkpoint::open(name.as_ref(), None).err().unwrap());
        assert!(error.contains("No such file") && !error.contains("hf download"), "{error}");
    }
    let whole = file(&hugging_face(), Dtype::F16);
    let path = folder.write("model.fp16.safetensors", &whole);
    assert_refused(folder.path(), &["only model.fp16.safetensors", "give this file by its name"]);
    assert_holds(&open(&path), &hugging_face());
    fs::remove_file(path).unwrap();
    for (name, want) in [
        ("flax_model.msgpack", "another program's weights"),
        ("pytorch_model.bin.index.json", "a PyTorch pickle"),
        ("ViT-B-32.pt", "a PyTorch pickle"),
    ] {
        let path = folder.write(name, "");
        assert_refused(folder.path(), &["only ", name, want]);
        fs::remove_file(path).unwrap();
    }
    for (bytes, want) in [
        (&b"PK\x03\x04\0\0\0\0\0\0"[..], "a PyTorch pickle"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0", "a PyTorch pickle"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "this is GGUF"),
        (b"", "the file is empty"),
    ] {
        let path = folder.write("model.safetensors", bytes);
        assert_refused(&path, &["model.safetensors", want]);
    }
}

/// MetaCLIP 2's file has CLIP's names and another vocabulary.
#[test]
fn a_bare_file_must_have_clips_vocabulary() {
    let mut model = hugging_face();
    let name = "text_model.embeddings.token_embedding.weight";
    let folder = Folder::new();
    for (tokens, fits) in [(49407, false), (49408, true), (49409, false)] {
        model.insert(name.to_string(), (vec![tokens, C], vec![0.5; tokens * C]));
        let path = folder.write("model.safetensors", file(&model, Dtype::F16));
        let complete = open(&path).check_complete();
        assert_eq!(complete.is_ok(), fits, "{tokens}: {complete:?}");
        let output = memo(&["inspect", path.to_str().unwrap()]);
        assert_eq!(output.status.success(), fits, "{tokens}");
    }
}
