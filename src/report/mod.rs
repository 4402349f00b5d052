//! What a person sees of a run: the table, the progress, the contact sheet.

pub mod grid;
mod progress;
mod table;

pub use progress::Progress;
pub use table::{Summary, demo_table};

/// For JSON: the shortest decimal that stands for this number, 0.1 rather than 0.10000000149011612.
pub fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
