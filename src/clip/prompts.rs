//! The texts that stand for a class: templates that its name goes into, and descriptions of it.
//!
//! A class's feature is the mean of its texts' unit features, normalised again, as OpenAI's notebook for ImageNet makes it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

/// Lists of templates that come with the program, by their names: see `assets/make_templates.py`.
pub const LISTS: [(&str, &str); 19] = [
    ("openai-imagenet", include_str!("../../assets/templates/openai-imagenet.txt")),
    ("openai-imagenet-simple", include_str!("../../assets/templates/openai-imagenet-simple.txt")),
    ("aircraft", include_str!("../../assets/templates/aircraft.txt")),
    ("caltech101", include_str!("../../assets/templates/caltech101.txt")),
    ("cars", include_str!("../../assets/templates/cars.txt")),
    ("cifar", include_str!("../../assets/templates/cifar.txt")),
    ("country211", include_str!("../../assets/templates/country211.txt")),
    ("dtd", include_str!("../../assets/templates/dtd.txt")),
    ("eurosat", include_str!("../../assets/templates/eurosat.txt")),
    ("fer2013", include_str!("../../assets/templates/fer2013.txt")),
    ("flowers", include_str!("../../assets/templates/flowers.txt")),
    ("food101", include_str!("../../assets/templates/food101.txt")),
    ("gtsrb", include_str!("../../assets/templates/gtsrb.txt")),
    ("mnist", include_str!("../../assets/templates/mnist.txt")),
    ("pets", include_str!("../../assets/templates/pets.txt")),
    ("resisc45", include_str!("../../assets/templates/resisc45.txt")),
    ("stl10", include_str!("../../assets/templates/stl10.txt")),
    ("sun397", include_str!("../../assets/templates/sun397.txt")),
    ("svhn", include_str!("../../assets/templates/svhn.txt")),
];

/// What makes texts of classes' names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompts {
    /// Each with `{}` once.
    pub templates: Vec<String>,
    /// Sentences by the classes' names.
    pub descriptions: Option<Descriptions>,
}

/// Sentences that describe classes, as CuPL writes them (arXiv 2209.03320): `{"CLASS": ["SENTENCE", ..], ..}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Descriptions(Vec<(String, Vec<String>)>);

impl Prompts {
    /// The texts of each class, one at least.
    ///
    /// # Errors
    /// A class without a description, or a description of no class, by its name.
    pub fn texts(&self, classes: &[String]) -> Result<Vec<Vec<String>>> {
        if let Some(Descriptions(all)) = &self.descriptions {
            let known: BTreeSet<&String> = classes.iter().collect();
            let foreign: Vec<&str> =
                all.iter().filter(|(name, _)| !known.contains(name)).map(|(name, _)| &name[..]).collect();
            let described: BTreeSet<&String> = all.iter().map(|(name, _)| name).collect();
            let missing: Vec<&str> = known.difference(&described).map(|name| &name[..]).collect();
            ensure!(
                missing.is_empty(),
                "no description of {}; the names are to be those of the classes",
                few(&missing)
            );
            ensure!(foreign.is_empty(), "descriptions of {}, which are no classes", few(&foreign));
        }
        let texts = |class: &String| -> Vec<String> {
            let of_class = self.descriptions.iter().flat_map(|descriptions| descriptions.of(class));
            self.templates
                .iter()
                .map(|template| template.replace("{}", class))
                .chain(of_class.cloned())
                .collect()
        };
        Ok(classes.iter().map(texts).collect())
    }
}

/// A class's feature of those of its texts: one as it is, of several the normalised mean, in float64.
///
/// * `features`: `(texts, D)`, of unit norm, class by class. `counts`: of each class, how many are its.
///
/// # Errors
/// The texts of a class, by its number, whose features leave nothing when they are added.
pub fn averages(features: &[f32], counts: impl IntoIterator<Item = usize>, d: usize) -> Result<Vec<f32>> {
    let (mut averages, mut rows) = (Vec::new(), features.chunks_exact(d));
    for (class, count) in counts.into_iter().enumerate() {
        let own: Vec<&[f32]> = rows.by_ref().take(count).collect();
        if let [one] = own[..] {
            averages.extend(one);
            continue;
        }
        let sum: Vec<f64> = (0..d).map(|i| own.iter().map(|row| f64::from(row[i])).sum()).collect();
        let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        ensure!(norm > 0.0, "the texts of class {class} cancel each other out");
        averages.extend(sum.iter().map(|x| (x / norm) as f32));
    }
    Ok(averages)
}

impl Descriptions {
    /// Reads them.
    ///
    /// # Errors
    /// A file that cannot be read or is not such JSON; a class that is there twice or has no sentence; an empty one.
    pub fn read(path: &Path) -> Result<Descriptions> {
        let read = || -> Result<Descriptions> {
            let Pairs(all) = serde_json::from_slice(&std::fs::read(path)?)
                .context("it is to be {\"CLASS\": [\"SENTENCE\", ..], ..}")?;
            ensure!(!all.is_empty(), "it describes no class");
            let mut names = BTreeSet::new();
            for (class, sentences) in &all {
                ensure!(names.insert(class), "{class:?} is there twice");
                ensure!(!sentences.is_empty(), "{class:?} has no sentence");
                ensure!(
                    sentences.iter().all(|text| !text.trim().is_empty()),
                    "a sentence of {class:?} is empty"
                );
            }
            Ok(Descriptions(all))
        };
        read().with_context(|| format!("reading the descriptions {}", path.display()))
    }

    fn of(&self, class: &str) -> &[String] {
        self.0.iter().find(|(name, _)| name == class).map_or(&[], |(_, sentences)| sentences)
    }
}

/// Templates of a list by its name, or else of a file, one a line.
///
/// # Errors
/// Neither is there; a line that has `{}` not once, by its number.
pub fn templates(name: &str) -> Result<Vec<String>> {
    if let Some((_, list)) = LISTS.iter().find(|(known, _)| *known == name) {
        return parse(list);
    }
    let read = || -> Result<Vec<String>> {
        let path = Path::new(name);
        if !path.exists() {
            let lists: Vec<&str> = LISTS.iter().map(|(name, _)| *name).collect();
            bail!("there is no such file, and no list of this name; the lists are {}", lists.join(", "));
        }
        let bytes = std::fs::read(path)?;
        parse(std::str::from_utf8(&bytes).context("it is no UTF-8")?)
    };
    read().with_context(|| format!("reading the templates {name}"))
}

fn parse(text: &str) -> Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
    ensure!(text.trim() != "", "it holds no templates; write one a line, with {{}} where the class goes");
    for (line, number) in lines.iter().zip(1..) {
        is_template(line).map_err(|why| anyhow::anyhow!("line {number}, {line:?}: {why}"))?;
        let before = lines[..number - 1].iter().position(|other| other == line);
        if let Some(before) = before {
            bail!("line {number} is line {} again: {line:?}", before + 1);
        }
    }
    Ok(lines.into_iter().map(str::to_string).collect())
}

/// Whether a text is a template.
///
/// # Errors
/// It has `{}` not once.
pub fn is_template(text: &str) -> Result<(), &'static str> {
    if text.contains("{c}") {
        return Err("{c} is how CLIP_benchmark writes it; it must contain {} once, where the label goes");
    }
    match text.matches("{}").count() {
        1 => Ok(()),
        _ => Err("it must contain {} once, where the label goes"),
    }
}

/// Names in quotes, up to five.
fn few(names: &[&str]) -> String {
    let mut text = names.iter().take(5).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > 5 {
        text += &format!(" and {} more", names.len() - 5);
    }
    text
}

/// An object's fields in their order, each as often as it is there.
struct Pairs(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of lists of sentences")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn every_list_is_templates() {
        for (name, count, first) in [
            ("openai-imagenet", 80, "a bad photo of a {}."),
            ("openai-imagenet-simple", 7, "itap of a {}."),
            ("cifar", 18, "a photo of a {}."),
        ] {
            let list = templates(name).unwrap();
            assert_eq!((list.len(), &list[0][..]), (count, first));
        }
        assert!(LISTS.iter().all(|(name, _)| !templates(name).unwrap().is_empty()));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/templates");
        if folder.exists() {
            assert_eq!(std::fs::read_dir(folder).unwrap().count(), LISTS.len(), "each file is a list");
        }
    }

    #[test]
    fn a_file_of_templates_has_one_a_line() {
        let (_folder, path) = file("\u{feff}a {}\r\n  the {} .\r\n\r\n");
        assert_eq!(templates(path.to_str().unwrap()).unwrap(), ["a {}", "the {} ."]);
        for (text, want) in [
            ("", "no templates"),
            ("\n\n", "no templates"),
            ("a {}\nb\n", "line 2, \"b\": it must contain {} once"),
            ("a {} {}\n", "line 1"),
            ("a {c}\n", "{c} is how CLIP_benchmark writes it"),
            ("a {}\n\nb {}\n", "line 2, \"\""),
            ("a {}\nb {}\na {}\n", "line 3 is line 1 again"),
        ] {
            let (_folder, path) = file(text);
            let error = format!("{:#}", templates(path.to_str().unwrap()).unwrap_err());
            assert!(error.contains(want) && error.contains("file"), "{error}");
        }
        let error = format!("{:#}", templates("openai").unwrap_err());
        assert!(error.contains("no list of this name") && error.contains("openai-imagenet,"), "{error}");
    }

    #[test]
    fn texts_are_templates_then_descriptions() {
        let (_folder, path) = file(r#"{"dog": ["A dog barks.", "It {} is left alone."], "cat": ["A cat."]}"#);
        let descriptions = Some(Descriptions::read(&path).unwrap());
        let classes = names(&["cat", "dog", "cat"]);
        let alone = Prompts { templates: vec![], descriptions: descriptions.clone() };
        let both = Prompts { templates: names(&["a {}"]), descriptions };
        let dog = ["A dog barks.", "It {} is left alone."];
        assert_eq!(alone.texts(&classes).unwrap(), [names(&["A cat."]), names(&dog), names(&["A cat."])]);
        assert_eq!(both.texts(&classes).unwrap()[1], names(&["a dog", dog[0], dog[1]]));
        let refused = |classes: &[&str]| format!("{:#}", alone.texts(&names(classes)).unwrap_err());
        assert!(refused(&["cat", "fox", "dog"]).contains("no description of \"fox\""));
        assert!(refused(&["cat"]).contains("descriptions of \"dog\", which are no classes"));
    }

    #[test]
    fn one_text_is_as_it_is_and_several_are_their_normalised_mean() {
        let features = [0.6, 0.8, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 1.0, 0.0];
        let got = averages(&features[..6], [1, 2], 2).unwrap();
        let half = 0.5f64.sqrt() as f32;
        assert_eq!(got, [0.6, 0.8, half, half]);
        assert!(averages(&features[6..], [2], 2).unwrap_err().to_string().contains("class 0"));
    }

    #[test]
    fn descriptions_that_are_none_are_refused_by_name() {
        for (text, want) in [
            ("[]", "it is to be"),
            (r#"{"cat": "A cat."}"#, "it is to be"),
            (r#"{"cat": [1]}"#, "it is to be"),
            ("{}", "describes no class"),
            (r#"{"cat": []}"#, "\"cat\" has no sentence"),
            (r#"{"cat": ["a", " "]}"#, "a sentence of \"cat\" is empty"),
            (r#"{"cat": ["a"], "dog": ["b"], "cat": ["c"]}"#, "\"cat\" is there twice"),
        ] {
            let (_folder, path) = file(text);
            let error = format!("{:#}", Descriptions::read(&path).unwrap_err());
            assert!(error.contains(want), "{error}: {want}");
        }
    }
}
