//! `--compare`: beside an earlier run's `--json`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::samples::Samples;

/// Of a file, at most: some million samples.
const MOST_BYTES: u64 = 64 << 20;

/// An earlier run.
pub struct Earlier {
    path: PathBuf,
    object: Value,
    samples: Samples,
}

impl Earlier {
    /// # Errors
    /// A file that is none of `memo bench --json`, naming what it lacks.
    pub fn open(path: &Path) -> Result<Earlier> {
        let what = || format!("--compare {}", path.display());
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
            .with_context(what)?;
        let object: Value = serde_json::from_str(&text)
            .with_context(|| format!("{}: not what `memo bench --json` prints", what()))?;
        let times = object["samples_s"].as_array().into_iter().flatten();
        let times = times.map(Value::as_f64).collect::<Option<Vec<f64>>>().and_then(Samples::new);
        let samples = times.with_context(|| format!("{}: samples_s holds no times", what()))?;
        Ok(Earlier { path: path.to_path_buf(), object, samples })
    }

    /// That a run of these settings can be compared with it.
    ///
    /// # Errors
    /// A setting that was another, by its name.
    pub fn expect_same(&self, asked: &Value) -> Result<()> {
        for (name, now) in asked.as_object().into_iter().flatten() {
            let then = &self.object[name];
            if then != now {
                bail!("--compare {}: its {name} is {then}, here it is {now}", self.path.display());
            }
        }
        Ok(())
    }

    /// How many times as fast `now` is, with the spread: see [`Samples::speed_over`].
    pub fn speed_of(&self, now: &Samples) -> [f64; 3] {
        now.speed_over(&self.samples)
    }

    /// The file, and where it ran.
    pub fn describe(&self) -> String {
        format!(
            "{} on {}",
            self.path.display(),
            self.object["device"].as_str().unwrap_or("an unnamed device")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(views: u32, time: f64) -> Value {
        json!({ "device": "a GPU", "views": views, "lr": [1e-5], "samples_s": [time, time, time] })
    }

    #[test]
    fn a_run_is_compared_with_one_of_the_same_settings_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("old.json");
        let open = |text: &str| {
            std::fs::write(&path, text).expect("a file is written");
            Earlier::open(&path)
        };
        let samples = Samples::new(vec![0.5; 3]).expect("times");
        let earlier = open(&run(50, 1.5).to_string()).expect("a run");
        earlier.expect_same(&json!({ "views": 50, "lr": [1e-5] })).expect("the same");
        assert_eq!(earlier.speed_of(&samples), [3.0; 3]);
        assert!(earlier.describe().ends_with("old.json on a GPU"));
        let error = earlier.expect_same(&json!({ "views": 8 })).expect_err("other views").to_string();
        assert!(error.ends_with("old.json: its views is 50, here it is 8"), "{error}");
        for (text, why) in [("{}", "samples_s holds no times"), ("x", "not what"), ("[1]", "no times")] {
            let error = format!("{:#}", open(text).err().expect("refused"));
            assert!(error.contains(why), "{error}");
        }
        assert!(Earlier::open(folder.path()).is_err());
    }
}
