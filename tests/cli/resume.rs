//! `memo eval --out`: bad images, runs that go on, and files that are not as a run has left them.

use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::*;

impl Place {
    /// `memo eval` of two views on these data, to this file.
    fn eval(&self, data: &Path, out: &Path, more: &[&str]) -> Command {
        let common = ["eval", "--model", text(&self.model), "--data", text(data), "--views", "2"];
        memo(&[&common[..], &["--out", text(out)], more].concat())
    }
}

#[track_caller]
fn succeed(mut command: Command) -> (String, String) {
    let output = command.output().expect("the program starts");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert!(output.status.success(), "{command:?}: {stderr}");
    (stdout, stderr)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}

#[test]
fn a_bad_image_is_recorded_and_tried_again() {
    let place = Place::new();
    let data = place.dataset();
    let [whole, out] = ["whole.jsonl", "run.jsonl"].map(|name| place.file(name));
    succeed(place.eval(&data, &whole, &[]));
    let want: Vec<String> = read(&whole).lines().map(str::to_string).collect();
    assert!(want[1].starts_with(r#"{"index":1,"file":"apple/1.png","digest":""#), "{}", want[1]);

    let [cut, gone] = ["apple/1.png", "chimpanzee/0.png"].map(|name| data.join(name));
    let good = [&cut, &gone].map(|path| fs::read(path).unwrap());
    fs::write(&cut, &good[0][..good[0].len() / 2]).unwrap();
    fs::write(&gone, "<html>").unwrap();
    for batch in ["1", "4"] {
        fs::remove_file(&out).ok();
        let (table, said) = succeed(place.eval(&data, &out, &["--batch", batch]));
        assert!(table.contains("2 of 6 images could not be read"), "{table}");
        assert!(
            said.contains("image 1 (apple/1.png)") && said.contains("image 3 (chimpanzee/0.png)"),
            "{said}"
        );
        let got = read(&out);
        let lines: Vec<&str> = got.lines().collect();
        assert!((0..6).all(|i| i == 1 || i == 3 || lines[i] == want[i]) && lines.len() == 6, "{got}");
        let failure: Value = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(
            (&failure["index"], &failure["file"], &failure["label"]),
            (&1.into(), &"apple/1.png".into(), &0.into())
        );
        let error = failure["error"].as_str().unwrap();
        assert!(
            !error.is_empty() && !error.contains(text(&data)),
            "where the data lies does not matter: {error}"
        );
    }
    let failures = read(&out);
    let (json, _) = succeed(place.eval(&data, &out, &["--resume", "--json"]));
    let summary: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&summary["images"], &summary["failed"], &summary["left"]), (&4.into(), &2.into(), &0.into()));
    assert_eq!(read(&out), failures, "nothing has changed");
    refused(
        place.eval(&data, &place.file("strict.jsonl"), &["--strict"]),
        1,
        &["error: reading image 1 (apple/1.png): "],
    );
    assert_eq!(read(&place.file("strict.jsonl")).lines().collect::<Vec<_>>(), want[..1]);

    // One that is mended is taken up; one that is removed stays what it was, and those behind it stay where they were.
    fs::write(&cut, &good[0]).unwrap();
    fs::remove_file(&gone).unwrap();
    let (table, _) = succeed(place.eval(&data, &out, &["--resume"]));
    assert!(table.contains("1 of 6 images could not be read"), "{table}");
    let got = read(&out);
    let lines: Vec<&str> = got.lines().collect();
    assert!((0..6).all(|i| i == 3 || lines[i] == want[i]) && lines.len() == 6, "{got}");
    assert!(lines[3].contains("\"chimpanzee/0.png\"") && lines[3].contains("No such file"), "{got}");
    fs::write(&gone, &good[1]).unwrap();
    succeed(place.eval(&data, &out, &["--resume"]));
    assert_eq!(read(&out), read(&whole));

    // A named pipe is not waited for.
    fs::remove_file(&cut).unwrap();
    assert!(Command::new("mkfifo").arg(&cut).status().unwrap().success());
    let (_, said) = succeed(place.eval(&data, &place.file("fifo.jsonl"), &[]));
    assert!(said.contains("left out: ") && said.contains("apple/1.png: no plain file"), "{said}");
}

#[test]
fn a_run_without_one_good_image_has_failed() {
    let place = Place::new();
    let data = place.dataset();
    for class in ["apple", "chimpanzee"] {
        (0..3).for_each(|i| fs::write(data.join(class).join(format!("{i}.png")), "no picture").unwrap());
    }
    let out = place.file("run.jsonl");
    refused(place.eval(&data, &out, &[]), 1, &["none of 6 images could be read"]);
    assert_eq!(read(&out).lines().filter(|line| line.contains("\"error\"")).count(), 6);
}

#[test]
fn only_what_changes_results_is_refused() {
    let place = Place::new();
    let data = place.dataset();
    let [whole, out] = ["whole.jsonl", "run.jsonl"].map(|name| place.file(name));
    succeed(place.eval(&data, &whole, &[]));
    succeed(place.eval(&data, &out, &["--first", "4"]));
    let resume = |more: &[&str]| place.eval(&data, &out, &[&["--resume"], more].concat());
    let four = read(&out);
    refused(
        resume(&["--first", "3"]),
        1,
        &["run.jsonl", "line 4", "image 3 (chimpanzee/0.png)", "among the 3 images"],
    );

    // Of images that there are no results for yet nothing is known: another file at the end is nothing to refuse.
    let last = data.join("chimpanzee/2.png");
    let bytes = fs::read(&last).unwrap();
    fs::rename(&last, data.join("chimpanzee/9.png")).unwrap();
    succeed(resume(&["--first", "5"]));
    assert!(read(&out).starts_with(&four) && read(&out).lines().count() == 5);
    fs::rename(data.join("chimpanzee/9.png"), &last).unwrap();
    succeed(resume(&[]));
    assert_eq!(read(&out), read(&whole));

    // Another picture of the same name and size, another name, one that is gone, one more before it.
    let (second, moved) = (data.join("apple/1.png"), data.join("apple/1b.png"));
    let good = fs::read(&second).unwrap();
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&second, other).unwrap();
    refused(resume(&[]), 1, &["line 2", "image 1 (apple/1.png)", "has changed since"]);
    fs::write(&second, &good).unwrap();
    fs::rename(&second, &moved).unwrap();
    refused(resume(&[]), 1, &["line 2", "image 1 (apple/1.png)", "apple/1b.png is in its place"]);
    fs::remove_file(&moved).unwrap();
    refused(resume(&[]), 1, &["line 2", "image 1 (apple/1.png)", "apple/2.png is in its place"]);
    fs::write(&second, &good).unwrap();
    fs::write(data.join("apple/0a.png"), &bytes).unwrap();
    refused(resume(&[]), 1, &["line 2", "apple/0a.png is in its place"]);
    fs::remove_file(data.join("apple/0a.png")).unwrap();
    succeed(resume(&[]));
    fs::remove_file(&last).unwrap();
    refused(resume(&[]), 1, &["line 6", "the data, of 5 images, ends before image 5 (chimpanzee/2.png)"]);
    fs::write(&last, &bytes).unwrap();

    // The model by its file, all else by its field.
    let weights = place.model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let other = place.model_with("other", "model.safetensors", &bytes);
    let of_other = ["eval", "--model", text(&other), "--data", text(&data), "--views", "2"];
    refused(
        memo(&[&of_other[..], &["--out", text(&out), "--resume"]].concat()),
        1,
        &["another model.safetensors"],
    );
    refused(resume(&["--views", "3"]), 2, &["--views"]);
    refused(resume(&["--prompt", "{}"]), 1, &["begun with prompt \"a photo of a {}\", not \"{}\""]);
    let names = place.write("names.txt", "apple=apple\nchimpanzee=willow_tree\n");
    refused(
        resume(&["--labels", text(&names)]),
        1,
        &["begun with labels[1] \"chimpanzee\", not \"willow_tree\""],
    );
    assert_eq!(read(&out), read(&whole), "nothing is lost");
}

#[test]
fn lines_that_no_run_has_written_are_refused_by_number() {
    let place = Place::new();
    let (data, out) = (place.dataset(), place.file("run.jsonl"));
    succeed(place.eval(&data, &out, &[]));
    let whole = read(&out);
    let third = whole.lines().nth(2).unwrap().to_string() + "\n";
    let confidence = third.split("\"confidence\":").nth(1).unwrap().split(',').next().unwrap();
    let entropy = third.split("\"entropy\":[").nth(1).unwrap().split(']').next().unwrap();
    for (from, to, want) in [
        ("\"label\":0", "\"label\":7", "label 7 of 2 classes"),
        ("\"pred\":", "\"pred\":1", "of 2"),
        (confidence, "7.5", "confidence of 7.5"),
        (confidence, "-0.5", "confidence of -0.5"),
        (confidence, "0.25", "confidence of 0.25 among 2 classes"),
        (entropy, "9.5", "entropy of 9.5 among 2 classes"),
        ("\"entropy\":[", "\"entropy\":[0.5,", "2 entropies of 1 steps"),
        ("\"entropy\":[", "\"entropy\":[NaN,", "is no record"),
        ("\n", "\r\n", "CRLF"),
        ("{\"index\":2", "{\"index\":1", "image 1 again"),
    ] {
        let wrong = third.replacen(from, to, 1);
        assert_ne!(wrong, third);
        place.write("run.jsonl", whole.replacen(&third, &wrong, 1));
        refused(place.eval(&data, &out, &["--resume"]), 1, &["run.jsonl", "line 3", want]);
    }
    place.write("run.jsonl", &whole);
    let run = place.file("run.jsonl.run.json");
    let settings = fs::read(&run).unwrap();
    fs::write(&run, "[]").unwrap();
    refused(place.eval(&data, &out, &["--resume"]), 1, &["run.jsonl.run.json", "no object"]);
    fs::write(&run, settings).unwrap();
    assert_eq!(read(&out), whole);
}

#[test]
fn what_is_there_already_is_told_at_once() {
    let place = Place::new();
    let out = place.write("precious.jsonl", "something\n");
    // Before the model, or the data, is so much as looked for.
    let nothing = place.file("no model");
    let args = ["eval", "--model", text(&nothing), "--data", text(&nothing), "--out", text(&out)];
    refused(memo(&args), 1, &["precious.jsonl", "it is there already", "--resume"]);
    let lock = fs::File::open(&out).unwrap();
    lock.lock().unwrap();
    refused(memo(&[&args[..], &["--resume"]].concat()), 1, &["precious.jsonl", "another process"]);
    assert_eq!(read(&out), "something\n");
    let settings = place.file("other.run.json");
    let args = ["eval", "--model", text(&nothing), "--data", text(&nothing), "--out", text(&settings)];
    refused(memo(&args), 1, &["other.run.json", "a run's settings are kept under such a name"]);
    let nowhere = place.file("nowhere/run.jsonl");
    let args = ["eval", "--model", text(&nothing), "--data", text(&nothing), "--out", text(&nowhere)];
    refused(memo(&args), 1, &["there is no folder", "nowhere; make it first"]);
    // What is refused later leaves no file that was not there.
    let new = place.file("new.jsonl");
    refused(
        memo(&["eval", "--model", text(&nothing), "--data", text(&nothing), "--out", text(&new)]),
        1,
        &["no model"],
    );
    assert!(!new.exists());
}

#[test]
fn links_are_written_through() {
    let place = Place::new();
    let (data, whole) = (place.dataset(), place.file("whole.jsonl"));
    succeed(place.eval(&data, &whole, &[]));
    let (link, folder) = (place.file("link.jsonl"), place.file("elsewhere"));
    fs::create_dir(&folder).unwrap();
    symlink("elsewhere/run.jsonl", &link).unwrap();
    succeed(place.eval(&data, &link, &["--first", "2"]));
    succeed(place.eval(&data, &link, &["--resume"]));
    assert!(link.is_symlink() && folder.join("run.jsonl.run.json").exists());
    assert_eq!(read(&folder.join("run.jsonl")), read(&whole));
}

#[test]
fn stdout_has_records_alone_if_it_has_any() {
    let place = Place::new();
    let (data, whole) = (place.dataset(), place.file("whole.jsonl"));
    succeed(place.eval(&data, &whole, &[]));
    let (stdout, stderr) = succeed(place.eval(&data, Path::new("/dev/stdout"), &[]));
    assert_eq!(stdout, read(&whole));
    assert!(stderr.contains("zero-shot") && stderr.contains("McNemar"), "{stderr}");

    // A file that stdout goes to is neither emptied nor written over.
    let into = place.write("into.txt", "before\n");
    let mut command = place.eval(&data, Path::new("/dev/stdout"), &[]);
    command.stdout(fs::OpenOptions::new().append(true).open(&into).unwrap()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    assert_eq!(read(&into), "before\n".to_string() + &read(&whole));
    let same = place.write("same.jsonl", "");
    let mut command = place.eval(&data, &same, &[]);
    command.stdout(fs::OpenOptions::new().append(true).open(&same).unwrap());
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("stdout goes to the same file"), "{said}");

    // A FIFO has the records as they come, and nothing to go on from.
    let fifo = place.file("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let reader = Command::new("cat").arg(&fifo).stdout(Stdio::piped()).spawn().unwrap();
    let (table, _) = succeed(place.eval(&data, &fifo, &[]));
    let got = reader.wait_with_output().unwrap().stdout;
    assert!(got == fs::read(&whole).unwrap() && table.contains("McNemar"), "{table}");
    assert!(!place.file("fifo.run.json").exists());
    refused(place.eval(&data, Path::new("/dev/stdout"), &["--resume"]), 1, &["/dev/stdout", "no plain file"]);
}

/// Images that take long enough to be stopped among.
fn many(place: &Place) -> PathBuf {
    let data = place.file("many");
    for class in ["apple", "chimpanzee"] {
        fs::create_dir_all(data.join(class)).unwrap();
        (0..20).for_each(|i| picture(i).save(data.join(class).join(format!("{i:02}.png"))).unwrap());
    }
    data
}

/// Waits until a run has written some lines.
fn await_lines(out: &Path, lines: usize) {
    for _ in 0..3000 {
        if fs::read_to_string(out).is_ok_and(|text| text.lines().count() >= lines) {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{} has no {lines} lines", out.display());
}

#[test]
fn a_killed_run_goes_on_to_the_same_file() {
    let place = Place::new();
    let (data, whole, out) = (many(&place), place.file("whole.jsonl"), place.file("run.jsonl"));
    succeed(place.eval(&data, &whole, &[]));
    // Two that are tried again later.
    let bad = [3, 25].map(|i| data.join(["apple", "chimpanzee"][i / 20]).join(format!("{:02}.png", i % 20)));
    let good = [0, 1].map(|i| fs::read(&bad[i]).unwrap());
    bad.iter().for_each(|path| fs::write(path, "cut").unwrap());
    let mut lines = 1;
    loop {
        let mut run = place
            .eval(&data, &out, &["--resume", "--batch", "1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Another process is refused at once, whatever it is up to.
        if lines == 1 {
            await_lines(&out, lines);
            refused(place.eval(&data, &out, &["--resume"]), 1, &["run.jsonl", "another process"]);
            refused(place.eval(&data, &out, &[]), 1, &["run.jsonl", "another process"]);
        }
        lines += 10;
        if lines > 40 {
            assert!(run.wait().unwrap().success());
            break;
        }
        await_lines(&out, lines);
        run.kill().unwrap();
        run.wait().unwrap();
    }
    assert_eq!(read(&out).lines().filter(|line| line.contains("\"error\"")).count(), 2);
    bad.iter().zip(good).for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    succeed(place.eval(&data, &out, &["--resume"]));
    assert_eq!(read(&out), read(&whole));
}

#[test]
fn a_file_that_is_changed_under_a_run_is_an_error() {
    let place = Place::new();
    let data = many(&place);
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("it was removed", |path| fs::remove_file(path).unwrap()),
        ("has taken its place", |path| {
            fs::write(path.with_extension("new"), "{}\n").unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("it was cut to", |path| fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap()),
    ];
    for (want, change) in changes {
        let out = place.file("run.jsonl");
        fs::remove_file(&out).ok();
        let mut command = place.eval(&data, &out, &["--batch", "1"]);
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        await_lines(&out, 2);
        change(&out);
        let output = run.wait_with_output().unwrap();
        let [table, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(
            output.status.code() == Some(1) && said.contains("error: writing") && said.contains(want),
            "{said}"
        );
        assert!(table.contains("McNemar"), "what was computed is told all the same: {table}");
    }
}
