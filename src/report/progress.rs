//! Progress of a long run, on stderr: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::table::percent;
use crate::metrics::Totals;
use crate::notice;

/// Between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Images that come so soon after the first are of its batch.
const BATCH: Duration = Duration::from_millis(500);

pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    count: usize,
    done: usize,
    /// When the first batch was done, which has start-up in it, and how many images were done then.
    since: Option<(Instant, usize)>,
    next_line: Instant,
}

impl Progress {
    /// A run over `count` images, `done` of which an earlier run did.
    pub fn new(count: usize, done: usize) -> Progress {
        let plain = !std::io::stderr().is_terminal();
        let target = if plain { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(count as u64), target);
        let template = "{bar:16} {pos}/{len}  {per_sec}  {eta} left  {wide_msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_position(done as u64);
        bar.reset_eta();
        notice::set_bar(Some(bar.clone()));
        Progress { bar, plain, count, done, since: None, next_line: Instant::now() + LINE_EVERY }
    }

    /// One more image is done.
    pub fn advance(&mut self, totals: &Totals) {
        let all = totals.all();
        let memo = all.iter().filter(|(who, _)| who.rate().is_some());
        let memo: Vec<String> = memo.map(|(_, memo)| percent(Some(memo.accuracy), 0, 2)).collect();
        let memo = if memo.is_empty() { percent(None, 0, 2) } else { memo.join(" / ") };
        let so_far = format!("zero-shot {}  MEMO {memo}", percent(totals.clip_accuracy(), 0, 2));
        self.bar.set_message(so_far.clone());
        self.bar.inc(1);
        self.done += 1;
        let now = Instant::now();
        let (start, before) = self.since.get_or_insert((now, self.done));
        if now - *start < BATCH {
            *before = self.done;
        }
        let (passed, since) = (now - *start, self.done - *before);
        if self.plain && now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            notice!("{}/{}{}  {so_far}", self.done, self.count, pace(since, passed, self.count - self.done));
        }
    }
}

/// How fast images come, where that is known yet, and how long those that are left take.
fn pace(since: usize, passed: Duration, left: usize) -> String {
    if since == 0 {
        return String::new();
    }
    let rate = since as f64 / passed.as_secs_f64();
    format!("  {rate:.2}/s  {:.0} s left", left as f64 / rate)
}

impl Drop for Progress {
    /// However the run ends, the terminal is left as it was.
    fn drop(&mut self) {
        notice::set_bar(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_told_once_it_is_known() {
        assert_eq!(pace(0, Duration::ZERO, 5), "");
        assert_eq!(pace(4, Duration::from_secs(8), 5), "  0.50/s  10 s left");
        assert_eq!(pace(4, Duration::from_secs(8), 0), "  0.50/s  0 s left");
    }
}
