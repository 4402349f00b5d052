//! What is refused, and what the errors say.

use std::fs;
use std::path::Path;

use memo::clip::Checkpoint;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::models::{C, Folder, config, file, hugging_face, open_clip_config, openai};
use crate::{assert_holds, open};

#[track_caller]
pub fn assert_refused(path: &Path, wants: &[&str]) {
    let read = || {
        let checkpoint = Checkpoint::open(path, None)?;
        checkpoint.vision_params(&checkpoint.config().vision_layout())?;
        checkpoint.text_params(&checkpoint.config().text_layout())
    };
    let error = format!("{:#}", read().err().unwrap_or_else(|| panic!("not refused: {wants:?}")));
    for want in wants {
        assert!(error.contains(want), "no {want:?} in: {error}");
    }
}

#[test]
fn folders_that_lack_something_say_what() {
    let model = hugging_face();
    let folder = Folder::new();
    let looked_for = "open_clip_model.safetensors, model.safetensors, model.safetensors.index.json";
    assert_refused(folder.path(), &["it has none of", looked_for, "save_file"]);
    folder.write("pytorch_model.bin", b"PK\x03\x04");
    assert_refused(folder.path(), &["only pytorch_model.bin, a PyTorch pickle", "save_file"]);
    assert_refused(&folder.path().join("pytorch_model.bin"), &["pytorch_model.bin", "pickle", "save_file"]);

    let weights = folder.write("model.safetensors", file(&model, Dtype::F32));
    assert_refused(folder.path(), &["neither config.json nor open_clip_config.json"]);
    let path = folder.write("config.json", r#"{"model_type": "bert", "hidden_size": 768}"#);
    assert_refused(folder.path(), &["config.json is no CLIP's: model_type is \"bert\""]);
    let bare = open(&weights);
    assert!(
        bare.notices()[0].contains("model_type is \"bert\"") && bare.notices()[0].contains("passed over")
    );
    assert_holds(&bare, &model);
    fs::write(&path, config_with("/vision_config/hidden_size", json!(128))).unwrap();
    for path in [folder.path(), &weights] {
        assert_refused(path, &["class_embedding has shape [64]; the config says [128]"]);
    }
    fs::write(&path, config().to_string()).unwrap();
    let preprocessor = folder.write("preprocessor_config.json", r#"{"resample": 1}"#);
    assert_refused(folder.path(), &["preprocessor_config.json", "resample is 1"]);
    fs::remove_file(preprocessor).unwrap();

    let mut unsupported = open_clip_config();
    unsupported["model_cfg"]["vision_cfg"]["timm_model_name"] = json!("vit_base_mci_224");
    fs::remove_file(&path).unwrap();
    folder.write("open_clip_config.json", unsupported.to_string());
    assert_refused(folder.path(), &["open_clip_config.json", "model_cfg.vision_cfg.timm_model_name"]);
    folder.write("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
    assert_refused(folder.path(), &["model.safetensors", "git lfs pull"]);
}

fn config_with(at: &str, value: Value) -> String {
    let mut config = config();
    *config.pointer_mut(at).unwrap() = value;
    config.to_string()
}

#[test]
fn lying_indexes_are_refused() {
    let folder = Folder::sharded(&hugging_face());
    let index = fs::read_to_string(folder.path().join("model.safetensors.index.json")).unwrap();
    let first = "model-00001-of-00002.safetensors";
    let cases = [
        ("[", "not JSON".to_string()),
        ("{}", "it has no weight_map".to_string()),
        (r#"{"weight_map": {"a": 1}}"#, "weight_map.a is 1, not a file".to_string()),
        (r#"{"weight_map": {"a": "../a.safetensors"}}"#, "a file beside the index".to_string()),
        (r#"{"weight_map": {"a": "gone.safetensors"}}"#, "gone.safetensors: No such file".to_string()),
        (&index.replacen("logit_scale", "logit", 1), format!("logit is not in {first}")),
        (r#"{"weight_map": {}}"#, "no CLIP vision tower".to_string()),
    ];
    for (text, want) in cases {
        folder.write("model.safetensors.index.json", text);
        assert_refused(folder.path(), &[&want, "model.safetensors.index.json"]);
    }
    folder.write("model.safetensors.index.json", &index);
    let twice = [("logit_scale".to_string(), (vec![], vec![1.0]))].into_iter().collect();
    folder.write("model-00003-of-00003.safetensors", file(&twice, Dtype::F32));
    let mut three: Value = serde_json::from_str(&index).unwrap();
    three["weight_map"]["more"] = json!("model-00003-of-00003.safetensors");
    let mut with_more = twice.clone();
    with_more.insert("more".to_string(), (vec![1], vec![0.0]));
    folder.write("model-00003-of-00003.safetensors", file(&with_more, Dtype::F32));
    folder.write("model.safetensors.index.json", three.to_string());
    assert_refused(
        folder.path(),
        &[&format!("logit_scale is in model-00003-of-00003.safetensors and in {first}")],
    );
    folder.write("model.safetensors.index.json", &index);
    folder.write(first, "short");
    assert_refused(folder.path(), &[first, "not a whole safetensors file"]);
}

#[test]
fn tensors_of_other_models_are_refused() {
    let model = hugging_face();
    let with = |more: &[(&str, Vec<usize>)]| {
        let mut tensors = openai(&model);
        for (name, shape) in more {
            tensors.insert(name.to_string(), (shape.clone(), vec![0.0; shape.iter().product()]));
        }
        let folder = Folder::new();
        folder.write("model.safetensors", file(&tensors, Dtype::F32));
        folder
    };
    let cases = [
        (with(&[("visual.attn_pool.query", vec![4])]), "it has visual.attn_pool.query, which is no part"),
        (with(&[("logit_bias", vec![1])]), "it has logit_bias"),
        (with(&[("text.cls_emb", vec![4])]), "it has text.cls_emb, which is no part"),
        (with(&[("visual.layer1.0.conv1.weight", vec![4])]), "a ResNet"),
        (with(&[("vision_model.x", vec![4])]), "both Hugging Face's and OpenAI's"),
        (with(&[("visual.transformer.resblocks.999.x", vec![4])]), "vision layers is 1000"),
        (with(&[("visual.conv1.weight", vec![96, 3, 2, 2])]), "its vision width is 96"),
        (with(&[("visual.conv1.weight", vec![1280, 3, 1, 1])]), "its vision width is 1280"),
        (with(&[("visual.positional_embedding", vec![6, C])]), "6 rows, not a square"),
        (with(&[("visual.positional_embedding", vec![5])]), "2 dimensions are expected"),
        (
            with(&[("visual.ln_pre.bias", vec![65])]),
            "ln_pre.bias has shape [65]; the rest of the file says [64]",
        ),
    ];
    for (folder, want) in cases {
        assert_refused(&folder.path().join("model.safetensors"), &["model.safetensors", want]);
    }
    let heads = with(&[("visual.conv1.weight", vec![96, 3, 2, 2])]);
    assert_refused(
        &heads.path().join("model.safetensors"),
        &["config.json or open_clip_config.json beside it"],
    );
}

#[test]
fn missing_and_bad_values_are_named() {
    let model = hugging_face();
    let mut tensors = model.clone();
    tensors.retain(|name, _| !name.starts_with("vision_model.encoder.layers.1.mlp"));
    assert_refused(Folder::of(&tensors).path(), &["4 of 40 tensors are missing", "layers.1.mlp.fc1.weight"]);
    tensors.retain(|name, _| !name.starts_with("vision_model.encoder.layers.1"));
    assert_refused(Folder::of(&tensors).path(), &["16 of 40 tensors", "layer_norm1.weight", "and 11 more"]);

    let mut tensors = model.clone();
    for (name, at) in
        [("vision_model.encoder.layers.1.mlp.fc2.bias", 3), ("vision_model.pre_layrnorm.bias", 5)]
    {
        tensors.get_mut(name).unwrap().1[at] = f32::INFINITY;
    }
    let folder = Folder::of(&tensors);
    for _ in 0..50 {
        assert_refused(folder.path(), &["vision_model.pre_layrnorm.bias: element 5 is inf"]);
    }
    let header = |bytes: &[u8]| 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut bytes = file(&model, Dtype::F32);
    let end = header(&bytes);
    let text = String::from_utf8(bytes[8..end].to_vec()).unwrap().replace("\"F32\"", "\"I32\"");
    bytes[8..end].copy_from_slice(text.as_bytes());
    folder.write("model.safetensors", bytes);
    assert_refused(folder.path(), &["its dtype is I32"]);
}
