//! Model folders as transformers 4 and 5 and open_clip save them, with many kinds of preprocessing: logits are the libraries' own.
//!
//! `tests/make_folders.py` made the fixtures. The folders' weights are the demo's, in Hugging Face's naming, with their own scale.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use half::f16;
use memo::check::fixtures;
use memo::ops::pillow::Rgb;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Fixture {
    labels: Vec<String>,
    pictures: Vec<(usize, usize)>,
    folders: BTreeMap<String, Folder>,
}

#[derive(Deserialize)]
struct Folder {
    /// Their JSON, by name.
    files: BTreeMap<String, Value>,
    log_scale: f64,
    logits: Vec<Vec<f64>>,
}

/// `make_pillow.picture`.
fn picture(w: usize, h: usize) -> Rgb {
    Rgb::from_fn(w, h, |x, y| {
        [0u32, 1, 2].map(|c| {
            let n = (x as u32 * 7919).wrapping_add(y as u32 * 104_729).wrapping_add(c * 15_485_863 + 13);
            ((n.wrapping_mul(2_654_435_761) >> 25) + (255 * x / (2 * w)) as u32) as u8
        })
    })
}

/// The demo's weights with this logit scale.
fn weights(log_scale: f64) -> Vec<u8> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets");
    let assets = std::env::var_os("MEMO_ASSETS").map_or(built, PathBuf::from);
    let mut bytes = fs::read(assets.join("demo-model/model.safetensors")).unwrap();
    let place = {
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let data = file.tensor("logit_scale").unwrap().data();
        assert_eq!(data.len(), 2, "a float16");
        data.as_ptr() as usize - bytes.as_ptr() as usize
    };
    bytes[place..place + 2].copy_from_slice(&f16::from_f64(log_scale).to_le_bytes());
    bytes
}

/// The program at a command that wants a device.
fn memo(command: &str) -> Command {
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let device = std::env::var("MEMO_TEST_DEVICE").unwrap_or_else(|_| "virtual".to_string());
    let mut memo = Command::new(program);
    memo.args([command, "--device", &device]);
    memo
}

struct Place {
    folder: tempfile::TempDir,
    fixture: Fixture,
    pictures: Vec<PathBuf>,
}

impl Place {
    fn new() -> Place {
        let text = fs::read_to_string(fixtures().join("folders.json")).unwrap();
        let fixture: Fixture = serde_json::from_str(&text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("labels.txt"), fixture.labels.join("\n")).unwrap();
        let made = fixture.pictures.iter().map(|&(w, h)| {
            let path = folder.path().join(format!("{w}x{h}.png"));
            let image = image::RgbImage::from_raw(w as u32, h as u32, picture(w, h).data).unwrap();
            image.save(&path).unwrap();
            path
        });
        let pictures = made.collect();
        Place { folder, fixture, pictures }
    }

    /// The model's folder.
    fn lay(&self, name: &str) -> PathBuf {
        let model = self.folder.path().join(name);
        let Folder { files, log_scale, .. } = &self.fixture.folders[name];
        fs::create_dir(&model).unwrap();
        for (name, json) in files {
            fs::write(model.join(name), json.to_string()).unwrap();
        }
        let is_open_clip = files.contains_key("open_clip_config.json");
        let file = if is_open_clip { "open_clip_model.safetensors" } else { "model.safetensors" };
        fs::write(model.join(file), weights(*log_scale)).unwrap();
        model
    }

    fn predict(&self, model: &Path, more: &[&str]) -> Output {
        let mut command = memo("predict");
        command.args(["--json", "--model"]).arg(model);
        command.arg("--labels").arg(self.folder.path().join("labels.txt")).args(more).args(&self.pictures);
        command.output().unwrap()
    }

    /// Zero-shot logits of each picture, and the logit scale.
    fn logits(&self, model: &Path, more: &[&str]) -> Vec<(Vec<f64>, f64)> {
        let output = self.predict(model, &[&["--views", "1"], more].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", model.display());
        let lines = String::from_utf8(output.stdout).unwrap();
        let read = |line: &str| {
            let object: Value = serde_json::from_str(line).unwrap();
            let logits = object["zero_shot"]["logits"].as_array().unwrap();
            (logits.iter().map(|x| x.as_f64().unwrap()).collect(), object["logit_scale"].as_f64().unwrap())
        };
        lines.lines().map(read).collect()
    }
}

#[test]
fn logits_are_the_librarys_own() {
    let place = Place::new();
    assert_eq!(place.fixture.folders.len(), 20);
    for (name, Folder { log_scale, logits: want, .. }) in &place.fixture.folders {
        let got = place.logits(&place.lay(name), &[]);
        assert_eq!(got.len(), want.len());
        for (((got, scale), want), size) in got.iter().zip(want).zip(&place.fixture.pictures) {
            assert!((scale - log_scale.exp()).abs() < 1e-5 * scale, "{name}: scale {scale}");
            let worst = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-3 * scale / 100.0, "{name}: {size:?} is off by {worst} at scale {scale}");
        }
    }
}

#[test]
fn what_the_flags_say_is_taken_instead() {
    let place = Place::new();
    let model = place.lay("hf5-default");
    let (own, scaled) = (place.logits(&model, &[]), place.logits(&model, &["--logit-scale", "10"]));
    for ((own, scale), (scaled, ten)) in own.iter().zip(&scaled) {
        assert_eq!(*ten, 10.0);
        let pairs = own.iter().zip(scaled);
        assert!(pairs.clone().all(|(own, scaled)| (own / scale * ten - scaled).abs() < 1e-4));
    }
    // Of the pictures only the tall one is scaled down before across by Pillow 13.
    let older = place.logits(&model, &["--pillow", "12.1"]);
    let same: Vec<bool> = own.iter().zip(&older).map(|(own, older)| own == older).collect();
    assert_eq!(same, [true, false, true, true]);
    for wrong in ["0", "-1", "nan", "inf", "x"] {
        let output = place.predict(&model, &["--logit-scale", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("--logit-scale"));
    }
    assert_eq!(place.predict(&model, &["--pillow", "12.2"]).status.code(), Some(2));
}

#[test]
fn views_are_normalised_as_the_model_asks() {
    let place = Place::new();
    let (half, views) = (place.lay("hf5-half"), place.folder.path().join("views.safetensors"));
    let augment = |more: &[&str]| {
        let mut command = memo("augment");
        command.arg(&place.pictures[0]).args(["--views", "2", "--views-out"]).arg(&views).args(more);
        assert!(command.status().unwrap().success());
    };
    let given = ["--views-in", views.to_str().unwrap()];
    augment(&["--model", half.to_str().unwrap()]);
    // Those that are drawn for the first picture are the same.
    let memo_of = |output: Output| -> Value {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str::<Value>(lines.lines().next().unwrap()).unwrap()["memo"].take()
    };
    assert_eq!(memo_of(place.predict(&half, &given)), memo_of(place.predict(&half, &["--views", "2"])));
    augment(&["--size", "32"]);
    let output = place.predict(&half, &given);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && stderr.contains("memo augment --model"), "{stderr}");
}

#[test]
fn an_evaluation_says_what_it_was_made_with() {
    let place = Place::new();
    let (model, data) = (place.lay("open-clip-half"), place.folder.path().join("data"));
    for (class, picture) in ["one", "two"].iter().zip(&place.pictures) {
        fs::create_dir_all(data.join(class)).unwrap();
        fs::copy(picture, data.join(class).join("0.png")).unwrap();
    }
    let out = place.folder.path().join("run.jsonl");
    let eval = |more: &[&str]| {
        let mut command = memo("eval");
        command.args(["--views", "1", "--model"]).arg(&model).arg("--data").arg(&data);
        command.arg("--out").arg(&out).args(more).output().unwrap()
    };
    let output = eval(&[]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("logit scale 14.30, the checkpoint's"), "{table}");
    let beside = fs::read_to_string(place.folder.path().join("run.jsonl.run.json")).unwrap();
    let run: Value = serde_json::from_str(&beside).unwrap();
    let scale = run["logit_scale"].as_f64().unwrap();
    assert!((scale - 2.66015625f64.exp()).abs() < 1e-5, "{scale}");
    assert_eq!(run["pillow"], "13");
    let mean = run["preprocess"]["scale"]["mean"].as_array().unwrap();
    assert!(mean.iter().all(|mean| mean == 0.5), "{mean:?}");
    for (more, want) in [
        (["--resume", "--pillow", "12.1"], "the run was begun with pillow"),
        (["--resume", "--logit-scale", "99"], "the run was begun with logit_scale"),
    ] {
        let output = eval(&more);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && stderr.contains(want), "{stderr}");
    }
}
