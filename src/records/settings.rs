//! `OUT.run.json`: what a run was begun with, all that its results depend on, for one that goes on to be compared with.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

use crate::output;

/// What the names of such files end in.
const END: &str = ".run.json";
/// What is told, and not compared.
const TOLD: [&str; 2] = ["selection", "logit_scale_is"];

fn is_told(field: &str) -> bool {
    TOLD.contains(&field)
}

/// A run's file and what it was begun with, if it was.
pub struct Settings {
    path: PathBuf,
    begun: Option<Map<String, Value>>,
}

/// What the run was begun with whose records are in `path`, wherever links lead; none where nothing says so.
///
/// # Errors
/// A file that is no object of settings.
pub fn begun_with(path: &Path) -> Result<Option<Map<String, Value>>> {
    let path = path.canonicalize().with_context(|| format!("reading {}", path.display()))?;
    let mut settings = Settings::new(&path);
    if settings.path.exists() {
        settings.read()?;
    }
    Ok(settings.begun)
}

/// Whether a file of this name is some run's settings.
pub fn is_settings(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(END.as_bytes())
}

impl Settings {
    /// Beside the records in `path`, of a run that is begun.
    pub fn new(path: &Path) -> Settings {
        let mut beside = path.as_os_str().to_owned();
        beside.push(END);
        Settings { path: PathBuf::from(beside), begun: None }
    }

    /// Reads those of a run that has begun.
    ///
    /// # Errors
    /// None are there, or no object.
    pub fn read(&mut self) -> Result<&Map<String, Value>> {
        let name = self.path.display();
        ensure!(self.path.exists(), "{name} is missing, which says how the run was begun; begin anew");
        let read = || -> Result<Map<String, Value>> {
            match serde_json::from_str(&std::fs::read_to_string(&self.path)?)? {
                Value::Object(begun) => Ok(begun),
                _ => bail!("it is no object of settings"),
            }
        };
        let begun = read().with_context(|| format!("reading {name}"))?;
        Ok(self.begun.insert(begun))
    }

    /// Refuses to go on with others, by the field that differs.
    ///
    /// * `now`: some of them, an object.
    ///
    /// # Errors
    /// The first that is not as it was.
    pub fn expect(&self, now: &Value) -> Result<()> {
        let Some(begun) = &self.begun else { return Ok(()) };
        for (field, now) in now.as_object().into_iter().flatten().filter(|(field, _)| !is_told(field)) {
            let then = begun.get(field);
            let then = then
                .with_context(|| format!("the run was begun by a memo that knew no {field}; begin anew"))?;
            if let Some(other) = difference(field, then, now) {
                bail!("the run was begun with {other}");
            }
        }
        Ok(())
    }

    /// Begins with these, or goes on with them.
    ///
    /// * `now`: all of them.
    ///
    /// # Errors
    /// The first that is not as it was; the file cannot be written.
    pub fn begin(&mut self, now: &Value) -> Result<()> {
        self.expect(now)?;
        for field in self.begun.iter().flat_map(Map::keys).filter(|field| !is_told(field)) {
            ensure!(
                now.get(field).is_some(),
                "the run was begun with a {field}, which this memo does not know"
            );
        }
        match &self.begun {
            // A run without a record has not begun: what a kill leaves of these is not read.
            None => {
                let written = File::create(&self.path).and_then(|mut file| {
                    file.write_all(text(now).as_bytes())?;
                    file.sync_all()
                });
                written.with_context(|| format!("writing {}", self.path.display()))
            }
            Some(begun) if Some(begun) == now.as_object() => Ok(()),
            Some(_) => output::write(&self.path, text(now).as_bytes()),
        }
    }

    /// Writes those of a run that others have made.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, all: &Value) -> Result<()> {
        output::write(&self.path, text(all).as_bytes())
    }
}

/// As it lies in the file.
fn text(settings: &Value) -> String {
    format!("{settings:#}\n")
}

/// Where two values differ first, in words.
pub fn difference(name: &str, then: &Value, now: &Value) -> Option<String> {
    match (then, now) {
        _ if then == now => None,
        // A file is what is in it, wherever it lies.
        (Value::Object(a), Value::Object(b)) if b.contains_key("file") && b.contains_key("digest") => {
            (a.get("digest") != b.get("digest"))
                .then(|| format!("another {}", b["file"].as_str().unwrap_or(name)))
        }
        (Value::Object(a), Value::Object(b)) => {
            let fields = a.keys().chain(b.keys().filter(|field| !a.contains_key(*field)));
            let value = |of: &Map<String, Value>, field: &str| of.get(field).cloned().unwrap_or_default();
            let inside =
                |field: &str| if name.is_empty() { field.to_string() } else { format!("{name}.{field}") };
            fields.filter_map(|field| difference(&inside(field), &value(a, field), &value(b, field))).next()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let places = a.iter().zip(b).enumerate();
            places.filter_map(|(place, (a, b))| difference(&format!("{name}[{place}]"), a, b)).next()
        }
        (Value::Array(a), Value::Array(b)) if a.len().max(b.len()) > 8 => {
            Some(format!("{} {name}, not {}", a.len(), b.len()))
        }
        _ => Some(format!("{name} {then}, not {now}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_differs_is_named() {
        let names = |count: usize| (0..count).map(|i| format!("class {i}")).collect::<Vec<_>>();
        let file = |name: &str, digest: &str| json!({ "weights": [{ "file": name, "digest": digest }] });
        for (then, now, want) in [
            (json!(1), json!(1), None),
            (json!(0), json!(1), Some("x 0, not 1")),
            (json!([1e-4, 1e-3]), json!([1e-4]), Some("x [0.0001,0.001], not [0.0001]")),
            (json!(["cat", "dog"]), json!(["cat", "fox"]), Some("x[1] \"dog\", not \"fox\"")),
            (json!(names(10)), json!(names(12)), Some("10 x, not 12")),
            (json!({ "a": { "b": 1 } }), json!({ "a": { "b": 2 } }), Some("x.a.b 1, not 2")),
            (json!({ "a": 1 }), json!({}), Some("x.a 1, not null")),
            (file("a.safetensors", "00"), file("b.safetensors", "00"), None),
            (file("a.safetensors", "00"), file("b.safetensors", "01"), Some("another b.safetensors")),
        ] {
            assert_eq!(difference("x", &then, &now).as_deref(), want);
        }
    }

    #[test]
    fn only_an_object_says_how_a_run_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(&folder.path().join("run.jsonl"));
        let path = folder.path().join("run.jsonl.run.json");
        let error = |result: Result<()>| format!("{:#}", result.unwrap_err());
        assert!(error(settings.read().map(drop)).contains("run.jsonl.run.json is missing"));
        for (text, want) in [("[]", "no object"), ("1", "no object"), ("", "EOF"), ("{\"se", "EOF")] {
            std::fs::write(&path, text).unwrap();
            let error = error(settings.read().map(drop));
            assert!(error.contains("run.jsonl.run.json") && error.contains(want), "{error}");
        }
        std::fs::write(&path, r#"{"seed":1,"selection":3,"later":true}"#).unwrap();
        settings.read().unwrap();
        settings.expect(&json!({ "seed": 1, "selection": 4 })).unwrap();
        assert!(error(settings.expect(&json!({ "seed": 2 }))).contains("begun with seed 1, not 2"));
        assert!(error(settings.expect(&json!({ "views": 2 }))).contains("knew no views"));
        assert!(
            error(settings.begin(&json!({ "seed": 1 }))).contains("later, which this memo does not know")
        );
    }
}
