//! `memo bench`: what it says of a run, and what it compares it with.

use std::fs;
use std::path::PathBuf;

use memo::check::fixtures;
use serde_json::Value;

use super::{memo, refused, stdout, text};

pub fn model() -> PathBuf {
    fixtures().join("models/tiny")
}

pub fn args<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let device = if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") { "gpu" } else { "virtual" };
    let always = ["bench", "--model", model, "--views", "2", "--batch", "2", "--classes", "2"];
    [&always, &["--device", device][..], more].concat()
}

#[test]
fn settings_are_told_as_they_were_asked_for() {
    let model = model();
    let more =
        ["--images", "2", "--json", "--optimizer", "sgd", "--momentum", "0.9", "--weight-decay", "0.1"];
    let more = [&more[..], &["--lr", "1e-5,0.003", "--loss-scale", "0.25", "--precision", "fp16"]].concat();
    let printed = stdout(&args(text(&model), &more));
    for field in
        [r#""lr":[0.00001,0.003]"#, r#""momentum":0.9,"#, r#""weight_decay":0.1}"#, r#""loss_scale":0.25,"#]
    {
        assert!(printed.contains(field), "no {field} in {printed}");
    }
}

#[test]
fn every_sample_is_told_and_an_earlier_run_is_compared() {
    let (model, folder) = (model(), tempfile::tempdir().expect("a folder"));
    let [csv, old] = ["samples.csv", "old.json"].map(|name| folder.path().join(name));
    let more = ["--images", "5", "--json", "--csv", text(&csv), "--stages"];
    let printed = stdout(&args(text(&model), &more));
    let object: Value = serde_json::from_str(&printed).expect("JSON");
    // Whole batches of two.
    assert_eq!((&object["batch"], &object["images"]), (&2.into(), &6.into()));
    let samples = object["samples_s"].as_array().expect("samples");
    assert!(samples.len() == 3 && samples.iter().all(|time| time.as_f64() > Some(0.0)));
    let rates = &object["images_per_s"];
    assert!(
        rates["min"].as_f64() <= rates["median"].as_f64()
            && rates["median"].as_f64() <= rates["max"].as_f64()
    );
    assert!(object["work"]["flops"].as_f64() > Some(0.0) && object["launches"].as_u64() > Some(50));
    let stages = object["stages"].as_object().expect("stages");
    assert_eq!(stages.keys().collect::<Vec<_>>(), ["views", "forward", "backward", "step", "predict"]);
    assert!((stages.values().filter_map(Value::as_f64).sum::<f64>() - 1.0).abs() < 1e-9);
    let lines = fs::read_to_string(&csv).expect("a file");
    assert!(lines.lines().count() == 4 && lines.starts_with("batch,images,seconds_per_image,latency_s\n"));

    fs::write(&old, &printed).expect("a file is written");
    let again = ["--images", "2", "--pictures", "cifar", "--stages", "--compare", text(&old)];
    let printed = stdout(&args(text(&model), &again));
    assert!(printed.contains("times as fast"), "{printed}");
    for (more, what) in [
        (&["--lr", "1e-4"][..], "lr"),
        (&["--precision", "fp32"], "precision"),
        (&["--policy", "mild"], "policy"),
        (&["--seed", "1"], "seed"),
        (&["--loss-scale", "8"], "loss_scale"),
        (&["--prompt", "{}"], "prompt"),
    ] {
        let more = [&["--images", "2", "--stages", "--compare", text(&old)], more].concat();
        refused(memo(&args(text(&model), &more)), 1, &["--compare", what]);
    }
    let plain = ["--images", "2", "--compare", text(&old)];
    refused(memo(&args(text(&model), &plain)), 1, &["--compare", "timed_by_stage"]);
    // What is refused has emptied no file, and no file is two things.
    let kept = fs::read(&csv).expect("a file");
    let wrong = [&plain[..], &["--csv", text(&csv)]].concat();
    refused(memo(&args(text(&model), &wrong)), 1, &["timed_by_stage"]);
    assert_eq!(fs::read(&csv).expect("a file"), kept);
    let both = [&again[..], &["--csv", text(&old)]].concat();
    refused(memo(&args(text(&model), &both)), 2, &["--csv", "--compare", "one file"]);
}

#[test]
fn a_trace_shows_what_ran_when() {
    let (model, folder) = (model(), tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("trace.json");
    let printed = stdout(&args(text(&model), &["--images", "2", "--json", "--trace", text(&file)]));
    let object: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(object["trace"], text(&file));
    let trace: Value = serde_json::from_str(&fs::read_to_string(&file).expect("a file")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let of = |category: &'static str| events.iter().filter(move |event| event["cat"] == category);
    let span = |event: &Value| {
        let [start, length] = ["ts", "dur"].map(|key| event[key].as_f64().expect("a time"));
        assert!(start >= 0.0 && length >= 0.0, "{event}");
        (start, start + length)
    };
    let named = |category, name: &str| {
        of(category).filter(|event| event["name"] == name).map(span).collect::<Vec<_>>()
    };

    // Three batches as they run, of which the second is the first to be a graph; the uncounted and the timed one came before.
    let (batches, graphs) = (named("range", "batch"), named("graph", "graph"));
    assert_eq!((batches.len(), named("range", "wait").len(), graphs.len()), (4, 4, 3));
    // Then one launch by launch: each is in a stage, and together they are those of a batch.
    let last = batches[3].0;
    let is_last = |&(start, _): &(f64, f64)| start >= last;
    let stages: Vec<_> = of("stage").map(span).filter(is_last).collect();
    let kernels: Vec<_> = of("kernel").map(span).filter(is_last).collect();
    assert_eq!(stages.len(), 5);
    assert_eq!(Some(kernels.len() as u64), object["launches"].as_u64());
    // Times are of single precision, in milliseconds.
    let slack_us = 1.0;
    for (start, end) in kernels {
        let holds = |&&(from, to): &&(f64, f64)| from <= start + slack_us && end <= to + slack_us;
        assert_eq!(stages.iter().filter(holds).count(), 1, "{start} to {end} in {stages:?}");
    }
    assert!(graphs.iter().all(|&(_, end)| end <= last + slack_us));
    assert!(
        named("copy", "copy to the device").len() >= 8 && named("copy", "copy from the device").len() >= 8
    );

    let nowhere = folder.path().join("none/trace.json");
    refused(
        memo(&args(text(&model), &["--images", "2", "--trace", text(&nowhere)])),
        1,
        &["--trace", "none"],
    );
    refused(memo(&args(text(&model), &["--trace", text(&file), "--stages"])), 2, &["--trace", "--stages"]);
}

#[test]
fn products_are_timed_one_by_one() {
    let model = model();
    let always = ["bench", "--model", text(&model), "--device", "virtual", "--views", "2", "--shapes"];
    for (more, products) in [(&["--precision", "fp16"][..], 17), (&["--update", "in-place"], 13)] {
        let printed = stdout(&[&always[..], &["--batch", "2", "--json"], more].concat());
        let object: Value = serde_json::from_str(&printed).expect("JSON");
        let shapes = object["shapes"].as_array().expect("products");
        assert_eq!(shapes.len(), products);
        assert!(shapes.iter().all(|row| row["tflop_per_s"]["median"].as_f64() > Some(0.0)), "{printed}");
    }
    refused(memo(&always), 2, &["--shapes", "--batch"]);
    refused(memo(&[&always[..], &["--batch", "2", "--lr", "1e-3"]].concat()), 2, &["--shapes", "--lr"]);
    // More than there is anywhere.
    let many = ["bench", "--model", text(&model), "--device", "virtual", "--shapes", "--batch", "65535"];
    refused(memo(&many), 1, &["timing patches", "memory"]);
}

#[test]
fn gpus_are_modelled_by_what_launches_do() {
    let model = model();
    let always = ["bench", "--model", text(&model), "--device", "virtual", "--views", "2", "--batch", "3"];
    let printed = stdout(&[&always[..], &["--images=3", "--no-warm-up", "--roofline", "--json"]].concat());
    let object: Value = serde_json::from_str(&printed).expect("JSON");
    let gpus = object["roofline"].as_array().expect("GPUs");
    assert_eq!(
        gpus.iter().map(|gpu| gpu["gpu"].as_str()).collect::<Vec<_>>(),
        ["H100", "H200", "A100", "RTX4090"].map(Some)
    );
    for gpu in gpus {
        let number = |name: &str| gpu[name].as_f64().expect("a number");
        // A launch takes 2 us at least.
        let least_ms = object["launches"].as_f64().expect("launches") * 2e-3;
        assert!(number("ms_per_batch") > least_ms && number("share_outside_products") < 1.0, "{gpu}");
        assert!((number("images_per_s") * number("ms_per_batch") - 3e3).abs() < 1e-6);
    }
}

#[test]
fn own_images_bring_their_classes() {
    let (model, folder) = (model(), tempfile::tempdir().expect("a folder"));
    for class in ["a", "photo", "of"] {
        let path = folder.path().join(class);
        fs::create_dir_all(&path).expect("a folder is made");
        image::RgbImage::from_pixel(9, 7, image::Rgb([1, 2, 3])).save(path.join("1.png")).expect("a picture");
    }
    let always = ["bench", "--model", text(&model), "--device", "virtual", "--views", "2", "--images", "1"];
    let own = [&always, &["--data", text(folder.path())][..]].concat();
    let object: Value = serde_json::from_str(&stdout(&[&own[..], &["--json"]].concat())).expect("JSON");
    assert_eq!(object["classes"], 3);
    refused(memo(&[&own[..], &["--classes", "3"]].concat()), 2, &["--classes", "--data"]);
}
