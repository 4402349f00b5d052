//! Checkpoints as they come: namings, dtypes, several files, open_clip's folders, vision towers alone; what is
//! refused and how; prefixes before names, the hub's cache; and thousands of damaged ones.

mod damaged;
mod models;
mod places;
mod preprocess;
mod refused;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use memo::clip::{Activation, Checkpoint};
use safetensors::Dtype;
use serde_json::{Value, json};

use models::{C, D, Folder, LAYERS, M, Tensors, config, file, hugging_face, open_clip_config, openai};
use models::{text_buffer, vision_buffer};
use refused::assert_refused;

#[track_caller]
fn open(path: &Path) -> Checkpoint {
    Checkpoint::open(path, None).unwrap_or_else(|error| panic!("{error:#}"))
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[track_caller]
fn assert_holds(checkpoint: &Checkpoint, model: &Tensors) {
    let config = checkpoint.config();
    let vision = checkpoint.vision_params(&config.vision_layout()).unwrap();
    let text = checkpoint.text_params(&config.text_layout()).unwrap();
    assert_eq!(bits(&vision), bits(&vision_buffer(model)));
    assert_eq!(bits(&text), bits(&text_buffer(model)));
}

#[test]
fn namings_and_dtypes_hold_the_same_parameters() {
    let model = hugging_face();
    for tensors in [model.clone(), openai(&model)] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let folder = Folder::new();
            let path = folder.write("model.safetensors", file(&tensors, dtype));
            let bare = open(&path);
            assert_eq!((bare.config().vision.heads, bare.notices().len()), (1, 1));
            assert_holds(&bare, &model);
            folder.write("config.json", config().to_string());
            let described = open(&path);
            assert_eq!((described.config().vision.heads, described.notices().len()), (4, 0));
            assert_holds(&described, &model);
            assert_holds(&open(folder.path()), &model);
        }
    }
}

#[test]
fn several_files_are_one_model() {
    let model = hugging_face();
    let folder = Folder::sharded(&model);
    assert_holds(&open(folder.path()), &model);
    assert_holds(&open(&folder.path().join("model.safetensors.index.json")), &model);
    let summary = open(folder.path()).summary();
    assert_eq!((summary.files, summary.tensors), (2, model.len()));
    let whole = Folder::of(&model);
    assert_eq!(open(folder.path()).config(), open(whole.path()).config());

    let before = open(folder.path()).fingerprint().unwrap();
    let shard = folder.path().join("model-00002-of-00002.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    assert_ne!(open(folder.path()).fingerprint().unwrap(), before, "each file counts");
}

#[test]
fn tensors_that_an_index_does_not_name_are_the_models_too() {
    let mut model = hugging_face();
    model.insert("logit_scale".to_string(), (vec![], vec![2.0]));
    let folder = Folder::sharded(&model);
    let path = folder.path().join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    index["weight_map"].as_object_mut().unwrap().remove("logit_scale").unwrap();
    folder.write("model.safetensors.index.json", index.to_string());
    let checkpoint = open(folder.path());
    assert_eq!(checkpoint.config().logit_scale, 2f64.exp() as f32);
    assert!(checkpoint.notices()[0].contains("hold logit_scale too"), "{:?}", checkpoint.notices());
}

#[test]
fn what_is_no_part_of_a_clip_and_what_transformers_5_rounds_is_told() {
    let mut model = hugging_face();
    model.insert("classifier.weight".to_string(), (vec![2, 2], vec![0.0; 4]));
    let folder = Folder::of(&model);
    let mut described = config();
    described["dtype"] = json!("bfloat16");
    folder.write("config.json", described.to_string());
    let checkpoint = open(folder.path());
    let told = checkpoint.notices().join("\n");
    assert!(told.contains("dtype is bfloat16, and weights are stored as float32"), "{told}");
    assert!(told.contains("classifier.weight: no part of a CLIP, passed over"), "{told}");
    model.remove("classifier.weight");
    folder.write("model.safetensors", file(&model, Dtype::BF16));
    assert!(open(folder.path()).notices().is_empty());
}

#[test]
fn open_clips_folder_has_its_heads_and_activation() {
    let model = hugging_face();
    let folder = Folder::new();
    folder.write("open_clip_model.safetensors", file(&openai(&model), Dtype::F32));
    folder.write("open_clip_config.json", open_clip_config().to_string());
    // timm's view of the same repository.
    folder.write("config.json", r#"{"architecture": "vit_base_patch32_clip_224"}"#);
    folder.write("model.safetensors", "not read");
    let checkpoint = open(folder.path());
    let config = checkpoint.config();
    let text = config.text().unwrap();
    assert_eq!((config.vision.heads, text.tower.heads, checkpoint.notices().len()), (4, 2, 0));
    assert_eq!((config.vision.activation, text.tower.activation), (Activation::Gelu, Activation::Gelu));
    assert_holds(&checkpoint, &model);
    let chosen = Checkpoint::open(folder.path(), Some(Activation::QuickGelu)).unwrap();
    assert_eq!(chosen.config().vision.activation, Activation::QuickGelu);
}

#[test]
fn exports_with_a_batch_of_one_and_position_ids_are_read() {
    let model = hugging_face();
    let mut tensors = model.clone();
    for name in ["vision_model", "text_model"] {
        tensors.get_mut(&format!("{name}.embeddings.position_embedding.weight")).unwrap().0.insert(0, 1);
        tensors.insert(format!("{name}.embeddings.position_ids"), (vec![1, 5], vec![0.0; 5]));
    }
    tensors.get_mut("vision_model.embeddings.class_embedding").unwrap().0.splice(0..0, [1, 1]);
    let folder = Folder::of(&tensors);
    assert_holds(&open(folder.path()), &model);
    fs::remove_file(folder.path().join("config.json")).unwrap();
    assert_holds(&open(&folder.path().join("model.safetensors")), &model);

    tensors.get_mut("vision_model.embeddings.position_embedding.weight").unwrap().0 = vec![5, 1, C];
    let folder = Folder::of(&tensors);
    assert_refused(
        folder.path(),
        &["position_embedding.weight has shape [5, 1, 64]; the config says [5, 64]"],
    );
}

fn memo(args: &[&str]) -> Output {
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    Command::new(program).args(args).output().expect("the program starts")
}

#[test]
fn inspect_names_what_is_missing() {
    let model = hugging_face();
    let mut incomplete = model.clone();
    incomplete.retain(|name, _| !name.starts_with("vision_model.encoder.layers.1.self_attn"));
    let folder = Folder::of(&incomplete);
    let output = memo(&["inspect", folder.path().to_str().unwrap()]);
    let (stdout, stderr) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stdout.contains(
        "incomplete, 8 tensors are missing: vision_model.encoder.layers.1.self_attn.q_proj.weight"
    ));
    assert!(stdout.contains(" and 3 more\n") && stdout.contains("\nfeatures     20"), "{stdout}");
    assert!(stderr.contains("error: ") && stderr.contains("8 of 40 tensors are missing"), "{stderr}");

    let mut vision = model.clone();
    vision.retain(|name, _| name.starts_with("vis"));
    let folder = Folder::of(&vision);
    let place = folder.path().to_str().unwrap();
    let alone = json!({"model_type": "clip_vision_model", "projection_dim": D, "hidden_size": C, "intermediate_size": M,
        "num_hidden_layers": LAYERS, "num_attention_heads": 4, "image_size": 4, "patch_size": 2});
    for config in [config(), alone] {
        folder.write("config.json", config.to_string());
        let output = memo(&["inspect", "--json", place]);
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains("it has no text tower"), "{stderr}");
        assert_eq!((&summary["config"]["text"], &summary["text_parameters"]), (&Value::Null, &json!(0)));
        let held: usize = vision.values().map(|(_, values)| values.len()).sum();
        assert_eq!((&summary["vision_parameters"], &summary["vision_missing"]), (&json!(held), &json!([])));
        assert!(String::from_utf8(memo(&["inspect", place]).stdout).unwrap().contains("text         none"));
        assert_refused(folder.path(), &["it has no text tower"]);
    }
}

#[test]
fn predict_needs_a_text_tower_and_prompts_that_fit_it() {
    let model = hugging_face();
    let mut vision = model.clone();
    vision.retain(|name, _| name.starts_with("vis"));
    let mut clips = model.clone();
    let tokens = "text_model.embeddings.token_embedding.weight";
    clips.insert(tokens.to_string(), (vec![49408, C], vec![0.5; 49408 * C]));
    let mut clips_config = config();
    clips_config["text_config"]["vocab_size"] = json!(49408);
    let device = std::env::var("MEMO_TEST_DEVICE").unwrap_or_else(|_| "virtual".to_string());
    for (tensors, config, want) in [
        (&vision, config(), "it has no text tower"),
        (&model, config(), "its vocabulary has 12 tokens, CLIP's has 49408"),
        (&clips, clips_config, "its prompt has 9 tokens, start and end included, and the model takes 7"),
    ] {
        let folder = Folder::of(tensors);
        folder.write("config.json", config.to_string());
        let labels = folder.write("labels.txt", "aquarium_fish\n");
        let image = folder.path().join("image.png");
        image::RgbImage::new(4, 4).save(&image).unwrap();
        let [model, labels, image] = [folder.path(), &labels, &image].map(|path| path.to_str().unwrap());
        let output = memo(&["predict", "--device", &device, "--model", model, "--labels", labels, image]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains(want), "{stderr}");
    }
}
