//! Processes of other programs: none is waited for longer than it may take, or after Ctrl-C, and none outlives this one.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// How often it is looked whether a process is done, or the run is to end.
const TURN: Duration = Duration::from_millis(50);
/// What a process may still take that has said its last.
const LEAVING: Duration = Duration::from_secs(5);
/// Of a line, at most: logits of two images and 100,000 classes are a tenth of it.
const MOST_BYTES: u64 = 64 << 20;

/// A process and those that it starts, in a group of their own: they end where this is dropped.
pub struct Process {
    child: Child,
    /// It has been waited for.
    is_over: bool,
}

impl Process {
    /// Starts `command`; what it says on stderr goes to `log`.
    fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let log = File::create(log).with_context(|| format!("writing {}", log.display()))?;
        // SAFETY: prctl may be called between fork and exec, and changes the child alone: it ends when this program does.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        let child = command.process_group(0).stderr(log).spawn();
        let child = child.with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Process { child, is_over: false })
    }

    /// Its end, waited for so long; `None` where it goes on.
    fn wait(&mut self, limit: Option<Duration>) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        while !self.has_ended()? {
            if limit.is_some_and(|limit| start.elapsed() >= limit) {
                return Ok(None);
            }
            interrupt::check()?;
            thread::sleep(TURN);
        }
        Ok(Some(self.end()?))
    }

    /// Whether there is nothing to wait for. It is not waited for yet, so that its number stays its own.
    fn has_ended(&self) -> Result<bool> {
        // SAFETY: siginfo is plain data, which waitid fills; it leaves a pid of 0 where the child goes on.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            match libc::waitid(libc::P_PID, self.child.id(), &mut info, how) {
                0 => Ok(info.si_pid() != 0),
                _ => Err(std::io::Error::last_os_error()).context("waiting for another program"),
            }
        }
    }

    /// Ends it, and what it has started.
    fn end(&mut self) -> Result<ExitStatus> {
        if !self.is_over {
            // SAFETY: a signal to the group that the child leads: its number is the child's, who has not been waited for.
            unsafe { libc::kill(-(self.child.id() as i32), libc::SIGKILL) };
        }
        self.is_over = true;
        self.child.wait().context("waiting for another program")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Runs `command` to its end; its output goes to `out` and `log`. `None` as limit: as long as it takes.
///
/// # Errors
/// It does not start, or takes longer than `limit`; [`interrupt::Interrupted`].
pub fn finish(command: &mut Command, out: &Path, log: &Path, limit: Option<Duration>) -> Result<ExitStatus> {
    let stdout = File::create(out).with_context(|| format!("writing {}", out.display()))?;
    let mut process = Process::start(command.stdin(Stdio::null()).stdout(stdout), log)?;
    process.wait(limit)?.with_context(|| {
        format!(
            "{} did not end within {} s",
            command.get_program().display(),
            limit.unwrap_or_default().as_secs()
        )
    })
}

/// The last line of a log, or of what there is of it.
pub fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("and said nothing").to_string()
}

/// A process that is asked by a line and answers by one.
pub struct Talk {
    process: Process,
    asked: ChildStdin,
    answers: Receiver<std::io::Result<String>>,
    log: PathBuf,
    limit: Duration,
}

impl Talk {
    /// Starts `command`, which may take `limit` for each answer.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(command: &mut Command, log: &Path, limit: Duration) -> Result<Talk> {
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()), log)?;
        let pipe = "a pipe that was asked for";
        let asked = process.child.stdin.take().context(pipe)?;
        let said = process.child.stdout.take().context(pipe)?;
        let (sender, answers) = channel();
        // It ends with the process, whose output it reads.
        let read = move || {
            let mut said = BufReader::new(said);
            loop {
                let mut line = String::new();
                let done = said.by_ref().take(MOST_BYTES).read_line(&mut line).map(|_| line);
                let is_last = !done.as_ref().is_ok_and(|line| line.ends_with('\n'));
                if sender.send(done).is_err() || is_last {
                    break;
                }
            }
        };
        thread::Builder::new().name("answers".to_string()).spawn(read).context("a thread for answers")?;
        Ok(Talk { process, asked, answers, log: log.to_path_buf(), limit })
    }

    /// Says a line. One that has ended says why in its answer.
    pub fn say(&mut self, line: &str) {
        let _ = writeln!(self.asked, "{line}").and_then(|()| self.asked.flush());
    }

    /// The next line that it says.
    ///
    /// # Errors
    /// It has ended, and its last words; it says none in time; [`interrupt::Interrupted`].
    pub fn answer(&mut self) -> Result<String> {
        let start = Instant::now();
        loop {
            match self.answers.recv_timeout(TURN) {
                Ok(line) => match line.context("reading its answer")? {
                    line if line.ends_with('\n') => return Ok(line),
                    line if line.len() as u64 == MOST_BYTES => {
                        bail!("an answer of more than {MOST_BYTES} bytes")
                    }
                    line if !line.is_empty() => return Ok(line),
                    _ => return self.end(),
                },
                Err(RecvTimeoutError::Disconnected) => return self.end(),
                Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            }
            if start.elapsed() >= self.limit {
                bail!("no answer within {} s, so it was stopped (--answer-limit)", self.limit.as_secs_f64());
            }
        }
    }

    fn end<T>(&mut self) -> Result<T> {
        let last = last_line(&self.log);
        match self.process.wait(Some(LEAVING))? {
            Some(status) => bail!("it ended ({status}): {last}"),
            None => bail!("it closed its output: {last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(script: &str, limit_s: f64) -> (tempfile::TempDir, Talk) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let talk = Talk::start(&mut command, &folder.path().join("log"), Duration::from_secs_f64(limit_s));
        (folder, talk.expect("it starts"))
    }

    #[test]
    fn an_answer_is_a_line_and_none_is_an_error_that_says_why() {
        let (_folder, mut echo) = talk("read line; echo \"got $line\"; echo why >&2; exit 3", 60.0);
        echo.say("this");
        assert_eq!(echo.answer().expect("an answer"), "got this\n");
        let error = echo.answer().expect_err("it has ended").to_string();
        assert!(error.contains("3") && error.contains("why"), "{error}");
    }

    #[test]
    fn one_that_does_not_answer_is_stopped_with_all_that_it_started() {
        let (folder, mut silent) = talk("sleep 600 & echo $!; wait", 0.3);
        let pid: i32 = silent.answer().expect("a number").trim().parse().expect("a number");
        let error = silent.answer().expect_err("it says no more").to_string();
        assert!(error.contains("no answer within 0.3 s"), "{error}");
        drop((silent, folder));
        let is_gone = || {
            // Dead and not yet waited for by init counts as gone.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        let start = Instant::now();
        while !is_gone() {
            assert!(start.elapsed() < Duration::from_secs(10), "{pid} is still there");
            thread::sleep(TURN);
        }
    }
}
