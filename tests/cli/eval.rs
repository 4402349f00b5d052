//! `memo eval`: records, tables, and runs that go on.

use crate::*;

#[test]
fn several_learning_rates_are_several_predictions() {
    let place = Place::new();
    let predict = |lr: &[&str], json: bool| {
        let common = ["predict", "--model", text(&place.model), "--labels", text(&place.labels)];
        let json = if json { &["--json"][..] } else { &[] };
        stdout(&[&common[..], json, &["--views", "3", text(&place.image)], lr].concat())
    };
    let object = |lr: &[&str]| -> Value { serde_json::from_str(&predict(lr, true)).unwrap() };
    let both = object(&["--lr", "1e-4,1e-3"]);
    for (i, lr) in [1e-4, 1e-3].into_iter().enumerate() {
        let alone = object(&["--lr", &lr.to_string()]);
        assert_eq!(both["memo"][i]["logits"], alone["memo"]["logits"]);
        assert_eq!(both["memo"][i]["lr"], lr);
    }
    assert_ne!(both["memo"][0], both["memo"][1]);
    let table = predict(&["--lr", "1e-4", "--lr", "1e-3"], false);
    assert!(table.contains("MEMO 1e-4") && table.contains("MEMO 1e-3"), "{table}");

    let data = place.dataset();
    let eval = |out: &str, more: &[&str]| {
        let (out, common) = (place.file(out), ["eval", "--model", text(&place.model), "--data", text(&data)]);
        stdout(&[&common[..], &["--views", "3", "--out", text(&out)], more].concat())
    };
    let several = ["--lr", "1e-4,1e-3"];
    let table = eval("two.jsonl", &several);
    assert!(table.contains("MEMO 1e-4") && table.contains("MEMO 1e-3"), "{table}");
    // Rates of many digits are in line with the others.
    let long = ["--lr", "1.23456e-4,1e-3"];
    for table in [predict(&long, false), eval("long.jsonl", &long)] {
        let ends: BTreeSet<_> = table.lines().filter_map(|line| line.find('%')).collect();
        assert_eq!(ends.len(), 1, "{table}");
    }
    let line = |name: &str| {
        let lines = fs::read_to_string(place.file(name)).unwrap();
        serde_json::from_str::<Value>(lines.lines().last().unwrap()).unwrap()
    };
    eval("one.jsonl", &["--lr", "1e-3"]);
    assert_eq!(line("two.jsonl")["memo"][1], line("one.jsonl")["memo"]);
    let summary: Value =
        serde_json::from_str(&eval("two.jsonl", &[&several[..], &["--resume", "--json"]].concat())).unwrap();
    let rates: Vec<f64> =
        summary["rates"].as_array().unwrap().iter().map(|rate| rate["lr"].as_f64().unwrap()).collect();
    assert_eq!(rates, [1e-4, 1e-3]);
    let out = place.file("two.jsonl");
    let eval = |more: &[&str]| {
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "3"];
        memo(&[&common[..], &["--resume", "--out", text(&out)], more].concat())
    };
    refused(eval(&["--lr", "1e-4"]), 1, &["begun with lr"]);
    let [mut lines, of_one] =
        ["two.jsonl", "one.jsonl"].map(|name| fs::read_to_string(place.file(name)).unwrap());
    lines.truncate(lines.trim_end().rfind('\n').unwrap() + 1);
    place.write("two.jsonl", lines + of_one.lines().last().unwrap() + "\n");
    refused(eval(&several), 1, &["two.jsonl", "image 5", "by 1 of 2 learning rates"]);
    refused(eval(&["--lr", "1e-4,1e-3", "--steps", "2"]), 2, &["--lr", "--steps"]);
}

#[test]
fn a_rate_that_leads_to_no_number_takes_nothing_from_the_others() {
    let place = Place::new();
    let data = place.dataset();
    let eval = |out: &Path, more: &[&str]| {
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "3", "--json"];
        memo(&[&common[..], &["--out", text(out)], more].concat())
    };
    let [several, alone, strict] =
        ["several.jsonl", "alone.jsonl", "strict.jsonl"].map(|name| place.file(name));
    let lines = |path: &Path| -> Vec<Value> {
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let rates = ["--lr", "1e-4,1e30,1e-3"];
    let output = eval(&several, &rates).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("counts as wrong by a learning rate").count(), 1, "{told}");
    assert!(eval(&alone, &["--lr", "1e-3"]).output().unwrap().status.success());
    for (several, alone) in lines(&several).iter().zip(lines(&alone)) {
        assert_eq!((&several["memo"][2], &several["entropy"]), (&alone["memo"], &alone["entropy"]));
        assert!(several["memo"][1]["error"].as_str().unwrap().contains("learning rate 1e30"), "{several}");
    }
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<_> = summary["rates"].as_array().unwrap().iter().map(|rate| &rate["failed"]).collect();
    assert_eq!(failed, [0, 6, 0]);
    assert_eq!((&summary["images"], &summary["rates"][1]["memo_accuracy"]), (&6.into(), &0.0.into()));
    let whole = fs::read_to_string(&several).unwrap();
    let again = eval(&several, &[&rates[..], &["--resume"]].concat()).output().unwrap();
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&again["rates"], fs::read_to_string(&several).unwrap()), (&summary["rates"], whole));
    // Where it leads nowhere, and where any failure is asked to, it ends.
    refused(eval(&strict, &[&rates[..], &["--strict"]].concat()), 1, &["image 0", "learning rate 1e30"]);
    let nowhere = ["image 0", "learning rate 1e30", "any of the first 6 images"];
    refused(eval(&place.file("both.jsonl"), &["--lr", "1e30,1e31"]), 1, &nowhere);
    refused(eval(&place.file("one.jsonl"), &["--lr", "1e30"]), 1, &nowhere);
    // After a step that leads nowhere there is no entropy either, and such a file is read as others are.
    let twice = place.file("twice.jsonl");
    let nowhere = ["image 0", "any of the first 6 images"];
    refused(eval(&twice, &["--lr", "1e30", "--steps", "2"]), 1, &nowhere);
    let is_right = |line: &Value| line["entropy"][0].is_f64() && line["entropy"][1].is_null();
    assert!(lines(&twice).iter().all(is_right) && lines(&twice).len() == 6);
    refused(eval(&twice, &["--lr", "1e30", "--steps", "2", "--resume"]), 1, &nowhere);
}

#[test]
fn an_optimizer_is_what_a_run_depends_on() {
    let place = Place::new();
    let common = ["predict", "--model", text(&place.model), "--labels", text(&place.labels)];
    let predict = |flags: &str| {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        stdout(
            &[&common[..], &["--json", "--views", "3", text(&place.image), "--lr", "1e-4"], &flags].concat(),
        )
    };
    let plain = predict("");
    assert_eq!(predict("--momentum 0.9 --weight-decay 0"), plain, "the first step has no momentum");
    let others = ["--update in-place", "--weight-decay 0.1", "--optimizer adamw"];
    assert!(others.iter().all(|flags| predict(flags) != plain));

    let (data, out) = (place.dataset(), place.file("run.jsonl"));
    let eval = |more: &[&str]| {
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "3"];
        memo(&[&common[..], &["--out", text(&out), "--limit", "2", "--optimizer", "adamw"], more].concat())
    };
    assert!(eval(&[]).output().unwrap().status.success());
    let run: Value =
        serde_json::from_str(&fs::read_to_string(place.file("run.jsonl.run.json")).unwrap()).unwrap();
    let decay = run["optimizer"]["weight_decay"].as_f64().unwrap();
    assert!(run["optimizer"]["name"] == "adamw" && (decay - 0.01).abs() < 1e-8, "{run}");
    assert_eq!(run["update"], "in-place");
    assert!(eval(&["--resume"]).output().unwrap().status.success());
    refused(eval(&["--resume", "--weight-decay", "0.02"]), 1, &["begun with optimizer"]);
}

#[test]
fn a_run_depends_on_nothing_but_its_settings() {
    let place = Place::new();
    let data = place.dataset();
    let eval = |out: &Path, more: &[&str], threads: &str| {
        let common = [
            "eval",
            "--json",
            "--model",
            text(&place.model),
            "--data",
            text(&data),
            "--views",
            "3",
            "--out",
            text(out),
        ];
        let output = memo(&[&common[..], more].concat()).env("VCUDA_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (fs::read_to_string(out).unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (whole, summary) = eval(&place.file("whole.jsonl"), &[], "2");
    assert_eq!(whole.lines().count(), 6);
    let lines: BTreeSet<&str> = whole.lines().map(|line| &line[line.find("zero_shot").unwrap()..]).collect();
    assert_eq!(lines.len(), 6, "the images tell themselves apart: {whole}");
    let object: Value = serde_json::from_str(&summary).unwrap();
    for key in
        ["images", "memo_accuracy", "memo_confidence", "clip_accuracy", "clip_confidence", "images_per_s"]
    {
        assert!(object[key].is_number(), "{key} in {summary}");
    }
    assert_eq!(eval(&place.file("one.jsonl"), &["--batch", "1"], "1").0, whole);
    let (four, _) = eval(&place.file("four.jsonl"), &["--first", "4", "--batch", "5"], "2");
    assert!(whole.starts_with(&four) && four.lines().count() == 4);

    // Killed inside its third line, then continued.
    let killed = place.file("whole.jsonl");
    let cut = whole.lines().take(2).map(|line| line.len() + 1).sum::<usize>() + 20;
    fs::write(&killed, &whole[..cut]).unwrap();
    let (resumed, again) = eval(&killed, &["--resume"], "2");
    assert_eq!(resumed, whole);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(
        (&again["images"], &again["memo_confidence"]),
        (&object["images"], &object["memo_confidence"])
    );
    let common =
        ["eval", "--model", text(&place.model), "--data", text(&data), "--out", text(&killed), "--resume"];
    let table = stdout(&[&common[..], &["--views", "3"]].concat());
    assert!(table.contains("nothing was left to do") && !table.contains("images/s"), "{table}");
    let (_, nothing) = eval(&killed, &["--resume"], "2");
    assert_eq!(serde_json::from_str::<Value>(&nothing).unwrap()["images_per_s"], 0.0);
    refused(memo(&[&common[..], &["--views", "3", "--seed", "1"]].concat()), 1, &["seed 0, not 1"]);
    if std::env::var("MEMO_TEST_DEVICE").as_deref() != Ok("gpu") {
        let mut elsewhere = memo(&[&common[..], &["--views", "3"]].concat());
        elsewhere.env("VCUDA_ARCH", "sm_80");
        refused(elsewhere, 1, &["begun with device", "virtual sm_90a", "not", "virtual sm_80"]);
    }

    // The data is known by what it holds, not by where it lies.
    let moved = place.file("moved");
    fs::rename(&data, &moved).unwrap();
    let there = |more: &[&str]| {
        let common = [
            "eval",
            "--json",
            "--model",
            text(&place.model),
            "--data",
            text(&moved),
            "--views",
            "3",
            "--out",
        ];
        memo(&[&common[..], &[text(&killed), "--resume"], more].concat())
    };
    assert!(there(&[]).output().unwrap().status.success());
    let class = fs::read_dir(&moved).unwrap().next().unwrap().unwrap().path();
    let image = fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    fs::write(&image, [fs::read(&image).unwrap(), vec![0]].concat()).unwrap();
    let name = image.file_name().unwrap().to_str().unwrap();
    refused(there(&[]), 1, &["line ", name, "has changed since"]);
    assert_eq!(fs::read_to_string(&killed).unwrap(), whole, "nothing is lost");
}

#[test]
fn records_say_what_has_overflowed() {
    let place = Place::new();
    let data = place.dataset();
    let eval = |out: &Path, more: &[&str]| {
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2", "--out"];
        stdout(&[&common[..], &[text(out)], more].concat());
        fs::read_to_string(out).unwrap()
    };
    let exact = eval(&place.file("exact.jsonl"), &["--precision", "fp32"]);
    assert!(!exact.contains("overflow"));
    assert!(!eval(&place.file("plain.jsonl"), &[]).contains("overflow"));
    // So large that gradients of some images leave float16.
    let (out, scale) = (place.file("scaled.jsonl"), ["--loss-scale", "1048576"]);
    let scaled = eval(&out, &scale);
    let mut overflows = 0;
    for (line, exact) in scaled.lines().zip(exact.lines()) {
        if line.contains("overflow") {
            overflows += 1;
            let [got, want] = [line, exact].map(|line| serde_json::from_str::<Value>(line).unwrap());
            assert_eq!(got["overflow"], true);
            for kind in ["zero_shot", "memo"] {
                let confidence = |record: &Value| record[kind]["confidence"].as_f64().unwrap();
                // The labels' features have come out of float16 in two terms.
                assert!((confidence(&got) - confidence(&want)).abs() < 1e-5, "{line}: {exact}");
            }
        }
    }
    assert!((1..6).contains(&overflows), "{overflows} of 6: {scaled}");

    // Killed inside its fourth line, then continued.
    let cut = scaled.lines().take(3).map(|line| line.len() + 1).sum::<usize>() + 20;
    fs::write(&out, &scaled[..cut]).unwrap();
    assert_eq!(eval(&out, &[&scale[..], &["--resume"]].concat()), scaled);
}

#[test]
fn a_gpu_that_drops_out_loses_nothing() {
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    let place = Place::new();
    let data = place.dataset();
    let run = |out: &Path, more: &[&str]| {
        let args =
            ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2", "--batch", "1"];
        memo(&[&args[..], &["--out", text(out)], more].concat())
    };
    let (whole, cut) = (place.file("whole.jsonl"), place.file("cut.jsonl"));
    let succeed = |mut command: Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    succeed(run(&whole, &[]));
    let want = fs::read_to_string(&whole).unwrap();

    // Where the first of the lines are written, and not all.
    let mut lines = 0;
    let mut kernels = 400;
    while lines < 2 {
        fs::remove_file(&cut).ok();
        let mut lost = run(&cut, &[]);
        lost.env("VCUDA_LOST_AFTER", kernels.to_string());
        refused(lost, 1, &["CUDA_ERROR_UNKNOWN", "dropped out"]);
        lines = fs::read_to_string(&cut).unwrap_or_default().lines().count();
        kernels += 100;
    }
    let kept = fs::read_to_string(&cut).unwrap();
    assert!(kept.len() < want.len() && want.starts_with(&kept), "{kept}");
    succeed(run(&cut, &["--resume"]));
    assert_eq!(fs::read_to_string(&cut).unwrap(), want);
}
