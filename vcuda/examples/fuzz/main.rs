//! Feeds the loader texts that are nearly PTX, and runs what it takes, in a child process under a watch:
//!
//!     cargo run --release -p vcuda --example fuzz -- --seconds 600 --seed 1 --out failures [--texts FOLDER]
//!     cargo run --release -p vcuda --example fuzz -- --file failures/1-234.ptx
//!
//! A failure is a panic, a crash, or a load of more than two seconds or one gigabyte; its text is written to
//! `--out`. A kernel may fault, and may run for ever: then it is stopped.

mod drive;
mod mutate;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use drive::Device;
use mutate::{Rng, case};
use vcuda::exec::Checks;

/// Processor time that a load may take, and the time after which either is stopped.
const LOAD_LIMIT: Duration = Duration::from_secs(2);
const LOAD_STOP: Duration = Duration::from_secs(20);
const RUN_STOP: Duration = Duration::from_millis(300);
const LIMIT_BYTES: u64 = 1 << 30;
const DEVICE_BYTES: usize = 1 << 26;
/// Before each line that a child says of its cases.
const MARK: &str = "fuzz: ";
/// Texts of one kind of failure that are kept.
const KEPT: usize = 3;

struct Args {
    seconds: u64,
    seed: u64,
    first: u64,
    out: PathBuf,
    texts: Option<PathBuf>,
    file: Option<PathBuf>,
    child: bool,
}

fn args() -> Result<Args, String> {
    let mut args = Args {
        seconds: 60,
        seed: 1,
        first: 0,
        out: "fuzz-failures".into(),
        texts: None,
        file: None,
        child: false,
    };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut value = || given.next().ok_or(format!("{flag} needs a value"));
        let number =
            |text: String| text.parse::<u64>().map_err(|_| format!("{flag}: `{text}` is not a number"));
        match flag.as_str() {
            "--seconds" => args.seconds = number(value()?)?,
            "--seed" => args.seed = number(value()?)?,
            "--first" => args.first = number(value()?)?,
            "--out" => args.out = value()?.into(),
            "--texts" => args.texts = Some(value()?.into()),
            "--file" => args.file = Some(value()?.into()),
            "--child" => args.child = true,
            _ => return Err(format!("unknown flag {flag}")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let result = args().and_then(|args| match &args.file {
        Some(file) => one(file),
        None if args.child => child(&args),
        None => parent(&args),
    });
    match result {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Loads and runs one text, and says what comes of it.
fn one(file: &Path) -> Result<ExitCode, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let device = Device::new(DEVICE_BYTES, Checks::default());
    let start = processor_time();
    match device.load(&text) {
        Err(message) => println!("refused after {:?}: {message}", processor_time() - start),
        Ok(module) => {
            println!("loaded after {:?}", processor_time() - start);
            for kernel in module.kernels() {
                for run in 0..4 {
                    println!("{}: {:?}", kernel.name, device.run(kernel, &mut Rng(run)));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn texts(folder: &Option<PathBuf>) -> Result<Vec<String>, String> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let say = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(say)? {
        paths.push(entry.map_err(say)?.path());
    }
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).map_err(say)).collect()
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a plain system call that fills a structure of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The most memory that this process ever held, in bytes.
fn peak_bytes() -> u64 {
    // SAFETY: a structure of numbers, and a plain system call that fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    usage.ru_maxrss as u64 * 1024
}

/// Cases one after another, each announced: `load N`, `run N`, `failure N why`.
fn child(args: &Args) -> Result<ExitCode, String> {
    // Whoever watches this process would rather lose it than another one.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    static WHERE: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|info| {
        *WHERE.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string().replace('\n', " ");
    }));
    let why = || WHERE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let texts = texts(&args.texts)?;
    // Kernels may print: what is said goes elsewhere.
    let say = |line: String| eprintln!("{MARK}{line}");
    for number in args.first.. {
        let text = case(args.seed, number, &texts);
        say(format!("load {number}"));
        let mut rng = Rng(number);
        let device = Device::new(DEVICE_BYTES, if rng.one_in(2) { Checks::ALL } else { Checks::default() });
        let start = processor_time();
        let result = catch_unwind(AssertUnwindSafe(|| device.load(&text)));
        if processor_time() - start > LOAD_LIMIT {
            say(format!("failure {number} a load of more than {LOAD_LIMIT:?}"));
        }
        if peak_bytes() > LIMIT_BYTES {
            say(format!("failure {number} a load of more than {LIMIT_BYTES} bytes"));
        }
        let module = match result {
            Ok(Ok(module)) => module,
            Ok(Err(_)) => continue,
            Err(_) => {
                say(format!("failure {number} {}", why()));
                continue;
            }
        };
        say(format!("run {number}"));
        for kernel in module.kernels().iter().take(4) {
            if catch_unwind(AssertUnwindSafe(|| device.run(kernel, &mut rng))).is_err() {
                say(format!("failure {number} {}", why()));
            }
        }
        let mut module = module;
        module.free_variables(&device.memory);
        // What a kernel allocates outlives it.
        if !text.contains("malloc") && device.memory.info().0 != device.free_bytes {
            say(format!("failure {number} device memory is lost"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A child and the lines that it says.
struct Watched {
    process: Child,
    lines: Receiver<String>,
}

fn start(args: &Args, first: u64) -> Result<Watched, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["--child", "--seed", &args.seed.to_string(), "--first", &first.to_string()]);
    if let Some(texts) = &args.texts {
        command.arg("--texts").arg(texts);
    }
    let mut process =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(|error| error.to_string())?;
    let out = process.stderr.take().ok_or("the child has no stderr")?;
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let line = line.strip_prefix(MARK).map(str::to_string);
            if line.is_some_and(|line| send.send(line).is_err()) {
                break;
            }
        }
    });
    Ok(Watched { process, lines })
}

fn parent(args: &Args) -> Result<ExitCode, String> {
    let texts = texts(&args.texts)?;
    std::fs::create_dir_all(&args.out).map_err(|error| format!("{}: {error}", args.out.display()))?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let (mut loaded, mut stopped) = (0u64, 0u64);
    let mut kinds: HashMap<String, usize> = HashMap::new();
    let mut number = args.first;
    while Instant::now() < end {
        let mut watched = start(args, number)?;
        let mut loading = true;
        let failure = loop {
            if Instant::now() >= end {
                break None;
            }
            match watched.lines.recv_timeout(if loading { LOAD_STOP } else { RUN_STOP }) {
                Ok(line) => {
                    let mut words = line.splitn(3, ' ');
                    let word = words.next();
                    number = words.next().and_then(|n| n.parse().ok()).unwrap_or(number);
                    loading = word != Some("run");
                    loaded += u64::from(!loading);
                    if word == Some("failure") {
                        break words.next().map(str::to_string);
                    }
                }
                Err(RecvTimeoutError::Timeout) if loading => break Some("a load without end".to_string()),
                Err(RecvTimeoutError::Timeout) => {
                    stopped += 1;
                    break None;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = watched.process.wait().map_err(|error| error.to_string())?;
                    break Some(format!("{status} while {}", if loading { "loading" } else { "running" }));
                }
            }
        };
        let _ = watched.process.kill();
        let _ = watched.process.wait();
        if let Some(kind) = failure {
            let count = kinds.entry(kind.clone()).or_default();
            *count += 1;
            if *count <= KEPT {
                let path = args.out.join(format!("{}-{number}.ptx", args.seed));
                println!("{}: {kind}", path.display());
                std::fs::write(&path, case(args.seed, number, &texts)).map_err(|error| error.to_string())?;
            }
        }
        number += 1;
    }
    println!(
        "{} cases, {loaded} loaded, {stopped} stopped while running, {} failures",
        number - args.first,
        kinds.values().sum::<usize>()
    );
    for (kind, count) in &kinds {
        println!("{count:6} × {kind}");
    }
    Ok(if kinds.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
