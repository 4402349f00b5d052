//! What a launch prints.

use std::io::Write;
use std::sync::Mutex;

/// What a launch prints, by CTA; it goes to stdout when the launch is over, in the order of the CTAs.
#[derive(Default)]
pub struct Output(Mutex<Vec<([u32; 3], Vec<u8>)>>);

impl Output {
    pub fn push(&self, cta: [u32; 3], text: Vec<u8>) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((cta, text));
    }

    /// Writes everything. Nobody can be told of a stdout that is closed.
    pub fn flush(&self) {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        if all.is_empty() {
            return;
        }
        all.sort_by_key(|&([x, y, z], _)| (z, y, x));
        let mut stdout = std::io::stdout().lock();
        let _ = all.iter().try_for_each(|(_, text)| stdout.write_all(text)).and_then(|()| stdout.flush());
    }
}
