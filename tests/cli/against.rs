//! `memo bench --against`: other programs at the same job. What stands in for them is a shell script.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::bench::{args, model};
use super::{memo, refused, run, signals, text};

/// Stands in for Python and the programs: answers as the shell script says.
fn python(answers: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("python");
    script(&path, &format!("[ \"$1\" = -c ] && {{ echo '2.13.0+cpu 1 /a/torch'; exit 0; }}\n{answers}"));
    (folder, path)
}

/// A shell script in a file.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a file is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it may run");
}

/// Two images of two classes whose logits a step changes by 1 and -1.
const ANSWERS: &str = r#"
echo '{"ready": {"torch": "1.2", "transformers": "3.4", "device": "a CPU", "dtype": "float32"}}'
[ -f "$2/tensors.safetensors" ] && grep -q '"views":2' "$2/job.json" || echo '{"error": "job: incomplete"}'
while read line; do
  case $line in
    *check*) echo '{"zero_shot": [[0, 1], [1, 0]], "memo": [[1, 0], [2, -1]], "entropy": [0.5, 0.5], "moved": 0.25}' ;;
    *warm*) echo '{"warm_up_s": 0.1}' ;;
    *run*) echo '{"seconds": [0.5, 0.25], "peak_bytes": 1000000}' ;;
    *stages*) echo '{"stages": {"views": null, "forward": 0.125, "backward": 0.25, "step": 0, "predict": 1.5}}' ;;
  esac
done"#;

#[test]
fn other_programs_are_checked_and_timed_in_turn() {
    let (model, (_folder, python)) = (model(), python(ANSWERS));
    let mut command =
        memo(&args(text(&model), &["--seconds", "0", "--json", "--against", "libtorch:vmap,libtorch"]));
    let output = command.env("MEMO_PYTHON", &python).output().expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let all = object["against"].as_array().expect("programs");
    assert_eq!(
        all.iter().map(|row| row["name"].as_str()).collect::<Vec<_>>(),
        ["memo", "vmap", "tuned"].map(Some)
    );
    let [ours, vmap, _] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&vmap["step_error"], &vmap["weights_moved"]), (&0.0.into(), &0.25.into()));
    assert_eq!(
        (vmap["samples_s"].as_array().map(Vec::len), &vmap["peak_bytes"]),
        (Some(6), &1_000_000.into())
    );
    assert!(ours["step_error"].as_f64() > Some(0.1), "of an effect that is made up");
    let ratio = |row: &Value| row["memo_is_faster"]["ratio"].as_f64().expect("a ratio");
    let seconds = |row: &Value| 1.0 / row["images_per_s"]["median"].as_f64().expect("a rate");
    assert!((ratio(vmap) - seconds(vmap) / seconds(ours)).abs() < 1e-9 && ratio(ours) == 1.0);
    let stages = ours["stages_s"].as_object().expect("stages");
    assert_eq!(stages.keys().collect::<Vec<_>>(), ["views", "forward", "backward", "step", "predict"]);
    assert!(stages.values().all(|time| time.as_f64() > Some(0.0)), "{stages:?}");
    assert_eq!((&vmap["stages_s"]["views"], &vmap["stages_s"]["backward"]), (&Value::Null, &0.25.into()));
    assert_eq!(object["failed"], Value::Array(Vec::new()));

    let mut command = memo(&args(text(&model), &["--seconds", "0", "--against", "libtorch:vmap"]));
    let output = command.env("MEMO_PYTHON", &python).output().expect("the program starts");
    let table = String::from_utf8(output.stdout).expect("UTF-8");
    let row: Vec<&str> = table.lines().filter(|line| line.starts_with("vmap ")).collect();
    assert!(
        row.len() == 2 && row[1].split_whitespace().eq("vmap 125 ms 250 ms 0 µs 1.50 s".split(' ')),
        "{table}"
    );
}

#[test]
fn one_that_fails_or_hangs_is_stopped_and_the_others_go_on() {
    let model = model();
    let answers = format!(
        "case $1 in *notebook.py) echo '{{\"error\": \"start: no such layer\"}}'; exit 1 ;; esac\n{}",
        ANSWERS.replace("*run*)", "*run*) case $1 in *vmap.py) sleep 600 & wait ;; esac;")
    );
    let (_folder, python) = python(&answers);
    let all = "libtorch:notebook,libtorch:vmap,libtorch:tuned";
    let more = ["--seconds", "0", "--json", "--answer-limit", "5", "--against", all];
    let output = memo(&args(text(&model), &more)).env("MEMO_PYTHON", &python).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names = |rows: &Value| {
        rows.as_array().expect("rows").iter().map(|row| row["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&object["against"]), ["memo", "tuned"]);
    assert_eq!(names(&object["failed"]), ["notebook", "vmap"]);
    let why = object["failed"][1]["why"].as_str().expect("text");
    assert!(why.contains("vmap in libtorch: no answer within 5 s"), "{why}");
    for what in ["the others go on", "no such layer", "error: --against: ", "no answer within 5 s"] {
        assert!(said.contains(what), "no {what:?} in: {said}");
    }
    refused(memo(&args(text(&model), &["--answer-limit", "5"])), 2, &["--answer-limit", "--against"]);
}

#[test]
fn a_signal_leaves_no_folder_and_no_program() {
    let (model, places) = (model(), tempfile::tempdir().expect("a folder"));
    let [pids, temporary] = ["pids", "tmp"].map(|name| places.path().join(name));
    fs::create_dir(&temporary).expect("a folder is made");
    let answers = ANSWERS.replace("*check*)", "*check*) sleep 600 & echo $$ $! >\"$PIDS\"; wait;");
    let (_folder, python) = python(&answers);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut command = memo(&args(text(&model), &["--against", "libtorch"]));
        command.env("MEMO_PYTHON", &python).env("PIDS", &pids).env("TMPDIR", &temporary);
        signals::on_interrupt(&mut command, libc::SIG_DFL);
        let child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let started = || fs::read_to_string(&pids).ok().filter(|text| text.ends_with('\n'));
        let numbers = std::iter::repeat_with(started).find_map(|text| {
            std::thread::sleep(Duration::from_millis(20));
            text
        });
        assert_eq!(fs::read_dir(&temporary).expect("a folder").count(), 1);
        signals::send(&child, signal);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(128 + signal), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_dir(&temporary).expect("a folder").count(), 0);
        for pid in numbers.expect("two numbers").split_whitespace() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z "), "{pid} is still there: {stat}");
        }
        fs::remove_file(&pids).expect("a file is removed");
    }
}

#[test]
fn the_variant_in_rust_is_built_once_with_the_pythons_pytorch() {
    let (model, place) = (model(), tempfile::tempdir().expect("a folder"));
    let (_folder, python) = python(ANSWERS);
    let [bin, cache, program] = ["bin", "cache", "program"].map(|name| place.path().join(name));
    fs::create_dir(&bin).expect("a folder is made");
    script(&program, &format!("set -- tch \"$1\"\n{ANSWERS}"));
    let cargo = |text: &str| script(&bin.join("cargo"), text);
    let against = |search: &str| {
        let mut command =
            memo(&args(text(&model), &["--seconds", "0", "--json", "--against", "libtorch:tch"]));
        command.env("MEMO_PYTHON", &python).env("MEMO_CACHE", &cache).env("PATH", search);
        command.env("PROGRAM", &program);
        command
    };
    let search = format!("{}:/usr/bin:/bin", text(&bin));

    refused(
        against(&format!(".:{}", text(&place.path().join("none")))),
        1,
        &["libtorch:tch", "cargo", "rustup"],
    );
    cargo("echo '   Compiling tch' >&2; echo 'error: linking with cc failed' >&2; echo more >&2; exit 101");
    refused(
        against(&search),
        1,
        &["libtorch:tch", "cargo build fails: error: linking with cc failed", "cargo.log"],
    );
    // It is given the package, and the PyTorch of this very Python.
    cargo(
        "[ -f src/main.rs ] && [ -f Cargo.lock ] && [ \"$LIBTORCH\" = /a/torch ] || { echo \"error: $LIBTORCH\" >&2; exit 1; }\n\
         mkdir -p target/release && cp \"$PROGRAM\" target/release/memo-tch",
    );
    for _ in 0..2 {
        let output = against(&search).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let object: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(object["against"][1]["name"], "tch");
        // What is there is not built again.
        cargo("exit 1");
    }
    script(&python, "[ \"$1\" = -c ] && echo '2.15.0+cu132 1 /a/torch'");
    refused(against(&search), 1, &["torch 2.13.0", "it has torch 2.15.0+cu132", "make libtorch-tch"]);
}

#[test]
fn what_other_programs_cannot_do_is_an_error_that_names_it() {
    let model = model();
    let against = |python: &str, more: &[&str]| {
        let mut command = memo(&args(text(&model), &[&["--against", "libtorch"], more].concat()));
        command.env("MEMO_PYTHON", python);
        command
    };
    refused(against("/no/python", &[]), 1, &["/no/python", "make libtorch", "MEMO_PYTHON"]);
    for (answers, names) in [
        (
            "echo '{\"error\": \"model: no such layer\"}'; exit 1",
            &["reference in libtorch", "model: no such layer"][..],
        ),
        ("echo 'Segmentation fault' >&2; exit 139", &["reference in libtorch", "139", "Segmentation fault"]),
        ("echo hello", &["reference in libtorch", "hello"]),
        ("echo 5", &["reference in libtorch", "began with 5"]),
        ("echo '[]'", &["reference in libtorch", "began with []"]),
        ("echo '{\"about\": {}}'", &["reference in libtorch", "not with what it is"]),
        ("echo '{\"ready\": {}}'; read line; echo '{\"zero_shot\": 3}'", &["no logits"]),
    ] {
        let (_folder, python) = python(answers);
        refused(against(text(&python), &[]), 1, names);
    }
    for (more, names) in [
        (&["--lr", "1e-5,1e-4"][..], &["--against", "--lr"][..]),
        (&["--optimizer", "adamw"], &["--against", "--optimizer"]),
        (&["--policy", "mild"], &["--against", "--policy"]),
        (&["--steps", "2", "--against", "libtorch:implicit"], &["libtorch:implicit", "--steps"]),
    ] {
        refused(against("/no/python", more), 2, names);
    }
    refused(memo(&args(text(&model), &["--against", "jax"])), 2, &["--against", "libtorch", "notebook"]);
    assert!(!run(&args(text(&model), &["--against", "libtorch", "--stages"])).status.success());
}
