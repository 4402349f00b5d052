//! The built program from outside: what it prints, what it writes, how it refuses.

mod against;
mod bench;
mod compilers;
mod data;
mod eval;
mod limits;
mod outputs;
mod pictures;
mod predict;
mod predictors;
mod refused;
mod resume;
mod seeds;
mod shards;
mod signals;
mod start;
mod sweep;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirEntry, Metadata};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use memo::check::fixtures;
use memo::ops::patches::to_rgb8;
use memo::ops::preprocess::Scale;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// The program on the device under test.
fn memo(args: &[&str]) -> Command {
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let mut command = Command::new(program);
    command.args(args);
    if matches!(args[0], "eval" | "sweep" | "predict" | "augment") && !args.contains(&"--device") {
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
        if !more.contains(&"--views") && !more.contains(&"--views-in") {
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
