//! Which of the names in a labels file is which class's: by name or number where that can be told, never by chance.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::imagenet;
pub use super::imagenet::{by_number as imagenet_by_number, spelled_out};
use super::known_as::{KnownAs, Verdict, folded, fronts, number_ends, numbers_elsewhere};
use super::labels::{Entry, Labels, Reading, in_order, is_number, is_numbered, is_word_net_id};
use super::{Classes, Dataset};

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
        self.first_of(dataset.labels())
    }

    /// The same where there is no dataset.
    pub fn header_alone(&self) -> String {
        self.first_of(&self.names)
    }

    fn first_of(&self, classes: &[String]) -> String {
        let pair = |(own, name): (&String, &String)| match own == name {
            true => own.clone(),
            false => format!("{own} = {name}"),
        };
        let pairs: Vec<String> = classes.iter().zip(&self.names).take(3).map(pair).collect();
        let more = if self.names.len() > 3 { ", …" } else { "" };
        format!("{} classes, {}: {}{more}", self.names.len(), self.how, pairs.join(", "))
    }
}

/// The names of a file, for images of no dataset.
///
/// # Errors
/// As [`Labels::names`].
pub fn alone(labels: &Labels) -> Result<Named> {
    let how = match labels.reading()? {
        Reading::List(_) => "in the order of the file",
        Reading::Map(entries) if is_numbered(entries) => "in the order of their numbers",
        Reading::Map(_) => "in the order of the file, without their keys",
    };
    Ok(Named { names: spelled_out(labels.names()?)?, how: how.to_string() })
}

/// Names for a dataset's classes: those of `labels`, or the dataset's own; `pairs` of class and name come before both.
///
/// Lines or a table that are the classes' own names to the letter are these. Otherwise a map goes by its keys, or by its
/// names where its keys are numbers and these are the classes' names. A list goes by name where each class has its name in
/// it (whatever case, marks and blanks are); by number where folders are numbers; by order where the dataset has numbers
/// for classes, or where names and folders are in the same order to see. A class is known as its folder, as that without
/// a number in front, and where it is one of ImageNet's ids as ImageNet's class. WordNet ids as names are ImageNet's names.
///
/// # Errors
/// Names that belong to the classes in no such way, or of which one is another class's, with the first that does not fit.
pub fn find(dataset: &Dataset, labels: Option<&Labels>, pairs: &[(String, String)]) -> Result<Named> {
    let own = dataset.labels();
    if let (Classes::Unnamed, Some(labels)) = (dataset.classes(), labels) {
        return by_number_alone(own.len(), labels, pairs);
    }
    let mut given: Vec<Option<String>> = vec![None; own.len()];
    for (class, name) in pairs {
        let Some(at) = own.iter().position(|own| own == class) else {
            bail!("--labels-for {class}={name}: the dataset has no class {class}");
        };
        ensure!(given[at].is_none(), "--labels-for: {class} is named twice");
        given[at] = Some(name.clone());
    }
    let (found, how) = match labels {
        None => match dataset.names() {
            Some((names, whose)) => (names.iter().cloned().map(Some).collect(), whose.to_string()),
            None => (own.iter().cloned().map(Some).collect(), own_names(own)),
        },
        Some(labels) => Search::new(dataset, &given).find(labels)?,
    };
    let mut names = Vec::new();
    let mut ids = 0;
    for ((own, given), found) in own.iter().zip(&given).zip(found) {
        let Some(name) = given.clone().or(found) else {
            bail!("no name for the class {own}; give it with --labels-for {own}=NAME");
        };
        ids += usize::from(given.is_none() && is_word_net_id(&name));
        names.push(name);
    }
    let how = if ids > 0 { "WordNet ids with ImageNet's names, as OpenAI has them".to_string() } else { how };
    Ok(Named { names: spelled_out(names)?, how })
}

/// Names for numbers that nothing is known of. There may be more: not every class needs to have an image.
fn by_number_alone(numbers: usize, labels: &Labels, pairs: &[(String, String)]) -> Result<Named> {
    let mut names = match labels.reading()? {
        Reading::List(names) => names.clone(),
        Reading::Map(entries) => in_order(entries)
            .context("the dataset's classes are numbers; its keys are not the numbers from 0 or from 1 on")?,
    };
    ensure!(names.len() >= numbers, "{} labels for a dataset of {numbers} classes", names.len());
    for (class, name) in pairs {
        let at = class.parse::<usize>().ok().filter(|&at| at < names.len());
        let at =
            at.with_context(|| format!("--labels-for {class}={name}: the dataset has no class {class}"))?;
        names[at] = name.clone();
    }
    Ok(Named { names: spelled_out(names)?, how: "in the order of the labels".to_string() })
}

fn own_names(own: &[String]) -> String {
    let others = "--labels gives others";
    if own.iter().all(|own| own.bytes().all(|byte| byte.is_ascii_digit())) {
        return format!("whose names are numbers; {others}");
    }
    match fronts(own) {
        Some(fronts) => {
            let front = if is_word_net_id(&fronts[0].0) { "WordNet id" } else { "number" };
            format!(
                "of the dataset's own names, with the {front} that each begins with; {others}, such as {:?}",
                fronts[0].1
            )
        }
        None => "of the dataset's own names".to_string(),
    }
}

const ADVICE: &str = "say which is which with --labels-for FOLDER=NAME, or in a JSON object {\"FOLDER\": \"NAME\"} as --labels";

/// Of a hundred names in ImageNet's order so many may say nothing of their class, and one of fewer: other lists have other
/// words for some.
const SILENT_PERCENT: usize = 2;

/// A name for each class, or none, and how they were found.
type Found = (Vec<Option<String>>, String);

struct Search<'a> {
    own: &'a [String],
    classes: Classes,
    given: &'a [Option<String>],
    known: KnownAs,
}

impl<'a> Search<'a> {
    fn new(dataset: &'a Dataset, given: &'a [Option<String>]) -> Search<'a> {
        let (own, classes) = (dataset.labels(), dataset.classes());
        Search { own, classes, given, known: KnownAs::new(own, classes == Classes::Folders) }
    }

    fn find(&self, labels: &Labels) -> Result<Found> {
        if let Some(found) = labels.literal.as_ref().and_then(|literal| self.to_the_letter(literal)) {
            return Ok(found);
        }
        let found = match labels.reading()? {
            Reading::Map(entries) => self.by_key(entries)?,
            Reading::List(names) => self.by_list(names)?,
        };
        self.agreed(&found.0)?;
        Ok(found)
    }

    /// Classes that are not named one by one.
    fn left(&self) -> impl Iterator<Item = usize> {
        (0..self.own.len()).filter(|&at| self.given[at].is_none())
    }

    fn is_whole<T>(&self, found: &[Option<T>]) -> bool {
        self.left().all(|at| found[at].is_some())
    }

    fn to_the_letter(&self, literal: &Reading) -> Option<Found> {
        let (texts, names, how): (Vec<&String>, Vec<&String>, _) = match literal {
            Reading::List(names) => (names.iter().collect(), names.iter().collect(), "matched by name"),
            Reading::Map(entries) => (
                entries.iter().map(|(keys, _)| &keys[0]).collect(),
                entries.iter().map(|(_, name)| name).collect(),
                BY_KEY,
            ),
        };
        let place = |own: &String| texts.iter().position(|text| *text == own);
        let places = self.own.iter().map(place).collect::<Option<Vec<usize>>>()?;
        (texts.len() == self.own.len())
            .then(|| (places.into_iter().map(|at| Some(names[at].clone())).collect(), how.to_string()))
    }

    fn by_key(&self, entries: &[Entry]) -> Result<Found> {
        let named = |places: &[Option<usize>]| -> Vec<Option<String>> {
            places.iter().map(|place| place.map(|at| entries[at].1.clone())).collect()
        };
        // Folders before numbers.
        let columns = (0..entries[0].0.len()).rev().map(|column| {
            let keys: Vec<&str> = entries.iter().map(|(keys, _)| &keys[column][..]).collect();
            named(&self.known.places(&keys, true))
        });
        let (whole, parts): (Vec<_>, Vec<_>) = columns.partition(|found| self.is_whole(found));
        if let [one, other] = &whole[..]
            && let Some(at) = self.left().find(|&at| one[at] != other[at])
        {
            let [one, other] = [one, other].map(|found| found[at].clone().unwrap_or_default());
            bail!("{} is {one} by its folder and {other} by its number; leave one of both out", self.own[at]);
        }
        if let Some(found) = whole.into_iter().next() {
            return Ok((found, BY_KEY.to_string()));
        }
        let names: Vec<&str> = entries.iter().map(|(_, name)| &name[..]).collect();
        let by_name = self.known.places(&names, false);
        let numbered = is_numbered(entries);
        if numbered && self.is_whole(&by_name) {
            return Ok(self.matched(named(&by_name), entries.len()));
        }
        let count = |found: &Vec<Option<String>>| found.iter().flatten().count();
        if let Some(found) = parts.iter().max_by_key(|found| count(found)).filter(|found| count(found) > 0) {
            let at = self.left().find(|&at| found[at].is_none()).unwrap_or(0);
            let kind = if self.classes == Classes::Folders { "folders" } else { "classes" };
            bail!(
                "it has names for {} of {} {kind}, and none for {}",
                count(found),
                found.len(),
                self.own[at]
            );
        }
        let (keys, name) = &entries[0];
        match in_order(entries) {
            Some(names) => self.by_list(&names),
            None if numbered => bail!(
                "{} is {name}: its numbers are neither the classes' nor 0, 1, 2, … or 1, 2, 3, …; if they are part of the \
                 names, write a JSON list; otherwise {ADVICE}",
                keys[0]
            ),
            None => bail!(
                "none of its keys is a class of the dataset: {:?} is {name}, and the first class is {}",
                keys[0],
                self.own[0]
            ),
        }
    }

    fn matched(&self, found: Vec<Option<String>>, of: usize) -> Found {
        let more = if of > self.own.len() { format!(", {} of {of}", self.own.len()) } else { String::new() };
        (found, format!("matched by name{more}"))
    }

    fn by_list(&self, names: &[String]) -> Result<Found> {
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        let places = self.known.places(&texts, false);
        let by_name = || {
            let found = places.iter().map(|place| place.map(|at| names[at].clone())).collect();
            self.matched(found, names.len())
        };
        let is_imagenet = self.own.iter().all(|own| imagenet::class(own).is_some());
        // ImageNet's names for some of its folders.
        if is_imagenet && names.len() == imagenet::CLASSES.len() {
            return match self.in_imagenets_order(names) {
                Err(_) if self.is_whole(&places) => Ok(by_name()),
                found => found,
            };
        }
        if self.is_whole(&places) {
            return Ok(by_name());
        }
        let (count, classes) = (names.len(), self.own.len());
        ensure!(count == classes, "{count} labels for a dataset of {classes} classes; {ADVICE}");
        // WordNet ids are numbers too, and say nothing of a list's order.
        let numbers = match self.classes {
            Classes::Folders if !is_imagenet => number_ends(self.own),
            _ => None,
        };
        let fronts = || -> Option<Vec<u64>> {
            fronts(self.own)?.iter().map(|(front, _)| front.parse().ok()).collect()
        };
        let order = match (&numbers, self.classes) {
            (Some(numbers), _) => order_of(numbers),
            (None, Classes::Folders) => fronts().and_then(|numbers| order_of(&numbers)),
            (None, _) => None,
        };
        let (order, by_number) = (order.clone().unwrap_or_else(|| (0..classes).collect()), order.is_some());
        let mut found: Vec<Option<&str>> = vec![None; classes];
        let to_be_named = order.iter().zip(names).filter(|(at, _)| self.given[**at].is_none());
        to_be_named.for_each(|(&at, name)| found[at] = Some(name));
        let verdicts = self.known.verdicts(&found);
        let elsewhere = verdicts.iter().enumerate().find_map(|(at, verdict)| match verdict {
            Verdict::Of(other) => Some((at, *other)),
            _ => None,
        });
        let numbers_elsewhere = || match self.classes {
            Classes::Folders if !is_imagenet => numbers_elsewhere(self.own, &found),
            _ => None,
        };
        let silent: Vec<usize> = (0..classes).filter(|&at| verdicts[at] == Verdict::Silent).collect();
        let (enough, how) = match self.classes {
            Classes::Folders if by_number && numbers.is_some() => (true, "folders by number"),
            Classes::Folders if is_imagenet => (silent.len() <= may_be_silent(classes), IN_ORDER),
            Classes::Folders if by_number => (silent.is_empty(), "folders by number"),
            Classes::Folders => (silent.is_empty(), IN_ORDER),
            Classes::Numbers | Classes::Unnamed => (true, "in the order of the labels"),
        };
        if let Some((at, there)) = elsewhere.or_else(numbers_elsewhere) {
            return Err(self.misplaced(names, &places, &order, (at, Some(there))));
        }
        if !enough {
            return Err(self.misplaced(names, &places, &order, (silent[0], None)));
        }
        Ok((found.into_iter().map(|name| name.map(str::to_string)).collect(), how.to_string()))
    }

    fn in_imagenets_order(&self, names: &[String]) -> Result<Found> {
        let all: Vec<String> = imagenet::CLASSES.iter().map(|class| class.id.to_string()).collect();
        let texts: Vec<Option<&str>> = names.iter().map(|name| Some(&name[..])).collect();
        let verdicts = KnownAs::new(&all, false).verdicts(&texts);
        let mut silent = verdicts.iter().enumerate().filter(|(_, verdict)| **verdict == Verdict::Silent);
        let elsewhere = verdicts.iter().enumerate().find(|(_, verdict)| matches!(verdict, Verdict::Of(_)));
        let most = may_be_silent(all.len());
        if let Some((at, verdict)) = elsewhere.or_else(|| silent.nth(most)) {
            let class = &imagenet::CLASSES[at];
            let whose = match verdict {
                Verdict::Of(other) => format!(", a name of {}", imagenet::CLASSES[*other].id),
                _ => String::new(),
            };
            bail!(
                "its names are not in ImageNet's order: line {} is {}{whose}, where {} is {}; {ADVICE}",
                at + 1,
                names[at],
                class.id,
                class.name
            );
        }
        let place = |own: &String| all.iter().position(|id| id == own).map(|at| names[at].clone());
        Ok((self.own.iter().map(place).collect(), "ImageNet's in the order of its classes".to_string()))
    }

    /// Why a list that has a name for each class is none in the order of the classes: at one class its name is another's, or
    /// says nothing.
    fn misplaced(
        &self,
        names: &[String],
        places: &[Option<usize>],
        order: &[usize],
        (class, other): (usize, Option<usize>),
    ) -> anyhow::Error {
        let own = self.own;
        let without: Vec<&str> =
            self.left().filter(|&at| places[at].is_none()).map(|at| &own[at][..]).collect();
        // Most are found by name: it lacks these.
        if self.classes == Classes::Folders && !without.is_empty() && without.len() * 2 < own.len() {
            let is_used = |at: &usize| places.contains(&Some(*at));
            let unused = (0..names.len()).filter(|at| !is_used(at)).map(|at| &names[at][..]);
            return anyhow::anyhow!(
                "most of its names are the classes', but none is that of {}, and no class's are {}; {ADVICE}",
                without.join(", "),
                unused.collect::<Vec<_>>().join(", "),
            );
        }
        let line = order.iter().position(|&at| at == class).unwrap_or(class);
        let name = &names[line];
        match (self.classes, other) {
            (Classes::Numbers, Some(other)) => {
                let is_its = folded(name) == folded(&own[other]);
                anyhow::anyhow!(
                    "its name {line} is {name}, which {} class {other} of the dataset, {}; class {class} is {}; {ADVICE}",
                    if is_its { "is" } else { "looks like" },
                    own[other],
                    own[class]
                )
            }
            _ => {
                let looks = other.map_or(String::new(), |other| format!(", and looks like {}", own[other]));
                anyhow::anyhow!(
                    "its names are not the folders': {name} is name {}{looks}, and folder {} in the order of their {} is {}; {ADVICE}",
                    line + 1,
                    line + 1,
                    if order.is_sorted() { "names" } else { "numbers" },
                    own[class]
                )
            }
        }
    }

    /// Refuses what no way of finding names should lead to: numbers for names, and one class by the name of another.
    fn agreed(&self, found: &[Option<String>]) -> Result<()> {
        let names = || self.left().filter_map(|at| Some((at, found[at].as_ref()?)));
        let are_numbers = self.own.iter().all(|own| is_number(own));
        if let Some((at, name)) = names().next()
            && !are_numbers
            && names().all(|(_, name)| is_number(name))
        {
            bail!(
                "its names are numbers: {} would be {name}; write the names alone, or FOLDER=NAME",
                self.own[at]
            );
        }
        let own: HashMap<String, usize> =
            self.own.iter().enumerate().map(|(at, own)| (folded(own), at)).collect();
        for (at, name) in names() {
            let text = folded(name);
            if let Some(&other) =
                own.get(&text).filter(|&&other| other != at && folded(&self.own[at]) != text)
            {
                bail!(
                    "{} would be called {name}, and {} is another class; {ADVICE}",
                    self.own[at],
                    self.own[other]
                );
            }
        }
        Ok(())
    }
}

const BY_KEY: &str = "by the keys in the labels";
const IN_ORDER: &str = "in the order of the folders";

fn may_be_silent(classes: usize) -> usize {
    (classes * SILENT_PERCENT / 100).max(1)
}

/// Places in the order of their numbers, where these are apart.
fn order_of(numbers: &[u64]) -> Option<Vec<usize>> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by_key(|&at| numbers[at]);
    order.windows(2).all(|pair| numbers[pair[0]] < numbers[pair[1]]).then_some(order)
}
