//! Prompts: their ids against Hugging Face's tokenizer (`make_tokens.py`), their features against float64
//! PyTorch (`make_models.py`).

use memo::check::{assert_close, fixtures, within};
use memo::clip::{Activation, Checkpoint, Tokenizer};
use memo::device_test;
use memo::engine::{Precision, encode_text};
use safetensors::SafeTensors;

#[test]
fn ids_are_hugging_faces() {
    let text = std::fs::read_to_string(fixtures().join("tokens.json")).unwrap();
    let rows: Vec<(String, Vec<u32>)> = serde_json::from_str(&text).unwrap();
    assert!(rows.len() > 1700);
    let tokenizer = Tokenizer::new();
    let wrong: Vec<String> = rows
        .iter()
        .map(|(text, want)| (text, want, tokenizer.encode(text)))
        .filter(|(_, want, got)| *want != got)
        .map(|(text, want, got)| format!("{text:?}\n  {got:?}\n  {want:?} wanted"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} texts:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
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
