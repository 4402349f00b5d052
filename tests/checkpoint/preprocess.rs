//! What a model's files say of its pictures and its logits: obeyed, or refused by file and field.

use std::fs;

use memo::clip::Checkpoint;
use memo::ops::pillow::Filter;
use memo::ops::preprocess::{Preprocess, Resize, Scale};
use serde_json::{Value, json};

use crate::models::{Folder, file, hugging_face, open_clip_config, openai};
use crate::open;
use crate::refused::assert_refused;
use safetensors::Dtype;

const OLDER: &str = "preprocessor_config.json";
const NEWER: &str = "processor_config.json";

/// As transformers 4.57 saves it, for images of 4 pixels.
fn saved() -> Value {
    json!({
        "crop_size": {"height": 4, "width": 4}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
        "do_rescale": true, "do_resize": true, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor", "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 4},
    })
}

/// The same with other fields.
fn with(changes: Value) -> Value {
    let mut json = saved();
    for (field, value) in changes.as_object().unwrap() {
        json[field] = value.clone();
    }
    json
}

#[test]
fn hugging_faces_fields_are_obeyed() {
    let folder = Folder::of(&hugging_face());
    let clip = Preprocess::clip(4);
    assert_eq!(open(folder.path()).config().preprocess, clip, "no file");
    let exact = |width, height| Resize::Exact { width, height };
    let scaled = |scale: Scale| Preprocess { scale, ..clip };
    let resized = |resize| Preprocess { resize, ..clip };
    let cases = [
        (json!({}), clip),
        (json!({"size": 4, "crop_size": 4}), clip),
        (json!({"size": 6, "crop_size": [4, 4]}), resized(Resize::ShortestEdge(6))),
        (json!({"size": {"shortest_edge": 5}}), resized(Resize::ShortestEdge(5))),
        (json!({"size": [5, 7]}), resized(exact(7, 5))),
        (
            json!({"size": {"height": 4, "width": 4}, "do_center_crop": false, "crop_size": 9}),
            resized(exact(4, 4)),
        ),
        (json!({"resample": 2}), Preprocess { filter: Filter::Bilinear, ..clip }),
        (
            json!({"image_mean": [0.5, 0.25, 0], "image_std": [1, 2, 0.5]}),
            scaled(Scale { mean: [0.5, 0.25, 0.0], std: [1.0, 2.0, 0.5], ..Scale::CLIP }),
        ),
        (json!({"rescale_factor": 0.5}), scaled(Scale { divisor: 2.0, ..Scale::CLIP })),
        (json!({"do_rescale": false, "rescale_factor": 0.5}), scaled(Scale { divisor: 1.0, ..Scale::CLIP })),
        (
            json!({"do_normalize": false, "image_mean": 7}),
            scaled(Scale { mean: [0.0; 3], std: [1.0; 3], ..Scale::CLIP }),
        ),
        (
            json!({"do_pad": false, "use_square_size": null, "unknown": 7, "data_format": "channels_first"}),
            clip,
        ),
        (json!({"image_processor_type": "CLIPImageProcessorFast"}), clip),
        (json!({"image_processor_type": null, "feature_extractor_type": "CLIPFeatureExtractor"}), clip),
    ];
    for (changes, want) in cases {
        let name = if changes.get("resample").is_some() { NEWER } else { OLDER };
        let json = with(changes.clone());
        let json = if name == NEWER { json!({"image_processor": json}) } else { json };
        let path = folder.write(name, json.to_string());
        assert_eq!(open(folder.path()).config().preprocess, want, "{changes}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_cannot_be_obeyed_is_refused_by_its_field() {
    let folder = Folder::of(&hugging_face());
    let cases = [
        (json!({"size": {"shortest_edge": 3}}), "size is a shortest edge of 3, less than the 4 × 4 pixels"),
        (json!({"size": [4, 3]}), "size is 3 × 4, less than"),
        (
            json!({"size": {"shortest_edge": 4, "longest_edge": 8}}),
            "size is {\"shortest_edge\":4,\"longest_edge\":8}",
        ),
        (json!({"size": {"longest_edge": 8}}), "size is {"),
        (json!({"size": 4.5}), "size is 4.5"),
        (json!({"size": 0}), "size is 0"),
        (json!({"size": 1u64 << 40}), "size is 1099511627776"),
        (json!({"size": 4, "default_to_square": true}), "default_to_square is true where size is 4"),
        (json!({"crop_size": 5}), "crop_size is 5 × 5; the model takes 4 × 4"),
        (json!({"crop_size": {"height": 4, "width": 5}}), "crop_size is 5 × 4; the model takes 4 × 4"),
        (json!({"crop_size": {"shortest_edge": 4}}), "crop_size is {\"shortest_edge\":4}"),
        (json!({"crop_size": null}), "crop_size is null"),
        (json!({"size": null}), "size is null"),
        (json!({"resample": null}), "resample is null"),
        (json!({"rescale_factor": null}), "rescale_factor is null"),
        (json!({"image_std": null}), "image_std is null"),
        (json!({"do_center_crop": false}), "do_center_crop is false where size is a shortest edge of 4"),
        (json!({"do_center_crop": false, "size": [4, 5]}), "size is 5 × 4; the model takes 4 × 4"),
        (json!({"do_resize": false}), "do_resize is false"),
        (json!({"do_normalize": null}), "do_normalize is null, not true or false"),
        (json!({"do_rescale": 1}), "do_rescale is 1, not true or false"),
        (json!({"do_pad": true}), "do_pad is true"),
        (json!({"use_square_size": true}), "use_square_size is true"),
        (json!({"resample": 1}), "resample is 1; 2 (bilinear) and 3 (bicubic) are known"),
        (json!({"resample": "bicubic"}), "resample is \"bicubic\""),
        (json!({"rescale_factor": 0}), "rescale_factor is 0"),
        (json!({"rescale_factor": -1}), "rescale_factor is -1"),
        (json!({"rescale_factor": "1/255"}), "rescale_factor is \"1/255\", not a number"),
        (json!({"image_mean": [0.5, 0.5]}), "image_mean is [0.5,0.5], not three numbers"),
        (json!({"image_mean": [0.5, 0.5, "x"]}), "image_mean is [0.5,0.5,\"x\"], not three numbers"),
        (json!({"image_mean": [0.5, "x", 0.5, 0.5]}), "image_mean is [0.5,\"x\",0.5,0.5], not three numbers"),
        (json!({"image_std": [0.5, 0, 0.5]}), "image_std has a 0"),
        (
            json!({"image_processor_type": "SiglipImageProcessor"}),
            "image_processor_type is \"SiglipImageProcessor\"",
        ),
    ];
    for (changes, want) in cases {
        let path = folder.write(OLDER, with(changes.clone()).to_string());
        assert_refused(folder.path(), &[OLDER, want]);
        fs::remove_file(path).unwrap();
        let path = folder.write(NEWER, json!({"image_processor": with(changes)}).to_string());
        assert_refused(
            folder.path(),
            &[NEWER, &format!("image_processor.{}", want.split(' ').next().unwrap())],
        );
        fs::remove_file(path).unwrap();
    }
    let flat = with(json!({"size": 6})).to_string();
    for json in ["[]", "{", r#"{"image_processor": 5}"#, &flat] {
        let path = folder.write(NEWER, json);
        assert_refused(folder.path(), &[NEWER]);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn two_files_agree_or_are_refused() {
    let folder = Folder::of(&hugging_face());
    folder.write(OLDER, with(json!({"size": 6, "crop_size": 4})).to_string());
    // Without an image processor's part the newer file says nothing of pictures.
    folder.write(NEWER, r#"{"processor_class": "CLIPProcessor"}"#);
    let six = Preprocess { resize: Resize::ShortestEdge(6), ..Preprocess::clip(4) };
    assert_eq!(open(folder.path()).config().preprocess, six);
    folder.write(NEWER, json!({"image_processor": with(json!({"size": {"shortest_edge": 6}}))}).to_string());
    assert_eq!(open(folder.path()).config().preprocess, six);
    folder.write(NEWER, json!({"image_processor": saved()}).to_string());
    assert_refused(folder.path(), &[NEWER, OLDER, "a shortest edge of 4", "a shortest edge of 6"]);
}

#[test]
fn the_file_of_another_library_is_not_read() {
    let model = openai(&hugging_face());
    let folder = Folder::new();
    folder.write("open_clip_model.safetensors", file(&model, Dtype::F32));
    folder.write(OLDER, r#"{"resample": 1}"#);
    folder.write("open_clip_config.json", open_clip_config().to_string());
    assert_eq!(open(folder.path()).config().preprocess, Preprocess::clip(4));
    let mut squash = open_clip_config();
    squash["preprocess_cfg"] = json!({"resize_mode": "squash", "interpolation": "bilinear", "size": 9});
    folder.write("open_clip_config.json", squash.to_string());
    let resize = Resize::Exact { width: 4, height: 4 };
    let want = Preprocess { resize, filter: Filter::Bilinear, ..Preprocess::clip(4) };
    assert_eq!(open(folder.path()).config().preprocess, want);

    // A bare file has it from what lies beside it, unless that is another model's.
    let folder = Folder::new();
    let weights = folder.write("model.safetensors", file(&hugging_face(), Dtype::F32));
    folder.write(OLDER, with(json!({"size": 6})).to_string());
    assert_eq!(open(&weights).config().preprocess.resize, Resize::ShortestEdge(6));
    folder.write("config.json", r#"{"model_type": "bert"}"#);
    assert_eq!(open(&weights).config().preprocess, Preprocess::clip(4));
}

#[test]
fn the_logit_scale_is_the_checkpoints() {
    let scaled = |log: Option<(Vec<usize>, Vec<f32>)>| {
        let mut model = hugging_face();
        model.remove("logit_scale");
        model.extend(log.map(|log| ("logit_scale".to_string(), log)));
        Folder::of(&model)
    };
    let folder = scaled(None);
    let mut checkpoint = open(folder.path());
    assert_eq!(
        (checkpoint.config().logit_scale, checkpoint.scale_is()),
        (100.0, "CLIP's: the checkpoint has none")
    );
    checkpoint.set_logit_scale(120.0);
    assert_eq!((checkpoint.config().logit_scale, checkpoint.scale_is()), (120.0, "by --logit-scale"));

    let of = |shape: &[usize], log: f32| -> Checkpoint {
        let folder = scaled(Some((shape.to_vec(), vec![log])));
        Checkpoint::open(folder.path(), None).unwrap()
    };
    for shape in [&[][..], &[1], &[1, 1]] {
        let checkpoint = of(shape, 2.6592);
        assert_eq!(
            (checkpoint.config().logit_scale, checkpoint.scale_is()),
            (f64::from(2.6592f32).exp() as f32, "the checkpoint's")
        );
        assert_eq!(checkpoint.notices().len(), 0);
    }
    // 4.60547 is what float16 makes of log 100.
    for (log, notices) in [(4.6052, 0), (4.605_468_8, 0), (4.7, 1)] {
        let checkpoint = of(&[], log);
        assert_eq!((checkpoint.config().logit_scale, checkpoint.notices().len()), (100.0, notices), "{log}");
    }
    assert!(of(&[], 4.7).notices()[0].contains("109.95"));
    for (shape, values, want) in [
        (vec![2], vec![1.0, 2.0], "logit_scale has shape [2]"),
        (vec![], vec![f32::NAN], "logit_scale"),
        (vec![], vec![100.0], "logit_scale is 100, whose exponential is"),
    ] {
        assert_refused(scaled(Some((shape, values))).path(), &[want]);
    }
}
