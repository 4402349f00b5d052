//! Signals, and a stdout or stderr that is closed, full, or read no more.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Stdio};

use crate::*;

const SIGNALS: [(i32, &str, i32); 2] = [(libc::SIGINT, "SIGINT", 130), (libc::SIGTERM, "SIGTERM", 143)];

/// Forty images, two at a time.
struct Run {
    place: Place,
    data: PathBuf,
}

impl Run {
    fn new() -> Run {
        let place = Place::new();
        let data = place.file("many");
        for class in ["apple", "chimpanzee"] {
            fs::create_dir_all(data.join(class)).unwrap();
            (0..20).for_each(|i| picture(i).save(data.join(class).join(format!("{i:02}.png"))).unwrap());
        }
        Run { place, data }
    }

    fn eval(&self, out: &Path, more: &[&str]) -> Command {
        self.eval_at(out, "2", "2", more)
    }

    fn eval_at(&self, out: &Path, views: &str, batch: &str, more: &[&str]) -> Command {
        let common = ["eval", "--model", text(&self.place.model), "--data", text(&self.data)];
        let sizes = ["--views", views, "--batch", batch, "--out", text(out)];
        let mut command = memo(&[&common[..], &sizes, more].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Whoever runs the tests in the background may have it ignored, and what is ignored stays so.
        on_interrupt(&mut command, libc::SIG_DFL);
        command
    }
}

/// What SIGINT does to a program when it starts.
pub fn on_interrupt(command: &mut Command, action: libc::sighandler_t) {
    // SAFETY: signal() may be called between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGINT, action);
            Ok(())
        });
    }
}

pub fn send(child: &Child, signal: i32) {
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn a_signal_ends_a_run_in_order() {
    let run = Run::new();
    let whole = run.place.file("whole.jsonl");
    assert!(run.eval(&whole, &[]).output().unwrap().status.success());
    let want = fs::read_to_string(whole).unwrap();
    for (signal, name, code) in SIGNALS {
        let out = run.place.file(name);
        let child = run.eval(&out, &["--json"]).spawn().unwrap();
        while fs::read_to_string(&out).unwrap_or_default().lines().count() < 3 {
            std::thread::yield_now();
        }
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let kept = fs::read_to_string(&out).unwrap();
        let lines = kept.lines().count();
        assert!(want.starts_with(&kept) && kept.ends_with('\n') && lines < 40, "{lines}");
        assert!(said.contains(&format!("ended by {name} after {lines} of 40 images")), "{said}");
        assert!(said.contains("--resume goes on") && !said.contains("error"), "{said}");
        let totals: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&totals["images"], &totals["left"]), (&lines.into(), &(40 - lines).into()));
        assert!(run.eval(&out, &["--resume"]).output().unwrap().status.success());
        assert_eq!(fs::read_to_string(&out).unwrap(), want);
    }

    // On several devices, and a second time.
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    let out = run.place.file("several");
    let mut several = run.eval(&out, &["--device", "virtual:all"]);
    let child = several.env("VCUDA_DEVICES", "2").spawn().unwrap();
    while fs::read_to_string(&out).unwrap_or_default().lines().count() < 3 {
        std::thread::yield_now();
    }
    send(&child, libc::SIGINT);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let kept = fs::read_to_string(&out).unwrap();
    assert!(want.starts_with(&kept) && kept.ends_with('\n'));
    assert!(run.eval(&out, &["--resume"]).output().unwrap().status.success());
    assert_eq!(fs::read_to_string(&out).unwrap(), want);
}

#[test]
fn a_second_signal_ends_at_once() {
    let run = Run::new();
    let out = run.place.file("run.jsonl");
    // One batch that takes longer than anybody would wait.
    let mut command = run.eval_at(&out, "2000", "auto", &["--first", "9"]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    // Signals are heard once the run has begun: its settings are written then.
    while !run.place.file("run.jsonl.run.json").exists() {
        std::thread::yield_now();
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    send(&child, libc::SIGINT);
    let mut line = String::new();
    while !line.contains("SIGINT") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "stderr has ended");
    }
    assert!(line.contains("SIGINT") && line.contains("once more"), "{line}");
    send(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    said.read_to_string(&mut line).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
}

#[test]
fn a_signal_that_is_ignored_stays_so() {
    let run = Run::new();
    let out = run.place.file("run.jsonl");
    let mut command = run.eval(&out, &[]);
    on_interrupt(&mut command, libc::SIG_IGN);
    let child = command.spawn().unwrap();
    while fs::read_to_string(&out).unwrap_or_default().lines().count() < 3 {
        std::thread::yield_now();
    }
    send(&child, libc::SIGINT);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 40);
}

#[test]
fn nobody_needs_to_hear_notices() {
    let place = Place::new();
    let data = place.dataset();
    fs::write(data.join("apple/1.png"), "no picture").unwrap();
    let eval = |out: &str| {
        let out = place.file(out);
        let args = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2", "--out"];
        memo(&[&args[..], &[text(&out)]].concat())
    };
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert!(eval("full").stdout(Stdio::null()).stderr(full()).status().unwrap().success());

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(eval("gone").stdout(Stdio::null()).stderr(writer).status().unwrap().success());

    let mut closed = eval("closed");
    // SAFETY: close() may be called between fork and exec.
    unsafe {
        closed.pre_exec(|| {
            libc::close(1);
            libc::close(2);
            Ok(())
        });
    }
    assert!(closed.status().unwrap().success());
    for name in ["full", "gone", "closed"] {
        assert_eq!(fs::read_to_string(place.file(name)).unwrap().lines().count(), 6, "{name}");
    }

    // A result that cannot be written is an error; one that nobody reads is the end.
    let output = eval("unread").stdout(full()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("error: writing to stdout"), "{said}");
    for args in [&["--help"][..], &["inspect", text(&place.model)]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = memo(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.signal(), &output.stderr[..]), (Some(libc::SIGPIPE), &b""[..]), "{args:?}");
        let output = memo(args).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    let mut records = memo(&["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2"]);
    let mut records =
        records.args(["--out", "/dev/stdout"]).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(&reader).read_line(&mut line).unwrap();
    assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    drop(reader);
    records.wait().unwrap();
}

#[test]
fn predict_goes_on_after_a_bad_image() {
    let place = Place::new();
    let (cut, other) = (place.write("cut.png", "no picture"), place.file("other.png"));
    picture(9).save(&other).unwrap();
    let args =
        ["predict", "--json", "--model", text(&place.model), "--labels", text(&place.labels), "--views", "2"];
    let args = [&args[..], &[text(&place.image), text(&cut), text(&other), "/nowhere.png"]].concat();
    let output = run(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cut.png") && said.contains("2 of 4 images could not be read"), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 4, "{printed}");
    assert!(objects[1]["error"].as_str().unwrap().contains("cut.png") && objects[3]["error"].is_string());
    // Its views are those of its place among the images.
    fs::write(&cut, fs::read(&place.image).unwrap()).unwrap();
    let whole = run(&args).stdout;
    let whole = String::from_utf8_lossy(&whole);
    let lines = |of: &str| [0, 2].map(|i| of.lines().nth(i).unwrap().to_string());
    assert_eq!(lines(&printed), lines(&whole));
    let text_alone = stdout_of_failed(&args);
    assert!(text_alone.matches("zero-shot").count() == 3, "{text_alone}");
}

/// What is printed as text, though one image is missing.
fn stdout_of_failed(args: &[&str]) -> String {
    let args: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--json").collect();
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stdout).unwrap()
}
