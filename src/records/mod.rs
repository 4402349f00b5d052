//! What becomes of each image: a line of `--out`, which a killed run goes on from.

mod out;
mod resume;
mod run_file;
mod settings;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::engine::Prediction;

pub use out::Out;
pub use resume::Asked;

/// A line of `--out`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Row {
    Record(Record),
    Failure(Failure),
}

/// The outcome of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub index: usize,
    /// Within the data; none where images have no files of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Of the image's bytes, see [`crate::data::digest_of`].
    pub digest: String,
    pub label: usize,
    pub zero_shot: Choice,
    /// By each learning rate; in the file a list where there are several, of which one at least is a choice.
    #[serde(with = "one_or_several")]
    pub memo: Vec<Answer>,
    pub entropy: Vec<f32>,
    /// Something was too large for float16, a gradient first of all, so that the image was adapted to again in float32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overflow: bool,
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub index: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    pub label: usize,
    /// Why; where the data lies is not in it.
    pub error: String,
}

impl Row {
    pub fn index(&self) -> usize {
        match self {
            Row::Record(Record { index, .. }) | Row::Failure(Failure { index, .. }) => *index,
        }
    }

    pub fn file(&self) -> Option<&str> {
        match self {
            Row::Record(Record { file, .. }) | Row::Failure(Failure { file, .. }) => file.as_deref(),
        }
    }

    pub fn label(&self) -> usize {
        match self {
            Row::Record(Record { label, .. }) | Row::Failure(Failure { label, .. }) => *label,
        }
    }

    /// As it is written, with its line end.
    fn line(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Reads a line, which must be to the byte what [`Row::line`] makes: all else was written or changed by others.
    fn parse(line: &[u8]) -> Result<Row> {
        ensure!(!line.ends_with(b"\r\n"), "it ends in CRLF, as Windows' editors write lines; memo writes LF");
        #[derive(Deserialize)]
        struct Kind {
            error: Option<serde::de::IgnoredAny>,
        }
        let row = match serde_json::from_slice::<Kind>(line)?.error {
            None => Row::Record(serde_json::from_slice(line)?),
            Some(_) => Row::Failure(serde_json::from_slice(line)?),
        };
        let own = row.line()?;
        let at = own.bytes().zip(line).position(|(own, &byte)| own != byte);
        let at = at.or((own.len() != line.len()).then_some(own.len().min(line.len())));
        match at {
            None => Ok(row),
            Some(at) => Err(anyhow::anyhow!("memo writes it otherwise, from byte {} on", at + 1)),
        }
    }
}

/// How an image is called where people read of it.
pub fn name_of(index: usize, file: Option<&str>) -> String {
    match file {
        Some(file) => format!("image {index} ({file})"),
        None => format!("image {index}"),
    }
}

/// A predicted class and its softmax value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    pub pred: usize,
    pub confidence: f64,
}

/// What MEMO answers by one learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    Choice(Choice),
    /// The step has led to no number.
    Failed(Failed),
}

/// Why there is no choice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    pub error: String,
}

impl From<&Result<Prediction, String>> for Answer {
    fn from(prediction: &Result<Prediction, String>) -> Answer {
        match prediction {
            Ok(prediction) => Answer::Choice(prediction.into()),
            Err(error) => Answer::Failed(Failed { error: error.clone() }),
        }
    }
}

impl From<&Prediction> for Choice {
    fn from(prediction: &Prediction) -> Choice {
        Choice { pred: prediction.index, confidence: prediction.confidence }
    }
}

mod one_or_several {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Answer, Choice};

    pub fn serialize<S: Serializer>(answers: &[Answer], serializer: S) -> Result<S::Ok, S::Error> {
        match answers {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrSeveral {
        One(Choice),
        Several(Vec<Answer>),
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Answer>, D::Error> {
        Ok(match OneOrSeveral::deserialize(deserializer)? {
            OneOrSeveral::One(one) => vec![Answer::Choice(one)],
            OneOrSeveral::Several(several) => several,
        })
    }
}

/// The rows of a file's whole lines, and the bytes that these take: a last line that was cut by a kill is none.
fn parse(bytes: &[u8]) -> Result<(Vec<Row>, usize)> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let mut rows: Vec<Row> = Vec::new();
    for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
        let number = rows.len() + 1;
        let row = Row::parse(line).with_context(|| format!("line {number} is no record"))?;
        if let Some(last) = rows.last().map(Row::index) {
            let (index, before) = (row.index(), number - 1);
            ensure!(index != last, "line {number} is image {index} again, as line {before} is");
            ensure!(index > last, "line {number} is image {index}, behind image {last}");
        }
        rows.push(row);
    }
    Ok((rows, whole))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn record(index: usize) -> Record {
        let choice = |x: f64| Choice { pred: index * 3 % 7, confidence: x };
        let (zero_shot, memo) = (choice(1.0 / (index + 3) as f64), vec![Answer::Choice(choice(0.1 + 0.2))]);
        let entropy = vec![0.1 * index as f32];
        let digest = format!("{index:016x}");
        Record { index, file: None, digest, label: index, zero_shot, memo, entropy, overflow: false }
    }

    pub fn failure(index: usize) -> Failure {
        Failure { index, file: Some(format!("six/{index}.png")), label: 6, error: "it is cut".to_string() }
    }

    #[test]
    fn a_line_has_the_documented_names() {
        let line = Row::Record(record(1)).line().unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"index":1,"digest":"0000000000000001","label":1,"zero_shot":{"pred":3,"confidence":0.25},"#,
                r#""memo":{"pred":3,"confidence":0.30000000000000004},"entropy":[0.1]}"#,
                "\n"
            )
        );
        let mut two = record(1);
        two.file = Some("a/1.png".to_string());
        two.memo.push(Answer::Choice(Choice { pred: 2, confidence: 0.5 }));
        two.memo.push(Answer::Failed(Failed { error: "a logit is not finite".to_string() }));
        let two = Row::Record(two);
        let line = two.line().unwrap();
        assert_eq!(Row::parse(line.as_bytes()).unwrap(), two);
        let want = r#""memo":[{"pred":3,"confidence":0.30000000000000004},{"pred":2,"confidence":0.5},{"error":"a logit is not finite"}],"#;
        assert!(line.contains(want) && line.starts_with(r#"{"index":1,"file":"a/1.png","digest""#), "{line}");
        let line = Row::Failure(failure(12)).line().unwrap();
        assert_eq!(line, "{\"index\":12,\"file\":\"six/12.png\",\"label\":6,\"error\":\"it is cut\"}\n");
    }

    #[test]
    fn lines_that_memo_did_not_write_are_refused_by_number() {
        let lines: Vec<String> = (0..3)
            .map(|i| if i == 1 { Row::Failure(failure(i)) } else { Row::Record(record(i)) })
            .map(|row| row.line().unwrap())
            .collect();
        let (rows, whole) = parse((lines.concat() + "{\"index\":3").as_bytes()).unwrap();
        assert_eq!((rows.len(), whole), (3, lines.concat().len()));
        let with = |line: usize, from: &str, to: &str| {
            let mut lines = lines.clone();
            assert!(lines[line - 1].contains(from));
            lines[line - 1] = lines[line - 1].replacen(from, to, 1);
            format!("{:#}", parse(lines.concat().as_bytes()).expect_err(to))
        };
        for (line, from, to, want) in [
            (1, "\n", "\r\n", "line 1 is no record: it ends in CRLF"),
            (2, "{", "", "line 2 is no record"),
            (3, ":0.2}", ":NaN}", "line 3 is no record"),
            (3, ":0.2}", ":null}", "line 3 is no record"),
            (3, ":0.2}", ":0.20}", "line 3 is no record: memo writes it otherwise, from byte"),
            (3, "\n", " \n", "line 3 is no record: memo writes it otherwise, from byte"),
            (3, "\"index\"", "\"number\":1,\"index\"", "line 3 is no record: unknown field `number`"),
            (3, "\"digest\":\"0000000000000002\",", "", "line 3 is no record: missing field `digest`"),
            (3, "\"index\":2", "\"index\":1", "line 3 is image 1 again, as line 2 is"),
            (3, "\"index\":2", "\"index\":0", "line 3 is image 0, behind image 1"),
            (3, "\"index\":2", "\"index\":-2", "line 3 is no record"),
            (1, "\n", "\n\n", "line 2 is no record"),
        ] {
            let got = with(line, from, to);
            assert!(got.starts_with(want), "{got}: {want}");
        }
    }
}
