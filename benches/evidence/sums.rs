//! What all launches of a batch come to, beside what is needed.

use vcuda::exec::profile::Gpu;

use crate::cases::Case;
use crate::rows::Row;

pub const HEAD: &str = "| model | step | images at once | architecture | tensor FLOPs | touched by products | by the rest | time outside products |
|---|---|---:|---|---:|---:|---:|---|
";

/// A line of a batch: tensor FLOPs of its products over those that are needed, bytes touched over the least, and the share of its time
/// on each of some GPUs that is no product's.
pub fn line(case: &Case, architecture: &str, rows: &[Row], gpus: &[Gpu]) -> String {
    let sum = |of: &dyn Fn(&Row) -> bool, value: &dyn Fn(&Row) -> f64| -> f64 {
        rows.iter().filter(|row| of(row)).map(value).sum()
    };
    let all = |value: fn(&Row) -> f64| move |row: &Row| row.launches as f64 * value(row);
    let is_product = |row: &Row| row.launched.product.is_some();
    let is_other = |row: &Row| !is_product(row);
    let touched = |of: &dyn Fn(&Row) -> bool| {
        let least = sum(of, &all(|row| row.launched.bytes as f64));
        sum(of, &all(|row| row.counted.touched_bytes)) / least
    };
    let on_tensor_cores = |row: &Row| is_product(row) && row.flops_over_needed().is_some();
    let needed = sum(&on_tensor_cores, &all(|row| row.launched.flops as f64));
    let outside = gpus.iter().map(|gpu| {
        let us = |row: &Row| row.roofline(gpu, 1.0).0;
        format!("{}: {:.1} %", gpu.name, 100.0 * sum(&is_other, &us) / sum(&|_| true, &us))
    });
    format!(
        "| {} | {} | {} | sm_{architecture} | {:.3} | {:.3} | {:.3} | {} |\n",
        case.model.name,
        case.way,
        case.images,
        sum(&on_tensor_cores, &all(|row| row.counted.tensor_flops())) / needed,
        touched(&is_product),
        touched(&is_other),
        outside.collect::<Vec<_>>().join(", "),
    )
}
