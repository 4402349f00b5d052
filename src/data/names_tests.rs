//! Tables of classes, files of names, and what becomes of them.

use anyhow::Result;

use super::folder::Files;
use super::names::{Named, alone, find};
use super::{Classes, Dataset, imagenet, labels};

fn dataset(classes: Classes, names: &[&str]) -> Dataset {
    Dataset::new(names.iter().map(|name| name.to_string()).collect(), classes, Files::default())
}

fn folders(names: &[&str]) -> Dataset {
    dataset(Classes::Folders, names)
}

fn found(dataset: &Dataset, text: &str, pairs: &[(&str, &str)]) -> Result<Named> {
    let labels = labels::parse(text.as_bytes()).unwrap();
    let pairs: Vec<_> = pairs.iter().map(|(class, name)| (class.to_string(), name.to_string())).collect();
    find(dataset, Some(&labels), &pairs)
}

#[test]
fn names_find_their_classes() {
    let pets = || folders(&["aquarium_fish", "cat", "dog"]);
    for (dataset, text, want) in [
        (pets(), "dog\nAquarium Fish\ncat", ["Aquarium Fish", "cat", "dog"]),
        (
            pets(),
            r#"{"dog": "hound", "cat": "cat", "aquarium_fish": "fish", "bird": "bird"}"#,
            ["fish", "cat", "hound"],
        ),
        (pets(), r#"{"dog": 0, "cat": 1, "aquarium_fish": 2}"#, ["aquarium_fish", "cat", "dog"]),
        (pets(), "fish\ncat\nbig dog", ["fish", "cat", "big dog"]),
        (folders(&["001.Cat", "002.Dog", "003.Fish"]), "cat\ndog\nfish", ["cat", "dog", "fish"]),
        (folders(&["1", "10", "2"]), r#"{"1": "one", "2": "two", "10": "ten"}"#, ["one", "ten", "two"]),
        (
            folders(&["0", "1", "2"]),
            r#"{"0": ["x", "zero"], "1": ["y", "one"], "2": ["z", "two"]}"#,
            ["zero", "one", "two"],
        ),
        (
            folders(&["x", "y", "z"]),
            r#"{"0": ["z", "two"], "1": ["y", "one"], "2": ["x", "zero"]}"#,
            ["zero", "one", "two"],
        ),
        (dataset(Classes::Numbers, &["a", "b", "c"]), "x\ny\nz", ["x", "y", "z"]),
        (dataset(Classes::Numbers, &["a", "b", "c"]), "c\na\nb", ["a", "b", "c"]),
        (dataset(Classes::Numbers, &["a", "b", "c"]), r#"{"2": "z", "1": "y", "0": "x"}"#, ["x", "y", "z"]),
        (dataset(Classes::Numbers, &["a", "b", "c"]), "x\nx\nz", ["x", "x", "z"]),
    ] {
        assert_eq!(found(&dataset, text, &[]).unwrap().names, want, "{text}");
    }
}

#[test]
fn numbers_count() {
    let numbered = |begin: &str, from: usize| {
        let mut names: Vec<String> = (from..from + 12).map(|number| format!("{begin}{number}")).collect();
        names.sort();
        Dataset::new(names, Classes::Folders, Files::default())
    };
    let text: Vec<String> = (0..12).map(|number| format!("name of {number}")).collect();
    for (begin, from) in [("", 0), ("", 1), ("", 95), ("c", 0), ("class_", 1)] {
        let dataset = numbered(begin, from);
        let named = found(&dataset, &text.join("\n"), &[]).unwrap();
        for (own, name) in dataset.labels().iter().zip(&named.names) {
            let number: usize = own[begin.len()..].parse().unwrap();
            assert_eq!(*name, format!("name of {}", number - from));
        }
        assert!(named.header(&dataset).starts_with("12 classes, folders by number: "));
    }
    let error = found(&folders(&["01", "1", "2"]), "a\nb\nc", &[]).unwrap_err().to_string();
    assert!(error.contains("a is name 1, and folder 1"), "{error}");
}

#[test]
fn what_cannot_be_told_is_refused() {
    let pets = folders(&["cat", "dog", "fish"]);
    for (text, want) in [
        ("cat\nhound\nsalmon", "hound is name 2, and folder 2 in the order of their names is dog"),
        ("cat\ndog", "2 labels for a dataset of 3 classes"),
        ("fish\ncat\nhound", "but none is that of dog, and no class's are hound"),
        (r#"{"cat": "tom", "fish": "salmon"}"#, "names for 2 of 3 folders, and none for dog"),
        (r#"{"a": "tom", "b": "salmon"}"#, "none of its keys is a class"),
    ] {
        let error = found(&pets, text, &[]).expect_err(want).to_string();
        assert!(error.contains(want), "{error}");
    }
    let bears = folders(&["black_bear", "brown_bear"]);
    assert!(found(&bears, "a black bear\na brown bear", &[]).is_ok());
    for text in ["a brown bear\na black bear", "a bear\nanother bear", "a black bear\na bear"] {
        let error = found(&bears, text, &[]).expect_err(text).to_string();
        assert!(error.contains("not the folders'"), "{error}");
    }
    let numbered = dataset(Classes::Numbers, &["cat", "dog", "fish"]);
    let error = found(&numbered, "dog\ncat\nbird", &[]).unwrap_err().to_string();
    assert!(error.contains("its name 0 is dog, which is class 1"), "{error}");
    let error = found(&numbered, "small dog\nkitten\nbird", &[]).unwrap_err().to_string();
    assert!(error.contains("its name 0 is small dog, which looks like class 1"), "{error}");
    let tanks = dataset(Classes::Numbers, &["aquarium_fish", "flatfish"]);
    assert!(found(&tanks, "aquarium fish\nflat fish", &[]).is_ok());
    let padded = folders(&["08", "09", "10"]);
    let text = r#"{"8": "eight", "9": "nine", "10": "ten"}"#;
    assert_eq!(found(&padded, text, &[]).unwrap().names, ["eight", "nine", "ten"]);
    let from_1 = folders(&["01", "02", "03"]);
    let error = found(&from_1, r#"{"0": "a", "1": "b", "2": "c"}"#, &[]).unwrap_err().to_string();
    assert!(error.contains("names for 2 of 3 folders, and none for 03"), "{error}");
}

#[test]
fn pairs_complete_the_rest() {
    let pets = folders(&["cat", "dog", "fish"]);
    let named = found(&pets, "fish\ncat\nhound", &[("dog", "hound")]).unwrap();
    assert_eq!(named.names, ["cat", "hound", "fish"]);
    assert_eq!(named.header(&pets), "3 classes, matched by name: cat, dog = hound, fish");
    let named = found(&pets, r#"{"cat": "tom", "fish": "salmon"}"#, &[("dog", "hound")]).unwrap();
    assert_eq!(named.names, ["tom", "hound", "salmon"]);
    let alone = find(&pets, None, &[("dog".into(), "hound".into())]).unwrap();
    assert_eq!(alone.names, ["cat", "hound", "fish"]);
    let error = find(&pets, None, &[("bird".into(), "jay".into())]).unwrap_err().to_string();
    assert!(error.contains("no class bird"), "{error}");
}

#[test]
fn word_net_ids_are_imagenets_names() {
    let all: Vec<(&str, &str)> = imagenet::CLASSES.iter().map(|class| (class.id, class.name)).collect();
    assert_eq!((all.len(), all[657], all[744]), (1000, ("n03773504", "missile"), ("n04008634", "missile")));
    let some = folders(&["n01440764", "n04008634"]);
    assert_eq!(find(&some, None, &[]).unwrap().names, ["tench", "missile"]);
    let pair = [("n01440764".to_string(), "zebra".to_string())];
    assert_eq!(find(&some, None, &pair).unwrap().names, ["zebra", "missile"]);
    let pair = [("x".to_string(), "n01440764".to_string())];
    assert_eq!(find(&folders(&["x", "y"]), None, &pair).unwrap().names, ["tench", "y"]);
    let with_more = folders(&["background", "n04008634"]);
    assert_eq!(find(&with_more, None, &[]).unwrap().names, ["background", "missile"]);
    let ids = r#"["n04008634", "n01440764"]"#;
    assert_eq!(found(&some, ids, &[]).unwrap().names, ["tench", "missile"], "ids as names too");
    let error = find(&folders(&["n01440764", "n00000001"]), None, &[]).unwrap_err().to_string();
    assert!(error.contains("n00000001 is a WordNet id"), "{error}");

    // All names in ImageNet's order, for all folders and for some; in another order; one too many.
    let names: Vec<&str> = all.iter().map(|(_, name)| *name).collect();
    let whole = folders(&all.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    assert_eq!(found(&whole, &names.join("\n"), &[]).unwrap().names, names);
    assert_eq!(found(&some, &names.join("\n"), &[]).unwrap().names, ["tench", "missile"]);
    let mut sorted = names.clone();
    sorted.sort_unstable();
    let error = found(&whole, &sorted.join("\n"), &[]).unwrap_err().to_string();
    assert!(error.contains("not in ImageNet's order") && error.contains("line 1 is"), "{error}");
    assert_eq!(found(&some, &sorted.join("\n"), &[]).unwrap().names, ["tench", "missile"], "by name");
    // A part that is one off; two that are each other's.
    for (from, to, want) in
        [(760, 999, "line 761 is remote control, a name of n04074963"), (5, 6, "line 6 is")]
    {
        let mut moved = names.clone();
        moved[from..=to].rotate_left(1);
        let error = found(&whole, &moved.join("\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("not in ImageNet's order") && error.contains(want), "{error}");
    }
    // Other words for a few.
    let mut other = names.clone();
    for (at, name) in [(584, "barrette"), (644, "match"), (977, "shoal")] {
        other[at] = name;
    }
    assert_eq!(found(&whole, &other.join("\n"), &[]).unwrap().names, other);
    let ids: Vec<&str> = all.iter().map(|(id, _)| *id).collect();
    assert_eq!(found(&some, &ids.join("\n"), &[]).unwrap().names, ["tench", "missile"], "ids of all");
    // Ids are no numbers for a list to go by.
    let three = folders(&["n01440764", "n01443537", "n01484850"]);
    let right = ["tench fish", "goldfish", "white shark"];
    assert_eq!(found(&three, &right.join("\n"), &[]).unwrap().names, right);
    let by_name = found(&three, "goldfish\ngreat white shark\ntench", &[]).unwrap();
    assert_eq!(by_name.names, ["tench", "goldfish", "great white shark"]);
    assert!(found(&three, "tench\nminnow\ngreat white shark", &[]).is_ok(), "one that says nothing");
    let error = found(&three, "tench\nminnow\njaws", &[]).unwrap_err().to_string();
    assert!(error.contains("minnow is name 2"), "{error}");
    let error = found(&whole, &names[1..].join("\n"), &[]).unwrap_err().to_string();
    assert!(error.contains("999 labels for a dataset of 1000 classes"), "{error}");
}

/// Lists that people have are taken, and what they are taken for.
#[test]
fn ordinary_files_are_taken() {
    for (own, text, want) in [
        // By name, whatever case, marks and blanks are.
        (&["AnnualCrop", "SeaLake"][..], "Sea Lake\nAnnual Crop", &["Annual Crop", "Sea Lake"][..]),
        (&["F-A-18", "Ram C-V", "707-320"], "707-320\nF/A-18\nRam C/V", &["F/A-18", "Ram C/V", "707-320"]),
        (&["cafe\u{301}", "the"], "the\ncaf\u{e9}", &["caf\u{e9}", "the"]),
        (&["A", "B", "a", "b"], "A\nB\na\nb", &["A", "B", "a", "b"]),
        (&["polo shirt", "polo_shirt"], "polo_shirt\npolo shirt", &["polo shirt", "polo_shirt"]),
        (&["stage1", "stage2", "stage3"], "stage 2\nstage 3\nstage 1", &["stage 1", "stage 2", "stage 3"]),
        (&["10_bird", "1_cat", "2_dog"], "cat\ndog\nbird", &["bird", "cat", "dog"]),
        (&["001.Black_Bird", "002.Blue_Bird"], "Black Bird\nBlue Bird", &["Black Bird", "Blue Bird"]),
        (
            &["n02085620-Chihuahua", "n02085936-Maltese_dog"],
            "Maltese dog\nChihuahua",
            &["Chihuahua", "Maltese dog"],
        ),
        (&["n02123045", "n02124075"], "Egyptian cat\ntabby", &["tabby", "Egyptian cat"]),
        // Of more names than classes.
        (&["cat", "dog"], "bird\ncat\ndog\nfrog", &["cat", "dog"]),
        (&["n01440764", "n04008634"], "background\ntench\nmissile\nzebra", &["tench", "missile"]),
        // To the letter, whatever it looks like.
        (&["10 of clubs", "2 of clubs"], "2 of clubs\n10 of clubs", &["10 of clubs", "2 of clubs"]),
        (&["0 normal", "1 sick"], "0 normal\n1 sick", &["0 normal", "1 sick"]),
        (&["x=1", "x=2"], "x=1\nx=2", &["x=1", "x=2"]),
        // By keys.
        (&["aquarium_fish", "cat"], r#"{"Aquarium Fish": "fish", "cat": "tom"}"#, &["fish", "tom"]),
        (
            &["n02085620-Chihuahua", "n02085936-Maltese"],
            "n02085620 toy dog\nn02085936 lap dog",
            &["toy dog", "lap dog"],
        ),
        (&["c1", "c2"], r#"{"1": "one", "2": "two"}"#, &["one", "two"]),
        (
            &["1", "10", "2"],
            r#"{"0": ["1", "primrose"], "1": ["10", "thistle"], "2": ["2", "orchid"]}"#,
            &["primrose", "thistle", "orchid"],
        ),
        // By name where keys are numbers.
        (&["cat", "dog", "fish"], r#"{"fish": 44, "cat": 17, "dog": 18}"#, &["cat", "dog", "fish"]),
        (&["n01440764", "n04008634"], "n04008634 657\nn01440764 0", &["tench", "missile"]),
        // By number.
        (&["1", "10", "2"], "one\ntwo\nten", &["one", "ten", "two"]),
        (&["737-200", "737-300"], "Boeing 737-200\nBoeing 737-300", &["Boeing 737-200", "Boeing 737-300"]),
        (&["00000", "00001"], "at 20 kph\nat 30 kph", &["at 20 kph", "at 30 kph"]),
        (&["0", "1"], "0.5 litre\n1.5 litre", &["0.5 litre", "1.5 litre"]),
        // In order.
        (&["cat", "dog"], "0 tabby cat\n1 big dog", &["tabby cat", "big dog"]),
        (&["cat"], "0 cat", &["cat"]),
    ] {
        let named = found(&folders(own), text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(named.names, want, "{text}: {}", named.how);
    }
    let numbers = dataset(Classes::Numbers, &["airplane", "automobile"]);
    for (text, want) in [
        ("airplane=plane\nautomobile=car", ["plane", "car"]),
        (r#"{"automobile": "car", "airplane": "plane"}"#, ["plane", "car"]),
        ("plane\ncar", ["plane", "car"]),
        ("zebra\nautomobile\nairplane", ["airplane", "automobile"]),
    ] {
        assert_eq!(found(&numbers, text, &[]).unwrap().names, want, "{text}");
    }
    let error = found(&numbers, "0\n1", &[]).unwrap_err().to_string();
    assert!(error.contains("its names are numbers: airplane would be 0"), "{error}");
    // A class that is named by itself is left out of what must agree.
    let pets = folders(&["cat", "dog"]);
    assert_eq!(
        found(&pets, "tabby cat\nhound", &[("dog", "terrier")]).unwrap().names,
        ["tabby cat", "terrier"]
    );
}

#[test]
fn contradictions_are_refused() {
    for (own, text, want) in [
        (&["A300", "A310", "A320"][..], "Airbus A320\nAirbus A300\nAirbus A310", "looks like A320"),
        (&["737-200", "737-400"], "Boeing 737-400\nBoeing 737-200", "looks like 737-400"),
        (&["1", "2", "3"], "grade 3\ngrade 1\ngrade 2", "grade 3 is name 1, and looks like 3"),
        (&["2019", "2020"], "model of 2020\nmodel of 2019", "looks like 2020"),
        (&["c0", "c1"], "c1 texting\nc0 safe", "looks like c1"),
        (&["0", "1", "2"], "0 fingers\n1 finger\n2 fingers", "are one name without their numbers"),
        (
            &["0", "1"],
            r#"{"0": ["1", "one"], "1": ["0", "zero"]}"#,
            "0 is zero by its folder and one by its number",
        ),
        (&["01", "1", "2"], r#"{"1": "one", "2": "two"}"#, "none for 01"),
        (&["beagle", "boxer"], r#"{"beagle": "boxer", "boxer": "beagle"}"#, "boxer is another class"),
        (&["cat", "dog"], r#"{"cat": "0.0", "dog": "1.0"}"#, "its names are numbers: cat would be 0.0"),
        (
            &["airplane", "bus", "car"],
            "car\naeroplane\nbus",
            "none is that of airplane, and no class's are aeroplane",
        ),
        (&["cat", "dog"], "7 tabby\n9 hound", "7 is tabby: its numbers are neither"),
        (&["n03000684", "n03028079", "n01440764"], "sanctuary\ntimber cutter\ntench", "sanctuary is name 1"),
        (&["n02012849", "n03126707"], "crane machine\ncrane bird", "looks like n02012849"),
    ] {
        let error = found(&folders(own), text, &[]).expect_err(text).to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
}

#[test]
fn notes_say_what_names_are_taken_for() {
    for (own, want) in [
        (
            &["n02085620-Chihuahua", "n02085936-Maltese"][..],
            "WordNet id that each begins with; --labels gives others",
        ),
        (
            &["001.Black_Bird", "002.Blue_Bird"],
            "number that each begins with; --labels gives others, such as \"Black_Bird\"",
        ),
        (&["1", "2"], "whose names are numbers; --labels gives others"),
        (&["cat", "dog"], "of the dataset's own names: cat, dog"),
    ] {
        let own = folders(own);
        let header = find(&own, None, &[]).unwrap().header(&own);
        assert!(header.contains(want), "{header}");
    }
    for (text, want) in [
        ("cat\ndog", "2 classes, in the order of the file: cat, dog"),
        ("1: dog\n0: cat", "2 classes, in the order of their numbers: cat, dog"),
        ("a=cat\nb=dog", "2 classes, in the order of the file, without their keys: cat, dog"),
    ] {
        assert_eq!(alone(&labels::parse(text.as_bytes()).unwrap()).unwrap().header_alone(), want);
    }
    assert!(alone(&labels::parse(b"0 fingers\n1 finger\n2 fingers").unwrap()).is_err());
}
