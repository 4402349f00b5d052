//! Ctrl-C, SIGTERM and a terminal that is closed: the first asks a run to end with what is under way, the second ends
//! the program at once.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Once};
use std::{mem, ptr, thread};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::notice;

/// The first signal that came.
static ASKED: AtomicI32 = AtomicI32::new(0);

/// A run has ended early, in order, because a signal asked for it: no fault.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted(i32);

impl Interrupted {
    /// 128 and the signal's number, as shells have it.
    pub fn exit_code(self) -> u8 {
        128 + self.0 as u8
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(low_level::signal_name(self.0).unwrap_or("a signal"))
    }
}

impl std::error::Error for Interrupted {}

/// From now on the first signal only asks, and [`asked`] tells of it. One that is ignored, as `nohup` and background
/// jobs of scripts have it, stays so. A second call does nothing.
///
/// # Errors
/// No thread to be had.
pub fn catch() -> Result<()> {
    static CAUGHT: Once = Once::new();
    let mut caught = Ok(());
    CAUGHT.call_once(|| caught = listen().context("preparing for Ctrl-C"));
    caught
}

fn listen() -> Result<()> {
    let signals = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal));
    let signals: Vec<i32> = signals.collect();
    let again = Arc::new(AtomicBool::new(false));
    for &signal in &signals {
        // In this order: the first finds the flag as it was and sets it.
        flag::register_conditional_shutdown(signal, 128 + signal, again.clone())?;
        flag::register(signal, again.clone())?;
    }
    let mut signals = Signals::new(signals)?;
    let told = move || {
        if let Some(signal) = signals.forever().next() {
            ASKED.store(signal, Ordering::Relaxed);
            notice::set_bar(None); // so that the terminal is as it was, whatever comes next
            notice!("note: {}: ending with what is under way; once more ends at once", Interrupted(signal));
        }
    };
    thread::Builder::new().name("signals".to_string()).spawn(told)?;
    Ok(())
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data; without a new action the call only fills it with the present one.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Whether the run is to end, and by which signal.
pub fn asked() -> Option<Interrupted> {
    match ASKED.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(Interrupted(signal)),
    }
}

/// Ends where the run is to end.
///
/// # Errors
/// [`Interrupted`].
pub fn check() -> Result<()> {
    match asked() {
        Some(interrupted) => bail!(interrupted),
        None => Ok(()),
    }
}

/// Nobody reads any more what is written: `memo … | head`. The program is to end without a word.
#[derive(Debug)]
pub struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads what is written")
    }
}

impl std::error::Error for ReaderGone {}

impl ReaderGone {
    /// Ends as a program does that writes to a pipe which nobody reads: by SIGPIPE, which Rust's start-up has it ignore.
    pub fn end(&self) -> ! {
        let _ = low_level::emulate_default_handler(SIGPIPE);
        std::process::exit(128 + SIGPIPE)
    }
}
