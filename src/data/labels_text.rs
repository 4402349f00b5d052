//! Class names as text: a name a line, or a key and a name.

use anyhow::{Context, Result, bail, ensure};

use super::labels::{Labels, Reading, is_word_net_id, map, once, plain, repeated};

/// Lines of Unix, Windows, and Macs of old.
///
/// # Errors
/// An empty line by number; no line; one line of many names.
pub fn parse(text: &str) -> Result<Labels> {
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
    let reading = reading(&lines).map_err(|error| format!("{error:#}"));
    let lines = lines.into_iter().map(str::to_string).collect();
    Ok(Labels { literal: Some(Reading::List(lines)), reading })
}

fn reading(lines: &[&str]) -> Result<Reading> {
    let each_plain = |names: &mut dyn Iterator<Item = &str>| -> Result<()> {
        names.zip(1..).try_for_each(|(name, number)| plain(name).with_context(|| format!("line {number}")))
    };
    for split in [by_tab, by_word_net_id, by_equals] {
        if let Some(pairs) = lines.iter().map(|line| split(line)).collect::<Option<Vec<_>>>() {
            let is_devkits = |(key, name): &Pair| is_word_net_id(key) && by_number(name).is_some();
            ensure!(
                !pairs.iter().all(is_devkits),
                "its lines have an id, a number and a name; write the id and the name alone"
            );
            each_plain(&mut pairs.iter().map(|(_, name)| &name[..]))?;
            return map(pairs);
        }
    }
    if let Some(pairs) = lines.iter().map(|line| by_number(line)).collect::<Option<Vec<_>>>() {
        each_plain(&mut pairs.iter().map(|(_, name)| &name[..]))?;
        apart_without_numbers(lines, &pairs)?;
        return once(pairs.into_iter().map(|(number, name)| (vec![number], name)).collect());
    }
    let has_id: Vec<bool> = lines.iter().map(|line| by_word_net_id(line).is_some()).collect();
    if let Some(at) = has_id.iter().position(|has| !has)
        && has_id.iter().filter(|has| **has).count() * 2 > lines.len()
    {
        bail!("line {}, {:?}, begins with no WordNet id, as most others do", at + 1, lines[at]);
    }
    each_plain(&mut lines.iter().copied())?;
    one_column(lines)?;
    Ok(Reading::List(lines.iter().map(|line| line.to_string()).collect()))
}

/// Refuses to take away the numbers of `1 finger`, `2 fingers`, `3 fingers`.
fn apart_without_numbers(lines: &[&str], pairs: &[Pair]) -> Result<()> {
    let is_parted = |(line, (number, _)): (&&str, &Pair)| !line[number.len()..].starts_with(' ');
    if lines.iter().zip(pairs).all(is_parted) {
        return Ok(());
    }
    let names: Vec<&str> = pairs.iter().map(|(_, name)| &name[..]).collect();
    match repeated(&names) {
        Some((one, other)) => bail!(
            "lines {} and {}, {:?} and {:?}, are one name without their numbers; if these are part of the names, write a JSON \
             list, otherwise NUMBER<tab>NAME",
            one + 1,
            other + 1,
            lines[one],
            lines[other]
        ),
        None => Ok(()),
    }
}

/// Refuses lines that all have a second column, which would be taken for part of the names.
fn one_column(lines: &[&str]) -> Result<()> {
    if lines.len() < 2 {
        return Ok(());
    }
    const ADVICE: &str = "write the names alone, FOLDER=NAME, or a JSON list";
    let marks = [";", "|", "->", "=>", "→", ": "];
    if let Some(mark) = marks.into_iter().find(|mark| lines.iter().all(|line| line.contains(mark))) {
        bail!("line 1, {:?}, is in two parts by {mark:?}, and so are all others; {ADVICE}", lines[0]);
    }
    // A comma and a blank are common in names.
    let has_commas = |line: &&str| line.split_once(',').is_some_and(|(_, rest)| !rest.starts_with(' '));
    ensure!(
        !lines.iter().all(has_commas),
        "line 1, {:?}, is in two parts by a comma, and so are all others; save it as .csv, or {ADVICE}",
        lines[0]
    );
    let numbered = |line: &&str| {
        let (before, number) = line.rsplit_once(' ')?;
        Some((before.to_string(), number.parse::<usize>().ok()?))
    };
    if let Some(mut columns) = lines.iter().map(numbered).collect::<Option<Vec<_>>>() {
        let counts = columns[0].1 <= 1 && columns.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1);
        columns.sort();
        // Not of `grade 1`, `grade 2`.
        let differ = columns.windows(2).all(|pair| pair[0].0 != pair[1].0);
        ensure!(
            !(counts && differ),
            "line 1, {:?}, ends in a number, and so do all others; {ADVICE}",
            lines[0]
        );
    }
    ensure!(
        !lines.iter().all(|line| line.starts_with('/')),
        "line 1, {:?}, is a path, and so are all others; {ADVICE}",
        lines[0]
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
    // 0.5 is one number, and so is 10:30.
    let goes_on = name.starts_with(['.', ',', ':']) && name[1..].starts_with(|c: char| c.is_ascii_digit());
    (name.starts_with(apart) && !goes_on).then(|| pair(number, name.trim_start_matches(apart)))?
}
