//! Progress of a long run, on stderr: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::metrics::Totals;
use crate::notice;

/// Between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    first: usize,
    start: Instant,
    next_line: Instant,
}

impl Progress {
    /// A run over `count` images, `done` of which an earlier run did.
    pub fn new(count: usize, done: usize) -> Progress {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(count as u64), target);
        let template = "{bar:30} {pos}/{len}  {per_sec}  {eta} left  {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_position(done as u64);
        bar.reset_eta();
        notice::set_bar(Some(bar.clone()));
        let now = Instant::now();
        Progress { bar, plain, first: done, start: now, next_line: now + LINE_EVERY }
    }

    /// One more image is done.
    pub fn advance(&mut self, totals: &Totals) {
        let memo: Vec<String> =
            totals.memo().iter().map(|memo| format!("{:.2} %", 100.0 * memo.accuracy)).collect();
        let so_far = format!("zero-shot {:.2} %  MEMO {}", 100.0 * totals.clip_accuracy(), memo.join(" / "));
        self.bar.set_message(so_far.clone());
        self.bar.inc(1);
        if self.plain && Instant::now() >= self.next_line {
            self.next_line = Instant::now() + LINE_EVERY;
            let (done, count) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let rate = (done - self.first as u64) as f64 / self.start.elapsed().as_secs_f64();
            let left = (count - done) as f64 / rate;
            notice!("{done}/{count}  {rate:.2}/s  {left:.0} s left  {so_far}");
        }
    }
}

impl Drop for Progress {
    /// However the run ends, the terminal is left as it was.
    fn drop(&mut self) {
        notice::set_bar(None);
    }
}
