//! What `memo bench` prints where people read it, of the same object that `--json` prints.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::gpu::human_bytes;

/// A few lines.
///
/// # Errors
/// A value that is missing.
pub fn text(object: &Value) -> Result<String> {
    let at = |path: &str| object.pointer(path).with_context(|| format!("printing: there is no {path}"));
    let number = |path: &str| {
        at(path)?.as_f64().with_context(|| format!("printing: {path} is {}, no number", object[path]))
    };
    let count = |path: &str, what: &str| Ok::<_, anyhow::Error>(counted(number(path)? as usize, what));
    let word = |path: &str| Ok::<_, anyhow::Error>(at(path)?.as_str().unwrap_or_default().to_string());
    let bytes = |path: &str| Ok::<_, anyhow::Error>(human_bytes(number(path)? as usize));
    let all = |path: &str| Ok::<_, anyhow::Error>(at(path)?.as_array().cloned().unwrap_or_default());
    let numbers = |path: &str| -> Result<Vec<usize>> {
        Ok(all(path)?.iter().filter_map(Value::as_u64).map(|number| number as usize).collect())
    };

    let floor = match at("/work/share_of_floor")?.as_f64() {
        Some(share) => format!(", {:.0} % of the floor", 100.0 * share),
        None => String::new(),
    };
    let outliers = match &numbers("/outliers")?[..] {
        [] => String::new(),
        outliers => format!("; {}: {}", counted(outliers.len(), "outlier"), list(outliers)),
    };
    let mut text = format!(
        "{}, {} at once, {}, {}, {}, {}\n",
        word("/device")?,
        count("/batch", "image")?,
        count("/views", "view")?,
        count("/steps", "step")?,
        word("/precision")?,
        word("/update")?
    );
    text += &format!(
        "start       checkpoint {:.2} s, kernels {:.2} s, labels and weights {:.2} s\n",
        number("/start_s/checkpoint")?,
        number("/start_s/kernels")?,
        number("/start_s/model")?
    );
    text += &format!(
        "images/s    {} (quartiles {} to {} of {} times{outliers})\n",
        digits(number("/images_per_s/median")?),
        digits(number("/images_per_s/quartiles/0")?),
        digits(number("/images_per_s/quartiles/1")?),
        all("/samples_s")?.len()
    );
    text += &format!(
        "latency     {} from queueing a batch to its results\n",
        duration(number("/latency_s/median")?)
    );
    text += &format!(
        "work        {} TFLOP and {} at least an image: {} TFLOP/s{floor}, {} GB/s\n",
        digits(number("/work/flops")? / 1e12),
        bytes("/work/bytes")?,
        digits(number("/work/tflop_per_s")?),
        digits(number("/work/gb_per_s")?)
    );
    text += &format!("launches    {} a batch, {}\n", number("/launches")?, count("/graphs", "graph")?);
    text += &format!(
        "memory      host {}, device {}\n",
        bytes("/peak_host_bytes")?,
        bytes("/peak_device_bytes")?
    );
    let stages = at("/stages")?.as_object().cloned().unwrap_or_default();
    if !stages.is_empty() {
        let share = |(name, share): (&String, &Value)| {
            format!("{name} {:.1} %", 100.0 * share.as_f64().unwrap_or_default())
        };
        text += &format!("stages      {}\n", stages.iter().map(share).collect::<Vec<_>>().join(", "));
    }
    for gpu in object.get("roofline").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| gpu[name].as_f64().unwrap_or_default();
        text += &format!(
            "model       {:<8} {} images/s at most, {:.1} % of the time outside of products\n",
            gpu["gpu"].as_str().unwrap_or_default(),
            digits(part("images_per_s")),
            100.0 * part("share_outside_products")
        );
    }
    if let Some(compared) = object.get("compared") {
        let [ratio, from, to] =
            ["ratio", "from", "to"].map(|name| compared[name].as_f64().unwrap_or_default());
        let with = compared["with"].as_str().unwrap_or_default();
        text += &format!("compared    {ratio:.3} times as fast ({from:.3} to {to:.3}) as {with}\n");
    }
    Ok(text)
}

/// A row for each program that was at the same job.
///
/// # Errors
/// A value that is missing.
pub fn against(object: &Value) -> Result<String> {
    let all = object["against"].as_array().context("printing: no program was compared")?;
    let mut text = format!(
        "{}, {} views of {} classes\n{:<14} {:>9} {:>22} {:>24} {:>12} {:>13} {:>14}\n",
        object["device"].as_str().unwrap_or_default(),
        object["views"],
        object["classes"],
        "",
        "images/s",
        "quartiles",
        "memo is faster by",
        "peak memory",
        "step's error",
        "weights moved"
    );
    let mut abouts = Vec::new();
    for row in all {
        let number = |path: &str| {
            let value = row.pointer(path).and_then(Value::as_f64);
            value.with_context(|| format!("printing: there is no {path} in {row}"))
        };
        let part = |path: &str| row.pointer(path).and_then(Value::as_f64);
        let name = row["name"].as_str().unwrap_or_default();
        let ratio = match name {
            "memo" => String::new(),
            _ => format!(
                "{:.3} ({:.3} to {:.3})",
                number("/memo_is_faster/ratio")?,
                number("/memo_is_faster/from")?,
                number("/memo_is_faster/to")?
            ),
        };
        text += &format!(
            "{name:<14} {:>9} {:>22} {ratio:>24} {:>12} {:>11.3} % {:>14}\n",
            digits(number("/images_per_s/median")?),
            format!(
                "{} to {}",
                digits(number("/images_per_s/quartiles/0")?),
                digits(number("/images_per_s/quartiles/1")?)
            ),
            human_bytes(number("/peak_bytes")? as usize),
            100.0 * number("/step_error")?,
            part("/weights_moved").map_or(String::new(), |moved| format!("{:.2} %", 100.0 * moved))
        );
        let about = &row["about"];
        if about.is_object() {
            let word = |name: &str| about[name].as_str().unwrap_or("?").to_string();
            abouts.push(format!(
                "{name}: {} in torch {}, transformers {}, on {}\n",
                word("dtype"),
                word("torch"),
                word("transformers"),
                word("device")
            ));
        }
    }
    Ok(text + &abouts.concat())
}

/// A row for each product.
///
/// # Errors
/// A value that is missing.
pub fn shapes(object: &Value) -> Result<String> {
    let all = object["shapes"].as_array().context("printing: no product was timed")?;
    let mut text = format!(
        "{}, {} images at once, {} views\n{:<16} {:>24} {:>6} {:>12} {:>9}   quartiles\n",
        object["device"].as_str().unwrap_or_default(),
        object["batch"],
        object["views"],
        "",
        "M x N x K",
        "each",
        "time",
        "TFLOP/s"
    );
    for row in all {
        let number = |path: &str| {
            let value = row.pointer(path).and_then(Value::as_f64);
            value.with_context(|| format!("printing: there is no {path} in {row}"))
        };
        text += &format!(
            "{:<16} {:>24} {:>6} {:>12} {:>9}   {} to {}\n",
            row["name"].as_str().unwrap_or_default(),
            format!("{} x {} x {}", row["m"], row["n"], row["k"]),
            number("/batch")?,
            duration(number("/median_us")? * 1e-6),
            digits(number("/tflop_per_s/median")?),
            digits(number("/tflop_per_s/quartiles/0")?),
            digits(number("/tflop_per_s/quartiles/1")?)
        );
    }
    Ok(text)
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Three digits or more.
fn digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_string();
    }
    let after = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.after$}")
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..1e-3 => format!("{} µs", digits(seconds * 1e6)),
        ..1.0 => format!("{} ms", digits(seconds * 1e3)),
        _ => format!("{} s", digits(seconds)),
    }
}

/// The first few of many.
fn list(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(8).map(usize::to_string).collect();
    shown.join(", ") + if numbers.len() > 8 { ", …" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_more() {
        let texts = [1234.5, 123.45, 12.345, 1.2345, 0.012345, 0.0].map(digits);
        assert_eq!(texts, ["1234", "123", "12.3", "1.23", "0.0123", "0"]);
        assert_eq!([1.5e-5, 0.0123, 1.5].map(duration), ["15.0 µs", "12.3 ms", "1.50 s"]);
        assert_eq!(list(&[1, 2]), "1, 2");
        assert_eq!(list(&[0; 9]), "0, 0, 0, 0, 0, 0, 0, 0, …");
    }
}
