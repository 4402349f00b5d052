//! Which images are evaluated, and by which names.

use crate::*;

/// Folders 1, 10 and 2 of two images each, one hidden file among them.
fn numbered(place: &Place) -> PathBuf {
    let data = place.file("numbered");
    for (class, first) in [("1", 0), ("10", 10), ("2", 20)] {
        fs::create_dir_all(data.join(class)).unwrap();
        (0..2).for_each(|i| picture(first + i).save(data.join(class).join(format!("{i}.png"))).unwrap());
    }
    fs::write(data.join("1/._0.png"), "a macOS resource").unwrap();
    data
}

fn eval(place: &Place, data: &Path, more: &[&str]) -> Command {
    let common = ["eval", "--model", text(&place.model), "--data", text(data), "--views", "2", "--json"];
    memo(&[&common[..], more].concat())
}

/// What a run says on stderr, and the index and class of its records.
fn evaluated(place: &Place, data: &Path, more: &[&str]) -> (String, Vec<(u64, u64)>) {
    let out = place.file("run.jsonl");
    fs::remove_file(&out).ok();
    let output = eval(place, data, &[&["--out", text(&out)], more].concat()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let record = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        (record["index"].as_u64().unwrap(), record["label"].as_u64().unwrap())
    };
    (stderr, fs::read_to_string(out).unwrap().lines().map(record).collect())
}

#[test]
fn images_are_chosen_and_keep_their_index() {
    let place = Place::new();
    let data = numbered(&place);
    let whole: Vec<(u64, u64)> = (0..6).map(|index| (index, index / 2)).collect();
    let (stderr, records) = evaluated(&place, &data, &[]);
    assert_eq!(records, whole);
    assert!(stderr.contains("._0.png: hidden") && stderr.contains("names are numbers"), "{stderr}");
    assert_eq!(evaluated(&place, &data, &["--first", "3"]).1, whole[..3]);
    let (_, sample) = evaluated(&place, &data, &["--limit", "3"]);
    assert_eq!(sample.iter().map(|(_, class)| *class).collect::<Vec<_>>(), [0, 1, 2], "one of each class");
    assert!(sample.iter().all(|record| whole.contains(record)));
    assert_eq!(evaluated(&place, &data, &["--limit", "3"]).1, sample);
    let others =
        (1..20).map(|seed| evaluated(&place, &data, &["--limit", "3", "--seed", &seed.to_string()]).1);
    assert!(others.into_iter().any(|other| other != sample), "the seed chooses");
    refused(eval(&place, &data, &["--limit", "3", "--first", "3"]), 2, &["--limit", "--first"]);
}

#[test]
fn names_are_shown_or_refused() {
    let place = Place::new();
    let data = numbered(&place);
    let (stderr, _) = evaluated(&place, &data, &["--labels", text(&place.labels)]);
    let header = "3 classes, folders by number: 1 = apple, 10 = willow_tree, 2 = chimpanzee";
    assert!(stderr.contains(header), "{stderr}");
    let json = place.write("labels.json", r#"{"1": "bee", "2": "bear", "10": "bed", "11": "bus"}"#);
    let (stderr, _) = evaluated(&place, &data, &["--labels", text(&json), "--labels-for", "10=big bed"]);
    assert!(stderr.contains("1 = bee, 10 = big bed, 2 = bear"), "{stderr}");

    let data = place.dataset();
    let other = place.write("other.txt", "apple\nmonkey\n");
    refused(
        eval(&place, &data, &["--labels", text(&other)]),
        1,
        &["other.txt", "monkey is name 2", "--labels-for"],
    );
    refused(eval(&place, &data, &["--labels-for", "apple"]), 2, &["FOLDER=NAME"]);
    for none in ["*.gif", "", "gif,"] {
        refused(
            eval(&place, &data, &["--extensions", none]),
            2,
            &["--extensions", "the end of a name is expected"],
        );
    }
    refused(memo(&["bench", "--model", text(&place.model), "--labels", text(&other)]), 2, &["--data"]);
}

#[test]
fn prompts_fit_or_are_refused() {
    let place = Place::new();
    let long = format!("{} {{}}", "very ".repeat(90));
    refused(
        place.predict(&place.model, &["--prompt", &long]),
        1,
        &["\"apple\"", "93 tokens", "77", "--truncate"],
    );
    let output = place.predict(&place.model, &["--prompt", &long, "--truncate"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ids = place.write("ids.txt", "n01440764\nn00000001\n");
    refused(place.predict(&place.model, &["--labels", text(&ids)]), 1, &["n00000001 is a WordNet id"]);
}
