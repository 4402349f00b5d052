//! What becomes of each image: a line of `--out`, which a killed run goes on from.

mod choice;
mod merge;
mod out;
mod predictor;
mod resume;
mod run_file;
mod scan;
mod settings;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize};

pub use choice::{Answer, Choice, Failed, Truth};
pub use merge::Merged;
pub use out::Out;
pub use predictor::Predictor;
pub use resume::Asked;
pub use scan::{End, scan};
pub use settings::{begun_with, is_settings};

/// A line of `--out`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "nearly every row is a record")]
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
    /// Of the data, see [`crate::data::Dataset::group`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Of the image's bytes, see [`crate::data::digest_of`].
    pub digest: String,
    /// None where the image is of no class; then no choice has a truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<usize>,
    pub zero_shot: Choice,
    pub view_average: Choice,
    pub confident_average: Choice,
    pub vote: Choice,
    /// By each learning rate; in the file a list where there are several. None where the run has another loss.
    #[serde(default, with = "choice::one_or_several", skip_serializing_if = "Vec::is_empty")]
    pub memo: Vec<Answer>,
    /// Before each step, nats; in the file null where a step before it has led to no number.
    #[serde(default, deserialize_with = "entropies", skip_serializing_if = "Vec::is_empty")]
    pub entropy: Vec<f32>,
    /// Both by the confident views' loss, if the run has that.
    #[serde(default, with = "choice::one_or_several", skip_serializing_if = "Vec::is_empty")]
    pub memo_confident: Vec<Answer>,
    #[serde(default, deserialize_with = "entropies", skip_serializing_if = "Vec::is_empty")]
    pub confident_entropy: Vec<f32>,
    /// Something was too large for float16, a gradient first of all, so that the image was adapted to again in float32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overflow: bool,
}

/// NaN for null, which is what that is written as.
fn entropies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let entropies = Vec::<Option<f32>>::deserialize(deserializer)?;
    Ok(entropies.into_iter().map(|entropy| entropy.unwrap_or(f32::NAN)).collect())
}

impl Record {
    /// Refuses a record with a label whose choices know no truth, as older ones did, and the other way around.
    fn consistent(self) -> Result<Record> {
        for (predictor, choice) in self.answers() {
            match (self.label, choice.map(|choice| choice.truth)) {
                (Some(_), Some(None)) => {
                    bail!("missing field `rank` of `{}`: a memo that knew none wrote it", predictor.field())
                }
                (None, Some(Some(_))) => {
                    bail!("missing field `label`, beside `rank` of `{}`", predictor.field())
                }
                _ => {}
            }
        }
        Ok(self)
    }
}

/// An image that could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    pub index: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<usize>,
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

    /// None of an image of no class.
    pub fn label(&self) -> Option<usize> {
        match self {
            Row::Record(Record { label, .. }) | Row::Failure(Failure { label, .. }) => *label,
        }
    }

    pub fn group(&self) -> Option<&str> {
        match self {
            Row::Record(Record { group, .. }) | Row::Failure(Failure { group, .. }) => group.as_deref(),
        }
    }

    /// As it is written, with its line end.
    fn line(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Reads a line, which must be to the byte what [`Row::line`] makes: all else was written or changed by others.
    fn parse(line: &[u8]) -> Result<Row> {
        ensure!(!line.ends_with(b"\r\n"), "it ends in CRLF, as Windows' editors write lines; memo writes LF");
        ensure!(line != b"\n", "it is empty");
        ensure!(line.starts_with(b"{"), "it does not begin with {{, as a JSON object does");
        #[derive(Deserialize)]
        struct Kind {
            error: Option<serde::de::IgnoredAny>,
        }
        let row = match serde_json::from_slice::<Record>(line) {
            Ok(record) => Row::Record(record.consistent()?),
            Err(error) => match serde_json::from_slice::<Kind>(line).map_err(plain)?.error {
                None => return Err(plain(error)),
                Some(_) => Row::Failure(serde_json::from_slice(line).map_err(plain)?),
            },
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

/// An error of a single line of JSON: its own line number, always 1, stands beside that of the file.
fn plain(error: serde_json::Error) -> anyhow::Error {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => anyhow::anyhow!("{what}, at byte {}", error.column()),
        None => anyhow::anyhow!(text),
    }
}

/// How an image is called where people read of it.
pub fn name_of(index: usize, file: Option<&str>) -> String {
    match file {
        Some(file) => format!("image {index} ({file})"),
        None => format!("image {index}"),
    }
}

/// The rows of a file's whole lines, and the bytes that these take: a last line that was cut by a kill is none.
fn parse(bytes: &[u8]) -> Result<(Vec<Row>, usize)> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let mut rows: Vec<Row> = Vec::new();
    for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
        let number = rows.len() + 1;
        let row = Row::parse(line).with_context(|| format!("line {number} is no record"))?;
        in_order(rows.last().map(Row::index), row.index(), number)?;
        rows.push(row);
    }
    Ok((rows, whole))
}

/// Refuses a line whose image is not behind that of the line before it, which was `last`.
fn in_order(last: Option<usize>, index: usize, number: usize) -> Result<()> {
    if let Some(last) = last {
        let before = number - 1;
        ensure!(index != last, "line {number} is image {index} again, as line {before} is");
        ensure!(index > last, "line {number} is image {index}, behind image {last}");
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::engine::Guard;

    pub fn record(index: usize) -> Record {
        let truth = Truth { nll: Some(0.5 + index as f64), rank: index, brier: 1.0 / (index + 1) as f64 };
        let choice = |confidence| {
            let (pred, truth) = (index * 3 % 7, Some(truth));
            Choice { pred, confidence, truth, guard: None }
        };
        Record {
            index,
            file: None,
            group: None,
            digest: format!("{index:016x}"),
            label: Some(index),
            zero_shot: choice(1.0 / (index + 3) as f64),
            view_average: choice(0.5),
            confident_average: choice(0.75),
            vote: choice(1.0),
            memo: vec![Answer::Choice(choice(0.1 + 0.2))],
            entropy: vec![0.1 * index as f32],
            memo_confident: Vec::new(),
            confident_entropy: Vec::new(),
            overflow: false,
        }
    }

    pub fn failure(index: usize) -> Failure {
        let (file, error) = (Some(format!("six/{index}.png")), "it is cut".to_string());
        Failure { index, file, group: None, label: Some(6), error }
    }

    #[test]
    fn a_line_has_the_documented_names() {
        let line = Row::Record(record(1)).line().unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"index":1,"digest":"0000000000000001","label":1,"#,
                r#""zero_shot":{"pred":3,"confidence":0.25,"nll":1.5,"rank":1,"brier":0.5},"#,
                r#""view_average":{"pred":3,"confidence":0.5,"nll":1.5,"rank":1,"brier":0.5},"#,
                r#""confident_average":{"pred":3,"confidence":0.75,"nll":1.5,"rank":1,"brier":0.5},"#,
                r#""vote":{"pred":3,"confidence":1.0,"nll":1.5,"rank":1,"brier":0.5},"#,
                r#""memo":{"pred":3,"confidence":0.30000000000000004,"nll":1.5,"rank":1,"brier":0.5},"entropy":[0.1]}"#,
                "\n"
            )
        );
        let mut two = record(1);
        two.file = Some("a/1.png".to_string());
        two.group = Some("fog/3".to_string());
        let truth = Some(Truth { nll: None, rank: 4, brier: 1.5 });
        let guard = Some(Guard::RolledBack);
        two.memo.push(Answer::Choice(Choice { pred: 2, confidence: 0.5, truth, guard }));
        two.memo.push(Answer::Failed(Failed { error: "a logit is not finite".to_string() }));
        let two = Row::Record(two);
        let line = two.line().unwrap();
        assert_eq!(Row::parse(line.as_bytes()).unwrap(), two);
        let want = concat!(
            r#""memo":[{"pred":3,"confidence":0.30000000000000004,"nll":1.5,"rank":1,"brier":0.5},"#,
            r#"{"pred":2,"confidence":0.5,"rank":4,"brier":1.5,"guard":"rolled-back"},{"error":"a logit is not finite"}],"#
        );
        let begin = r#"{"index":1,"file":"a/1.png","group":"fog/3","digest""#;
        assert!(line.contains(want) && line.starts_with(begin), "{line}");
        let line = Row::Failure(failure(12)).line().unwrap();
        assert_eq!(line, "{\"index\":12,\"file\":\"six/12.png\",\"label\":6,\"error\":\"it is cut\"}\n");
        // Of no class, and by the other loss.
        let mut none = record(2);
        let Record { zero_shot, view_average, confident_average, vote, .. } = &mut none;
        for choice in [zero_shot, view_average, confident_average, vote] {
            choice.truth = None;
        }
        (none.label, none.memo, none.entropy) = (None, vec![], vec![]);
        none.memo_confident.push(Answer::Choice(none.zero_shot.clone()));
        none.confident_entropy = vec![0.5];
        let none = Row::Record(none);
        let line = none.line().unwrap();
        assert_eq!(Row::parse(line.as_bytes()).unwrap(), none);
        let want = r#""digest":"0000000000000002","zero_shot":{"pred":6,"confidence":0.2},"view_average":"#;
        assert!(line.contains(want), "{line}");
        let want = r#""vote":{"pred":6,"confidence":1.0},"memo_confident":{"pred":6,"confidence":0.2},"confident_entropy":[0.5]}"#;
        assert!(line.contains(want), "{line}");
    }

    /// Of the third record's choices; older ones had none.
    const OF_TRUTH: &str = ",\"nll\":2.5,\"rank\":2,\"brier\":0.3333333333333333}";

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
            (3, ":0.2,", ":NaN,", "line 3 is no record"),
            (3, ":0.2,", ":null,", "line 3 is no record"),
            (3, ":0.2,", ":0.20,", "line 3 is no record: memo writes it otherwise, from byte"),
            (3, ",\"rank\":2", "", "line 3 is no record: missing field `rank`"),
            (3, OF_TRUTH, "}", "line 3 is no record: missing field `rank` of `zero_shot`"),
            (3, "\"label\":2,", "", "line 3 is no record: missing field `label`"),
            (3, "\"view_average\"", "\"average\"", "line 3 is no record: unknown field `average`"),
            (3, "\"memo\"", "\"memo_confident\"", "line 3 is no record"),
            (3, "\n", " \n", "line 3 is no record: memo writes it otherwise, from byte"),
            (3, "\"index\"", "\"number\":1,\"index\"", "line 3 is no record: unknown field `number`"),
            (3, "\"digest\":\"0000000000000002\",", "", "line 3 is no record: missing field `digest`"),
            (3, "\"index\":2", "\"index\":1", "line 3 is image 1 again, as line 2 is"),
            (3, "\"index\":2", "\"index\":0", "line 3 is image 0, behind image 1"),
            (3, "\"index\":2", "\"index\":-2", "line 3 is no record"),
            (1, "\n", "\n\n", "line 2 is no record: it is empty"),
            (1, "{", "\u{feff}{", "line 1 is no record: it does not begin with {"),
            (3, "\"memo\":{\"pred\"", "\"memo\":{\"prod\"", "line 3 is no record: unknown field `prod`"),
            (
                3,
                "\"memo\":{\"pred\"",
                "\"memo\":{\"error\":\"\",\"pred\"",
                "line 3 is no record: unknown field `pred`, expected `error`",
            ),
            (
                3,
                "\"memo\":{",
                "\"memo\":[{\"error\":1}],\"other\":{",
                "line 3 is no record: invalid type: integer `1`, expected a string",
            ),
        ] {
            let got = with(line, from, to);
            assert!(got.starts_with(want), "{got}: {want}");
        }
    }
}
