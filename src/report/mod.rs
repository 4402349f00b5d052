//! What a person sees of a run: the table, the progress, the contact sheet.

pub mod grid;
mod progress;
mod table;

pub use progress::Progress;
pub use table::{Summary, demo_table};
