//! `--against libtorch[:VARIANT[:PRECISION]]`: programs of [`benches/libtorch`](../../../benches/libtorch), which do the same
//! job, asked over a pipe. `common.py` there says what they are given and what they answer.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value, json};

use super::checked::Checked;
use super::process::Talk;
use super::programs::Programs;

/// A program, and what its products are computed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub name: String,
    pub precision: String,
}

/// The one that `libtorch` alone means.
const BEST: &str = "tuned";
const NAMES: [&str; 5] = ["notebook", "tuned", "vmap", "implicit", "tch"];
const PRECISIONS: [&str; 3] = ["float32", "tf32", "bf16"];

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Variant, String> {
        let mut parts = text.split(':');
        let (library, name, precision) = (parts.next(), parts.next(), parts.next());
        let (name, precision) = (name.unwrap_or(BEST), precision.unwrap_or(PRECISIONS[0]));
        let is_known =
            library == Some("libtorch") && NAMES.contains(&name) && PRECISIONS.contains(&precision);
        if !is_known || parts.next().is_some() {
            let (names, precisions) = (NAMES.join(", "), PRECISIONS.join(", "));
            return Err(format!("expected libtorch[:VARIANT[:PRECISION]], of {names}; of {precisions}"));
        }
        Ok(Variant { name: name.to_string(), precision: precision.to_string() })
    }
}

impl Variant {
    /// In float64: what all others are held against.
    pub fn reference() -> Variant {
        Variant { name: "reference".to_string(), precision: PRECISIONS[0].to_string() }
    }

    /// Whether it is the one in Rust.
    pub fn is_tch(&self) -> bool {
        self.name == "tch"
    }

    /// As it is named where it is asked for.
    pub fn describe(&self) -> String {
        let precision = if self.precision == PRECISIONS[0] { "" } else { &format!(" {}", self.precision) };
        format!("{}{precision}", self.name)
    }
}

/// A program that runs and waits to be asked.
pub struct Rival {
    variant: Variant,
    /// What it says of itself.
    pub ready: Value,
    talk: Talk,
}

impl Rival {
    /// Starts `variant` on the job in this folder; it may take `limit` for each answer.
    ///
    /// # Errors
    /// It does not start, or says why it cannot.
    pub fn start(programs: &Programs, folder: &Path, variant: &Variant, limit: Duration) -> Result<Rival> {
        let log = folder.join(format!("{}.log", variant.describe()));
        let mut command = programs.command(&variant.name);
        command.arg(folder.join(&variant.precision));
        let talk = Talk::start(&mut command, &log, limit)?;
        let mut rival = Rival { variant: variant.clone(), ready: Value::Null, talk };
        let answer = rival.answer()?;
        let ready = answer.get("ready").filter(|ready| ready.is_object());
        rival.ready = ready
            .cloned()
            .with_context(|| format!("{}: it began with {answer}, and not with what it is", rival.name()))?;
        Ok(rival)
    }

    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    fn name(&self) -> String {
        format!("{} in libtorch", self.variant.describe())
    }

    /// # Errors
    /// Its own, or that it has ended, or does not answer in time.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        self.talk.say(&request.to_string());
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let name = self.name();
        let line = self.talk.answer().with_context(|| name.clone())?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("{name}: it answered {line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(anyhow!("{name}: {error}")),
            None => Ok(answer),
        }
    }

    /// Seconds of each of the next images, and its peak memory in bytes.
    ///
    /// # Errors
    /// Its own; an answer of another kind.
    pub fn run(&mut self, images: usize) -> Result<(Vec<f64>, u64)> {
        let answer = self.ask(&json!({ "run": images }))?;
        let are_times = |times: &Vec<f64>| times.len() == images && times.iter().all(|&time| time > 0.0);
        let seconds = numbers(&answer["seconds"]).filter(are_times);
        let what = || format!("{}: no times in {answer}", self.name());
        Ok((seconds.with_context(what)?, answer["peak_bytes"].as_u64().with_context(what)?))
    }

    /// Seconds an image of each stage, of the next images; null where it cannot tell.
    ///
    /// # Errors
    /// Its own; an answer of another kind.
    pub fn stages(&mut self, images: usize) -> Result<Map<String, Value>> {
        let answer = self.ask(&json!({ "stages": images }))?;
        let is_time = |time: &Value| time.is_null() || time.as_f64().is_some_and(|time| time >= 0.0);
        let stages = answer["stages"].as_object().filter(|stages| stages.values().all(is_time));
        stages.cloned().with_context(|| format!("{}: no stages in {answer}", self.name()))
    }

    /// What it makes of the job's images by the given views.
    ///
    /// # Errors
    /// Its own; an answer of another kind.
    pub fn check(&mut self) -> Result<Checked> {
        let answer = self.ask(&json!({ "check": true }))?;
        let what = || format!("{}: no logits in its answer", self.name());
        let rows = |name: &str| answer[name].as_array()?.iter().map(numbers).collect::<Option<Vec<_>>>();
        let (zero_shot, memo) = rows("zero_shot").zip(rows("memo")).with_context(what)?;
        let checked = Checked { zero_shot, memo, moved: answer["moved"].as_f64() };
        ensure!(checked.memo.len() == checked.zero_shot.len() && !checked.memo.is_empty(), what());
        Ok(checked)
    }
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_named_with_its_precision_or_refused() {
        let parsed = |text: &str| text.parse::<Variant>().map(|variant| variant.describe());
        assert_eq!(parsed("libtorch").as_deref(), Ok("tuned"));
        assert_eq!(parsed("libtorch:vmap").as_deref(), Ok("vmap"));
        assert_eq!(parsed("libtorch:tuned:bf16").as_deref(), Ok("tuned bf16"));
        for wrong in ["torch", "libtorch:fast", "libtorch:tuned:fp8", "libtorch:tuned:bf16:x", ""] {
            assert!(
                parsed(wrong).is_err_and(|why| why.contains("notebook, tuned, vmap, implicit, tch")),
                "{wrong}"
            );
        }
    }
}
