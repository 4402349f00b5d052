//! Files of class names: a name a line, JSON, CSV, and the index files of ImageNet that timm, torchvision and Keras have.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Names of classes.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// In the order of the classes' numbers.
    List(Vec<String>),
    /// By keys: folders' names or classes' numbers, a name each, or both, as in `{"0": ["n01440764", "tench"]}`.
    Map(Vec<(Vec<String>, String)>),
}

/// Reads names of classes in any of these forms. Names may repeat, as in OpenAI's list for ImageNet; none is empty.
///
/// * text, UTF-8, any line ends: a name a line; or lines of `KEY<tab>NAME`, `FOLDER=NAME`, a WordNet id and a name, or
///   a number and a name, all alike;
/// * JSON: a list of names; an object of `key: name`, of `name: number`, or of `number: [folder, name]`;
/// * `.csv` and `.tsv`: names, or keys and names, with or without a header.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 or holds no labels; an empty or doubtful line by number.
pub fn read(path: &Path) -> Result<Labels> {
    let read = || -> Result<Labels> {
        let expected = "--labels names a file with a class name a line, JSON or CSV";
        ensure!(path.try_exists()?, "no such file; {expected}");
        ensure!(!path.is_dir(), "it is a folder; {expected}");
        let bytes = std::fs::read(path)?;
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("csv") => csv(decoded(&bytes)?, b','),
            Some("tsv") => csv(decoded(&bytes)?, b'\t'),
            Some(yaml @ ("yaml" | "yml")) => {
                bail!("names are not read from .{yaml}; write one a line, or JSON")
            }
            _ => parse(&bytes),
        }
    };
    read().with_context(|| format!("reading the labels {}", path.display()))
}

/// The same from a file's bytes: text or JSON.
pub fn parse(bytes: &[u8]) -> Result<Labels> {
    let text = decoded(bytes)?;
    match text.trim_start().chars().next() {
        Some('{' | '[') => json(text),
        _ => lines(text),
    }
}

impl Labels {
    /// The names alone, in the order of the file, or of their numbers where it has numbers.
    pub fn names(self) -> Vec<String> {
        match self {
            Labels::List(names) => names,
            Labels::Map(entries) => {
                let by_number = in_order(&entries);
                by_number.unwrap_or_else(|| entries.into_iter().map(|(_, name)| name).collect())
            }
        }
    }
}

/// The names in the order of their keys, if these are the numbers from 0 or from 1 on.
pub fn in_order(entries: &[(Vec<String>, String)]) -> Option<Vec<String>> {
    let number = |(keys, name): &(Vec<String>, String)| Some((keys[0].parse::<usize>().ok()?, name.clone()));
    let mut numbered = entries.iter().map(number).collect::<Option<Vec<_>>>()?;
    numbered.sort_by_key(|(number, _)| *number);
    let first = numbered.first()?.0;
    let whole = first <= 1 && numbered.iter().zip(first..).all(|((number, _), want)| *number == want);
    whole.then(|| numbered.into_iter().map(|(_, name)| name).collect())
}

fn decoded(bytes: &[u8]) -> Result<&str> {
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    ensure!(!utf16, "it is UTF-16; save it as UTF-8");
    let text = std::str::from_utf8(bytes)
        .map_err(|e| anyhow::anyhow!("byte {} is not UTF-8; save it as UTF-8", e.valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn lines(text: &str) -> Result<Labels> {
    // Of Unix, Windows, and Macs of old.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.trim_end().split('\n').map(str::trim).collect();
    if let [line] = lines[..] {
        ensure!(!line.is_empty(), "it holds no labels; write one a line");
        let commas = line.matches([',', ';', '\t']).count();
        let words = line.split_whitespace().count();
        ensure!(
            commas == 0 && words <= 8,
            "it is one line of {words} words and {commas} commas; write one name a line, or a JSON list"
        );
    }
    if let Some(at) = lines.iter().position(|line| line.is_empty()) {
        bail!("line {} is empty", at + 1);
    }
    for (line, number) in lines.iter().zip(1..) {
        plain(line).with_context(|| format!("line {number}"))?;
    }
    for split in [by_tab, by_word_net_id, by_equals] {
        if let Some(entries) = lines.iter().map(|line| split(line)).collect::<Option<Vec<_>>>() {
            let is_devkits = |(key, name): &Pair| is_word_net_id(key) && by_number(name).is_some();
            ensure!(
                !entries.iter().all(is_devkits),
                "its lines have an id, a number and a name; write the id and the name alone"
            );
            return map(entries);
        }
    }
    if lines.len() > 1
        && let Some(entries) = lines.iter().map(|line| by_number(line)).collect::<Option<Vec<_>>>()
    {
        let entries: Vec<_> = entries.into_iter().map(|(key, name)| (vec![key], name)).collect();
        ensure!(
            in_order(&entries).is_some(),
            "all its lines begin with a number, and these are not 0, 1, 2, … or 1, 2, 3, …; if they are part of the names, \
             write a JSON list"
        );
        return Ok(Labels::Map(entries));
    }
    Ok(Labels::List(lines.into_iter().map(str::to_string).collect()))
}

/// Refuses what is left of another file's syntax: quotes around a name, a comma behind it, a comment.
fn plain(line: &str) -> Result<()> {
    ensure!(!line.starts_with("# "), "{line:?} looks like a comment, which is not read");
    ensure!(
        !line.ends_with([',', ';']),
        "it ends in {}; write one name a line, or a JSON list",
        &line[line.len() - 1..]
    );
    let is_quoted = |quote: char| line.len() > 1 && line.ends_with(quote) && line.matches(quote).count() == 2;
    ensure!(
        !['"', '\''].into_iter().any(is_quoted),
        "the name in {line} is in quotes; write it without, or a JSON list"
    );
    Ok(())
}

type Pair = (String, String);

fn pair(key: &str, name: &str) -> Option<Pair> {
    let (key, name) = (key.trim(), name.trim());
    (!key.is_empty() && !name.is_empty()).then(|| (key.to_string(), name.to_string()))
}

fn by_tab(line: &str) -> Option<Pair> {
    line.split_once('\t').and_then(|(key, name)| pair(key, name))
}

fn by_equals(line: &str) -> Option<Pair> {
    line.split_once('=').and_then(|(key, name)| pair(key, name))
}

fn by_word_net_id(line: &str) -> Option<Pair> {
    let (id, name) = line.split_at_checked(9)?;
    let apart = name.starts_with([' ', ',', ':', '=']);
    (is_word_net_id(id) && apart).then(|| pair(id, name.trim_start_matches([' ', ',', ':', '='])))?
}

fn by_number(line: &str) -> Option<Pair> {
    let digits = line.find(|c: char| !c.is_ascii_digit()).filter(|&digits| digits > 0)?;
    let (number, name) = line.split_at(digits);
    let apart = [' ', ',', ':', ';', '.', ')', '='];
    name.starts_with(apart).then(|| pair(number, name.trim_start_matches(apart)))?
}

/// An `n` and eight digits, as ImageNet's folders are named.
pub fn is_word_net_id(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// Pairs of key and name, or of name and number.
fn map(pairs: Vec<Pair>) -> Result<Labels> {
    let numbers = |of: fn(&Pair) -> &str| pairs.iter().all(|pair| of(pair).parse::<usize>().is_ok());
    let pairs = match numbers(|pair| &pair.1) && !numbers(|pair| &pair.0) {
        true => pairs.into_iter().map(|(name, number)| (number, name)).collect(),
        false => pairs,
    };
    let mut keys: Vec<&String> = pairs.iter().map(|(key, _)| key).collect();
    keys.sort();
    if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("it names {:?} twice", twice[0]);
    }
    Ok(Labels::Map(pairs.into_iter().map(|(key, name)| (vec![key], name)).collect()))
}

fn csv(text: &str, delimiter: u8) -> Result<Labels> {
    let mut builder = csv::ReaderBuilder::new();
    let reader = builder.has_headers(false).delimiter(delimiter).trim(csv::Trim::All);
    let rows = reader.from_reader(text.as_bytes()).into_records().collect::<Result<Vec<_>, _>>()?;
    let header = |cell: &str| {
        let words = [
            "",
            "label",
            "name",
            "class",
            "classname",
            "category",
            "categorie",
            "index",
            "id",
            "idx",
            "folder",
            "wnid",
            "synset",
            "number",
            "key",
        ];
        cell.to_lowercase()
            .split([' ', '_'])
            .all(|word| words.contains(&word) || words.contains(&word.trim_end_matches('s')))
    };
    // One word alone may be a class itself, such as `key`.
    let alone = |cell: &str| {
        header(cell)
            && ["label", "name", "class", "categor"].iter().any(|word| cell.to_lowercase().contains(word))
    };
    let is_key = |cell: &str| cell.parse::<usize>().is_ok() || is_word_net_id(cell);
    let has_keys = rows.len() > 1 && rows[1..].iter().all(|row| is_key(&row[0]));
    let is_header = |row: &csv::StringRecord| match row.len() {
        1 => alone(&row[0]),
        _ => row.iter().all(header),
    };
    let from = usize::from(rows.first().is_some_and(is_header));
    if has_keys && from == 0 && rows[0].len() > 1 && !is_key(&rows[0][0]) {
        let first: Vec<&str> = rows[0].iter().collect();
        bail!(
            "its first row, {}, is no key and name as the others are; if it is a header, call its columns id,name",
            first.join(",")
        );
    }
    let rows = &rows[from..];
    ensure!(!rows.is_empty(), "it holds no labels");
    let columns = rows[0].len();
    if let Some(empty) = rows.iter().position(|row| row.iter().any(str::is_empty)) {
        bail!("row {} has an empty cell", from + empty + 1);
    }
    ensure!(rows.len() > 1 || columns == 1, "it is one row of {columns} cells; write one name a line");
    // In names of their own commas are common.
    let is_parted = |cell: &str, by: char| {
        cell.split_once(by).is_some_and(|(before, _)| by != ',' || is_key(before.trim()))
    };
    let other = [',', ';', '\t'].into_iter().filter(|&by| by != char::from(delimiter));
    if columns == 1
        && let Some(by) = other.into_iter().find(|&by| rows.iter().all(|row| is_parted(&row[0], by)))
    {
        bail!("its cells seem to be parted by {by:?}, not by {:?}; save it so", char::from(delimiter));
    }
    match columns {
        1 => Ok(Labels::List(rows.iter().map(|row| row[0].to_string()).collect())),
        2 => map(rows.iter().map(|row| (row[0].to_string(), row[1].to_string())).collect()),
        _ => bail!(
            "it has {columns} columns; one of names is read, or a second one before it, of folders or numbers"
        ),
    }
}

fn json(text: &str) -> Result<Labels> {
    let name = |what: &str, value: &Value| match value.as_str().map(str::trim) {
        Some(name) if !name.is_empty() => Ok(name.to_string()),
        _ => bail!("{what} is {value}, not a name"),
    };
    let begins = text.trim_start();
    if begins.starts_with('[') {
        let list: Vec<Value> = serde_json::from_str(text).context("it begins as a JSON list and is none")?;
        ensure!(!list.is_empty(), "it holds no labels");
        let names = list.iter().enumerate().map(|(i, value)| name(&format!("element {i}"), value));
        return Ok(Labels::List(names.collect::<Result<_>>()?));
    }
    let Object(object) = serde_json::from_str(text).context("it begins as a JSON object and is none")?;
    ensure!(!object.is_empty(), "it holds no labels");
    if object.iter().all(|(_, value)| value.is_u64()) {
        return map(object.into_iter().map(|(name, number)| (name, number.to_string())).collect());
    }
    let is_entry = |(key, value): &(String, Value)| {
        key.parse::<usize>().is_ok() && value.as_array().is_some_and(|list| list.len() == 2)
    };
    if object.iter().all(is_entry) {
        let entry = |(number, value): (String, Value)| {
            let [folder, label] = [0, 1].map(|i| name(&format!("{number:?}"), &value[i]));
            Ok((vec![number, folder?], label?))
        };
        return Ok(Labels::Map(object.into_iter().map(entry).collect::<Result<_>>()?));
    }
    let pair = |(key, value): (String, Value)| Ok((key.clone(), name(&format!("{key:?}"), &value)?));
    map(object.into_iter().map(pair).collect::<Result<_>>()?)
}

/// A JSON object, with keys that repeat.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Labels {
        Labels::List(names.iter().map(|name| name.to_string()).collect())
    }

    fn of(entries: &[(&str, &str)]) -> Labels {
        let entry =
            |(keys, name): &(&str, &str)| (keys.split(' ').map(str::to_string).collect(), name.to_string());
        Labels::Map(entries.iter().map(entry).collect())
    }

    #[test]
    fn lines_of_any_system() {
        for text in
            ["cat\ndog\n", "\u{feff}cat\r\ndog\r\n", "cat\ndog\n\n", "cat\rdog\r", "cat\rdog", " cat \n\tdog"]
        {
            assert_eq!(parse(text.as_bytes()).unwrap(), list(&["cat", "dog"]), "{text:?}");
        }
        assert_eq!(parse(b"missile\nmissile\n").unwrap(), list(&["missile", "missile"]));
        assert_eq!(parse(b"cat, domestic cat\n3 dogs\n").unwrap(), list(&["cat, domestic cat", "3 dogs"]));
    }

    #[test]
    fn keys_and_names() {
        let fish = of(&[("n01440764", "tench, Tinca tinca"), ("n01443537", "goldfish")]);
        for text in [
            "n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
            "n01440764\ttench, Tinca tinca\nn01443537\tgoldfish\n",
            "n01440764=tench, Tinca tinca\nn01443537=goldfish",
            r#"{"n01440764": "tench, Tinca tinca", "n01443537": "goldfish"}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), fish, "{text}");
        }
        let numbered = of(&[("0", "cat"), ("1", "dog")]);
        for text in [
            "0 cat\n1 dog",
            "0: cat\n1: dog",
            "0\tcat\n1\tdog",
            r#"{"0": "cat", "1": "dog"}"#,
            r#"{"cat": 0, "dog": 1}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), numbered, "{text}");
        }
        let index = br#"{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}"#;
        assert_eq!(parse(index).unwrap(), of(&[("0 n01440764", "tench"), ("1 n01443537", "goldfish")]));
        assert_eq!(parse(b"[\"cat\",\n \"dog\"]").unwrap(), list(&["cat", "dog"]));
        assert_eq!(parse(br#"{"1": "dog", "0": "cat"}"#).unwrap().names(), ["cat", "dog"]);
    }

    #[test]
    fn tables() {
        let numbered = of(&[("0", "cat"), ("1", "dog, wild")]);
        for text in [
            "index,class_name\r\n0,cat\r\n1,\"dog, wild\"\r\n",
            "0,cat\n1,\"dog, wild\"\n",
            ",label\n0,cat\n1,\"dog, wild\"",
        ] {
            assert_eq!(csv(text, b',').unwrap(), numbered, "{text}");
        }
        assert_eq!(csv("label\ncat\ndog", b',').unwrap(), list(&["cat", "dog"]));
        assert_eq!(csv("key\nlock\ndoor", b',').unwrap(), list(&["key", "lock", "door"]));
        assert_eq!(csv("folder\tname\na\tcat\nb\tdog", b'\t').unwrap(), of(&[("a", "cat"), ("b", "dog")]));
        assert_eq!(csv("id,category\n0,cat\n1,\"dog, wild\"", b',').unwrap(), numbered);
        assert_eq!(csv("category\ncat\ndog", b',').unwrap(), list(&["cat", "dog"]));
        assert_eq!(csv("classname\ncat\ndog", b',').unwrap(), list(&["cat", "dog"]));
        assert_eq!(csv("\"dog, wild\"\n\"cat, tame\"", b',').unwrap(), list(&["dog, wild", "cat, tame"]));
        assert_eq!(csv("dog, wild\ncat, tame", b'\t').unwrap(), list(&["dog, wild", "cat, tame"]));
        for (text, delimiter, want) in [
            ("nummer,art\n0,cat\n1,dog", b',', "first row, nummer,art, is no key and name"),
            ("background,bg\nn01440764,tench", b',', "first row, background,bg"),
            ("cat,dog", b',', "one row of 2 cells"),
            ("0;cat\n1;dog", b',', "parted by ';', not by ','"),
            ("0\tcat\n1\tdog", b',', "parted by '\\t', not by ','"),
            ("0,cat\n1,dog", b'\t', "parted by ',', not by '\\t'"),
        ] {
            let error = csv(text, delimiter).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        assert!(csv("a,b,c\nd,e,f", b',').unwrap_err().to_string().contains("3 columns"));
        assert!(csv("cat\n\"\"\n", b',').unwrap_err().to_string().contains("row 2"));
    }

    #[test]
    fn faults_are_named() {
        let cases: [(&[u8], &str); 22] = [
            (b"", "no labels"),
            (b"\n\n", "no labels"),
            (b"cat\n\ndog", "line 2 is empty"),
            (b"cat\n\xff\n", "byte 4 is not UTF-8"),
            (b"\xff\xfec\x00", "UTF-16"),
            (b"cat,dog,bird", "one line of 1 words and 2 commas"),
            (b"a b c d e f g h i", "one line of 9 words"),
            (b"{0: 'tench',\n 1: 'goldfish'}", "begins as a JSON object"),
            (b"['cat']", "begins as a JSON list"),
            (b"[\"cat\", 3]", "element 1 is 3"),
            (b"[\"cat\", \"\"]", "element 1 is \"\""),
            (br#"{"a": "cat", "a": "dog"}"#, "\"a\" twice"),
            (br#"{"a": ["cat", "tom", "puss"]}"#, "\"a\" is"),
            (b"[]", "no labels"),
            (br#"{"classes": ["cat", "dog"]}"#, "\"classes\" is"),
            (b"\"cat\",\n\"dog\",", "line 1: it ends in ,"),
            (b"cat,\ndog", "line 1: it ends in ,"),
            (b"'cat'\n'dog'", "line 1: the name in 'cat' is in quotes"),
            (b"0: 'cat'\n1: 'dog'", "line 1: the name in 0: 'cat' is in quotes"),
            (b"# names\ncat", "line 1: \"# names\" looks like a comment"),
            (b"n01440764 1 tench\nn01443537 2 goldfish", "an id, a number and a name"),
            (b"0 cat\n2 dog", "all its lines begin with a number"),
        ];
        for (bytes, want) in cases {
            let error = format!("{:#}", parse(bytes).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
    }
}
