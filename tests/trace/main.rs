//! What a profiler hears of the program: ranges by stage and kernel, and where the steady state is.
//!
//! A profiler's library of our own, `recorder.c`, is what `NVTX_INJECTION64_PATH` names, and writes it down.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use memo::check::fixtures;
use serde_json::Value;
use tempfile::TempDir;

/// The stages of a batch, in order, and a kernel of each.
const STAGES: [(&str, &str); 5] = [
    ("views", "draw_views"),
    ("forward", "norm_forward"),
    ("backward", "entropy_forward_backward"),
    ("step", "sgd_plain"),
    ("predict", "norm_forward"),
];

/// The built recorder, and where it writes.
struct Recorder {
    folder: TempDir,
    library: PathBuf,
}

impl Recorder {
    /// `None` in a bundle on a machine that has no C compiler.
    fn build() -> Option<Recorder> {
        let folder = tempfile::tempdir().expect("a folder for the tests");
        let (source, library) = (folder.path().join("recorder.c"), folder.path().join("recorder.so"));
        fs::write(&source, include_str!("recorder.c")).expect("a folder that can be written");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-pthread", "-o"]).arg(&library).arg(&source);
        match compiler.output() {
            Err(_) if std::env::var_os("MEMO_PROGRAM").is_some() => return None,
            built => {
                let built = built.expect("a C compiler, `cc`");
                assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            }
        }
        Some(Recorder { folder, library })
    }

    /// Runs the program with the recorder injected.
    fn run(&self, does: &str, args: &[&str]) -> (Output, Record) {
        let out = self.folder.path().join("record.txt");
        let _ = fs::remove_file(&out);
        let mut command = memo(args);
        command.env("NVTX_INJECTION64_PATH", &self.library).env("RECORDER_OUT", &out);
        let output = command.env("RECORDER_DOES", does).output().expect("the program starts");
        (output, Record::parse(&fs::read_to_string(&out).unwrap_or_default()))
    }
}

/// Every range by its path, such as `steady state/image/forward`, in the order in which they began; every push had its pop.
struct Record {
    paths: Vec<String>,
}

impl Record {
    fn parse(text: &str) -> Record {
        let (mut open, mut paths, mut domains) = (HashMap::<&str, Vec<&str>>::new(), Vec::new(), 0);
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [what, thread, domain, name] = fields[..] else { panic!("{line}") };
            assert_eq!(domain, "memo", "{line}");
            let stack = open.entry(thread).or_default();
            match what {
                "domain" => domains += 1,
                "push" => {
                    stack.push(name);
                    paths.push(stack.join("/"));
                }
                "pop" => assert!(stack.pop().is_some(), "nothing to end: {text}"),
                _ => panic!("{line}"),
            }
        }
        assert_eq!(domains, usize::from(!text.is_empty()), "the domain is made once");
        assert!(open.values().all(Vec::is_empty), "not ended: {open:?}");
        Record { paths }
    }

    /// Names of the ranges right inside one of this path, in order, but for the host's waits, whose place is the device's matter.
    fn inside(&self, path: &str) -> Vec<&str> {
        let children = self.paths.iter().filter_map(|p| p.strip_prefix(path)?.strip_prefix('/'));
        children.filter(|name| !name.contains('/') && *name != "wait").collect()
    }

    /// How often the host has waited for results of the steady state.
    fn waits(&self) -> usize {
        self.paths.iter().filter(|path| *path == "steady state/wait").count()
    }

    /// What began outside of any other range, without the kernels that prepare the run.
    fn outermost(&self) -> Vec<&str> {
        let paths = self.paths.iter().map(String::as_str);
        paths.filter(|path| matches!(*path, "batch" | "steady state")).collect()
    }
}

/// The program on the device under test.
fn memo(args: &[&str]) -> Command {
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let device = std::env::var("MEMO_TEST_DEVICE").unwrap_or_else(|_| "virtual".to_string());
    let mut command = Command::new(program);
    command.args(args).args(["--device", &device]);
    command
}

fn bench<'a>(model: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let model = model.to_str().expect("UTF-8");
    [&["bench", "--model", model, "--views", "2", "--images", "2", "--batch", "1", "--classes", "50"], more]
        .concat()
}

fn augment<'a>(image: &'a Path, views: &'a Path) -> [&'a str; 8] {
    let (image, views) = (image.to_str().expect("UTF-8"), views.to_str().expect("UTF-8"));
    ["augment", image, "--views", "2", "--size", "16", "--views-out", views]
}

#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn is_gpu() -> bool {
    std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu")
}

fn picture(seed: u8, path: &Path) {
    image::RgbImage::from_pixel(20, 20, image::Rgb([seed, 90, 200]))
        .save(path)
        .expect("a picture is written");
}

#[test]
fn stages_and_kernels_are_ranges() {
    let Some(recorder) = Recorder::build() else { return };
    let model = fixtures().join("models/tiny");
    let (output, record) = recorder.run("", &bench(&model, &[]));
    succeeded(&output);
    // What is not counted is not the steady state's.
    let before = if is_gpu() { 2 } else { 1 };
    assert_eq!(record.outermost(), [&["batch"].repeat(before)[..], &["steady state"]].concat());
    assert_eq!(record.inside("steady state"), ["batch"; 2]);
    assert_eq!(record.waits(), 2);
    let stages: Vec<&str> = STAGES.iter().map(|(stage, _)| *stage).collect();
    assert_eq!(record.inside("batch"), stages.repeat(before));
    assert_eq!(record.inside("steady state/batch"), [&stages[..], &stages].concat());
    for (stage, kernel) in STAGES {
        let kernels = record.inside(&format!("batch/{stage}"));
        assert!(kernels.contains(&kernel), "{stage}: {kernels:?}");
    }
}

#[test]
fn an_error_ends_its_ranges() {
    let Some(recorder) = Recorder::build() else { return };
    let model = fixtures().join("models/tiny");
    let (output, record) = recorder.run("", &bench(&model, &["--no-warm-up", "--lr", "1e38"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not finite"), "{output:?}");
    // In float16, and because that overflows in float32; a GPU has been given the next batch by then.
    assert_eq!(record.outermost(), ["steady state"]);
    assert_eq!(record.inside("steady state"), ["batch"].repeat(if is_gpu() { 3 } else { 2 }));
}

#[test]
fn all_batches_but_the_first_two_are_the_steady_state_of_eval() {
    let Some(recorder) = Recorder::build() else { return };
    let (model, data) = (fixtures().join("models/tiny"), recorder.folder.path().join("data"));
    for (seed, class) in ["cat", "dog"].into_iter().enumerate() {
        fs::create_dir_all(data.join(class)).expect("a folder that can be written");
        (0..2).for_each(|i| picture((20 * seed + i) as u8, &data.join(class).join(format!("{i}.png"))));
    }
    let [model, data] = [&model, &data].map(|path| path.to_str().expect("UTF-8"));
    let args = ["eval", "--model", model, "--data", data, "--views", "2", "--batch", "1", "--limit"];
    // It begins when the first batch's results are there: by then the second is under way.
    let whole = vec!["batch", "batch", "steady state"];
    for (limit, steady, outermost) in [("4", 2, whole), ("1", 0, vec!["batch"])] {
        let (output, record) = recorder.run("", &[&args[..], &[limit]].concat());
        succeeded(&output);
        assert_eq!(record.outermost(), outermost);
        assert_eq!(record.inside("steady state"), vec!["batch"; steady]);
    }
}

#[test]
fn a_tool_that_declines_or_takes_nothing_is_left_alone() {
    let Some(recorder) = Recorder::build() else { return };
    let (image, views) = (recorder.folder.path().join("a.png"), recorder.folder.path().join("views"));
    picture(1, &image);
    for does in ["refuse", "nothing"] {
        let (output, record) = recorder.run(does, &augment(&image, &views));
        succeeded(&output);
        assert!(record.paths.is_empty(), "{does}: {:?}", record.paths);
    }
    let (output, record) = recorder.run("", &augment(&image, &views));
    succeeded(&output);
    assert!(record.paths.iter().any(|path| path == "draw_views"), "{:?}", record.paths);
}

#[test]
fn records_of_the_virtual_device_say_in_which_range_a_launch_was() {
    if is_gpu() {
        return;
    }
    let (model, folder) = (fixtures().join("models/tiny"), tempfile::tempdir().expect("a folder"));
    let driver = memo::gpu::find_virtual_driver().expect("the virtual driver");
    let run = |profile: &str| {
        let mut command = memo(&bench(&model, &["--json"]));
        let output = command.env("NVTX_INJECTION64_PATH", &driver).env("VCUDA_PROFILE", profile).output();
        let output = output.expect("the program starts");
        succeeded(&output);
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    // Without records nobody reads ranges, and batches are graphs.
    assert_eq!(run("")["graphs"], 1);
    let file = folder.path().join("profile.json");
    let said = run(file.to_str().expect("UTF-8"));
    assert_eq!(said["graphs"], 0);
    let records = fs::read_to_string(&file).expect("a file");
    let records = records.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let of_steady_state: Vec<(String, String)> = records
        .filter_map(|record| {
            let path = record["range"].as_str()?.strip_prefix("steady state/batch/")?.to_string();
            Some((path, record["kernel"].as_str()?.to_string()))
        })
        .collect();
    assert_eq!(Some(of_steady_state.len() as u64), said["launches"].as_u64().map(|launches| 2 * launches));
    for (path, kernel) in &of_steady_state {
        let (stage, name) = path.split_once('/').expect("a stage, and the kernel's own range");
        assert!(STAGES.iter().any(|(known, _)| *known == stage) && name == kernel, "{path}: {kernel}");
    }
    for (stage, kernel) in STAGES {
        assert!(
            of_steady_state.iter().any(|(path, _)| *path == format!("{stage}/{kernel}")),
            "{stage}/{kernel}"
        );
    }
}

#[test]
fn what_is_no_tool_is_passed_over() {
    let folder = tempfile::tempdir().expect("a folder for the tests");
    let (image, views, text) =
        (folder.path().join("a.png"), folder.path().join("views"), folder.path().join("text.so"));
    picture(1, &image);
    fs::write(&text, "not a library").expect("a folder that can be written");
    let mut plain = memo(&augment(&image, &views));
    let plain = plain.env_remove("NVTX_INJECTION64_PATH").output().expect("the program starts");
    succeeded(&plain);
    let others =
        [Path::new("/nonexistent/tool.so"), &text, folder.path(), Path::new(""), Path::new("libc.so.6")];
    for path in others {
        let mut command = memo(&augment(&image, &views));
        let output = command.env("NVTX_INJECTION64_PATH", path).output().expect("the program starts");
        assert_eq!(
            (output.status, &output.stdout, &output.stderr),
            (plain.status, &plain.stdout, &plain.stderr)
        );
    }
}
