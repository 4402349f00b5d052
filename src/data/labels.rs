//! Files of class names: a name a line, JSON, CSV, and the index files of ImageNet that timm, torchvision and Keras have.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{labels_json, labels_table, labels_text};

/// Names of classes, as a file has them. What belongs to which class is for [`super::names`] to say, where there are classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// Before anything is read into it: lines whole, a table with the row that looks like its header. To be taken where it
    /// is, to the letter, the classes' own names, whatever it looks like.
    pub literal: Option<Reading>,
    /// What it is otherwise, or why that cannot be told.
    pub reading: Result<Reading, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Names in the order of the classes' numbers.
    List(Vec<String>),
    /// Names by keys.
    Map(Vec<Entry>),
}

/// A class's keys and its name: a folder's name or a number, or a number and a folder's name, as in
/// `{"0": ["n01440764", "tench"]}`.
pub type Entry = (Vec<String>, String);

/// Reads names of classes in any of these forms. Names may repeat, as in OpenAI's list for ImageNet; none is empty.
///
/// * text, UTF-8, any line ends: a name a line; or lines of `KEY<tab>NAME`, `FOLDER=NAME`, a WordNet id and a name, or
///   a number and a name, all alike;
/// * JSON: a list of names; an object of `key: name`, of `name: number`, or of `number: [folder, name]`;
/// * `.csv` and `.tsv`: names, or keys and names, with or without a header.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 or holds no labels; an empty line by number.
pub fn read(path: &Path) -> Result<Labels> {
    let read = || -> Result<Labels> {
        let expected = "--labels names a file with a class name a line, JSON or CSV";
        ensure!(path.try_exists()?, "no such file; {expected}");
        ensure!(!path.is_dir(), "it is a folder; {expected}");
        let bytes = std::fs::read(path)?;
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("csv") => labels_table::parse(decoded(&bytes)?, b','),
            Some("tsv") => labels_table::parse(decoded(&bytes)?, b'\t'),
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
        Some('{' | '[') => labels_json::parse(text),
        _ => labels_text::parse(text),
    }
}

impl Labels {
    /// Of a file that can be read in one way alone.
    pub fn of(reading: Reading) -> Labels {
        Labels { literal: None, reading: Ok(reading) }
    }

    /// What it is where there are no classes to compare it with, or where it is not these classes' names to the letter.
    ///
    /// # Errors
    /// What of it cannot be told, by line.
    pub fn reading(&self) -> Result<&Reading> {
        self.reading.as_ref().map_err(|why| anyhow::anyhow!("{why}"))
    }

    /// The names alone, in the order of the file, or of their numbers where it has numbers.
    ///
    /// # Errors
    /// Numbers that are not those from 0 or from 1 on; numbers where names should be; as [`Labels::reading`].
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = match self.reading()? {
            Reading::List(names) => return Ok(names.clone()),
            Reading::Map(entries) => entries,
        };
        if is_numbered(entries) {
            return in_order(entries).with_context(|| {
                let (keys, name) = &entries[0];
                format!(
                    "{} is {name}: its numbers are not 0, 1, 2, … or 1, 2, 3, …; if they are part of the names, write a \
                     JSON list, and the names alone if not",
                    keys[0]
                )
            });
        }
        let names: Vec<String> = entries.iter().map(|(_, name)| name.clone()).collect();
        ensure!(
            !names.iter().all(|name| is_number(name)),
            "its names are numbers: {:?} is {}; write the names alone",
            entries[0].0[0],
            names[0]
        );
        Ok(names)
    }
}

/// Whether all keys are classes' numbers.
pub fn is_numbered(entries: &[Entry]) -> bool {
    entries.iter().all(|(keys, _)| keys[0].parse::<usize>().is_ok())
}

/// The names in the order of their keys, if these are the numbers from 0 or from 1 on.
pub fn in_order(entries: &[Entry]) -> Option<Vec<String>> {
    let number = |(keys, name): &Entry| Some((keys[0].parse::<usize>().ok()?, name.clone()));
    let mut numbered = entries.iter().map(number).collect::<Option<Vec<_>>>()?;
    numbered.sort_by_key(|(number, _)| *number);
    let first = numbered.first()?.0;
    let whole = first <= 1 && numbered.iter().zip(first..).all(|((number, _), want)| *number == want);
    whole.then(|| numbered.into_iter().map(|(_, name)| name).collect())
}

/// A number and nothing else, such as `3`, `-1`, `0.0`.
pub fn is_number(name: &str) -> bool {
    name.bytes().any(|byte| byte.is_ascii_digit()) && name.parse::<f64>().is_ok()
}

/// An `n` and eight digits, as ImageNet's folders are named.
pub fn is_word_net_id(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|byte| byte.is_ascii_digit())
}

fn decoded(bytes: &[u8]) -> Result<&str> {
    let utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0);
    ensure!(!utf16, "it is UTF-16, or no text; save it as UTF-8");
    let text = std::str::from_utf8(bytes)
        .map_err(|e| anyhow::anyhow!("byte {} is not UTF-8; save it as UTF-8", e.valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Refuses what nobody sees in a name, and what a terminal would obey.
pub fn visible(name: &str) -> Result<()> {
    let is_hidden = |c: &char| {
        let unseen = ['\u{ad}', '\u{200b}', '\u{2028}', '\u{2029}', '\u{2060}', '\u{feff}'].contains(c);
        let turns = ('\u{202a}'..='\u{202e}').contains(c) || ('\u{2066}'..='\u{2069}').contains(c);
        c.is_control() || unseen || turns
    };
    match name.chars().find(is_hidden) {
        Some('\t') => {
            bail!("{name:?} has one more column; write KEY<tab>NAME or the name alone, so on every line")
        }
        Some(hidden) => {
            bail!("{:?} has a character that is not to be seen, U+{:04X}; remove it", name, u32::from(hidden))
        }
        None => Ok(()),
    }
}

/// The same, and what is left of another file's syntax: marks of a list, quotes around a name, a comma behind it, a comment,
/// a column of WordNet ids.
pub fn plain(name: &str) -> Result<()> {
    visible(name)?;
    let is_comment =
        ["# ", "// "].iter().any(|mark| name.starts_with(mark) || name.contains(&format!(" {mark}")));
    ensure!(!is_comment, "{name:?} looks like a comment, which is not read; remove it, or write a JSON list");
    let mark = ["- ", "* ", "+ ", "• "].iter().find(|mark| name.starts_with(**mark));
    ensure!(mark.is_none(), "{name:?} begins as in a list of notes; write the name alone, or a JSON list");
    ensure!(
        !name.ends_with([',', ';']),
        "it ends in {}; write one name a line, or a JSON list",
        &name[name.len() - 1..]
    );
    let quotes = [('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('«', '»')];
    let is_quoted =
        |(open, close)| name.chars().count() > 1 && name.starts_with(open) && name.ends_with(close);
    ensure!(
        !quotes.into_iter().any(is_quoted),
        "the name in {name} is in quotes; write it without, or a JSON list"
    );
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    ensure!(
        is_word_net_id(name) || !words.any(is_word_net_id),
        "{name:?} has a WordNet id beside other words; write the id and the name alone, so on every line"
    );
    Ok(())
}

/// Keys and names, or names and numbers, in either case a pair a row.
///
/// # Errors
/// A key twice; a first row that is unlike all others.
pub fn map(pairs: Vec<(String, String)>) -> Result<Reading> {
    let is_numeric = |text: &str| text.parse::<usize>().is_ok();
    let is_key = |text: &str| is_numeric(text) || is_word_net_id(text);
    if let [first, rest @ ..] = &pairs[..]
        && !rest.is_empty()
    {
        let is_odd = (!is_key(&first.0) && rest.iter().all(|(key, _)| is_key(key)))
            || (!is_numeric(&first.1) && rest.iter().all(|(_, name)| is_numeric(name)));
        ensure!(
            !is_odd,
            "its first row, {},{}, is no key and name as the others are; if it is a header, call its columns id,name or name,id",
            first.0,
            first.1
        );
    }
    let swapped =
        pairs.iter().all(|pair| is_numeric(&pair.1)) && !pairs.iter().all(|pair| is_numeric(&pair.0));
    if swapped {
        let names: Vec<&str> = pairs.iter().map(|(name, _)| &name[..]).collect();
        if let Some((at, _)) = repeated(&names) {
            bail!("it names {:?} twice", names[at]);
        }
    }
    let entry = |(key, name): (String, String)| match swapped {
        true => (vec![name], key),
        false => (vec![key], name),
    };
    once(pairs.into_iter().map(entry).collect())
}

/// The first two places of one name, where names repeat more than in a list of classes: ImageNet's has `crane` twice.
pub fn repeated(names: &[&str]) -> Option<(usize, usize)> {
    let mut first = HashMap::new();
    let again = names.iter().enumerate().filter_map(|(at, name)| Some((first.insert(name, at)?, at)));
    let again: Vec<_> = again.collect();
    again.first().copied().filter(|_| again.len() * 50 > names.len())
}

/// # Errors
/// A key twice.
pub fn once(entries: Vec<Entry>) -> Result<Reading> {
    for column in 0..entries[0].0.len() {
        let mut keys: Vec<&String> = entries.iter().map(|(keys, _)| &keys[column]).collect();
        keys.sort();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("it names {:?} twice", twice[0]);
        }
    }
    Ok(Reading::Map(entries))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Reading {
        Reading::List(names.iter().map(|name| name.to_string()).collect())
    }

    fn of(entries: &[(&str, &str)]) -> Reading {
        let entry =
            |(keys, name): &(&str, &str)| (keys.split(' ').map(str::to_string).collect(), name.to_string());
        Reading::Map(entries.iter().map(entry).collect())
    }

    fn parse(bytes: &[u8]) -> Result<Reading> {
        super::parse(bytes)?.reading().cloned()
    }

    fn csv(text: &str, delimiter: u8) -> Result<Reading> {
        labels_table::parse(text, delimiter)?.reading().cloned()
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
            r#"{"cat": "0", "dog": 1}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), numbered, "{text}");
        }
        let index = br#"{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}"#;
        assert_eq!(parse(index).unwrap(), of(&[("0 n01440764", "tench"), ("1 n01443537", "goldfish")]));
        assert_eq!(parse(b"[\"cat\",\n \"dog\"]").unwrap(), list(&["cat", "dog"]));
        let names = |text: &str| super::parse(text.as_bytes())?.names();
        assert_eq!(names(r#"{"1": "dog", "0": "cat"}"#).unwrap(), ["cat", "dog"]);
        assert_eq!(names("n01440764\ttench\nn01443537\tgoldfish").unwrap(), ["tench", "goldfish"]);
        for (text, want) in [
            (r#"{"one": 17, "two": 2, "zero": 0}"#, "17 is one: its numbers are not 0, 1, 2"),
            ("0 cat\n2 dog", "0 is cat: its numbers are not"),
            (r#"{"cat": "0.0", "dog": "1.0"}"#, "its names are numbers: \"cat\" is 0.0"),
        ] {
            let error = names(text).expect_err(text).to_string();
            assert!(error.contains(want), "{error}");
        }
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
        let cases: [(&[u8], &str); 21] = [
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
            (b"0: 'cat'\n1: 'dog'", "line 1: the name in 'cat' is in quotes"),
            (b"# names\ncat", "line 1: \"# names\" looks like a comment"),
            (b"n01440764 1 tench\nn01443537 2 goldfish", "an id, a number and a name"),
        ];
        for (bytes, want) in cases {
            let error = format!("{:#}", parse(bytes).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
    }

    /// What another program's file has beside names does not become part of them.
    #[test]
    fn other_columns_and_marks_are_refused() {
        for (text, want) in [
            ("/a/airfield 0\n/a/alcove 1\n/z/zoo 2", "line 1, \"/a/airfield 0\", ends in a number"),
            ("/a/airfield\n/a/alcove", "is a path"),
            ("cat 0\ndog 1", "ends in a number"),
            ("cat,0\ndog,1", "in two parts by a comma"),
            ("cat;0\ndog;1", "in two parts by \";\""),
            ("cat: tabby\ndog: hound", "in two parts by \": \""),
            ("cat -> tabby\ndog -> hound", "in two parts by \"->\""),
            ("cat|tabby\ndog|hound", "in two parts by \"|\""),
            ("tench n01440764\ngoldfish n01443537", "line 1: \"tench n01440764\" has a WordNet id"),
            ("0 n01440764 tench\n1 n01443537 goldfish", "has a WordNet id beside other words"),
            (
                "n01440764 tench\nn01443537 goldfish\n1 normal",
                "line 3, \"1 normal\", begins with no WordNet id",
            ),
            ("0\tn01440764\ttench\n1\tn01443537\tgoldfish", "one more column"),
            ("n01440764\t1\ttench\nn01443537\t2\tgoldfish", "one more column"),
            ("cat\ndog\thound", "line 2: \"dog\\thound\" has one more column"),
            ("breed\ttarget\ncat\t0\ndog\t1", "its first row, breed,target,"),
            (
                "0 fingers\n1 finger\n2 fingers",
                "lines 1 and 3, \"0 fingers\" and \"2 fingers\", are one name",
            ),
            ("x=1\nx=2", "it names \"x\" twice"),
            ("- cat\n- dog", "line 1: \"- cat\" begins as in a list of notes"),
            ("cat\n* dog", "line 2: \"* dog\" begins"),
            ("cat # 0\ndog # 1", "looks like a comment"),
            ("cat\ndog // 1", "line 2: \"dog // 1\" looks like a comment"),
            ("“cat”\n“dog”", "in quotes"),
            ("`cat`\n`dog`", "in quotes"),
            ("cat\nd\u{200b}og", "line 2: \"d\\u{200b}og\" has a character that is not to be seen, U+200B"),
            ("cat\n\u{feff}dog", "U+FEFF"),
            ("\u{1b}[31mcat\u{1b}[0m\ndog", "U+001B"),
            ("\0c\0a\0t\0\n\0d\0o\0g", "UTF-16, or no text"),
            ("[\"cat\", \"d\\u001bog\"]", "element 1: "),
            ("{\"\": \"cat\", \"b\": \"dog\"}", "\"cat\" has no key"),
            ("{0: 'tench'}", "it looks like Python's own"),
        ] {
            let error = format!("{:#}", parse(text.as_bytes()).expect_err(text));
            assert!(error.contains(want), "{text}: {error}");
        }
        for (text, want) in [
            ("breed,target\ncat,0\ndog,1", "its first row, breed,target,"),
            ("0, \"cat\"\n1, \"dog\"", "row 1: the name in \"cat\" is in quotes"),
            ("# names\ncat", "row 1: \"# names\" looks like a comment"),
            ("index,mid,name\n0,/m/0,cat", "3 columns"),
        ] {
            let error = format!("{:#}", csv(text, b',').expect_err(text));
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn names_keep_what_is_theirs() {
        for names in [
            &["grade 1", "grade 2", "grade 3"][..],
            &["0.5 litre", "1.5 litre"],
            &["10:30 train", "11:30 train"],
            &["captain, headwaiter, maitre d'hotel, maitre d'", "cat"],
            &["tench, Tinca tinca", "goldfish, Carassius auratus"],
            &["F/A-18", "Boeing 737-400"],
            &["n01440764", "n01443537"],
        ] {
            assert_eq!(parse(names.join("\n").as_bytes()).unwrap(), list(names));
        }
        let numbered = of(&[("0", "cat"), ("1", "dog")]);
        assert_eq!(csv("sep=;\r\n0;cat\r\n1;dog", b',').unwrap(), numbered);
        let header = labels_table::parse("label\nname", b',').unwrap();
        assert_eq!(header.literal, Some(list(&["label", "name"])));
        assert_eq!(header.reading, Ok(list(&["name"])));
    }
}
