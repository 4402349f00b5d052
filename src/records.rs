//! One line an image: what `--out` holds, and how a killed run goes on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Prediction;

/// The outcome of one image, a line of `--out`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub index: usize,
    pub label: usize,
    pub zero_shot: Choice,
    /// By each learning rate; in the file a list where there are several.
    #[serde(with = "one_or_several")]
    pub memo: Vec<Choice>,
    pub entropy: Vec<f32>,
    /// Something was too large for float16, a gradient first of all, so that the image was adapted to again in float32.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overflow: bool,
}

/// A predicted class and its softmax value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    pub pred: usize,
    pub confidence: f64,
}

impl From<&Prediction> for Choice {
    fn from(prediction: &Prediction) -> Choice {
        Choice { pred: prediction.index, confidence: prediction.confidence }
    }
}

mod one_or_several {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Choice;

    pub fn serialize<S: Serializer>(choices: &[Choice], serializer: S) -> Result<S::Ok, S::Error> {
        match choices {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrSeveral {
        One(Choice),
        Several(Vec<Choice>),
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Choice>, D::Error> {
        Ok(match OneOrSeveral::deserialize(deserializer)? {
            OneOrSeveral::One(one) => vec![one],
            OneOrSeveral::Several(several) => several,
        })
    }
}

/// An `--out` file, open at its end. What the run's results depend on is kept in `OUT.run.json` beside it.
pub struct RecordWriter {
    path: PathBuf,
    file: File,
}

/// A writer, and the records that are there already.
pub struct Opened {
    pub writer: RecordWriter,
    pub records: Vec<Record>,
}

impl RecordWriter {
    /// Starts a file, or continues one: a last line that was cut by a kill is dropped and written anew, so
    /// that the file ends as if nothing had happened.
    ///
    /// # Errors
    /// A file that is there without `resume`; settings other than those it was begun with; a line that is
    /// no record or out of order; a path that cannot be written.
    pub fn open(path: &Path, resume: bool, settings: &Value) -> Result<Opened> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".run.json");
        let beside = PathBuf::from(beside);
        let opened = match (resume, path.exists()) {
            (false, true) if std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0) => {
                bail!(
                    "writing {}: it is there already; --resume continues it, or choose another name",
                    path.display()
                )
            }
            // An empty file was never begun: the run was killed before its settings were written.
            (true, true) if std::fs::metadata(path)?.len() > 0 => continue_file(path, &beside, settings),
            _ => begin(path, &beside, settings),
        };
        opened.with_context(|| format!("writing {}", path.display()))
    }

    /// Appends a line, at once.
    ///
    /// # Errors
    /// A full disk, for one.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).with_context(|| format!("writing {}", self.path.display()))
    }
}

fn begin(path: &Path, beside: &Path, settings: &Value) -> Result<Opened> {
    let file = File::create(path)?;
    // A device such as /dev/stdout has no place beside it, and cannot be resumed.
    if file.metadata()?.is_file() {
        std::fs::write(beside, format!("{settings:#}\n"))
            .with_context(|| format!("writing {}", beside.display()))?;
    }
    Ok(Opened { writer: RecordWriter { path: path.to_path_buf(), file }, records: Vec::new() })
}

fn continue_file(path: &Path, beside: &Path, settings: &Value) -> Result<Opened> {
    let text = match std::fs::read_to_string(beside) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{} is missing, which says how the run was begun; begin anew", beside.display())
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", beside.display())),
    };
    let begun: Value =
        serde_json::from_str(&text).with_context(|| format!("reading {}", beside.display()))?;
    if let (Value::Object(begun), Value::Object(now)) = (&begun, settings) {
        for (field, now) in now {
            let then = begun.get(field).unwrap_or(&Value::Null);
            ensure!(then == now, "the run was begun with {field} {then}, not {now}");
        }
    }
    let bytes = std::fs::read(path)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let mut records = Vec::new();
    for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
        let number = records.len();
        let record: Record =
            serde_json::from_slice(line).with_context(|| format!("line {} is no record", number + 1))?;
        ensure!(record.index == number, "line {} is image {}, not {number}", number + 1, record.index);
        records.push(record);
    }
    let file = OpenOptions::new().append(true).open(path)?;
    file.set_len(whole as u64)?;
    Ok(Opened { writer: RecordWriter { path: path.to_path_buf(), file }, records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(index: usize) -> Record {
        let choice = |x: f64| Choice { pred: index * 3 % 7, confidence: x };
        let (zero_shot, memo) = (choice(1.0 / (index + 3) as f64), vec![choice(0.1 + 0.2)]);
        Record { index, label: index, zero_shot, memo, entropy: vec![0.1 * index as f32], overflow: false }
    }

    #[test]
    fn a_run_killed_anywhere_ends_with_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let settings = json!({ "seed": 1 });
        let mut writer = RecordWriter::open(&path, false, &settings).unwrap().writer;
        (0..4).for_each(|i| writer.write(&record(i)).unwrap());
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let Opened { mut writer, records } = RecordWriter::open(&path, true, &settings).unwrap();
            assert!(records.iter().enumerate().all(|(i, r)| *r == record(i)));
            (records.len()..4).for_each(|i| writer.write(&record(i)).unwrap());
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn numbers_come_back_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let settings = json!({ "lr": 0.1 + 0.2, "prompt": "a photo of a {}" });
        let mut writer = RecordWriter::open(&path, false, &settings).unwrap().writer;
        let mut bits = 1u64;
        let written: Vec<Record> = (0..2000)
            .map(|index| {
                // Knuth's MMIX generator; the top 53 bits make a fraction.
                bits = bits.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let fraction = (bits >> 11) as f64 / (1u64 << 53) as f64;
                let mut record = record(index);
                record.memo[0].confidence = fraction;
                // A second learning rate, in every other record.
                record
                    .memo
                    .extend((index % 2 == 0).then_some(Choice { pred: index, confidence: 1.0 - fraction }));
                record.entropy = vec![fraction as f32 * 4.6];
                record
            })
            .collect();
        written.iter().for_each(|record| writer.write(record).unwrap());
        assert_eq!(RecordWriter::open(&path, true, &settings).unwrap().records, written);
    }

    #[test]
    fn a_run_killed_before_its_first_line_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        std::fs::write(&path, "").unwrap();
        std::fs::write(folder.path().join("run.jsonl.run.json"), "{ \"se").unwrap();
        let settings = json!({ "seed": 1 });
        RecordWriter::open(&path, true, &settings).unwrap().writer.write(&record(0)).unwrap();
        assert_eq!(RecordWriter::open(&path, true, &settings).unwrap().records, [record(0)]);
    }

    #[test]
    fn a_line_has_the_documented_names() {
        let line = serde_json::to_string(&record(1)).unwrap();
        assert_eq!(
            line,
            r#"{"index":1,"label":1,"zero_shot":{"pred":3,"confidence":0.25},"memo":{"pred":3,"confidence":0.30000000000000004},"entropy":[0.1]}"#
        );
        let mut two = record(1);
        two.memo.push(Choice { pred: 2, confidence: 0.5 });
        let line = serde_json::to_string(&two).unwrap();
        let want = r#""memo":[{"pred":3,"confidence":0.30000000000000004},{"pred":2,"confidence":0.5}],"#;
        assert!(line.contains(want), "{line}");
    }

    #[test]
    fn nothing_is_lost_or_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.jsonl");
        let open = |resume, settings| RecordWriter::open(&path, resume, &settings);
        open(false, json!({ "seed": 1 })).unwrap().writer.write(&record(0)).unwrap();
        let expect = |result: Result<Opened>, want: &str| {
            let error = format!("{:#}", result.err().expect(want));
            assert!(error.contains(want) && error.contains("run.jsonl"), "{error}");
        };
        expect(open(false, json!({ "seed": 1 })), "--resume continues it");
        expect(open(true, json!({ "seed": 2 })), "begun with seed 1, not 2");
        std::fs::write(&path, "{}\n").unwrap();
        expect(open(true, json!({ "seed": 1 })), "line 1 is no record");
        std::fs::write(&path, serde_json::to_string(&record(1)).unwrap() + "\n").unwrap();
        expect(open(true, json!({ "seed": 1 })), "line 1 is image 1, not 0");
        std::fs::remove_file(folder.path().join("run.jsonl.run.json")).unwrap();
        expect(open(true, json!({ "seed": 1 })), "is missing");
        let nowhere = folder.path().join("no/run.jsonl");
        assert!(RecordWriter::open(&nowhere, false, &json!({})).is_err());
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut writer = RecordWriter::open(Path::new("/dev/full"), false, &json!({})).unwrap().writer;
        let error = format!("{:#}", writer.write(&record(0)).unwrap_err());
        assert!(error.contains("/dev/full"), "{error}");
    }
}
