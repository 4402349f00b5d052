//! Prompts: their ids against Hugging Face's tokenizer (`make_tokens.py`), their features against float64
//! PyTorch (`make_models.py`).

use anyhow::Result;
use memo::check::{assert_close, fixtures, within};
use memo::clip::{Activation, Checkpoint, Naming, Tokenizer};
use memo::device_test;
use memo::engine::{Precision, encode_text};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// A text, and its ids by Hugging Face's and by open_clip's tokenizer, where they differ from the former's; null where
/// ftfy takes it for text of a wrong encoding.
#[derive(serde::Deserialize)]
struct Row(String, Vec<u32>, Option<Vec<u32>>);

#[test]
fn ids_are_those_of_each_naming() {
    let file = std::fs::File::open(fixtures().join("tokens.json.gz")).unwrap();
    let rows: Vec<Row> = serde_json::from_reader(flate2::read::GzDecoder::new(file)).unwrap();
    assert!(rows.len() > 6000);
    let [hugging_face, open_clip] = [Naming::HuggingFace, Naming::OpenAi].map(Tokenizer::new);
    let mut wrong = Vec::new();
    for Row(text, of_hugging_face, of_open_clip) in &rows {
        let got = hugging_face.encode_within(text, 77, true).unwrap();
        if got != *of_hugging_face {
            wrong.push(format!("Hugging Face's of {text:?}\n  {got:?}\n  {of_hugging_face:?} wanted"));
        }
        let got = open_clip.encode_within(text, 77, true).ok();
        if got != *of_open_clip {
            wrong.push(format!("open_clip's of {text:?}\n  {got:?}\n  {of_open_clip:?} wanted"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} texts:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// A folder with these tokenizer's files beside weights; what its tokenizer says of a text.
fn encoded(files: &[(&str, Value)], text: &str) -> Result<Vec<u32>> {
    let folder = tempfile::tempdir()?;
    for (name, value) in files {
        std::fs::write(folder.path().join(name), value.as_str().map_or(value.to_string(), str::to_string))?;
    }
    Tokenizer::open(Naming::HuggingFace, &folder.path().join("model.safetensors"))?.encode(text)
}

#[test]
fn a_folders_own_tokenizer_is_clips_or_refused() {
    let file = std::fs::File::open(fixtures().join("tokenizer.json.gz")).unwrap();
    let saved: Value = serde_json::from_reader(flate2::read::GzDecoder::new(file)).unwrap();
    let with = |at: &str, value: Value| {
        let mut changed = saved.clone();
        *changed.pointer_mut(at).unwrap() = value;
        changed
    };
    let text = "a photo of a aquarium_fish";
    let ids = Tokenizer::new(Naming::HuggingFace).encode(text).unwrap();
    let merge = |pair: &Value| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    let merges: Vec<String> = saved["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    let older = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
    let vocabulary = || ("vocab.json", saved["model"]["vocab"].clone());
    for files in [
        vec![("tokenizer.json", saved.clone())],
        vec![("tokenizer.json", with("/pre_tokenizer/pretokenizers/0/pattern/Regex", older.into()))],
        vec![("tokenizer.json", with("/model/merges", merges.clone().into()))],
        vec![vocabulary(), ("merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n")).into())],
        vec![(
            "tokenizer_config.json",
            json!({"tokenizer_class": "CLIPTokenizer", "do_lower_case": true, "pad_token": "!"}),
        )],
        vec![("config.json", json!({"text_config": {"eos_token_id": 2}}))],
        vec![],
    ] {
        assert_eq!(encoded(&files, text).unwrap(), ids);
    }

    let mut swapped = saved["model"]["vocab"].clone();
    (swapped["cat</w>"], swapped["dog</w>"]) = (swapped["dog</w>"].clone(), swapped["cat</w>"].clone());
    let added = json!([{"id": 49408, "content": "<my-cat>"}]);
    let decoder = json!({"added_tokens_decoder": {"49408": {"content": "<my-cat>"}}});
    let fewer = merges[1..].join("\n");
    for (file, value, text, want) in [
        (
            "tokenizer.json",
            with("/model/vocab", swapped.clone()),
            text,
            "vocabulary of 49408 tokens is not CLIP's",
        ),
        ("tokenizer.json", with("/model/merges", merges[1..].into()), text, "48893 merges are not CLIP's"),
        ("tokenizer.json", with("/model/type", "WordPiece".into()), text, "model.type is \"WordPiece\""),
        ("tokenizer.json", with("/normalizer/normalizers", json!([{"type": "NFC"}])), text, "normalizer is"),
        ("tokenizer.json", with("/pre_tokenizer", json!({"type": "Whitespace"})), text, "pre_tokenizer is"),
        ("tokenizer.json", with("/post_processor", Value::Null), text, "post_processor is null"),
        ("tokenizer.json", with("/added_tokens", added), "a <MY-cat>", "\"<my-cat>\""),
        ("tokenizer_config.json", decoder, "a <my-cat>", "\"<my-cat>\""),
        ("tokenizer_config.json", json!({"pad_token": "!"}), "hey!", "\"!\""),
        (
            "tokenizer_config.json",
            json!({"tokenizer_class": "BertTokenizer"}),
            text,
            "tokenizer_class is BertTokenizer",
        ),
        ("tokenizer_config.json", json!({"do_lower_case": false}), text, "do_lower_case is false"),
        ("special_tokens_map.json", json!({"eos_token": {"content": "</s>"}}), text, "eos_token is"),
        ("vocab.json", swapped, text, "vocab.json"),
        ("merges.txt", fewer.into(), text, "merges.txt"),
        ("config.json", json!({"text_config": {"eos_token_id": 7}}), text, "text_config.eos_token_id is 7"),
    ] {
        let error = format!("{:#}", encoded(&[(file, value)], text).expect_err(want));
        assert!(error.contains(want), "{error}");
    }
    let far = json!({"added_tokens_decoder": {"49408": {"content": "<my-cat>"}}});
    assert_eq!(encoded(&[("tokenizer_config.json", far)], text).unwrap(), ids, "no label has the token");
}

device_test!(features_are_pytorchs, |stream| {
    for (model, activation) in
        [("tiny", None), ("t50", None), ("odd", None), ("openai.safetensors", Some(Activation::QuickGelu))]
    {
        let models = fixtures().join("models");
        let checkpoint = Checkpoint::open(&models.join(model), activation)?;
        let name = model.trim_end_matches(".safetensors");
        let bytes = std::fs::read(models.join(format!("{name}.expected.safetensors")))?;
        let file = SafeTensors::deserialize(&bytes)?;
        let ints =
            |name: &str| -> Vec<i32> { bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data()) };
        let want: Vec<f32> = bytemuck::pod_collect_to_vec(file.tensor("prompt_features")?.data());
        let rows: Vec<Vec<i32>> = ints("ids").chunks(77).map(<[i32]>::to_vec).collect();
        let ends: Vec<usize> = ints("ends").iter().map(|&end| end as usize).collect();

        let config = checkpoint.config();
        let layout = config.text_layout();
        let weights = checkpoint.text_params(&layout)?;
        for precision in [Precision::Fp32, Precision::Fp16] {
            let features = encode_text(&stream, config, &layout, &weights, &rows, &ends, precision)?;
            assert_close(&features, &want, within(2e-6));
        }
    }
});
