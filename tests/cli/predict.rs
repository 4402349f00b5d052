//! `memo predict` and `memo augment`.

use crate::*;

#[test]
fn predict_prints_the_documented_object() {
    let place = Place::new();
    let args = [
        "predict",
        "--json",
        "--model",
        text(&place.model),
        "--labels",
        text(&place.labels),
        "--views",
        "3",
        "--steps",
        "2",
        text(&place.image),
    ];
    let line = stdout(&args);
    let object: Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<&String> = object.as_object().unwrap().keys().collect();
    let predictors = ["zero_shot", "view_average", "confident_average", "vote", "memo"];
    assert_eq!(keys, [&["image", "labels"], &predictors[..], &["entropy", "logit_scale"]].concat());
    assert_eq!((object["labels"].as_u64(), object["entropy"].as_array().unwrap().len()), (Some(3), 2));
    for kind in ["zero_shot", "view_average", "confident_average", "memo"] {
        let keys: Vec<&String> = object[kind].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["index", "label", "confidence", "logits"]);
        assert_eq!(object[kind]["logits"].as_array().unwrap().len(), 3);
    }
    assert_eq!(stdout(&args), line, "two runs give the same");
}

#[test]
fn views_that_went_out_come_in_again() {
    let place = Place::new();
    let (views, params, grid) =
        (place.file("views.safetensors"), place.file("params.json"), place.file("grid.png"));
    let files = ["--views-out", text(&views), "--params-out", text(&params), "--grid", text(&grid)];
    let image = text(&place.image);
    stdout(&[&["augment", image, "--views", "3", "--seed", "5", "--size", "32"], &files[..]].concat());

    let bytes = fs::read(&views).unwrap();
    let tensor = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensor.tensor("views").unwrap().shape(), [3, 3, 32, 32]);
    let drawn: Vec<Value> = serde_json::from_slice(&fs::read(&params).unwrap()).unwrap();
    let keys: Vec<&String> = drawn[0].as_object().unwrap().keys().collect();
    let documented = [
        "hflip",
        "vflip",
        "angle",
        "jitter_order",
        "brightness",
        "contrast",
        "saturation",
        "hue",
        "crop",
        "mirror",
        "pillow",
    ];
    assert_eq!(
        (drawn.len(), keys),
        (3, documented.iter().map(|k| k.to_string()).collect::<Vec<_>>().iter().collect())
    );
    // The original and three views in cells of 96 pixels and margins of 4, each pixel three times as large.
    let sheet = image::open(&grid).unwrap().to_rgb8();
    assert_eq!(sheet.dimensions(), (2 * 100 + 4, 2 * 100 + 4));
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(tensor.tensor("views").unwrap().data());
    for (i, view) in values.chunks(3 * 32 * 32).enumerate() {
        let (pixels, left, top) =
            (to_rgb8(view, 32, &Scale::CLIP), 4 + 100 * ((i + 1) % 2), 4 + 100 * i.div_ceil(2));
        for (x, y) in (0..96).flat_map(|x| (0..96).map(move |y| (x, y))) {
            let shown = sheet.get_pixel((left + x) as u32, (top + y) as u32).0;
            assert_eq!(shown, pixels[(y / 3 * 32 + x / 3) * 3..][..3], "view {i} at {x}, {y}");
        }
    }

    let predict = |more: &[&str]| {
        let common =
            ["predict", "--json", "--model", text(&place.model), "--labels", text(&place.labels), image];
        stdout(&[&common[..], more].concat())
    };
    assert_eq!(predict(&["--views-in", text(&views)]), predict(&["--views", "3", "--seed", "5"]));
}
