//! `memo sweep`: what separate evaluations give, in one go.

use crate::*;

impl Place {
    fn sweep(&self, data: &Path, more: &[&str]) -> Command {
        let common = ["sweep", "--model", text(&self.model), "--data", text(data), "--views", "2"];
        memo(&[&common[..], more].concat())
    }
}

#[track_caller]
fn done(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("one document of JSON")
}

fn file(folder: &Path, name: &str) -> [Vec<u8>; 2] {
    ["", ".run.json"].map(|end| fs::read(folder.join(format!("{name}.jsonl{end}"))).expect(name))
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jsonl"))
        .collect();
    names.sort();
    names
}

/// Of a point, from its records: images, right before, right after, fixed and broken, of those at `places`.
fn counted(folder: &Path, point: &Value, rates: &[f64], places: &[usize]) -> [usize; 5] {
    let lines = fs::read_to_string(folder.join(point["file"].as_str().unwrap())).unwrap();
    let mut counts = [0; 5];
    for record in lines
        .lines()
        .map(json)
        .filter(|record| places.contains(&(record["index"].as_u64().unwrap() as usize)))
    {
        let of_rate = rates.iter().position(|rate| point["lr"] == *rate).unwrap();
        let memo = if record["memo"].is_array() { &record["memo"][of_rate] } else { &record["memo"] };
        let [was, is] = [&record["zero_shot"], memo].map(|choice| choice["pred"] == record["label"]);
        for (count, more) in counts.iter_mut().zip([true, was, is, is && !was, was && !is]) {
            *count += usize::from(more);
        }
    }
    counts
}

#[track_caller]
fn is_counted(figures: &Value, [images, before, after, fixed, broken]: [usize; 5]) {
    let share = |count: usize| count as f64 / images as f64;
    assert_eq!(
        [&figures["images"], &figures["fixed"], &figures["broken"]],
        [&Value::from(images), &fixed.into(), &broken.into()],
        "{figures}"
    );
    assert_eq!([&figures["before"], &figures["after"]], [&Value::from(share(before)), &share(after).into()]);
    assert_eq!(figures["difference"].as_f64().unwrap(), (fixed as f64 - broken as f64) / images as f64);
}

#[test]
fn a_sweep_is_separate_evals() {
    let place = Place::new();
    let data = place.dataset();
    let [out, page] = ["sweep", "sweep.html"].map(|name| place.file(name));
    let rates = [1e-4, 1e-2];
    let grid = ["--policy", "mild,none", "--steps", "1,2", "--lr", "1e-4,1e-2", "--out", text(&out)];
    let sweep = |more: &[&str]| place.sweep(&data, &[&grid[..], more].concat());
    let table = done(sweep(&["--html", text(&page)]));
    let runs = ["steps1", "steps2-lr1e-2", "steps2-lr1e-4"];
    let want: Vec<String> =
        ["mild", "none"].iter().flat_map(|p| runs.map(|run| format!("{p}-views2-{run}.jsonl"))).collect();
    assert_eq!(names(&out), want);
    // Bit for bit, with the settings.
    let alone = place.file("alone");
    fs::create_dir(&alone).unwrap();
    for (name, flags) in [
        ("mild-views2-steps1", ["--policy", "mild", "--lr", "1e-4,1e-2", "--steps", "1"]),
        ("mild-views2-steps2-lr1e-2", ["--policy", "mild", "--lr", "1e-2", "--steps", "2"]),
    ] {
        let records = alone.join(format!("{name}.jsonl"));
        let common = ["eval", "--model", text(&place.model), "--data", text(&data), "--views", "2"];
        done(memo(&[&common[..], &flags, &["--out", text(&records)]].concat()));
        assert_eq!(file(&alone, name), file(&out, name), "{name}");
    }

    // What was interrupted goes on: one in the middle of a line, one before its first, one not begun.
    let whole: Vec<[Vec<u8>; 2]> =
        want.iter().map(|name| file(&out, name.trim_end_matches(".jsonl"))).collect();
    let path = |name: &str| out.join(name);
    fs::write(path(&want[3]), &whole[3][0][..whole[3][0].len() * 2 / 3]).unwrap();
    fs::write(path(&want[4]), "").unwrap();
    [&want[5], &format!("{}.run.json", want[5])].iter().for_each(|name| fs::remove_file(path(name)).unwrap());
    refused(sweep(&[]), 1, &["mild-views2-steps1.jsonl", "it is there already; --resume"]);
    let all = json(&done(sweep(&["--resume", "--json"])));
    let again: Vec<[Vec<u8>; 2]> =
        want.iter().map(|name| file(&out, name.trim_end_matches(".jsonl"))).collect();
    assert!(again == whole, "what has gone on is the same to the byte");
    refused(
        sweep(&["--resume", "--seed", "1"]),
        1,
        &["mild-views2-steps1.jsonl", "begun with seed 0, not 1"],
    );

    // All figures, from the records.
    let points = all["points"].as_array().unwrap();
    assert_eq!((points.len(), &all["failed"], &all["holdout"]), (8, &0.into(), &false.into()));
    for point in points {
        is_counted(point, counted(&out, point, &rates, &[0, 1, 2, 3, 4, 5]));
    }
    let after = |point: &Value| point["after"].as_f64().unwrap();
    let best = &points[all["best"]["point"].as_u64().unwrap() as usize];
    assert!(points.iter().all(|point| after(point) <= after(best)));
    assert!(
        all["best"]["warning"].as_str().unwrap().contains("flatters")
            && all["best"]["after"] == best["after"]
    );
    assert_eq!(
        table.lines().filter(|line| line.starts_with("| mild") || line.starts_with("| none")).count(),
        8
    );
    assert!(table.contains("Best on 6 images: ") && table.contains("Warning: "), "{table}");
    let page = fs::read_to_string(page).unwrap();
    assert!(
        ["<svg", "before adapting", "none, 2 views, 2 steps", "Warning: "]
            .iter()
            .all(|part| page.contains(part))
    );

    // Of three images of each class the first and the third are chosen on.
    let half = json(&done(sweep(&["--resume", "--json", "--holdout", "--batch", "1"])));
    for point in half["points"].as_array().unwrap() {
        is_counted(point, counted(&out, point, &rates, &[0, 2, 3, 5]));
    }
    let best = &half["points"][half["best"]["point"].as_u64().unwrap() as usize];
    is_counted(&half["best"], counted(&out, best, &rates, &[1, 4]));
    assert_eq!(half["best"]["warning"], Value::Null);

    // Shards' files are shards: put together, they are the whole's.
    let parts = ["0/2", "1/2"].map(|shard| {
        let folder = place.file(&format!("shard{}", &shard[..1]));
        let grid = ["--policy", "mild", "--lr", "1e-4,1e-2", "--out", text(&folder), "--shard", shard];
        done(place.sweep(&data, &grid));
        folder.join("mild-views2-steps1.jsonl")
    });
    let merged = alone.join("merged.jsonl");
    done(memo(&["merge", text(&parts[0]), text(&parts[1]), "--out", text(&merged)]));
    assert_eq!(file(&alone, "merged"), file(&out, "mild-views2-steps1"));

    // Another run's file in the folder.
    fs::rename(&merged, path("mine.jsonl")).unwrap();
    refused(sweep(&["--resume"]), 1, &["mine.jsonl in it is of no run of this grid"]);
}

#[test]
fn a_run_that_fails_takes_nothing_from_the_others() {
    let place = Place::new();
    let data = place.dataset();
    let sweep = |more: &[&str]| {
        place.sweep(&data, &[&["--first", "1", "--steps", "2", "--lr", "1e30,1e-3", "--json"], more].concat())
    };
    let output = sweep(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("error: 1 of 2 runs have failed"), "{said}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [failed, good] = [&all["points"][0], &all["points"][1]];
    assert!(
        failed["error"].as_str().unwrap().contains("first 1 images") && failed["after"] == Value::Null,
        "{failed}"
    );
    assert!(good["error"] == Value::Null && good["images"] == 1 && all["best"]["point"] == 1, "{all}");
    refused(sweep(&["--strict"]), 1, &["steps2-lr1e30", "image 0"]);
}

#[test]
fn bad_grids_are_refused_by_name() {
    let place = Place::new();
    let (data, file) = (place.dataset(), place.write("file", "text"));
    for (flags, want) in [
        ("--lr 1e-3,0.001", &["--lr: 1e-3 is there twice"][..]),
        ("--steps 2,1,2", &["--steps: 2 is there twice"]),
        ("--policy mild,none,mild", &["--policy: mild is there twice"]),
        ("--policy mild,nothing", &["--policy", "`nothing`: no such name"]),
        ("--lr 1e-3,1e40", &["--lr", "largest number"]),
        ("--lr 1e-3,", &["--lr"]),
        ("--lr=", &["--lr"]),
        ("--steps 0", &["--steps"]),
        ("--steps 1,2 --update implicit", &["--update implicit --steps 2"]),
        ("--html page.txt", &["--html page.txt", ".html"]),
        ("--resume", &["--resume", "--out"]),
    ] {
        refused(place.sweep(&data, &flags.split(' ').collect::<Vec<_>>()), 2, want);
    }
    refused(place.sweep(&data, &["--out", text(&file)]), 1, &["--out", "it is no folder"]);
    // What could not begin leaves nothing.
    let folder = place.file("new");
    refused(place.sweep(&place.file("no data"), &["--out", text(&folder)]), 1, &["no data"]);
    assert!(!folder.exists());
}
