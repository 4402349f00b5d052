//! The built program from outside: what it prints, what it writes, how it refuses.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use memo::check::fixtures;
use memo::ops::patches::to_rgb8;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// The program on the device under test.
fn memo(args: &[&str]) -> Command {
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let mut command = Command::new(program);
    command.args(args);
    if matches!(args[0], "eval" | "predict" | "augment") && !args.contains(&"--device") {
        let device = std::env::var("MEMO_TEST_DEVICE").unwrap_or_else(|_| "virtual".to_string());
        command.args(["--device", &device]);
    }
    command
}

fn run(args: &[&str]) -> Output {
    memo(args).output().expect("the program starts")
}

/// Runs what must succeed; its stdout.
#[track_caller]
fn stdout(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs what must fail with `code`, one `error:` line that has all of `names`, and no panic.
#[track_caller]
fn refused(mut command: Command, code: i32, names: &[&str]) {
    let output = command.output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    assert!(stderr.lines().any(|line| line.starts_with("error: ")), "{command:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{command:?}: {stderr}");
    for name in names {
        assert!(stderr.contains(name), "{command:?}: no {name:?} in: {stderr}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A small model, labels for it, an image, and a folder for what a test writes.
struct Place {
    folder: TempDir,
    model: PathBuf,
    labels: PathBuf,
    image: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let (labels, image) = (folder.path().join("labels.txt"), folder.path().join("image.png"));
        // Of words that the model knows: all others are the same to it.
        fs::write(&labels, "apple\nchimpanzee\nwillow_tree\n").unwrap();
        picture(3).save(&image).unwrap();
        Place { model: fixtures().join("models/tiny"), labels, image, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.file(name), bytes).unwrap();
        self.file(name)
    }

    fn predict<'a>(&'a self, model: &'a Path, more: &[&'a str]) -> Command {
        let mut args = vec!["predict", "--model", text(model)];
        if !more.contains(&"--views") {
            args.extend(["--views", "2"]);
        }
        if !more.contains(&"--labels") {
            args.extend(["--labels", text(&self.labels)]);
        }
        args.extend(more);
        if !more.iter().any(|arg| arg.ends_with(".png") || arg.ends_with('/')) {
            args.push(text(&self.image));
        }
        memo(&args)
    }

    /// The model's folder with one file changed.
    fn model_with(&self, name: &str, file: &str, bytes: &[u8]) -> PathBuf {
        let folder = self.file(name);
        fs::create_dir(&folder).unwrap();
        for part in ["config.json", "model.safetensors"] {
            fs::copy(self.model.join(part), folder.join(part)).unwrap();
        }
        fs::write(folder.join(file), bytes).unwrap();
        folder
    }

    /// A dataset of two classes with three images each.
    fn dataset(&self) -> PathBuf {
        let data = self.file("data");
        for (class, first) in [("apple", 0), ("chimpanzee", 10)] {
            fs::create_dir_all(data.join(class)).unwrap();
            (0..3).for_each(|i| picture(first + i).save(data.join(class).join(format!("{i}.png"))).unwrap());
        }
        data
    }
}

fn picture(seed: u32) -> image::RgbImage {
    image::RgbImage::from_fn(40, 33, |x, y| {
        image::Rgb([(x * 6 + seed * 31) as u8, (y * 7 + seed * 17) as u8, (x * y + seed) as u8])
    })
}

#[test]
fn bad_models_are_refused() {
    let place = Place::new();
    let weights = fs::read(place.model.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(place.model.join("config.json")).unwrap();
    let mut lying = weights.clone();
    lying[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    let mut infinite = weights.clone();
    let len = infinite.len();
    infinite[len - 2..].copy_from_slice(&0x7c00u16.to_le_bytes());
    let (whole, file) = (&weights[..], "model.safetensors");
    for (name, bytes) in
        [("empty", &whole[..0]), ("cut", &whole[..len / 2]), ("lying", &lying), ("short", &whole[..5])]
    {
        let model = place.model_with(name, file, bytes);
        refused(place.predict(&model, &[]), 1, &[name, file]);
    }
    let model = place.model_with("infinite", file, &infinite);
    refused(place.predict(&model, &[]), 1, &["infinite", "element", "inf"]);
    infinite[len - 2..].copy_from_slice(&0x7e00u16.to_le_bytes());
    let model = place.model_with("no_number", file, &infinite);
    refused(place.predict(&model, &[]), 1, &["no_number", "element", "NaN"]);
    let vision = |from: &str, to: &str| {
        let at = config.find("\"vision_config\"").unwrap();
        format!("{}{}", &config[..at], config[at..].replacen(from, to, 1))
    };
    let configs = [
        ("heads", vision("\"num_attention_heads\": 4", "\"num_attention_heads\": 0"), "heads is 0"),
        ("patch", vision("\"patch_size\": 8", "\"patch_size\": 0"), "patch size is 0"),
        ("layers", vision("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 99"), "layers.2."),
        ("fewer", vision("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"), "the config says 1 layers"),
        ("width", vision("\"hidden_size\": 64", "\"hidden_size\": 1099511627776"), "width is 1099511627776"),
        ("shape", vision("\"hidden_size\": 64", "\"hidden_size\": 128"), "has shape [64]"),
        ("json", "{".to_string(), "not JSON"),
    ];
    for (name, config, want) in configs {
        let model = place.model_with(name, "config.json", config.as_bytes());
        refused(place.predict(&model, &[]), 1, &[name, want]);
    }
    refused(place.predict(&place.file("absent"), &[]), 1, &["absent", "No such file"]);
    let folder = place.folder.path().to_path_buf();
    refused(place.predict(&folder, &[]), 1, &["model.safetensors"]);
    let pickle = place.write("model.bin", b"PK\x03\x04rest");
    refused(place.predict(&pickle, &[]), 1, &["model.bin", "save_file"]);
}

#[test]
fn bad_files_and_flags_are_refused() {
    let place = Place::new();
    let model = place.model.clone();
    let empty = place.write("empty.txt", "");
    refused(place.predict(&model, &["--labels", text(&empty)]), 1, &["empty.txt", "no labels"]);
    let binary = place.write("binary.txt", b"cat\n\xff\xfe\n");
    refused(place.predict(&model, &["--labels", text(&binary)]), 1, &["binary.txt", "UTF-8"]);
    let png = fs::read(&place.image).unwrap();
    let cut = place.write("cut.png", &png[..png.len() / 2]);
    refused(place.predict(&model, &[text(&cut)]), 1, &["cut.png"]);
    refused(place.predict(&model, &[&format!("{}/", text(place.folder.path()))]), 1, &["folder"]);

    for (flag, value) in [
        ("--views", "0"),
        ("--views", "-1"),
        ("--lr", "nan"),
        ("--lr", "-1"),
        ("--steps", "0"),
        ("--seed", "-1"),
        ("--prompt", "no place"),
        ("--precision", "bf16"),
        ("--loss-scale", "3"),
        ("--loss-scale", "0"),
        ("--optimizer", "adam"),
        ("--momentum", "1"),
        ("--momentum", "-0.1"),
        ("--momentum", "nan"),
        ("--weight-decay", "-0.1"),
        ("--weight-decay", "inf"),
    ] {
        refused(place.predict(&model, &[flag, value]), 2, &["invalid value", flag]);
    }
    let both = |flags: &str, want: &str| {
        let flags: Vec<&str> = flags.split(' ').collect();
        refused(place.predict(&model, &flags), 2, &[flags.join(" ").as_str(), want]);
    };
    both("--update implicit --steps 2", "in-place");
    both("--update implicit --weight-decay 0.1", "in-place");
    both("--update implicit --optimizer adamw", "in-place");
    both("--momentum 0.9 --optimizer adamw", "--optimizer sgd");
    if !Path::new("/dev/nvidia0").exists() {
        refused(place.predict(&model, &["--device", "gpu"]), 1, &["GPU 0", "--device virtual"]);
    }

    let pixels = vec![0f32; 2 * 3 * 32 * 32];
    let file = |name: &str, tensor: &str, shape: Vec<usize>, data: &[f32]| {
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(data)).unwrap();
        place.write(name, safetensors::serialize([(tensor, view)], None).unwrap())
    };
    let mut nan = pixels.clone();
    nan[7] = f32::NAN;
    let views = [
        (file("name", "images", vec![2, 3, 32, 32], &pixels), "no tensor named `views`"),
        (file("shape", "views", vec![2, 3, 16, 64], &pixels), "(N, 3, 32, 32)"),
        (file("nan", "views", vec![2, 3, 32, 32], &nan), "element 7"),
    ];
    for (path, want) in views {
        refused(place.predict(&model, &["--views-in", text(&path)]), 1, &[text(&path), want]);
    }

    let mut command = place.predict(&model, &[]);
    command.env("MEMO_NVRTC", "/nonexistent/libnvrtc.so");
    refused(command, 1, &["MEMO_NVRTC"]);
    if std::env::var("MEMO_TEST_DEVICE").as_deref() != Ok("gpu") {
        let mut command = place.predict(&model, &[]);
        command.env("VCUDA_MEMORY_BYTES", "1000000");
        refused(command, 1, &["memory", "free"]);
    }
}

#[test]
fn bad_datasets_and_outputs_are_refused() {
    let place = Place::new();
    let data = place.dataset();
    let eval = |data: &Path, more: &[&str]| {
        let mut args = vec!["eval", "--model", text(&place.model), "--data", text(data), "--views", "2"];
        args.extend(more);
        memo(&args)
    };
    let cifar = place.file("cifar");
    fs::create_dir(&cifar).unwrap();
    let names: String = (0..100).map(|i| format!("class_{i}\n")).collect();
    fs::write(cifar.join("fine_label_names.txt"), names).unwrap();
    fs::write(cifar.join("test.bin"), vec![0; 3074 + 100]).unwrap();
    refused(eval(&cifar, &[]), 1, &["test.bin", "inside record 1"]);
    let mut record = vec![0; 3074];
    record[1] = 200;
    fs::write(cifar.join("test.bin"), record).unwrap();
    refused(eval(&cifar, &[]), 1, &["record 0 has label 200"]);
    refused(eval(&place.file("nothing"), &[]), 1, &["nothing"]);
    let hollow = place.file("hollow");
    fs::create_dir(&hollow).unwrap();
    refused(eval(&hollow, &[]), 1, &["hollow"]);

    let unwritable = place.file("no/run.jsonl");
    refused(eval(&data, &["--out", text(&unwritable)]), 1, &["run.jsonl"]);
    refused(eval(&data, &["--out", "/dev/full"]), 1, &["/dev/full"]);
    refused(eval(&data, &["--resume"]), 2, &["--resume", "--out"]);
    let out = place.write("precious.jsonl", "something\n");
    refused(eval(&data, &["--out", text(&out)]), 1, &["precious.jsonl", "--resume"]);
    assert_eq!(fs::read_to_string(out).unwrap(), "something\n");
    let grid = place.file("no/grid.png");
    refused(
        memo(&["augment", text(&place.image), "--views", "2", "--size", "16", "--grid", text(&grid)]),
        1,
        &["grid.png"],
    );
    refused(memo(&["augment", text(&place.image)]), 2, &["--grid"]);
    refused(memo(&["augment", text(&place.image), "--grid", "sheet.jpg"]), 2, &["sheet.jpg", ".png"]);
    refused(eval(Path::new("absent.safetensors#images"), &[]), 1, &["the images absent.safetensors"]);
    if std::env::var("MEMO_TEST_DEVICE").as_deref() != Ok("gpu") {
        let out = place.file("early.jsonl");
        let mut command = eval(&data, &["--out", text(&out)]);
        command.env("VCUDA_MEMORY_BYTES", "1000000");
        refused(command, 1, &["memory", "free"]);
        assert!(!out.exists(), "nothing is begun before the model is on the device");
    }
}

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
    assert_eq!(keys, ["image", "labels", "zero_shot", "memo", "entropy"]);
    assert_eq!((object["labels"].as_u64(), object["entropy"].as_array().unwrap().len()), (Some(3), 2));
    for kind in ["zero_shot", "memo"] {
        let keys: Vec<&String> = object[kind].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["index", "label", "confidence", "logits"]);
        assert_eq!(object[kind]["logits"].as_array().unwrap().len(), 3);
    }
    assert_eq!(stdout(&args), line, "two runs give the same");
}

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
    assert_eq!(
        both["memo"],
        Value::from_iter(["1e-4", "1e-3"].map(|lr| object(&["--lr", lr])["memo"].take()))
    );
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
    assert!(rates.iter().zip([1e-4, 1e-3]).all(|(got, want)| (got / want - 1.0).abs() < 1e-6), "{summary}");
    let out = place.file("two.jsonl");
    let eval = |more: &[&str]| {
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "3"];
        memo(&[&common[..], &["--resume", "--out", text(&out)], more].concat())
    };
    refused(eval(&["--lr", "1e-4"]), 1, &["begun with lr"]);
    refused(eval(&["--lr", "1e-4,1e-3", "--steps", "2"]), 2, &["--lr", "--steps"]);
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
    let documented =
        ["hflip", "vflip", "angle", "jitter_order", "brightness", "contrast", "saturation", "hue", "crop"];
    assert_eq!(
        (drawn.len(), keys),
        (3, documented.iter().map(|k| k.to_string()).collect::<Vec<_>>().iter().collect())
    );
    // The original and three views in cells of 96 pixels and margins of 4, each pixel three times as large.
    let sheet = image::open(&grid).unwrap().to_rgb8();
    assert_eq!(sheet.dimensions(), (2 * 100 + 4, 2 * 100 + 4));
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(tensor.tensor("views").unwrap().data());
    for (i, view) in values.chunks(3 * 32 * 32).enumerate() {
        let (pixels, left, top) = (to_rgb8(view, 32), 4 + 100 * ((i + 1) % 2), 4 + 100 * i.div_ceil(2));
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
    let (four, _) = eval(&place.file("four.jsonl"), &["--limit", "4", "--batch", "5"], "2");
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
    refused(there(&[]), 1, &["begun with data"]);
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

/// Each file of a kernel cache: its name, its length, when it was written.
fn entries(cache: &Path) -> BTreeSet<(OsString, u64, SystemTime)> {
    let facts = |entry: DirEntry, file: Metadata| (entry.file_name(), file.len(), file.modified().unwrap());
    let entry = |entry: DirEntry| entry.metadata().map(|file| facts(entry, file)).unwrap();
    fs::read_dir(cache).unwrap().map(|each| entry(each.unwrap())).collect()
}

#[test]
fn kernels_are_compiled_once() {
    let place = Place::new();
    let cache = place.file("cache");
    let cached = |more: &[&str]| {
        let output = place.predict(&place.model, more).env("MEMO_CACHE", &cache).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        entries(&cache)
    };
    let cold = cached(&[]);
    assert!(!cold.is_empty());
    assert_eq!(cached(&[]), cold, "a second start compiles nothing");
    // Nor do other images and other numbers of views.
    let other = place.write("other.png", fs::read(&place.image).unwrap());
    assert_eq!(cached(&["--views", "3", "--seed", "1", text(&place.image), text(&other)]), cold);
}

#[test]
fn inspect_and_doctor_tell_what_is_there() {
    let model = fixtures().join("models/tiny");
    let summary: Value = serde_json::from_str(&stdout(&["inspect", "--json", text(&model)])).unwrap();
    assert_eq!(summary["naming"], "hugging_face");
    assert_eq!(summary["config"]["vision"]["layers"], 2);
    let doctor: Value = serde_json::from_str(&stdout(&["doctor", "--json"])).unwrap();
    for check in ["nvrtc", "device", "kernels"] {
        assert_eq!(doctor[check]["ok"], true, "{doctor}");
    }
    for flag in ["--model=m", "--batch=3", "--classes=3", "--activation=gelu", "--views=50", "--policy=mild"]
    {
        refused(memo(&["doctor", flag]), 2, &["required", "--plan"]);
    }
    refused(memo(&["doctor", "--plan"]), 2, &["required", "--model"]);
}
