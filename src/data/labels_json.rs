//! Class names in JSON.

use anyhow::{Context, Result, bail, ensure};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::labels::{Labels, Reading, once, visible};

/// A list of names; an object of `key: name`, of `name: number`, or of `number: [folder, name]`.
///
/// # Errors
/// Another thing, by its place.
pub fn parse(text: &str) -> Result<Labels> {
    let begins = text.trim_start();
    let inner = begins[1..].trim_start();
    let looks = if inner.starts_with(|c: char| c == '\'' || c.is_ascii_digit()) {
        "; it looks like Python's own: write it with json.dump"
    } else {
        ""
    };
    if begins.starts_with('[') {
        let list: Vec<Value> = serde_json::from_str(text)
            .with_context(|| format!("it begins as a JSON list and is none{looks}"))?;
        ensure!(!list.is_empty(), "it holds no labels");
        let names = list.iter().enumerate().map(|(i, value)| name(&format!("element {i}"), value));
        return Ok(Labels::of(Reading::List(names.collect::<Result<_>>()?)));
    }
    let Object(object) = serde_json::from_str(text)
        .with_context(|| format!("it begins as a JSON object and is none{looks}"))?;
    ensure!(!object.is_empty(), "it holds no labels");
    if let Some((_, value)) = object.iter().find(|(key, _)| key.trim().is_empty()) {
        bail!("{value} has no key");
    }
    let is_number = |key: &str| key.parse::<usize>().is_ok();
    let is_numbered = |value: &Value| value.is_u64() || value.as_str().is_some_and(is_number);
    let is_entry = |(key, value): &(String, Value)| {
        is_number(key) && value.as_array().is_some_and(|list| list.len() == 2)
    };
    let entry: fn((String, Value)) -> Result<_> = if object.iter().all(|(_, value)| value.is_u64())
        || (object.iter().all(|(_, value)| is_numbered(value))
            && !object.iter().all(|(key, _)| is_number(key)))
    {
        |(key, number)| {
            visible(&key)?;
            Ok((vec![number.as_str().map_or_else(|| number.to_string(), str::to_string)], key))
        }
    } else if object.iter().all(is_entry) {
        |(number, value)| {
            let [folder, label] = [0, 1].map(|i| name(&format!("{number:?}"), &value[i]));
            Ok((vec![number, folder?], label?))
        }
    } else {
        |(key, value)| {
            let name = name(&format!("{key:?}"), &value)?;
            Ok((vec![key], name))
        }
    };
    Ok(Labels::of(once(object.into_iter().map(entry).collect::<Result<_>>()?)?))
}

fn name(what: &str, value: &Value) -> Result<String> {
    match value.as_str().map(str::trim) {
        Some(name) if !name.is_empty() => {
            visible(name).with_context(|| what.to_string())?;
            Ok(name.to_string())
        }
        _ => bail!("{what} is {value}, not a name"),
    }
}

/// A JSON object, with keys that repeat.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
