//! What a class may be called in a file of names, and whether a name is its own, another's, or says nothing.

use std::collections::{HashMap, HashSet};

use unicode_normalization::UnicodeNormalization;

use super::imagenet;
use super::labels::is_word_net_id;

/// The classes of a dataset, by what they are known as.
pub struct KnownAs {
    classes: Vec<Class>,
    by_name: HashMap<String, Vec<usize>>,
    by_word: HashMap<String, Vec<usize>>,
}

struct Class {
    own: String,
    /// [`folded`]: its own; without the number before it; where it is one of ImageNet's ids, that class's.
    names: Vec<String>,
    /// [`folded`]: its number or WordNet id.
    number: Option<String>,
    /// Of each of its names.
    words: Vec<HashSet<String>>,
}

/// What a name says of the class that it would be given to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// It is one of the class's own, or more like those than like any other's.
    Right,
    Silent,
    /// It is a name of another class, or more like that.
    Of(usize),
}

impl KnownAs {
    /// Classes by their names; whether `numbers` in these may be keys of a file.
    pub fn new(own: &[String], numbers: bool) -> KnownAs {
        let fronts = fronts(own);
        let ends = numbers.then(|| number_ends(own)).flatten();
        let class = |(at, own): (usize, &String)| {
            let mut names = vec![own.clone()];
            let mut number = ends.as_ref().map(|ends| ends[at].to_string());
            if let Some(fronts) = &fronts {
                let (front, rest) = &fronts[at];
                number = (numbers || is_word_net_id(front)).then(|| front.clone());
                names.push(rest.clone());
            }
            if let Some(class) = imagenet::class(own) {
                names =
                    [class.name].into_iter().chain(class.synonyms.split(", ")).map(str::to_string).collect();
            }
            let words = names.iter().map(|name| words(name)).collect();
            let names = names.iter().map(|name| folded(name)).collect();
            Class { own: own.clone(), names, number: number.map(|number| folded(&number)), words }
        };
        let classes: Vec<Class> = own.iter().enumerate().map(class).collect();
        let (mut by_name, mut by_word) = (HashMap::new(), HashMap::new());
        let note = |index: &mut HashMap<String, Vec<usize>>, text: &String, at| {
            let places: &mut Vec<usize> = index.entry(text.clone()).or_default();
            if places.last() != Some(&at) {
                places.push(at);
            }
        };
        for (at, class) in classes.iter().enumerate() {
            class.names.iter().for_each(|name| note(&mut by_name, name, at));
            class.words.iter().flatten().for_each(|word| note(&mut by_word, word, at));
        }
        KnownAs { classes, by_name, by_word }
    }

    /// Each class's place among `texts`: to the letter, or else but for what [`folded`] leaves out, where that is once on
    /// either side. Of keys a class's number is one.
    pub fn places(&self, texts: &[&str], are_keys: bool) -> Vec<Option<usize>> {
        let mut exact: HashMap<&str, usize> = HashMap::new();
        for (at, text) in texts.iter().enumerate() {
            exact.entry(text).or_insert(at);
        }
        let mut found: Vec<Option<usize>> =
            self.classes.iter().map(|class| exact.remove(&class.own[..])).collect();
        // None where several texts are one when folded.
        let mut rest: HashMap<String, Option<usize>> = HashMap::new();
        for (text, at) in exact {
            rest.entry(folded(text)).and_modify(|place| *place = None).or_insert(Some(at));
        }
        let names = |class: &Class| -> Vec<String> {
            let number = class.number.iter().filter(|_| are_keys);
            class.names.iter().chain(number).filter(|name| !name.is_empty()).cloned().collect()
        };
        let mut owners: HashMap<String, usize> = HashMap::new();
        for (class, _) in self.classes.iter().zip(&found).filter(|(_, found)| found.is_none()) {
            let names: HashSet<String> = names(class).into_iter().collect();
            names.into_iter().for_each(|name| *owners.entry(name).or_default() += 1);
        }
        for (class, found) in self.classes.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let mut alone = names(class).into_iter().filter(|name| owners[name] == 1);
            *found = alone.find_map(|name| *rest.get(&name)?);
        }
        found
    }

    /// What each class's name says; names that are none are not asked.
    pub fn verdicts(&self, names: &[Option<&str>]) -> Vec<Verdict> {
        let names: Vec<Option<Name>> = names.iter().map(|name| name.map(Name::new)).collect();
        let verdict = |(at, name): (usize, &Option<Name>)| {
            let Some(name) = name else { return Verdict::Right };
            let own = self.likeness(name, at);
            let mut others: Vec<usize> = name
                .texts
                .iter()
                .filter_map(|text| self.by_name.get(text))
                .chain(name.words.iter().flatten().filter_map(|word| self.by_word.get(word)))
                .flatten()
                .copied()
                .filter(|&other| other != at)
                .collect();
            others.sort_unstable();
            others.dedup();
            let best = others
                .into_iter()
                .map(|other| (other, self.likeness(name, other)))
                .fold((at, 0.0), |best, other| if other.1 > best.1 { other } else { best });
            let (other, most) = best;
            if own == EQUAL || own > most {
                return Verdict::Right;
            }
            let its = || names[other].as_ref().map_or(EQUAL, |its| self.likeness(its, other));
            match most == EQUAL || (most > own && most > its()) {
                true => Verdict::Of(other),
                false => Verdict::Silent,
            }
        };
        names.iter().enumerate().map(verdict).collect()
    }

    /// How many of the words of both both have, from 0 to 1; [`EQUAL`] for one of its names.
    fn likeness(&self, name: &Name, class: usize) -> f64 {
        let class = &self.classes[class];
        if name.texts.iter().any(|text| !text.is_empty() && class.names.contains(text)) {
            return EQUAL;
        }
        let alike = |a: &HashSet<String>, b: &HashSet<String>| {
            let common = a.intersection(b).count();
            common as f64 / (a.len() + b.len() - common).max(1) as f64
        };
        let pairs = name.words.iter().flat_map(|words| class.words.iter().map(move |own| alike(words, own)));
        pairs.fold(0.0, f64::max)
    }
}

const EQUAL: f64 = 2.0;

/// A name, and what stands in it between commas.
struct Name {
    texts: Vec<String>,
    words: Vec<HashSet<String>>,
}

impl Name {
    fn new(name: &str) -> Name {
        let mut parts = vec![name];
        parts.extend(name.split(", ").filter(|part| *part != name));
        Name {
            texts: parts.iter().map(|part| folded(part)).collect(),
            words: parts.iter().map(|part| words(part)).collect(),
        }
    }
}

/// Letters and digits alone, in lower case and Unicode's form C, a number without zeros in front of it, and apart from the
/// next: `Annual Crop`, `annual_crop` and `AnnualCrop` are one, and so are `F/A-18` and `F-A-18`, `stage 1` and `stage01`.
pub fn folded(text: &str) -> String {
    let lower: Vec<char> = text.nfc().flat_map(char::to_lowercase).collect();
    let mut folded = String::new();
    let mut parted = false;
    for (at, c) in lower.iter().enumerate() {
        if !c.is_alphanumeric() {
            parted = true;
            continue;
        }
        let after_digit = folded.ends_with(|last: char| last.is_ascii_digit());
        let before_digit = lower.get(at + 1).is_some_and(char::is_ascii_digit);
        if *c == '0' && before_digit && (parted || !after_digit) {
            continue;
        }
        if parted && after_digit && c.is_ascii_digit() {
            folded.push(' ');
        }
        folded.push(*c);
        parted = false;
    }
    folded
}

/// Words of letters, of `camelCase` too.
fn words(text: &str) -> HashSet<String> {
    let mut parted = String::new();
    let mut last = ' ';
    for c in text.nfc() {
        if !c.is_alphanumeric() || (last.is_lowercase() && c.is_uppercase()) {
            parted.push(' ');
        }
        parted.push(if c.is_alphanumeric() { c } else { ' ' });
        last = c;
    }
    let words = parted.split(' ').filter(|word| word.chars().any(char::is_alphabetic));
    words.map(str::to_lowercase).collect()
}

/// The numbers or WordNet ids that all names begin with, and what comes after: `001.Cat`, `1_cat`, `n02085620-Chihuahua`.
pub fn fronts(own: &[String]) -> Option<Vec<(String, String)>> {
    let front = |own: &String| {
        let (front, rest) = own.split_at(own.find(|c: char| !c.is_ascii_alphanumeric())?);
        let is_number = !front.is_empty() && front.bytes().all(|byte| byte.is_ascii_digit());
        let rest = rest.trim_start_matches([' ', '.', '-', '_']);
        let names = rest.starts_with(|c: char| c.is_alphabetic());
        ((is_number || is_word_net_id(front)) && names).then(|| (front.to_string(), rest.to_string()))
    };
    own.iter().map(front).collect()
}

/// The numbers that names with a common beginning end in.
pub fn number_ends(own: &[String]) -> Option<Vec<u64>> {
    let begin = |text: &str| text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let common = &own.first()?[..begin(own.first()?)];
    let number = |text: &String| {
        let (before, digits) = text.split_at(begin(text));
        (before == common).then(|| digits.parse().ok())?
    };
    own.iter().map(number).collect()
}

/// A class whose name has a number that is another class's, and the other: where the classes' names are told apart by
/// numbers, and each of `names` has one of these. None is asked of a class without a name.
pub fn numbers_elsewhere(own: &[String], names: &[Option<&str>]) -> Option<(usize, usize)> {
    let numbers = |text: &str| -> HashSet<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    let mut of_classes: Vec<HashSet<u64>> = own.iter().map(|own| numbers(own)).collect();
    let common: HashSet<u64> =
        of_classes.first()?.iter().filter(|&n| of_classes.iter().all(|of| of.contains(n))).copied().collect();
    if own.len() > 1 {
        of_classes.iter_mut().for_each(|of| of.retain(|number| !common.contains(number)));
    }
    let mut places: HashMap<u64, usize> = HashMap::new();
    for (at, of) in of_classes.iter().enumerate() {
        for &number in of {
            places.entry(number).or_insert(at);
        }
    }
    let mut elsewhere = None;
    for (at, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        let of_name = numbers(name);
        let there = of_name.iter().filter_map(|number| places.get(number)).min()?;
        if of_classes[at].is_disjoint(&of_name) {
            elsewhere = elsewhere.or(Some((at, *there)));
        }
    }
    elsewhere
}
