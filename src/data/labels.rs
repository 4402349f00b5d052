//! Class names, one a line.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Reads a labels file: UTF-8, one name a line, none empty, none twice.
///
/// # Errors
/// A file that cannot be read, is not UTF-8 or holds no labels; an empty or repeated line by number.
pub fn read(path: &Path) -> Result<Vec<String>> {
    let read = || -> Result<Vec<String>> { parse(&std::fs::read(path)?) };
    read().with_context(|| format!("reading the labels {}", path.display()))
}

/// The same from a file's bytes.
pub fn parse(bytes: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| anyhow::anyhow!("byte {} is not UTF-8; save it as UTF-8", e.valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut labels: Vec<String> = Vec::new();
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
    for (number, line) in lines.iter().enumerate() {
        if line.is_empty() && lines.len() > 1 {
            bail!("line {} is empty", number + 1);
        }
        if let Some(first) = labels.iter().position(|label| label == line) {
            bail!("line {} repeats {line:?} of line {}", number + 1, first + 1);
        }
        labels.push(line.to_string());
    }
    labels.retain(|label| !label.is_empty());
    ensure!(!labels.is_empty(), "it holds no labels; write one a line");
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn plain_windows_and_marked_files() {
        for text in ["cat\ndog\n", "\u{feff}cat\r\ndog\r\n", "cat\ndog\n\n"] {
            assert_eq!(parse(text.as_bytes()).unwrap(), ["cat", "dog"]);
        }
    }

    #[test]
    fn faults_are_named() {
        let cases: [(&[u8], &str); 5] = [
            (b"", "no labels"),
            (b"\n\n", "no labels"),
            (b"cat\n\ndog", "line 2 is empty"),
            (b"cat\ndog\ncat\n", "line 3 repeats \"cat\" of line 1"),
            (b"cat\n\xff\n", "byte 4 is not UTF-8"),
        ];
        for (bytes, want) in cases {
            let error = format!("{:#}", parse(bytes).unwrap_err());
            assert!(error.contains(want), "{error}");
        }
    }
}
