//! What a person sees of a run: the progress, the table, the contact sheet, and the report in all its forms.

mod compare;
pub mod csv;
pub mod document;
mod figures;
pub mod grid;
pub mod html;
pub mod markdown;
pub mod pictures;
mod progress;
pub mod run;
pub mod seeds;
pub mod sweep;
mod table;
pub mod tables;

pub use progress::Progress;
pub use table::{Summary, demo_table};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Number, Value};

/// A number of things: `1 image`, `2 images`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// For JSON: the shortest decimal that stands for this number, 0.1 rather than 0.10000000149011612.
pub fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// For JSON: a setting with each of its numbers as [`decimal`] has it, which are float32 or whole.
///
/// # Errors
/// It has no form in JSON.
pub fn decimals(setting: &impl Serialize) -> Result<Value> {
    fn shortened(value: Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => {
                let shortest = number.as_f64().and_then(|x| Number::from_f64(decimal(x as f32)));
                Value::Number(shortest.unwrap_or(number))
            }
            Value::Array(all) => all.into_iter().map(shortened).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (name, shortened(value))).collect()
            }
            other => other,
        }
    }
    Ok(shortened(serde_json::to_value(setting)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_the_digits_that_were_asked_for() {
        let setting = serde_json::json!({ "name": "sgd", "rates": [0.1f32, 1e-5f32, 3], "momentum": 0.9f32 });
        assert_ne!(setting["momentum"], 0.9);
        let text = decimals(&setting).expect("JSON").to_string();
        assert_eq!(text, r#"{"name":"sgd","rates":[0.1,0.00001,3],"momentum":0.9}"#);
    }
}
