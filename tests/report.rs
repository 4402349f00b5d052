//! `memo report` as a person runs it: every form from records alone, and what it says where something is amiss.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use html5gum::{Token, Tokenizer};
use memo::check::random;
use memo::data::digest_of;
use memo::engine::Guard;
use memo::records::{Answer, Choice, Failed, Failure, Record, Row, Truth};
use serde_json::{Value, json};

const CLASSES: usize = 6;
const NAMES: [&str; CLASSES] =
    ["cat", "dog", "<script>alert(1)</script>", "a | b", "\"quoted\" & co", "truck"];

/// A choice that is right or wrong, with a truth that fits.
fn choice(label: usize, right: bool, confidence: f64) -> Choice {
    let pred = if right { label } else { (label + 1) % CLASSES };
    let own = if right { confidence } else { (1.0 - confidence) / 2.0 };
    let brier = (1.0 - own).powi(2) + if right { 0.0 } else { confidence.powi(2) };
    let truth = Truth { nll: Some(-own.ln()), rank: usize::from(!right) * 2, brier };
    Choice { pred, confidence, truth: Some(truth), guard: None }
}

/// Of `images` images, as `seed` has them answered; what is zero-shot's does not depend on it.
fn rows(images: usize, rates: usize, seed: u64) -> Vec<Row> {
    let (base, own) = (random(images, 1.0, 7), random(images * rates, 1.0, seed));
    let row = |index: usize| {
        let (label, before) = (index % CLASSES, f64::from(base[index]).abs().min(1.0));
        let zero_shot = choice(label, before < 0.6, 0.3 + 0.69 * before);
        let memo = (0..rates).map(|rate| {
            let drawn = f64::from(own[index * rates + rate]).abs().min(1.0);
            if rate == 1 && index % 50 == 7 {
                return Answer::Failed(Failed { error: "a logit is not finite".to_string() });
            }
            let right = if drawn < 0.2 { before >= 0.6 } else { before < 0.6 };
            Answer::Choice(choice(label, right, 0.3 + 0.69 * drawn))
        });
        let memo = memo.collect();
        let group = Some(format!("{}/{}", ["fog", "snow"][index * 2 / images], 1 + index % 5));
        let (file, label) = (Some(format!("{label}/{index:04}.png")), Some(label));
        let digest = digest_of(&index.to_le_bytes());
        let entropy = vec![(base[index].abs() + 0.1).min(1.7)];
        let [view_average, confident_average] = [&zero_shot; 2].map(Clone::clone);
        let mut vote = zero_shot.clone();
        vote.truth.iter_mut().filter(|truth| truth.rank > 0).for_each(|truth| truth.nll = None);
        let (memo_confident, confident_entropy, overflow) = (vec![], vec![], false);
        Row::Record(Record {
            index,
            file,
            group,
            digest,
            label,
            zero_shot,
            view_average,
            confident_average,
            vote,
            memo,
            entropy,
            memo_confident,
            confident_entropy,
            overflow,
        })
    };
    (0..images).map(row).collect()
}

/// Writes a run as `memo eval --out` does.
fn write(folder: &Path, name: &str, rows: &[Row], settings: &Value) -> PathBuf {
    let path = folder.join(name);
    let lines: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    fs::write(&path, lines.concat()).unwrap();
    fs::write(folder.join(format!("{name}.run.json")), format!("{settings:#}\n")).unwrap();
    path
}

fn settings(images: usize, rates: &[f64], seed: u64) -> Value {
    json!({ "selection": { "images": images }, "labels": NAMES, "lr": rates, "seed": seed, "views": 8 })
}

fn report(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memo"));
    command.arg("report").args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn done(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = report(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// What ends it and with which exit code.
fn refused(folder: &Path, arguments: &[&str], code: i32, wants: &[&str]) {
    let output = report(folder, arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    for want in wants {
        assert!(error.contains(want), "{arguments:?}: no {want:?} in {error}");
    }
}

#[test]
fn every_form_has_the_same_figures() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut all = rows(340, 2, 1);
    // The last are of no class, which is seen in a lower confidence.
    for row in &mut all[300..] {
        let Row::Record(record) = row else { continue };
        record.label = None;
        let stepless = [
            &mut record.zero_shot,
            &mut record.view_average,
            &mut record.confident_average,
            &mut record.vote,
        ];
        let memo = record.memo.iter_mut().filter_map(|answer| match answer {
            Answer::Choice(choice) => Some(choice),
            Answer::Failed(_) => None,
        });
        for choice in stepless.into_iter().chain(memo) {
            (choice.truth, choice.confidence) = (None, 0.25);
        }
    }
    if let Row::Record(Record { memo, .. }) = &mut all[0] {
        let Answer::Choice(choice) = &mut memo[0] else { panic!("an answer") };
        choice.guard = Some(Guard::Skipped);
    }
    let (file, label) = (Some("0/0340.png".to_string()), Some(0));
    all.push(Row::Failure(Failure { index: 340, file, group: None, label, error: "it is cut".to_string() }));
    write(folder, "run.jsonl", &all, &settings(341, &[1e-5, 1e-4], 0));
    let (printed, said) = done(folder, &["run.jsonl"]);
    let outs = ["--out", "r.html", "--out", "r.csv", "--out", "r.md", "--out", "r.json"];
    let (nothing, _) = done(folder, &[&["run.jsonl"], &outs[..]].concat());
    assert_eq!(nothing, "");
    assert!(said.contains("note: 1 image could not be read"), "{said}");

    let json: Value = serde_json::from_str(&fs::read_to_string(folder.join("r.json")).unwrap()).unwrap();
    let (of_stdout, _) = done(folder, &["run.jsonl", "--json"]);
    let mut without_pictures: Value = serde_json::from_str(&of_stdout).unwrap();
    without_pictures["runs"][0]["notes"] = json["runs"][0]["notes"].clone();
    assert_eq!(without_pictures, json);
    let run = &json["runs"][0];
    let memo = &run["predictors"][4];
    assert_eq!(
        (&memo["name"], &memo["lr"], &memo["images"]),
        (&json!("MEMO 1e-5"), &json!(1e-5), &json!(300))
    );
    assert_eq!((&run["predictors"][5]["no_answer"], &memo["skipped"]), (&json!(6), &json!(1)));
    assert_eq!(run["predictors"][3]["nll"], Value::Null);
    assert!(run["predictors"][3]["nll_infinite"].as_u64().unwrap() > 50);
    let detection = json!({ "images_of_no_class": 40, "auroc": 1.0, "fpr95": 0.0 });
    assert_eq!(memo["detection"], detection);
    // By hand, from the rows.
    let is_right = |choice: &Choice, label: Option<usize>| Some(choice.pred) == label;
    let (mut right, mut fixed, mut broken, mut brier) = (0, 0, 0, 0.0);
    for row in &all {
        let Row::Record(Record { label: label @ Some(_), zero_shot, memo, .. }) = row else { continue };
        let Answer::Choice(after) = &memo[0] else { panic!("an answer") };
        let (before, now) = (is_right(zero_shot, *label), is_right(after, *label));
        right += i32::from(now);
        fixed += i32::from(now && !before);
        broken += i32::from(before && !now);
        brier += after.truth.unwrap().brier;
    }
    let change = &memo["change"];
    assert_eq!(
        (&memo["right"], &change["fixed"], &change["broken"]),
        (&right.into(), &fixed.into(), &broken.into())
    );
    assert!((memo["brier"].as_f64().unwrap() - brier / 300.0).abs() < 1e-12);

    let accuracy = format!("{:.2} %", 100.0 * f64::from(right) / 300.0);
    let verdict = format!("MEMO 1e-5 fixed {fixed} and broke {broken} of 300 images");
    let markdown = fs::read_to_string(folder.join("r.md")).unwrap();
    let page = fs::read_to_string(folder.join("r.html")).unwrap();
    for form in [&printed, &markdown, &page] {
        assert!(form.contains(&accuracy) && form.contains(&verdict), "{accuracy} {verdict} in {form}");
    }
    assert!(markdown.starts_with(printed.trim_end().split("\n\n").next().unwrap()), "the same head");
    let table = fs::read_to_string(folder.join("r.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let head = reader.headers().unwrap().clone();
    let at = |name: &str| head.iter().position(|other| other == name).unwrap();
    let lines: Vec<_> = reader.records().map(Result::unwrap).collect();
    let own: Vec<_> = lines
        .iter()
        .filter(|line| &line[at("predictor")] == "memo" && &line[at("lr")] == "0.00001")
        .collect();
    let of = |kind: &str| own.iter().filter(|line| &line[at("of")] == kind).count();
    assert_eq!((of("all"), of("group"), of("class")), (1, 10, CLASSES));
    assert_eq!(&own[0][at("fixed")], fixed.to_string());
}

#[test]
fn of_several_rates_each_is_compared_with_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, seed, rates) in
        [("a", 1, &[1e-5, 1e-4][..]), ("b", 1, &[1e-4, 1e-3]), ("c", 1, &[1e-4]), ("d", 2, &[1e-3])]
    {
        write(folder, &format!("{name}.jsonl"), &rows(40, rates.len(), seed), &settings(40, rates, 0));
    }
    let pairs = |first: &str, second: &str| -> Vec<String> {
        let json: Value = serde_json::from_str(&done(folder, &[first, second, "--json"]).0).unwrap();
        let pairs = json["pairs"].as_array().unwrap().iter();
        let names = pairs.map(|pair| pair["predictor"].as_str().unwrap().to_string());
        names.filter(|name| name.starts_with("MEMO")).collect()
    };
    assert_eq!(pairs("a.jsonl", "b.jsonl"), ["MEMO 1e-4"]);
    assert_eq!(pairs("a.jsonl", "c.jsonl"), ["MEMO"]);
    assert_eq!(pairs("b.jsonl", "a.jsonl"), ["MEMO 1e-4"]);
    // Of a single rate each, whatever they are.
    assert_eq!(pairs("c.jsonl", "d.jsonl"), ["MEMO"]);
    assert_eq!(pairs("a.jsonl", "d.jsonl"), [""; 0]);
}

#[test]
fn a_page_is_well_formed_and_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // The images that the run saw, for pictures; one has changed since.
    let data = folder.join("data");
    let mut seen = rows(120, 1, 1);
    for (index, row) in seen.iter_mut().enumerate() {
        let Row::Record(Record { file, digest, .. }) = row else { continue };
        let path = data.join(file.as_ref().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_fn(8, 6, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, index as u8]))
            .save(&path)
            .unwrap();
        *digest = digest_of(&fs::read(&path).unwrap());
    }
    // In a folder of classes images lie by class.
    seen.sort_by_key(|row| row.file().unwrap().to_string());
    for (place, row) in seen.iter_mut().enumerate() {
        let Row::Record(record) = row else { continue };
        record.index = place;
        record.group = record.group.take().filter(|_| place != 0);
    }
    write(folder, "a.jsonl", &seen, &settings(120, &[1e-5], 0));
    let mut other = Vec::new();
    for (row, fresh) in seen.iter().zip(rows(120, 1, 2)) {
        let (Row::Record(mut record), Row::Record(fresh)) = (row.clone(), fresh) else { continue };
        record.memo = fresh.memo;
        if record.label != fresh.label {
            record.memo = vec![Answer::Choice(record.zero_shot.clone())];
        }
        other.push(Row::Record(record));
    }
    write(folder, "b.jsonl", &other, &settings(120, &[1e-5], 1));
    let (_, said) = done(folder, &["a.jsonl", "b.jsonl", "--data", "data", "--out", "page.html"]);
    assert!(!said.contains("left out"), "{said}");
    let page = fs::read_to_string(folder.join("page.html")).unwrap();
    let pictures = well_formed(&page);
    assert!(pictures > 4, "{pictures} pictures");
    for part in [
        "Side by side",
        "Stability over 2 seeds",
        "mean over severities",
        "prefers-color-scheme: dark",
        "@media print",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script"));
    assert!(!page.contains("NaN") && !page.contains("inf"), "numbers that are none");

    // Without its images, or with others, a run is reported all the same.
    done(folder, &["a.jsonl", "--out", "page.html"]);
    assert_eq!(well_formed(&fs::read_to_string(folder.join("page.html")).unwrap()), 0);
    for path in seen.iter().map(|row| data.join(row.file().unwrap())) {
        fs::write(&path, [fs::read(&path).unwrap(), vec![0]].concat()).unwrap();
    }
    let (_, said) = done(folder, &["a.jsonl", "--data", "data", "--out", "page.html"]);
    assert!(said.contains("pictures are left out") && said.contains("is another than the run's"), "{said}");
    assert_eq!(well_formed(&fs::read_to_string(folder.join("page.html")).unwrap()), 0);
}

/// Tags are closed in their order, ids are there once, links lead to them, pictures have words, and nothing is loaded.
fn well_formed(page: &str) -> usize {
    const VOID: [&str; 3] = ["meta", "img", "br"];
    let (mut open, mut ids, mut links, mut pictures) = (Vec::new(), HashSet::new(), Vec::new(), 0);
    for Ok(token) in Tokenizer::new(page) {
        match token {
            Token::StartTag(tag) => {
                let name = text(&tag.name);
                assert!(
                    !["script", "link", "iframe", "object", "embed", "base"].contains(&name.as_str()),
                    "{name}"
                );
                let attribute =
                    |name: &str| tag.attributes.get(name.as_bytes()).map(|value| text(&value.value));
                ids.extend(attribute("id").inspect(|id| assert!(!ids.contains(id), "{id} twice")));
                match attribute("href") {
                    Some(link) if link.starts_with('#') => links.push(link[1..].to_string()),
                    Some(link) => panic!("a link to {link}"),
                    None => {}
                }
                if let Some(source) = attribute("src") {
                    assert!(source.starts_with("data:image/png;base64,"), "{source:.60}");
                    assert!(attribute("alt").is_some_and(|alt| !alt.is_empty()));
                    pictures += 1;
                }
                let is_image = attribute("role").is_some_and(|role| role == "img");
                assert!(!is_image || attribute("aria-label").is_some_and(|label| label.len() > 20));
                assert!(!tag.attributes.keys().any(|name| name.starts_with(b"on")), "{name} has an event");
                if !tag.self_closing && !VOID.contains(&name.as_str()) {
                    open.push(name);
                }
            }
            Token::EndTag(tag) => {
                assert_eq!(open.pop().as_deref(), Some(&*text(&tag.name)), "a tag is closed")
            }
            Token::Error(error) => panic!("{error:?}"),
            _ => {}
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
    assert!(links.iter().all(|link| ids.contains(link)), "{links:?} lead nowhere of {ids:?}");
    let loads = ["http:", "https:", "url(", "@import", "javascript:"];
    loads.iter().for_each(|what| assert!(!page.contains(what), "{what} on the page"));
    pictures
}

#[test]
fn each_set_of_seeds_has_its_own_stability() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let names = ["a0.jsonl", "b0.jsonl", "a1.jsonl", "b1.jsonl", "c0.jsonl"];
    for (name, views, seed) in
        names.into_iter().zip([8, 16, 8, 16, 32]).zip([0, 0, 1, 1, 0]).map(|((n, v), s)| (n, v, s))
    {
        let mut settings = settings(12, &[1e-5], seed);
        settings["views"] = views.into();
        write(folder, name, &rows(12, 1, seed), &settings);
    }
    let (json, _) = done(folder, &[&names[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&json).unwrap();
    let sets: Vec<&Value> = report["seeds"].as_array().unwrap().iter().map(|of| &of["runs"]).collect();
    let (a, b) = (json!(["a0.jsonl", "a1.jsonl"]), json!(["b0.jsonl", "b1.jsonl"]));
    assert_eq!(
        sets,
        [vec![&a; 5], vec![&b; 5]].concat(),
        "of five predictors each, and none of the run that is alone"
    );
    let (text, _) = done(folder, &names);
    assert!(text.contains("MEMO by 2 seeds, b0.jsonl the first"), "{text}");
}

#[test]
fn what_is_amiss_is_said_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let all = rows(60, 1, 1);
    let run = write(folder, "run.jsonl", &all, &settings(60, &[1e-5], 0));
    refused(folder, &["none.jsonl"], 1, &["none.jsonl", "No such file"]);
    refused(folder, &["."], 1, &["it is a folder"]);
    refused(folder, &["run.jsonl", "run.jsonl"], 2, &["run.jsonl: it is named twice"]);
    refused(folder, &["run.jsonl", "--out", "report.pdf"], 2, &["report.pdf", ".html, .json, .csv or .md"]);
    refused(
        folder,
        &["run.jsonl", "--out", "run.jsonl.run.json"],
        2,
        &["settings are kept under such a name"],
    );
    refused(folder, &["run.jsonl", "--out", "no/report.md"], 1, &["no/report.md", "there is no folder"]);
    refused(folder, &["run.jsonl", "--out", "a.html", "--data", "nowhere"], 1, &["nowhere"]);
    refused(folder, &[], 2, &["RUN.jsonl"]);

    // Damaged, or of images that could not be read.
    let line = fs::read_to_string(&run).unwrap();
    fs::write(folder.join("damaged.jsonl"), line.replacen("\"rank\":0", "\"rank\":00", 5)).unwrap();
    refused(folder, &["damaged.jsonl"], 1, &["damaged.jsonl", "line 1 is no record"]);
    fs::write(folder.join("empty.jsonl"), "").unwrap();
    refused(folder, &["empty.jsonl"], 1, &["empty.jsonl", "no record"]);
    fs::write(folder.join("run.txt"), &line).unwrap();
    fs::write(folder.join("run.txt.run.json"), "[1]").unwrap();
    refused(folder, &["run.txt"], 1, &["run.txt.run.json", "no object of settings"]);
    let mut few = settings(60, &[1e-5], 0);
    few["labels"] = json!(["cat", "dog"]);
    write(folder, "few.jsonl", &all, &few);
    refused(folder, &["few.jsonl"], 1, &["few.jsonl", "the settings name 2"]);

    // Not whole, which is no mistake.
    let note = |name: &str, wants: &[&str]| {
        let (_, said) = done(folder, &[name]);
        wants.iter().for_each(|want| assert!(said.contains(want), "{want} in {said}"));
    };
    fs::write(folder.join("bare.jsonl"), &line).unwrap();
    note("bare.jsonl", &["bare.jsonl.run.json is missing"]);
    write(folder, "early.jsonl", &all[..40], &settings(60, &[1e-5], 0));
    note("early.jsonl", &["after 40 of 60 images", "--resume goes on"]);
    fs::write(folder.join("early.jsonl"), &line[..line.len() - 9]).unwrap();
    note("early.jsonl", &["ended in its line 60", "59 of 60"]);
    let writer = File::options().append(true).open(folder.join("early.jsonl")).unwrap();
    writer.try_lock().unwrap();
    note("early.jsonl", &["still going on", "59 of 60"]);

    // Of other data.
    let mut others = rows(60, 1, 1);
    if let Row::Record(record) = &mut others[3] {
        record.digest = "0123456789abcdef".to_string();
    }
    write(folder, "others.jsonl", &others, &settings(60, &[1e-5], 0));
    let (table, said) = done(folder, &["run.jsonl", "others.jsonl"]);
    assert!(said.contains("run.jsonl and others.jsonl are of different data: image 3 is another"), "{said}");
    assert!(table.contains("Runs side by side") && !table.contains("Image by image"));
}

/// What a browser says of a page: its title, once it has settled.
fn opened(chromium: &str, page: &Path) -> String {
    let options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"];
    let output = Command::new(chromium).args(options).arg(page).output().unwrap();
    let dom = text(&output.stdout);
    let (_, behind) =
        dom.split_once("<title>").unwrap_or_else(|| panic!("no title: {}", text(&output.stderr)));
    behind.split_once("</title>").unwrap().0.to_string()
}

#[test]
#[ignore = "needs Chromium: make test-report"]
fn a_page_fits_every_width() {
    let found = |name: &&&str| Command::new(**name).arg("--version").output().is_ok();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let chromium = names.iter().find(found).expect("Chromium is installed, as by apt-get install chromium");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for (name, seed) in [("a.jsonl", 1), ("a-run-with-quite-a-long-name-of-its-own-and-no-space.jsonl", 2)] {
        write(folder, name, &rows(300, 2, seed), &settings(300, &[1e-5, 1e-4], seed));
    }
    let runs = ["a.jsonl", "a-run-with-quite-a-long-name-of-its-own-and-no-space.jsonl"];
    done(folder, &[&runs[..], &["--out", "page.html"]].concat());
    let page = fs::read_to_string(folder.join("page.html")).unwrap();
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    for width in [375, 800, 1400] {
        // A frame is as wide as it is told to be, which a window is not.
        let frame = format!(
            "<!DOCTYPE html><title>-</title><iframe style=\"width:{width}px;height:900px;border:0\" srcdoc=\"{quoted}\"></iframe>\
             <script>onload = () => {{ const page = document.querySelector('iframe').contentDocument.documentElement; \
             document.title = page.clientWidth + ' ' + page.scrollWidth + ' ' + page.querySelectorAll('svg').length; }}</script>"
        );
        let path = folder.join("frame.html");
        fs::write(&path, frame).unwrap();
        let title = opened(chromium, &path);
        let numbers: Vec<usize> = title.split(' ').map(|number| number.parse().expect(&title)).collect();
        let [shown, whole, plots] = numbers[..] else { panic!("{title}") };
        assert!(whole <= shown && shown >= width - 20, "{whole} of {shown} pixels at {width}");
        assert!(plots > 10, "{plots} plots");
    }
}
