//! `memo eval --shard` and `memo merge`: what several machines do is what one does.

use crate::*;

impl Place {
    fn shard(&self, data: &Path, out: &Path, more: &[&str]) -> Command {
        let common =
            ["eval", "--model", text(&self.model), "--data", text(data), "--views", "2", "--out", text(out)];
        memo(&[&common[..], more].concat())
    }
}

#[track_caller]
fn done(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn bytes(path: &Path) -> [Vec<u8>; 2] {
    let settings = PathBuf::from(format!("{}.run.json", text(path)));
    [path, &settings].map(|path| fs::read(path).expect("a file"))
}

#[test]
fn merged_shards_are_the_run_of_one_machine() {
    let place = Place::new();
    let data = place.dataset();
    fs::write(data.join("apple/1.png"), "<html>").unwrap(); // one that cannot be read
    let [whole, merged] = ["whole.jsonl", "merged.jsonl"].map(|name| place.file(name));
    let table = done(place.shard(&data, &whole, &["--lr", "1e-5,1e-3"]));
    let parts: Vec<PathBuf> = (0..3).map(|i| place.file(&format!("{i}.jsonl"))).collect();
    for (i, part) in parts.iter().enumerate() {
        done(place.shard(&data, part, &["--lr", "1e-5,1e-3", "--shard", &format!("{i}/3"), "--batch", "1"]));
    }
    // One was killed, and went on.
    let lines = fs::read_to_string(&parts[1]).unwrap();
    fs::write(&parts[1], lines.split_inclusive('\n').next().unwrap()).unwrap();
    let names: Vec<&str> = parts.iter().map(|part| text(part)).collect();
    let merge = |names: &[&str], out: &Path| memo(&[&["merge"], names, &["--out", text(out)]].concat());
    refused(merge(&names, &merged), 1, &["1.jsonl", "shard 1/3 has 1 of its 2 images", "--resume"]);
    done(place.shard(&data, &parts[1], &["--lr", "1e-5,1e-3", "--shard", "1/3", "--resume"]));

    let [a, b, c] = names[..] else { panic!("three") };
    // On another machine the data may lie elsewhere.
    let settings = place.file("2.jsonl.run.json");
    let moved = fs::read_to_string(&settings).unwrap().replace(text(&data), "/mnt/data");
    assert!(moved.contains("\"/mnt/data\""));
    fs::write(&settings, &moved).unwrap();
    for order in [[a, b, c], [c, a, b]] {
        let got = done(merge(&order, &merged));
        assert_eq!(bytes(&merged), bytes(&whole));
        let rate = table.lines().last().unwrap();
        assert!(rate.ends_with("images/s") && table == format!("{got}{rate}\n"), "{got}\n{table}");
    }
    let json: Value = serde_json::from_str(&done(merge(&[a, b, c, "--json"], &merged))).unwrap();
    assert_eq!(
        (&json["images"], &json["failed"], &json["images_per_s"]),
        (&5.into(), &1.into(), &Value::Null)
    );
    // It goes on as the whole run.
    done(place.shard(&data, &merged, &["--lr", "1e-5,1e-3", "--resume"]));
    assert_eq!(bytes(&merged), bytes(&whole));

    // What is not the same run, or not all of it.
    let other = place.file("other.jsonl");
    done(place.shard(&data, &other, &["--lr", "1e-5,1e-3", "--shard", "2/3", "--seed", "7"]));
    let [other, w] = [&other, &whole].map(|path| text(path));
    for (files, names) in [
        (&[a, c][..], &["2 of 3 shards are there", "missing: 1/3"][..]),
        (&[a, b, c, c], &["2.jsonl and ", "are both shard 2/3"]),
        (&[a, b, other], &["other.jsonl", "different runs", "seed 0, not 7"]),
        (&[a, b, w], &["whole.jsonl", "a whole run"]),
        (&[a, b, "none.jsonl"], &["none.jsonl", "No such file"]),
    ] {
        refused(merge(files, &place.file("no.jsonl")), 1, names);
        assert!(!place.file("no.jsonl").exists());
    }
    fs::write(&settings, moved.replace("/mnt/data", "/mnt/snow")).unwrap();
    refused(merge(&names, &place.file("no.jsonl")), 1, &["2.jsonl", "different runs", "\"snow\""]);
    fs::write(&settings, moved).unwrap();
    fs::write(place.file("taken.jsonl"), "x").unwrap();
    refused(merge(&names, &place.file("taken.jsonl")), 1, &["taken.jsonl", "there already"]);
}

#[test]
fn a_shard_without_an_image_is_told_and_counted() {
    let place = Place::new();
    let data = place.dataset();
    let out = place.file("none.jsonl");
    let told = done(place.shard(&data, &out, &["--shard", "99/100", "--json"]));
    let object: Value = serde_json::from_str(&told).expect("an object");
    assert_eq!(
        (&object["images"], &object["left"], &object["clip_accuracy"]),
        (&0.into(), &0.into(), &Value::Null)
    );
}
