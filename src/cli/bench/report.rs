//! What `memo bench` prints where people read it, of the same object that `--json` prints.

use anyhow::{Context, Result};
use serde_json::Value;

use super::against::STAGES;
use crate::gpu::human_bytes;
use crate::report::counted;

/// Values by their paths, such as `/work/flops`.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a Value);

impl<'a> Fields<'a> {
    fn at(self, path: &str) -> Result<&'a Value> {
        self.0.pointer(path).with_context(|| format!("printing: there is no {path}"))
    }

    fn number(self, path: &str) -> Result<f64> {
        let value = self.at(path)?;
        value.as_f64().with_context(|| format!("printing: {path} is {value}, no number"))
    }

    fn digits(self, path: &str) -> Result<String> {
        Ok(digits(self.number(path)?))
    }

    fn bytes(self, path: &str) -> Result<String> {
        Ok(human_bytes(self.number(path)? as usize))
    }

    fn counted(self, path: &str, what: &str) -> Result<String> {
        Ok(counted(self.number(path)? as usize, what))
    }

    fn word(self, path: &str) -> Result<&'a str> {
        Ok(self.at(path)?.as_str().unwrap_or_default())
    }

    fn all(self, path: &str) -> Result<&'a [Value]> {
        Ok(self.at(path)?.as_array().map_or(&[], Vec::as_slice))
    }

    /// The quartiles of a rate.
    fn span(self, path: &str) -> Result<String> {
        let [low, high] = [0, 1].map(|i| self.digits(&format!("{path}/quartiles/{i}")));
        Ok(format!("{} to {}", low?, high?))
    }
}

/// A few lines.
///
/// # Errors
/// A value that is missing.
pub fn text(object: &Value) -> Result<String> {
    let of = Fields(object);
    let floor = match of.at("/work/share_of_floor")?.as_f64() {
        Some(share) => format!(", {:.0} % of the floor", 100.0 * share),
        None => String::new(),
    };
    let outliers: Vec<u64> = of.all("/outliers")?.iter().filter_map(Value::as_u64).collect();
    let outliers = match &outliers[..] {
        [] => String::new(),
        outliers => format!("; {}: {}", counted(outliers.len(), "outlier"), list(outliers)),
    };
    let mut text = format!(
        "{}, {} at once, {}, {}, {}, {}\n",
        of.word("/device")?,
        of.counted("/batch", "image")?,
        of.counted("/views", "view")?,
        of.counted("/steps", "step")?,
        of.word("/precision")?,
        of.word("/update")?
    );
    text += &format!(
        "start       checkpoint {:.2} s, kernels {:.2} s, labels and weights {:.2} s\n",
        of.number("/start_s/checkpoint")?,
        of.number("/start_s/kernels")?,
        of.number("/start_s/model")?
    );
    text += &format!(
        "images/s    {} (quartiles {} of {}{outliers})\n",
        of.digits("/images_per_s/median")?,
        of.span("/images_per_s")?,
        counted(of.all("/samples_s")?.len(), "time")
    );
    text += &format!(
        "latency     {} from queueing a batch to its results\n",
        duration(of.number("/latency_s/median")?)
    );
    text += &format!(
        "work        {} TFLOP and {} at least an image: {} TFLOP/s{floor}, {} GB/s\n",
        digits(of.number("/work/flops")? / 1e12),
        of.bytes("/work/bytes")?,
        of.digits("/work/tflop_per_s")?,
        of.digits("/work/gb_per_s")?
    );
    text +=
        &format!("launches    {} a batch, {}\n", of.number("/launches")?, of.counted("/graphs", "graph")?);
    text += &format!(
        "memory      host {}, device {}\n",
        of.bytes("/peak_host_bytes")?,
        of.bytes("/peak_device_bytes")?
    );
    if let Some(stages) = of.at("/stages")?.as_object().filter(|stages| !stages.is_empty()) {
        let share = |(name, share): (&String, &Value)| {
            format!("{name} {:.1} %", 100.0 * share.as_f64().unwrap_or_default())
        };
        text += &format!("stages      {}\n", stages.iter().map(share).collect::<Vec<_>>().join(", "));
    }
    for gpu in object.get("roofline").and_then(Value::as_array).into_iter().flatten().map(Fields) {
        text += &format!(
            "model       {:<8} {} images/s at most, {:.1} % of the time outside of products\n",
            gpu.word("/gpu")?,
            gpu.digits("/images_per_s")?,
            100.0 * gpu.number("/share_outside_products")?
        );
    }
    if let Some(trace) = object.get("trace").and_then(Value::as_str) {
        text += &format!("trace       {trace}, for ui.perfetto.dev\n");
    }
    if let Some(compared) = object.get("compared").map(Fields) {
        let [ratio, from, to] = ["/ratio", "/from", "/to"].map(|path| compared.number(path));
        let (ratio, from, to, with) = (ratio?, from?, to?, compared.word("/with")?);
        text += &format!("compared    {ratio:.3} times as fast ({from:.3} to {to:.3}) as {with}\n");
    }
    Ok(text)
}

/// A row for each program that was at the same job.
///
/// # Errors
/// A value that is missing.
pub fn against(object: &Value) -> Result<String> {
    let of = Fields(object);
    let mut text = format!(
        "{}, {} at once, {}, {} classes; the true step changes logits by {} at most\n\
         {:<14} {:>9} {:>22} {:>24} {:>12} {:>13} {:>14}\n",
        of.word("/device")?,
        of.counted("/batch", "image")?,
        of.counted("/views", "view")?,
        of.number("/classes")?,
        of.digits("/effect")?,
        "",
        "images/s",
        "quartiles",
        "memo is faster by",
        "peak memory",
        "step's error",
        "weights moved"
    );
    let mut abouts = String::new();
    for row in of.all("/against")?.iter().map(Fields) {
        let name = row.word("/name")?;
        let [ratio, from, to] =
            ["ratio", "from", "to"].map(|part| row.number(&format!("/memo_is_faster/{part}")));
        let (ratio, from, to) = (ratio?, from?, to?);
        let about = row.at("/about")?;
        let ratio =
            if about.is_null() { String::new() } else { format!("{ratio:.3} ({from:.3} to {to:.3})") };
        let moved = row.at("/weights_moved")?.as_f64();
        text += &format!(
            "{name:<14} {:>9} {:>22} {ratio:>24} {:>12} {:>11} % {:>14}\n",
            row.digits("/images_per_s/median")?,
            row.span("/images_per_s")?,
            row.bytes("/peak_bytes")?,
            digits(100.0 * row.number("/step_error")?),
            moved.map_or(String::new(), |moved| format!("{:.2} %", 100.0 * moved))
        );
        if about.is_object() {
            let word = |part: &str| about[part].as_str().unwrap_or("?");
            let [dtype, torch, transformers, device] = ["dtype", "torch", "transformers", "device"].map(word);
            let note = about["note"].as_str().map(|note| format!("; {note}")).unwrap_or_default();
            abouts += &format!(
                "{name}: {dtype} in torch {torch}, transformers {transformers}, on {device}{note}\n"
            );
        }
    }
    for one in of.all("/failed")?.iter().map(Fields) {
        text += &format!("{:<14} failed: {}\n", one.word("/name")?, one.word("/why")?);
    }
    Ok(text + &stages_of(of.all("/against")?)? + &abouts)
}

/// A row of each program's stages; nothing where it cannot tell.
fn stages_of(programs: &[Value]) -> Result<String> {
    let columns = |texts: [String; 5]| texts.map(|text| format!(" {text:>12}")).concat();
    let mut text = format!("{:<14}{}\n", "an image", columns(STAGES.map(str::to_string)));
    for program in programs {
        let time = |name: &str| program["stages_s"][name].as_f64().map_or(String::new(), duration);
        text += &format!("{:<14}{}\n", Fields(program).word("/name")?, columns(STAGES.map(time)));
    }
    Ok(text)
}

/// A row for each product.
///
/// # Errors
/// A value that is missing.
pub fn shapes(object: &Value) -> Result<String> {
    let of = Fields(object);
    let mut text = format!(
        "{}, {} at once, {}\n{:<16} {:>24} {:>6} {:>12} {:>9}   quartiles\n",
        of.word("/device")?,
        of.counted("/batch", "image")?,
        of.counted("/views", "view")?,
        "",
        "M x N x K",
        "each",
        "time",
        "TFLOP/s"
    );
    for row in of.all("/shapes")?.iter().map(Fields) {
        text += &format!(
            "{:<16} {:>24} {:>6} {:>12} {:>9}   {}\n",
            row.word("/name")?,
            format!("{} x {} x {}", row.number("/m")?, row.number("/n")?, row.number("/k")?),
            row.number("/batch")?,
            duration(row.number("/median_us")? * 1e-6),
            row.digits("/tflop_per_s/median")?,
            row.span("/tflop_per_s")?
        );
    }
    Ok(text)
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
fn list(numbers: &[u64]) -> String {
    let shown: Vec<String> = numbers.iter().take(8).map(u64::to_string).collect();
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
