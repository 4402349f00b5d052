//! What `memo eval` and `memo predict` say beside zero-shot and MEMO: predictors, guards, images of no class, prompts.

use crate::*;

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_predictor_has_its_answer() {
    let place = Place::new();
    let (data, plain, both) = (place.dataset(), place.file("plain.jsonl"), place.file("both.jsonl"));
    let eval = |out: &Path, more: &[&str]| {
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "4"];
        memo(&[&common[..], &["--out", text(out), "--confident", "0.5", "--lr", "1e-3"], more].concat())
    };
    let table = |mut command: Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = table(eval(&plain, &[]));
    for title in ["zero-shot ", "view average ", "confident average ", "vote ", "MEMO ", "MEMO fixed "] {
        assert!(shown.lines().any(|line| line.starts_with(title)), "{title}: {shown}");
    }
    assert!(!shown.contains("MEMO confident"), "{shown}");
    let shown = table(eval(&both, &["--loss", "both"]));
    assert!(shown.contains("MEMO confident ") && shown.contains("McNemar p"), "{shown}");
    // What there is without the other loss is what there is with it.
    for (plain, both) in lines(&plain).iter().zip(lines(&both)) {
        let own = plain.as_object().unwrap();
        assert!(own.iter().all(|(field, value)| both[field] == *value), "{plain} {both}");
        let added: Vec<&String> =
            both.as_object().unwrap().keys().filter(|field| !own.contains_key(*field)).collect();
        assert_eq!(added, ["memo_confident", "confident_entropy"]);
        for predictor in ["zero_shot", "view_average", "confident_average", "vote", "memo", "memo_confident"]
        {
            let answer = &both[predictor];
            assert_eq!(answer["rank"] == 0, answer["pred"] == both["label"], "{predictor} of {both}");
            assert!(answer["brier"].as_f64().is_some_and(|brier| (0.0..=2.0).contains(&brier)));
        }
        // Of two views each has half of the votes.
        let vote = both["vote"]["confidence"].as_f64().unwrap();
        assert!(vote == 0.5 || vote == 1.0, "{both}");
    }
    let summary: Value =
        serde_json::from_str(&table(eval(&both, &["--loss", "both", "--resume", "--json"]))).unwrap();
    let names: Vec<&Value> =
        summary["predictors"].as_array().unwrap().iter().map(|predictor| &predictor["name"]).collect();
    assert_eq!(names, ["zero_shot", "view_average", "confident_average", "vote", "memo", "memo_confident"]);
    assert_eq!(summary["predictors"][4]["accuracy"], summary["memo_accuracy"]);
    refused(eval(&both, &["--resume"]), 1, &["begun with loss"]);
    refused(eval(&both, &["--resume", "--loss", "both", "--roll-back"]), 1, &["begun with roll_back false"]);
    // As an older memo wrote it.
    let old = fs::read_to_string(&plain).unwrap();
    let (before, behind) =
        (old.find("\"view_average\"").unwrap(), old.find("\"confident_average\"").unwrap());
    fs::write(&plain, old[..before].to_string() + &old[behind..]).unwrap();
    refused(eval(&plain, &["--resume"]), 1, &["line 1", "missing field `view_average`"]);
}

/// One view of a digit, turned far, and steps so large that they end sure of a class that neither it nor zero-shot chose.
#[test]
fn a_collapse_is_taken_back() {
    let (place, assets) = (Place::new(), Path::new(env!("CARGO_MANIFEST_DIR")).join("assets"));
    let bytes = fs::read(assets.join("demo-images.safetensors")).unwrap();
    let images = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let noisy = &images.tensor("noise").unwrap().data()[3 * 32 * 32 * 3..][..32 * 32 * 3];
    let digit = place.file("digit.png");
    image::RgbImage::from_raw(32, 32, noisy.to_vec()).unwrap().save(&digit).unwrap();
    let (model, labels) = (assets.join("demo-model"), assets.join("demo-labels.txt"));
    // The views depend on a picture's place.
    let last = |more: &[&str]| -> Value {
        let flags = ["--policy", "mild:rotation=90", "--views", "1", "--steps", "3", "--lr", "0.1", "--json"];
        let of = ["predict", "--model", text(&model), "--labels", text(&labels)];
        let shown = stdout(&[&of[..], &flags, more, &[text(&digit); 3]].concat());
        serde_json::from_str(shown.lines().last().unwrap()).unwrap()
    };
    let (free, guarded) = (last(&[]), last(&["--roll-back"]));
    assert_ne!(free["memo"]["index"], free["zero_shot"]["index"]);
    assert!(free["memo"]["confidence"].as_f64().unwrap() > 0.99, "{free}");
    assert_eq!((&guarded["memo"]["guard"], &free["memo"]["guard"]), (&"rolled-back".into(), &Value::Null));
    for field in ["index", "label", "confidence", "logits"] {
        assert_eq!(guarded["memo"][field], free["zero_shot"][field], "{field}");
    }
}

#[test]
fn guards_leave_zero_shots_answer() {
    let place = Place::new();
    let common = ["predict", "--model", text(&place.model), "--labels", text(&place.labels), "--views", "3"];
    let predict = |more: &[&str]| -> Value {
        let all = [&common[..], &["--json", "--lr", "1e-3,2e-3"], more, &[text(&place.image)]].concat();
        serde_json::from_str(&stdout(&all)).unwrap()
    };
    let free = predict(&[]);
    assert_ne!(free["memo"][0]["confidence"], free["zero_shot"]["confidence"]);
    let guarded = predict(&["--skip-above", "0"]);
    for memo in guarded["memo"].as_array().unwrap() {
        assert_eq!((&memo["guard"], &memo["logits"]), (&"skipped".into(), &free["zero_shot"]["logits"]));
    }
    assert_eq!(predict(&["--skip-above", "1", "--roll-back"]), free);
    refused(memo(&[&common[..], &["--skip-above", "2", text(&place.image)]].concat()), 2, &["--skip-above"]);
    refused(memo(&[&common[..], &["--confident", "0", text(&place.image)]].concat()), 2, &["--confident"]);
}

#[test]
fn images_of_no_class_lie_behind_the_others() {
    let place = Place::new();
    let (data, out, others) = (place.dataset(), place.file("run.jsonl"), place.file("others"));
    fs::create_dir_all(others.join("noise")).unwrap();
    (0..2).for_each(|i| picture(20 + i).save(others.join(format!("noise/{i}.png"))).unwrap());
    let eval = |more: &[&str]| {
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2"];
        memo(&[&common[..], &["--out", text(&out)], more].concat())
    };
    let ood = ["--ood", text(&others)];
    let output = eval(&ood).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("2 more images are of no class") && shown.contains("FPR95"), "{shown}");
    let whole = fs::read_to_string(&out).unwrap();
    let all = lines(&out);
    assert_eq!(all.len(), 8);
    for (index, line) in all.iter().enumerate() {
        assert_eq!(line["label"].is_null() && line["memo"]["nll"].is_null(), index >= 6, "{line}");
    }
    assert_eq!((&all[7]["index"], &all[7]["file"]), (&7.into(), &"noise/1.png".into()));
    // Cut inside the last line, and continued.
    fs::write(&out, &whole[..whole.len() - 9]).unwrap();
    let output = eval(&[&ood[..], &["--resume", "--json"]].concat()).output().unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["images"], &summary["of_no_class"], &summary["left"]),
        (&6.into(), &2.into(), &0.into())
    );
    let auroc = summary["predictors"][0]["auroc"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&auroc) && fs::read_to_string(&out).unwrap() == whole, "{summary}");
    refused(eval(&["--resume"]), 1, &["line 7", "image 6 (noise/0.png)"]);
    refused(eval(&["--resume", "--ood", text(&place.file("none"))]), 1, &["--ood", "none"]);
    // The same pictures, as one of two splits.
    let parts = place.file("parts");
    fs::create_dir_all(parts.join("train/noise")).unwrap();
    picture(9).save(parts.join("train/noise/0.png")).unwrap();
    fs::rename(&others, parts.join("val")).unwrap();
    refused(eval(&["--resume", "--ood", text(&parts)]), 1, &["--ood", "--ood-split", "train, val"]);
    let output = eval(&["--resume", "--ood", text(&parts), "--ood-split", "val"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read_to_string(&out).unwrap(), whole);
    // Shards beside other images of no class are not of one run, from wherever the same ones came.
    let parts_of = |shard: &str, ood: &[&str]| {
        let out = place.file(&format!("{}.jsonl", shard.replace('/', "-")));
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2"];
        let output =
            memo(&[&common[..], &["--shard", shard, "--out", text(&out)], ood].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out
    };
    let zero = parts_of("0/2", &["--ood", text(&parts), "--ood-split", "val"]);
    let one = parts_of("1/2", &["--ood", text(&parts), "--ood-split", "train"]);
    let merged = place.file("merged.jsonl");
    let merge = || memo(&["merge", text(&zero), text(&one), "--out", text(&merged)]);
    refused(merge(), 1, &["selection.", "different runs"]);
    fs::remove_file(&one).unwrap();
    fs::remove_file(one.with_extension("jsonl.run.json")).unwrap();
    parts_of("1/2", &["--ood", text(&parts), "--ood-split", "val"]);
    assert!(merge().output().unwrap().status.success());
    assert_eq!(fs::read_to_string(&merged).unwrap(), whole);
}

#[test]
fn prompts_may_be_several() {
    let place = Place::new();
    let common = ["predict", "--json", "--model", text(&place.model), "--views", "2"];
    let labels = ["--labels", text(&place.labels)];
    let predict = |more: &[&str]| {
        let all = [&common[..], &labels, more, &[text(&place.image)]].concat();
        serde_json::from_str::<Value>(&stdout(&all)).unwrap()["zero_shot"]["logits"].clone()
    };
    let plain = predict(&[]);
    assert_eq!(predict(&["--prompt", "a photo of a {}"]), plain);
    let two = place.write("two.txt", "a photo of a {}\na photo of the {}.\n");
    let both = predict(&["--templates", text(&two)]);
    assert_eq!(predict(&["--prompt", "a photo of a {}", "--prompt", "a photo of the {}."]), both);
    assert_ne!(both, plain);
    // A class's only sentence is what a template makes of its name.
    let sentences = r#"{"apple": ["a photo of a apple"], "chimpanzee": ["a photo of a chimpanzee"], "willow_tree": ["a photo of a willow_tree"]}"#;
    let descriptions = place.write("descriptions.json", sentences);
    assert_eq!(predict(&["--descriptions", text(&descriptions)]), plain);
    let refuse = |more: &[&str], code: i32, names: &[&str]| {
        refused(memo(&[&common[..], &labels, more, &[text(&place.image)]].concat()), code, names);
    };
    let other = place.write("other.json", sentences.replace("willow_tree\": ", "oak_tree\": "));
    refuse(&["--descriptions", text(&other)], 1, &["no description of \"willow_tree\""]);
    refuse(&["--templates", "openai"], 1, &["openai", "openai-imagenet-simple"]);
    refuse(&["--prompt", "no place"], 2, &["--prompt"]);
}
