//! The files of all shards of a run, put together to that which one machine would have written.

use std::fs::{File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::resume::{Asked, in_range};
use super::settings::{Settings, difference, is_settings};
use super::{Row, name_of, parse};
use crate::data::Shard;
use crate::engine::Loss;
use crate::output;

/// The field of a run's settings that says which shard it is; null where it is the whole.
const SHARD: &str = "shard";

/// A whole run of which each image has its row.
pub struct Merged {
    /// In order.
    pub rows: Vec<Row>,
    settings: Value,
    asked: Sizes,
}

/// Of a run's settings, what its records are compared with.
#[derive(Deserialize)]
struct Sizes {
    labels: Vec<String>,
    lr: Vec<f32>,
    steps: usize,
    loss: Vec<Loss>,
    selection: Selected,
    logit_scale: f32,
    logit_scale_is: String,
}

#[derive(Deserialize)]
struct Selected {
    /// Of the whole run.
    images: usize,
}

/// One machine's file.
struct Part {
    path: PathBuf,
    settings: Map<String, Value>,
    shard: Shard,
    rows: Vec<Row>,
}

/// As [`Shard::settings`] writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    index: usize,
    of: usize,
    images: usize,
}

impl Merged {
    /// Reads the shards of one run, in any order.
    ///
    /// # Errors
    /// By the file: one that is still written, cut or damaged, that is no shard, or one of a run with other settings; a shard that
    /// is there twice, is missing, or has not all its images.
    pub fn read(paths: &[PathBuf]) -> Result<Merged> {
        let read = |path: &PathBuf| Part::read(path).with_context(|| format!("reading {}", path.display()));
        let mut parts: Vec<Part> = paths.iter().map(read).collect::<Result<_>>()?;
        let Some(first) = parts.first() else { bail!("no shard is named") };
        for part in &parts[1..] {
            part.belongs_to(first)?;
        }
        let of = first.shard.of;
        parts.sort_by_key(|part| part.shard.index);
        if let Some([a, b]) = parts.windows(2).find(|pair| pair[0].shard == pair[1].shard) {
            bail!("{} and {} are both shard {}", a.path.display(), b.path.display(), a.shard);
        }
        let is_there = |index: &usize| parts.iter().any(|part| part.shard.index == *index);
        let missing: Vec<_> =
            (0..of).filter(|index| !is_there(index)).map(|index| Shard { index, of }.to_string()).collect();
        ensure!(
            missing.is_empty(),
            "{} of {of} shards are there; missing: {}",
            parts.len(),
            missing.join(", ")
        );

        let mut settings = parts[0].settings.clone();
        settings.insert(SHARD.to_string(), Value::Null);
        let settings = Value::Object(settings);
        let asked: Sizes = serde_json::from_value(settings.clone())?;
        let mut rows: Vec<Row> = parts.into_iter().flat_map(|part| part.rows).collect();
        rows.sort_by_key(Row::index);
        let (there, images) = (rows.len(), asked.selection.images);
        ensure!(there == images, "the shards hold {there} images, and their run is of {images}");
        Ok(Merged { rows, settings, asked })
    }

    /// Learning rates, in the order of the answers in a row.
    pub fn learning_rates(&self) -> &[f32] {
        &self.asked.lr
    }

    /// What logits were multiplied by, and whose that is.
    pub fn logit_scale(&self) -> (f32, &str) {
        (self.asked.logit_scale, &self.asked.logit_scale_is)
    }

    /// Writes the run's file and its settings beside it, to the byte as one machine writes them. A file of this very run is
    /// left as it is.
    ///
    /// # Errors
    /// Another file is there; a path that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let lines: String = self.rows.iter().map(Row::line).collect::<Result<_>>()?;
        if output::is_plain(path) {
            let target = output::target(path).with_context(|| format!("writing {}", path.display()))?;
            ensure!(
                !is_settings(&target),
                "writing {}: a run's settings are kept under such a name; choose another",
                path.display()
            );
            if std::fs::metadata(&target).is_ok_and(|there| there.len() > 0) {
                let is_own = std::fs::read(&target).is_ok_and(|there| there == lines.as_bytes());
                ensure!(is_own, "writing {}: it is there already; choose another name", path.display());
            }
            Settings::new(&target).write(&self.settings)?;
        }
        output::write(path, lines.as_bytes())
    }
}

impl Part {
    fn read(path: &Path) -> Result<Part> {
        let mut file = File::open(path)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
            bail!("its run is still going on");
        }
        let mut settings = Settings::new(&output::target(path)?);
        let settings = settings.read()?.clone();
        let own: Own = match settings.get(SHARD) {
            None | Some(Value::Null) => bail!("it is the file of a whole run, begun without --shard"),
            Some(shard) => serde_json::from_value(shard.clone()).context("`shard` of its settings")?,
        };
        let shard = Shard { index: own.index, of: own.of };
        ensure!(own.index < own.of, "`shard` of its settings is {shard}");
        let asked: Sizes = serde_json::from_value(Value::Object(settings.clone())).context("its settings")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (rows, whole) = parse(&bytes)?;
        let (classes, rates, steps) = (asked.labels.len(), asked.lr.len(), asked.steps);
        let asked = Asked { indices: &[], classes, rates, steps, losses: &asked.loss };
        for (row, number) in rows.iter().zip(1..) {
            let line = || format!("line {number}");
            ensure!(
                shard.has(row.index()),
                "line {number} is {}, which is not of shard {shard}",
                name_of(row.index(), row.file())
            );
            in_range(row, &asked).with_context(line)?;
        }
        let (there, images) = (rows.len(), own.images);
        ensure!(
            there >= images && whole == bytes.len(),
            "shard {shard} has {there} of its {images} images; its command goes on with --resume"
        );
        ensure!(there == images, "shard {shard} has {there} images, and its run is of {images}");
        Ok(Part { path: path.to_path_buf(), settings, shard, rows })
    }

    /// Refuses one of another run, by what is not as in the first.
    fn belongs_to(&self, first: &Part) -> Result<()> {
        let without = |part: &Part| {
            let mut settings = part.settings.clone();
            settings.remove(SHARD);
            // Machines may have the data in other places, under the same name.
            for place in ["data", "ood"] {
                if let Some(Value::String(data)) =
                    settings.get_mut("selection").and_then(|of| of.get_mut(place))
                {
                    let name = Path::new(data).file_name().map(|name| name.to_string_lossy().into_owned());
                    *data = name.unwrap_or_default();
                }
            }
            Value::Object(settings)
        };
        let (path, other) = (self.path.display(), first.path.display());
        let (of, others) = (self.shard.of, first.shard.of);
        ensure!(of == others, "{path} is one of {of} shards, {other} is one of {others}");
        match difference("", &without(first), &without(self)) {
            None => Ok(()),
            Some(what) => {
                bail!("{other} and {path} are of different runs: the first was begun with {what}")
            }
        }
    }
}
