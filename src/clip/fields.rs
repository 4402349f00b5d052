//! Fields of a JSON config, with errors that name them.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// An object of a config, and what its fields are called in errors: `vision_config.hidden_size`.
pub struct Section<'a> {
    name: String,
    fields: Option<&'a Map<String, Value>>,
}

impl<'a> Section<'a> {
    /// A whole file.
    pub fn file(json: &'a Value) -> Result<Section<'a>> {
        Ok(Section { name: String::new(), fields: Some(json.as_object().context("not a JSON object")?) })
    }

    /// An object in it; empty where it is absent.
    pub fn section(&self, field: &str) -> Result<Section<'a>> {
        let name = self.called(field);
        match self.get(field) {
            None => Ok(Section { name, fields: None }),
            Some(Value::Object(fields)) => Ok(Section { name, fields: Some(fields) }),
            Some(value) => bail!("{name} is {value}, not an object"),
        }
    }

    /// As [`Section::section`], but it must be there.
    pub fn required(&self, field: &str) -> Result<Section<'a>> {
        let section = self.section(field)?;
        ensure!(section.fields.is_some(), "{} is missing", section.name);
        Ok(section)
    }

    /// A field's name from the file's top.
    pub fn called(&self, field: &str) -> String {
        let dot = if self.name.is_empty() { "" } else { "." };
        format!("{}{dot}{field}", self.name)
    }

    pub fn fields(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.fields.into_iter().flatten()
    }

    /// A field's value; null is as good as none.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields?.get(field).filter(|value| !value.is_null())
    }

    /// Whether it is there, and null.
    pub fn is_null(&self, field: &str) -> bool {
        self.fields.and_then(|fields| fields.get(field)).is_some_and(Value::is_null)
    }

    pub fn size(&self, field: &str, default: usize) -> Result<usize> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.with_context(|| format!("{} is {value}, not a size", self.called(field)))
    }

    pub fn number(&self, field: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_f64().with_context(|| format!("{} is {value}, not a number", self.called(field)))
    }

    /// # Errors
    /// Neither true nor false. A null too, where the default is true: transformers 4 takes it for false, transformers 5 for the
    /// default.
    pub fn flag(&self, field: &str, default: bool) -> Result<bool> {
        let value = match self.fields.and_then(|fields| fields.get(field)) {
            None => return Ok(default),
            Some(Value::Null) if !default => return Ok(false),
            Some(value) => value,
        };
        value.as_bool().with_context(|| format!("{} is {value}, not true or false", self.called(field)))
    }
}
