//! Class names in tables: `.csv` and `.tsv`.

use anyhow::{Context, Result, bail, ensure};

use super::labels::{Labels, Reading, is_word_net_id, map, plain};

/// Names, or keys and names, with or without a header.
///
/// # Errors
/// What is no table of one or two columns.
pub fn parse(text: &str, delimiter: u8) -> Result<Labels> {
    // Excel's first line may say what parts its cells.
    let (text, delimiter) = match text.strip_prefix("sep=").map(str::as_bytes) {
        Some([by, ..]) => (text.split_once('\n').map_or("", |(_, rest)| rest), *by),
        _ => (text, delimiter),
    };
    let mut builder = csv::ReaderBuilder::new();
    let reader = builder.has_headers(false).delimiter(delimiter).trim(csv::Trim::All);
    let records = reader.from_reader(text.as_bytes()).into_records().collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<Vec<String>> =
        records.iter().map(|record| record.iter().map(str::to_string).collect()).collect();
    ensure!(!rows.is_empty(), "it holds no labels");
    let columns = rows[0].len();
    ensure!(
        columns <= 2,
        "it has {columns} columns; one of names is read, or a second one before it, of folders or numbers"
    );
    let from = usize::from(is_header(&rows[0]));
    let reading = reading(&rows[from..], from, delimiter).map_err(|error| format!("{error:#}"));
    // What looks like a header may be a class.
    let whole = (from == 1 && rows[0].iter().all(|cell| !cell.is_empty())).then(|| match columns {
        1 => Reading::List(rows.concat()),
        _ => Reading::Map(rows.iter().map(|row| (vec![row[0].clone()], row[1].clone())).collect()),
    });
    Ok(Labels { literal: whole, reading })
}

fn is_header(row: &[String]) -> bool {
    const WORDS: [&str; 15] = [
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
    let header = |cell: &str| {
        cell.to_lowercase()
            .split([' ', '_'])
            .all(|word| WORDS.contains(&word) || WORDS.contains(&word.trim_end_matches('s')))
    };
    // One word alone may be a class itself, such as `key`.
    let names = ["label", "name", "class", "categor"];
    match row {
        [cell] => header(cell) && names.iter().any(|word| cell.to_lowercase().contains(word)),
        _ => row.iter().all(|cell| header(cell)),
    }
}

/// Of rows that come after `above` others.
fn reading(rows: &[Vec<String>], above: usize, delimiter: u8) -> Result<Reading> {
    ensure!(!rows.is_empty(), "it holds no labels but a header");
    let columns = rows[0].len();
    let empty = rows.iter().position(|row| row.iter().any(String::is_empty));
    ensure!(empty.is_none(), "row {} has an empty cell", empty.unwrap_or(0) + above + 1);
    ensure!(rows.len() > 1 || columns == 1, "it is one row of {columns} cells; write one name a line");
    // In names of their own commas are common.
    let is_key = |cell: &str| cell.parse::<usize>().is_ok() || is_word_net_id(cell);
    let is_parted = |cell: &str, by: char| {
        cell.split_once(by).is_some_and(|(before, _)| by != ',' || is_key(before.trim()))
    };
    let other = [',', ';', '\t'].into_iter().filter(|&by| by != char::from(delimiter));
    if columns == 1
        && let Some(by) = other.into_iter().find(|&by| rows.iter().all(|row| is_parted(&row[0], by)))
    {
        bail!("its cells seem to be parted by {by:?}, not by {:?}; save it so", char::from(delimiter));
    }
    for (row, number) in rows.iter().zip(above + 1..) {
        row.iter().try_for_each(|cell| plain(cell)).with_context(|| format!("row {number}"))?;
    }
    match columns {
        1 => Ok(Reading::List(rows.concat())),
        _ => map(rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect()),
    }
}
