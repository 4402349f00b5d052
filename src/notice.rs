//! Notices to people: the one place that writes to stderr.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

/// The bar of the run under way, which is on stderr too.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Writes a line to stderr, as `eprintln!` does, whoever may be there to read it.
#[macro_export]
macro_rules! notice {
    ($($text:tt)*) => { $crate::notice::line(format_args!($($text)*)) };
}

/// Writes a line, whole, above the bar if there is one. A stderr that is closed, full or read no more ends nothing:
/// whoever runs the program so does without notices, not without results.
pub fn line(text: fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    let write = || {
        let _ = std::io::stderr().write_all(line.as_bytes());
    };
    match &*BAR.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// From now on notices are written above this bar; the one before it, if any, is cleared away.
pub fn set_bar(bar: Option<ProgressBar>) {
    let before = std::mem::replace(&mut *BAR.lock().unwrap_or_else(PoisonError::into_inner), bar);
    if let Some(before) = before {
        before.finish_and_clear();
    }
}
