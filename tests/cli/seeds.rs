//! `memo eval --seeds`: what separate evaluations give, and how much of it is the seed's.

use crate::*;

impl Place {
    fn by_seeds(&self, data: &Path, more: &[&str]) -> Command {
        let common =
            ["eval", "--model", text(&self.model), "--data", text(data), "--views", "2", "--lr", "3e-2"];
        memo(&[&common[..], more].concat())
    }
}

#[track_caller]
fn done(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Eight images of noise in two classes, whose views the model takes for one or the other, as the seed draws them.
fn noise(place: &Place) -> PathBuf {
    let data = place.file("noise");
    for i in 0..8u32 {
        let class = data.join(["photo", "a"][i as usize % 2]);
        fs::create_dir_all(&class).unwrap();
        let pixel = |x: u32, y: u32| {
            let noise = (x * 7919 + y * 104_729 + 31 * i).wrapping_mul(2_654_435_761).to_le_bytes();
            image::Rgb([noise[1], noise[2], noise[3]])
        };
        image::RgbImage::from_fn(8 + i % 3, 8, pixel).save(class.join(format!("{i:02}.png"))).unwrap();
    }
    data
}

/// Of each image of a file, what a predictor answers, and whether that is right.
fn answers(path: &Path, predictor: &str) -> Vec<(u64, bool)> {
    let lines = fs::read_to_string(path).unwrap();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records
        .map(|record| {
            (record[predictor]["pred"].as_u64().unwrap(), record[predictor]["pred"] == record["label"])
        })
        .collect()
}

/// By its definitions, in plain arithmetic.
#[track_caller]
fn is_stable(got: &Value, predictor: &str, files: &[PathBuf]) {
    let all: Vec<Vec<(u64, bool)>> = files.iter().map(|file| answers(file, predictor)).collect();
    let (images, seeds) = (all[0].len(), all.len() as f64);
    let accuracies: Vec<f64> =
        all.iter().map(|of| of.iter().filter(|(_, right)| *right).count() as f64 / images as f64).collect();
    let mean = accuracies.iter().sum::<f64>() / seeds;
    let squares: f64 = accuracies.iter().map(|accuracy| (accuracy - mean) * (accuracy - mean)).sum();
    let differ = (0..images).filter(|&image| all.iter().any(|of| of[image].0 != all[0][image].0)).count();
    let near = |field: &str, want: f64| {
        let there = got[field].as_f64().unwrap();
        assert!((there - want).abs() < 1e-12, "{predictor} {field}: {there}, not {want}");
    };
    near("mean", mean);
    near("spread", (squares / (seeds - 1.0)).sqrt());
    near("min", accuracies.iter().copied().fold(1.0, f64::min));
    near("max", accuracies.iter().copied().fold(0.0, f64::max));
    near("changed", differ as f64 / images as f64);
}

#[test]
fn who_chose_the_images_is_told() {
    let place = Place::new();
    let (data, out) = (noise(&place), place.file("run.jsonl"));
    done(place.by_seeds(&data, &["--limit", "4", "--seed", "3", "--seeds", "2", "--out", text(&out)]));
    let by = |seed: u64| -> Value {
        let settings = fs::read_to_string(place.file(&format!("run-seed{seed}.jsonl.run.json"))).unwrap();
        serde_json::from_str(&settings).unwrap()
    };
    let [first, second] = [by(3), by(4)];
    assert_eq!((&first["seed"], &first["selection"]["seed"]), (&3.into(), &Value::Null), "its own");
    assert_eq!((&second["seed"], &second["selection"]["seed"]), (&4.into(), &3.into()));
}

#[test]
fn seeds_are_separate_evals() {
    let place = Place::new();
    let data = noise(&place);
    let out = place.file("run.jsonl");
    let files: Vec<PathBuf> = (1..4).map(|seed| place.file(&format!("run-seed{seed}.jsonl"))).collect();
    let seeds = |more: &[&str]| {
        place.by_seeds(&data, &[&["--seed", "1", "--seeds", "3", "--out", text(&out)], more].concat())
    };
    let table = done(seeds(&[]));
    assert!(table.contains("Stability over 3 seeds") && table.contains("Accuracy on 8 images"), "{table}");
    let whole: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let alone = place.file("alone.jsonl");
    done(place.by_seeds(&data, &["--seed", "2", "--out", text(&alone)]));
    assert_eq!(fs::read_to_string(&alone).unwrap(), whole[1]);
    let settings = |path: &Path| fs::read_to_string(format!("{}.run.json", text(path))).unwrap();
    assert_eq!(settings(&alone), settings(&files[1]));

    // What was interrupted goes on.
    fs::write(&files[1], whole[1].split_inclusive('\n').next().unwrap()).unwrap();
    fs::remove_file(&files[2]).unwrap();
    refused(seeds(&[]), 1, &["run-seed1.jsonl", "--resume"]);
    let all: Value = serde_json::from_str(&done(seeds(&["--resume", "--json"]))).unwrap();
    assert!(files.iter().zip(&whole).all(|(file, whole)| fs::read_to_string(file).unwrap() == *whole));

    // As the records have it; a report says the same.
    assert_eq!((&all["images"], &all["seeds"]), (&8.into(), &serde_json::json!([1, 2, 3])));
    let report = ["report", text(&files[0]), text(&files[1]), text(&files[2]), "--json"];
    let report: Value = serde_json::from_str(&stdout(&report)).unwrap();
    assert_eq!(report["seeds"], all["predictors"]);
    for (at, predictor) in
        ["zero_shot", "view_average", "confident_average", "vote", "memo"].iter().enumerate()
    {
        is_stable(&all["predictors"][at], predictor, &files);
    }
    let before = &all["predictors"][0];
    assert_eq!(
        [&before["predictor"], &before["spread"], &before["changed"]],
        [&Value::from("zero-shot"), &0.0.into(), &0.0.into()]
    );
    assert!(
        all["predictors"].as_array().unwrap().iter().any(|of| of["changed"] != 0.0),
        "the views are the seed's: {all}"
    );

    refused(place.by_seeds(&data, &["--seeds", "1"]), 2, &["--seeds"]);
    refused(
        place.by_seeds(&data, &["--seeds", "2", "--out", "/dev/stdout"]),
        2,
        &["--seeds --out /dev/stdout"],
    );
    refused(
        place.by_seeds(&data, &["--seed", &u64::MAX.to_string(), "--seeds", "2"]),
        2,
        &["no seeds above"],
    );
    refused(place.by_seeds(&data, &["--seeds", "2", "--resume"]), 2, &["--resume", "--out"]);
}
