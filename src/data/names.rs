//! Which of the names in a labels file is which class's: by name or number where that can be told, never by chance.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use anyhow::{Result, bail, ensure};

use super::labels::{Labels, in_order, is_word_net_id};
use super::{Classes, Dataset};

/// ImageNet's 1,000 classes in their order: WordNet id, tab, name (`assets/make_imagenet.py` says whose).
const IMAGENET: &str = include_str!("../../assets/imagenet_classes.tsv");

/// A dataset's classes with the names that prompts are made of.
#[derive(Debug)]
pub struct Named {
    /// In the order of the dataset's classes.
    pub names: Vec<String>,
    /// How they were found.
    pub how: String,
}

impl Named {
    /// The first three classes and their names, for a person to see whether they belong together.
    pub fn header(&self, dataset: &Dataset) -> String {
        let pair = |(own, name): (&String, &String)| match own == name {
            true => own.clone(),
            false => format!("{own} = {name}"),
        };
        let pairs: Vec<String> = dataset.labels().iter().zip(&self.names).take(3).map(pair).collect();
        let more = if self.names.len() > 3 { ", …" } else { "" };
        format!("{} classes, {}: {}{more}", self.names.len(), self.how, pairs.join(", "))
    }
}

/// Names for a dataset's classes: those of `labels`, or the dataset's own; `pairs` of class and name come before both.
///
/// A map goes by its keys. A list goes by name where classes and names are the same set (in any order and case, with
/// spaces for underscores); by number where folders are numbers; by order where the dataset has numbers for classes, or
/// where names and folders are in the same order to see. WordNet ids as names are ImageNet's names.
///
/// # Errors
/// Names that belong to the classes in no such way, with the first that does not.
pub fn find(dataset: &Dataset, labels: Option<&Labels>, pairs: &[(String, String)]) -> Result<Named> {
    let own = dataset.labels();
    let mut given: Vec<Option<String>> = vec![None; own.len()];
    for (class, name) in pairs {
        let Some(at) = own.iter().position(|own| own == class) else {
            bail!("--labels-for {class}={name}: the dataset has no class {class}");
        };
        ensure!(given[at].is_none(), "--labels-for: {class} is named twice");
        given[at] = Some(name.clone());
    }
    let (found, how) = match labels {
        None => {
            let numbers = own.iter().all(|own| own.bytes().all(|byte| byte.is_ascii_digit()));
            let how = if numbers {
                "whose names are numbers; --labels gives others"
            } else {
                "of the dataset's own names"
            };
            (own.iter().cloned().map(Some).collect(), how)
        }
        Some(Labels::Map(entries)) => by_key(dataset, entries, &given)?,
        Some(Labels::List(names)) => by_list(dataset, names, &given)?,
    };
    // Those that are not named one by one.
    let mut left = Vec::new();
    for ((own, _), found) in own.iter().zip(&given).zip(found).filter(|((_, given), _)| given.is_none()) {
        match found {
            Some(name) => left.push(name),
            None => bail!("no name for the class {own}; give it with --labels-for {own}=NAME"),
        }
    }
    let has_ids = left.iter().any(|name| is_word_net_id(name));
    let how = if has_ids { "WordNet ids with ImageNet's names, as OpenAI has them" } else { how };
    let mut left = spelled_out(left)?.into_iter();
    let names = given.into_iter().filter_map(|given| given.or_else(|| left.next())).collect();
    Ok(Named { names, how: how.to_string() })
}

type Found = (Vec<Option<String>>, &'static str);

fn by_key(dataset: &Dataset, entries: &[(Vec<String>, String)], given: &[Option<String>]) -> Result<Found> {
    let names: HashMap<&str, &String> =
        entries.iter().flat_map(|(keys, name)| keys.iter().map(move |key| (key.as_str(), name))).collect();
    // Folders that are numbers may have zeros in front.
    let numbers: HashMap<u64, &String> =
        names.iter().filter_map(|(key, name)| Some((key.parse().ok()?, *name))).collect();
    let are_apart = numbers.len() == names.keys().filter(|key| key.parse::<u64>().is_ok()).count();
    let by_number = |own: &String| numbers.get(&own.parse().ok()?).filter(|_| are_apart);
    let found: Vec<Option<String>> = match dataset.classes() {
        Classes::Folders => {
            let find =
                |own: &String| names.get(own.as_str()).or_else(|| by_number(own)).map(|n| n.to_string());
            dataset.labels().iter().map(find).collect()
        }
        Classes::Numbers => Vec::new(),
    };
    if found.iter().any(Option::is_some) {
        let all = found.iter().zip(given).all(|(found, given)| found.is_some() || given.is_some());
        if !all {
            let count = found.iter().flatten().count();
            let at = found
                .iter()
                .zip(given)
                .position(|(found, given)| found.is_none() && given.is_none())
                .unwrap_or(0);
            let own = &dataset.labels()[at];
            bail!("it has names for {count} of {} folders, and none for {own}", found.len());
        }
        return Ok((found, "by the folders' names in the labels"));
    }
    match in_order(entries) {
        Some(names) => by_list(dataset, &names, given),
        None => {
            let (keys, name) = &entries[0];
            let own = &dataset.labels()[0];
            bail!(
                "none of its keys is a class of the dataset: {:?} is {name}, and the first class is {own}",
                keys[0]
            )
        }
    }
}

fn by_list(dataset: &Dataset, names: &[String], given: &[Option<String>]) -> Result<Found> {
    let own = dataset.labels();
    let left = || given.iter().enumerate().filter(|(_, given)| given.is_none()).map(|(at, _)| at);
    let by_name = same_names(own, names);
    if left().all(|at| by_name[at].is_some())
        && (names.len() == own.len() || given.iter().any(Option::is_some))
    {
        return Ok((by_name, "matched by name"));
    }
    // ImageNet's names for some of its folders.
    let imagenet: Vec<(&str, &str)> = imagenet().collect();
    let is_imagenet = || own.iter().all(|own| imagenet.iter().any(|(id, _)| id == own));
    if names.len() == imagenet.len() && dataset.classes() == Classes::Folders && is_imagenet() {
        let alike = names.iter().zip(&imagenet).filter(|(name, (_, own))| share_a_word(name, own)).count();
        if alike >= imagenet.len() * 3 / 4 {
            let named: HashMap<&str, &String> = imagenet.iter().map(|(id, _)| *id).zip(names).collect();
            let found = own.iter().map(|own| Some(named[own.as_str()].clone())).collect();
            return Ok((found, "ImageNet's in the order of its classes"));
        }
        let at =
            names.iter().zip(&imagenet).position(|(name, (_, own))| !share_a_word(name, own)).unwrap_or(0);
        let (id, known) = imagenet[at];
        bail!(
            "its names are not in ImageNet's order: {} of 1000 look right, and line {} is {} where {id} is {known}; {ADVICE}",
            alike,
            at + 1,
            names[at]
        );
    }
    ensure!(
        names.len() == own.len(),
        "{} labels for a dataset of {} classes; {ADVICE}",
        names.len(),
        own.len()
    );
    let in_order = || names.iter().cloned().map(Some).collect();
    if dataset.classes() == Classes::Numbers {
        let elsewhere = |(at, name): (usize, &String)| {
            own.iter().position(|own| plain(own) == plain(name)).filter(|&there| there != at)
        };
        if let Some((at, there)) = names.iter().enumerate().find_map(|pair| Some((pair.0, elsewhere(pair)?)))
        {
            bail!(
                "its name {} is {}, which is class {there} of the dataset; class {at} is {}",
                at,
                names[at],
                own[at]
            );
        }
        let (own_words, name_words): (Vec<_>, Vec<_>) =
            own.iter().zip(names).map(|(own, name)| (words(own), words(name))).unzip();
        for (at, name) in names.iter().enumerate() {
            let fits = |name: usize, own: usize| alike(&name_words[name], &own_words[own]);
            let better =
                |&there: &usize| fits(at, there) > fits(at, at) && fits(at, there) > fits(there, there);
            if let Some(there) = (0..own.len()).find(better) {
                bail!(
                    "its name {at} is {name}, which looks like class {there} of the dataset, {}; class {at} is {}; {ADVICE}",
                    own[there],
                    own[at]
                );
            }
        }
        return Ok((in_order(), "in the order of the labels"));
    }
    // WordNet ids are numbers too, and say nothing of a list's order.
    if let Some(order) = by_number(own).filter(|_| !own.iter().all(|own| is_word_net_id(own))) {
        let mut found = vec![None; own.len()];
        order.into_iter().zip(names).for_each(|(at, name)| found[at] = Some(name.clone()));
        return Ok((found, "folders by number"));
    }
    let known: HashMap<&str, &str> = imagenet.into_iter().collect();
    let classes: Vec<_> =
        own.iter().map(|own| words(known.get(own.as_str()).copied().unwrap_or(own))).collect();
    // In this order a name must be more like its own class than like any other.
    let likeness: Vec<Ordering> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let name = words(name);
            let others = classes.iter().enumerate().filter(|(other, _)| *other != at);
            let most = others.map(|(_, other)| alike(&name, other)).fold(0.0, f64::max);
            alike(&name, &classes[at]).total_cmp(&most)
        })
        .collect();
    let looks: Vec<bool> = likeness.iter().map(|likeness| likeness.is_gt()).collect();
    let ids = own.iter().all(|own| known.contains_key(own.as_str()));
    let enough = if ids { own.len() * 3 / 4 } else { own.len() };
    if looks.iter().filter(|&&looks| looks).count() >= enough
        && likeness.iter().all(|likeness| likeness.is_ge())
    {
        return Ok((in_order(), "in the order of the folders"));
    }
    let at = looks.iter().position(|&alike| !alike).unwrap_or(0);
    bail!(
        "its names are not the folders': {} is name {}, and folder {} in the order of their names is {}; {ADVICE}",
        names[at],
        at + 1,
        at + 1,
        own[at]
    )
}

const ADVICE: &str = "say which is which with --labels-for FOLDER=NAME, or in a JSON object {\"FOLDER\": \"NAME\"} as --labels";

/// Each class's name if it is among `names` but for case and underscores, once on either side.
fn same_names(own: &[String], names: &[String]) -> Vec<Option<String>> {
    let once = |texts: &[String]| -> HashMap<String, usize> {
        let mut places = HashMap::new();
        let mut twice = HashSet::new();
        for (at, text) in texts.iter().enumerate() {
            if places.insert(plain(text), at).is_some() {
                twice.insert(plain(text));
            }
        }
        places.retain(|text, _| !twice.contains(text));
        places
    };
    let (own_places, places) = (once(own), once(names));
    let find = |own: &String| {
        own_places.get(&plain(own))?;
        places.get(&plain(own)).map(|&at| names[at].clone())
    };
    own.iter().map(find).collect()
}

/// Lower case, with one space for underscores, hyphens and white space.
fn plain(text: &str) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || "_-".contains(c)).filter(|w| !w.is_empty()).collect();
    words.join(" ").to_lowercase()
}

fn words(text: &str) -> HashSet<String> {
    let words =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().any(char::is_alphabetic));
    words.map(str::to_lowercase).collect()
}

fn share_a_word(a: &str, b: &str) -> bool {
    !words(a).is_disjoint(&words(b))
}

/// How many of the words of both both have, from 0 to 1.
fn alike(a: &HashSet<String>, b: &HashSet<String>) -> f64 {
    let common = a.intersection(b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

/// Places of classes whose names are a common beginning and different numbers, in the order of these.
fn by_number(own: &[String]) -> Option<Vec<usize>> {
    let begin = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let common = &own[0][..begin(&own[0])];
    let number = |(at, text): (usize, &String)| {
        let (before, digits) = text.split_at(begin(text));
        (before == common).then_some((digits.parse::<u64>().ok()?, at))
    };
    let mut numbered = own.iter().enumerate().map(number).collect::<Option<Vec<_>>>()?;
    numbered.sort_unstable();
    let apart = numbered.windows(2).all(|pair| pair[0].0 < pair[1].0);
    apart.then(|| numbered.into_iter().map(|(_, at)| at).collect())
}

/// WordNet ids and names.
fn imagenet() -> impl Iterator<Item = (&'static str, &'static str)> {
    IMAGENET.lines().filter_map(|line| line.split_once('\t'))
}

/// Names as they are, and ImageNet's for WordNet ids, of which CLIP knows nothing.
///
/// # Errors
/// An id that is none of ImageNet's 1000.
pub fn spelled_out(names: Vec<String>) -> Result<Vec<String>> {
    let known: HashMap<&str, &str> = imagenet().collect();
    let name = |name: String| match known.get(name.as_str()) {
        Some(name) => Ok(name.to_string()),
        None if !is_word_net_id(&name) => Ok(name),
        None => bail!("{name} is a WordNet id, but none of ImageNet's 1000; give names with --labels"),
    };
    names.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{folder::Files, labels};

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
            (
                dataset(Classes::Numbers, &["a", "b", "c"]),
                r#"{"2": "z", "1": "y", "0": "x"}"#,
                ["x", "y", "z"],
            ),
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
            ("fish\ncat\nhound", "fish is name 1, and folder 1"),
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
        let all: Vec<(&str, &str)> = imagenet().collect();
        assert_eq!(
            (all.len(), all[657], all[744]),
            (1000, ("n03773504", "missile"), ("n04008634", "missile"))
        );
        let some = folders(&["n01440764", "n04008634"]);
        assert_eq!(find(&some, None, &[]).unwrap().names, ["tench", "missile"]);
        let pair = [("n01440764".to_string(), "zebra".to_string())];
        assert_eq!(find(&some, None, &pair).unwrap().names, ["zebra", "missile"]);
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
        for dataset in [&whole, &some] {
            let error = found(dataset, &sorted.join("\n"), &[]).unwrap_err().to_string();
            assert!(error.contains("not in ImageNet's order") && error.contains("line 1 is"), "{error}");
        }
        // Ids are no numbers for a list to go by.
        let three = folders(&["n01440764", "n01443537", "n01484850"]);
        let right = ["tench fish", "goldfish", "white shark"];
        assert_eq!(found(&three, &right.join("\n"), &[]).unwrap().names, right);
        let error = found(&three, "goldfish\ngreat white shark\ntench", &[]).unwrap_err().to_string();
        assert!(error.contains("goldfish is name 1, and folder 1"), "{error}");
        let error = found(&whole, &names[1..].join("\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("999 labels for a dataset of 1000 classes"), "{error}");
    }
}
