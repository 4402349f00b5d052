//! `--against libtorch[:VARIANT[:PRECISION]]`: programs of [`benches/libtorch`](../../../benches/libtorch), which do the same
//! job, asked over a pipe. `common.py` there says what they are given and what they answer.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

include!(concat!(env!("OUT_DIR"), "/libtorch.rs"));

/// A program, and what its products are computed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    pub name: String,
    pub precision: String,
}

/// The one that `libtorch` alone means.
const BEST: &str = "tuned";
const NAMES: [&str; 4] = ["notebook", "tuned", "vmap", "implicit"];
const PRECISIONS: [&str; 3] = ["float32", "tf32", "bf16"];

/// Of an answer, at most: logits of two images and 100,000 classes are a tenth of it.
const MOST_BYTES: u64 = 64 << 20;

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Variant, String> {
        let mut parts = text.split(':');
        let (library, name, precision) = (parts.next(), parts.next(), parts.next());
        let (name, precision) = (name.unwrap_or(BEST), precision.unwrap_or(PRECISIONS[0]));
        let is_known =
            library == Some("libtorch") && NAMES.contains(&name) && PRECISIONS.contains(&precision);
        if !is_known || parts.next().is_some() {
            let (names, precisions) = (NAMES.join(", "), PRECISIONS.join(", "));
            return Err(format!("expected libtorch[:VARIANT[:PRECISION]], of {names}; of {precisions}"));
        }
        Ok(Variant { name: name.to_string(), precision: precision.to_string() })
    }
}

impl Variant {
    /// In float64: what all others are held against.
    pub fn reference() -> Variant {
        Variant { name: "reference".to_string(), precision: PRECISIONS[0].to_string() }
    }

    /// As it is named where it is asked for.
    pub fn describe(&self) -> String {
        let precision = if self.precision == PRECISIONS[0] { "" } else { &format!(" {}", self.precision) };
        format!("{}{precision}", self.name)
    }
}

/// Writes the programs into a folder.
///
/// # Errors
/// The file system's.
pub fn write_programs(folder: &Path) -> Result<()> {
    PROGRAMS.iter().try_for_each(|(name, text)| {
        std::fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))
    })
}

/// A Python that has PyTorch and what the programs need beside it.
///
/// # Errors
/// None: where it was looked for, and how to get one.
pub fn find_python() -> Result<PathBuf> {
    let given = std::env::var_os("MEMO_PYTHON").map(PathBuf::from);
    let active = std::env::var_os("VIRTUAL_ENV").map(|folder| PathBuf::from(folder).join("bin/python"));
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join(".libtorch/bin/python");
    let all = match &given {
        Some(given) => vec![given.clone()],
        None => [active, Some(made), Some("python3".into())].into_iter().flatten().collect(),
    };
    let mut tried = Vec::new();
    for python in all {
        let mut command = Command::new(&python);
        command.args(["-c", "import torch, transformers, safetensors, torchvision"]);
        match command.output() {
            Ok(output) if output.status.success() => return Ok(python),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                let why = why.lines().last().unwrap_or("it fails").to_string();
                tried.push(format!("{}: {why}", python.display()));
            }
            Err(error) => tried.push(format!("{}: {error}", python.display())),
        }
    }
    bail!(
        "--against: no Python with torch, torchvision, transformers and safetensors ({}); `make libtorch` makes one, \
         MEMO_PYTHON=PROGRAM names another",
        tried.join("; ")
    )
}

/// A program that runs and waits to be asked.
pub struct Rival {
    variant: Variant,
    /// What it says of itself.
    pub ready: Value,
    child: Child,
    asked: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Rival {
    /// Starts `variant` on the job in this folder, where the programs are too.
    ///
    /// # Errors
    /// It does not start, or says why it cannot.
    pub fn start(python: &Path, folder: &Path, variant: &Variant) -> Result<Rival> {
        let log = folder.join(format!("{}.log", variant.describe()));
        let mut command = Command::new(python);
        // SAFETY: prctl may be called between fork and exec, and changes the child alone: it ends when this program does.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        let mut child = command
            .arg(folder.join(format!("{}.py", variant.name)))
            .arg(folder.join(&variant.precision))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {} by {}", variant.name, python.display()))?;
        let (asked, answers) =
            (child.stdin.take(), child.stdout.take().context("a pipe that was asked for")?);
        let variant = variant.clone();
        let answers = BufReader::new(answers);
        let mut rival = Rival { variant, ready: Value::Null, child, asked, answers, log };
        let answer = rival.answer()?;
        let ready = answer.get("ready").filter(|ready| ready.is_object());
        rival.ready = ready.cloned().with_context(|| {
            format!(
                "{} in libtorch: it began with {answer}, and not with what it is",
                rival.variant.describe()
            )
        })?;
        Ok(rival)
    }

    pub fn variant(&self) -> &Variant {
        &self.variant
    }

    /// # Errors
    /// Its own, or that it has ended.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        let asked = self.asked.as_mut().context("a program that is done")?;
        // One that has ended says why in its answer.
        let _ = writeln!(asked, "{request}").and_then(|()| asked.flush());
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let name = format!("{} in libtorch", self.variant.describe());
        let mut line = String::new();
        let mut answers = self.answers.by_ref().take(MOST_BYTES);
        answers.read_line(&mut line).with_context(|| format!("asking {name}"))?;
        ensure!((line.len() as u64) < MOST_BYTES, "{name}: an answer of more than {MOST_BYTES} bytes");
        if line.is_empty() {
            let status = self.child.wait()?;
            let log = std::fs::read(&self.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let last = log.lines().last().unwrap_or("and said nothing").to_string();
            bail!("{name}: it ended ({status}): {last}");
        }
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("{name}: it answered {line:?}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(anyhow!("{name}: {error}")),
            None => Ok(answer),
        }
    }

    /// Seconds of each of the next images, and its peak memory in bytes.
    ///
    /// # Errors
    /// Its own; an answer of another kind.
    pub fn run(&mut self, images: usize) -> Result<(Vec<f64>, u64)> {
        let answer = self.ask(&json!({ "run": images }))?;
        let are_times = |times: &Vec<f64>| times.len() == images && times.iter().all(|&time| time > 0.0);
        let seconds = numbers(&answer["seconds"]).filter(are_times);
        let what = || format!("{} in libtorch: no times in {answer}", self.variant.describe());
        Ok((seconds.with_context(what)?, answer["peak_bytes"].as_u64().with_context(what)?))
    }

    /// What it makes of the job's images by the given views.
    ///
    /// # Errors
    /// Its own; an answer of another kind.
    pub fn check(&mut self) -> Result<Checked> {
        let answer = self.ask(&json!({ "check": true }))?;
        let what = || format!("{} in libtorch: no logits in its answer", self.variant.describe());
        let rows = |name: &str| answer[name].as_array()?.iter().map(numbers).collect::<Option<Vec<_>>>();
        let (zero_shot, memo) = rows("zero_shot").zip(rows("memo")).with_context(what)?;
        let checked = Checked { zero_shot, memo, moved: answer["moved"].as_f64() };
        ensure!(checked.memo.len() == checked.zero_shot.len() && !checked.memo.is_empty(), what());
        Ok(checked)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        // The end of its input tells it to go; what is in the middle of work is not waited for.
        self.asked = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(value: &Value) -> Option<Vec<f64>> {
    value.as_array()?.iter().map(Value::as_f64).collect()
}

/// Logits of a few images, `(I, K)`, before and after a step, and which part of the weights it moved.
#[derive(Debug)]
pub struct Checked {
    pub zero_shot: Vec<Vec<f64>>,
    pub memo: Vec<Vec<f64>>,
    pub moved: Option<f64>,
}

impl Checked {
    /// How a step changed each logit.
    fn effect(&self) -> impl Iterator<Item = f64> {
        let pairs = self.memo.iter().flatten().zip(self.zero_shot.iter().flatten());
        pairs.map(|(after, before)| after - before)
    }

    /// The most that it changed one.
    pub fn most(&self) -> f64 {
        self.effect().map(f64::abs).fold(0.0, f64::max)
    }

    /// How far the change of the logits is from the true one, as a part of it: `‖e − e'‖ / ‖e'‖` over all images.
    ///
    /// # Errors
    /// Other images or classes; a true change of nothing.
    pub fn error(&self, truth: &Checked) -> Result<f64> {
        let [own, true_ones] = [self, truth].map(|checked| checked.effect().count());
        ensure!(own == true_ones, "comparing {own} logits with {true_ones}");
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let whole = norm(&mut truth.effect());
        ensure!(whole > 0.0, "--against: the true step changes no logit, so no error is a part of that");
        let error = norm(&mut self.effect().zip(truth.effect()).map(|(own, truth)| own - truth)) / whole;
        ensure!(error.is_finite(), "--against: logits that are not finite, or out of all proportion");
        Ok(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_named_with_its_precision_or_refused() {
        let parsed = |text: &str| text.parse::<Variant>().map(|variant| variant.describe());
        assert_eq!(parsed("libtorch").as_deref(), Ok("tuned"));
        assert_eq!(parsed("libtorch:vmap").as_deref(), Ok("vmap"));
        assert_eq!(parsed("libtorch:tuned:bf16").as_deref(), Ok("tuned bf16"));
        for wrong in ["torch", "libtorch:fast", "libtorch:tuned:fp8", "libtorch:tuned:bf16:x", ""] {
            assert!(
                parsed(wrong).is_err_and(|why| why.contains("notebook, tuned, vmap, implicit")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn all_variants_are_carried_along() {
        for name in NAMES.into_iter().chain(["reference", "common"]) {
            assert!(PROGRAMS.iter().any(|(file, _)| *file == format!("{name}.py")), "{name}");
        }
    }

    #[test]
    fn an_error_is_a_part_of_the_effect() {
        let of = |memo: [f64; 2]| Checked {
            zero_shot: vec![vec![1.0, 1.0]],
            memo: vec![memo.to_vec()],
            moved: None,
        };
        let truth = of([4.0, 5.0]);
        assert_eq!(of([4.0, 5.0]).error(&truth).ok(), Some(0.0));
        assert_eq!(of([4.0, 10.0]).error(&truth).ok(), Some(1.0));
        assert_eq!(truth.most(), 4.0);
        assert!(truth.error(&of([1.0, 1.0])).is_err(), "of nothing");
    }
}
