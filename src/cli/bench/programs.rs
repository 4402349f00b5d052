//! What the programs of [`benches/libtorch`](../../../benches/libtorch) need: a Python with PyTorch, and for the one in Rust
//! a build of it, made when it is first asked for.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::process::{finish, last_line};
use crate::gpu::Cache;

include!(concat!(env!("OUT_DIR"), "/libtorch.rs"));
include!(concat!(env!("OUT_DIR"), "/tch.rs"));

/// The PyTorch that the crate tch is for, of the version that Cargo.toml pins.
const TCH_TORCH: &str = "2.13.0";

/// What a Python may take to say what it has: PyTorch's import from a slow disk.
const IMPORT: Duration = Duration::from_secs(300);

/// What is asked of a Python. `-c` would look for modules in the current folder first.
const ASK: &str = "import sys; sys.path = [p for p in sys.path if p]
import torch, transformers, safetensors, torchvision
print(torch.__version__, int(torch._C._GLIBCXX_USE_CXX11_ABI), torch.__path__[0])";

/// Programs in Python, in a folder.
pub struct Programs {
    folder: PathBuf,
    python: PathBuf,
    tch: Option<PathBuf>,
}

impl Programs {
    /// Writes the programs into `folder`, finds a Python for them and, for the variant `tch`, builds it with that Python's PyTorch.
    ///
    /// # Errors
    /// No Python: where it was looked for, and how to get one; no cargo, or it fails; [`crate::interrupt::Interrupted`].
    pub fn prepare(folder: &Path, with_tch: bool) -> Result<Programs> {
        for (name, text) in PROGRAMS {
            fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?;
        }
        let (python, torch) = find_python(folder, with_tch)?;
        let tch = with_tch.then(|| build_tch(folder, &torch)).transpose()?;
        Ok(Programs { folder: folder.to_path_buf(), python, tch })
    }

    /// The command that starts a variant, but for its job.
    pub fn command(&self, variant: &str) -> Command {
        match &self.tch {
            Some(program) if variant == "tch" => Command::new(program),
            _ => {
                let mut command = Command::new(&self.python);
                command.arg(self.folder.join(format!("{variant}.py")));
                command
            }
        }
    }
}

/// A Python's PyTorch.
struct Torch {
    version: String,
    has_cxx11_abi: bool,
    folder: PathBuf,
}

/// What a Python says to [`ASK`].
fn torch_of(python: &Path, folder: &Path) -> Result<Torch> {
    let (out, log) = (folder.join("python.out"), folder.join("python.log"));
    let status = finish(Command::new(python).args(["-c", ASK]), &out, &log, Some(IMPORT))?;
    ensure!(status.success(), "{}", last_line(&log));
    let said = fs::read_to_string(&out)?;
    let [version, abi, folder] = said.trim().splitn(3, ' ').collect::<Vec<_>>()[..] else {
        bail!("it said {said:?} of its PyTorch")
    };
    Ok(Torch { version: version.to_string(), has_cxx11_abi: abi == "1", folder: folder.into() })
}

/// A Python that has PyTorch and what the programs need beside it.
fn find_python(folder: &Path, with_tch: bool) -> Result<(PathBuf, Torch)> {
    let given = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // Whoever can write to the current folder does not choose what runs, but where he is named.
    let active = given("VIRTUAL_ENV").filter(|folder| folder.is_absolute());
    let made = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join("bin/python");
    let all = match given("MEMO_PYTHON") {
        Some(python) => vec![python],
        None => [
            active.map(|folder| folder.join("bin/python")),
            Some(made(if with_tch { ".libtorch-tch" } else { ".libtorch" })),
            on_path("python3"),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let mut tried = Vec::new();
    for python in all {
        match torch_of(&python, folder) {
            Ok(torch) if with_tch && torch.version.split('+').next() != Some(TCH_TORCH) => {
                tried.push(format!("{}: it has torch {}", python.display(), torch.version));
            }
            Ok(torch) => return Ok((python, torch)),
            Err(error) if error.is::<crate::interrupt::Interrupted>() => return Err(error),
            Err(error) => tried.push(format!("{}: {error:#}", python.display())),
        }
    }
    let (version, how) = match with_tch {
        true => (format!(" {TCH_TORCH}, which the crate tch is for"), "make libtorch-tch"),
        false => (String::new(), "make libtorch"),
    };
    bail!(
        "--against: no Python with torch{version}, and torchvision, transformers and safetensors ({}); `{how}` makes one, \
         MEMO_PYTHON=PROGRAM names another",
        tried.join("; ")
    )
}

/// A program by its name, of the folders that are named in full.
fn on_path(name: &str) -> Option<PathBuf> {
    let folders: OsString = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Builds the variant in Rust with this PyTorch, in the cache, unless it is there.
fn build_tch(folder: &Path, torch: &Torch) -> Result<PathBuf> {
    const WHAT: &str = "--against libtorch:tch";
    let cache = Cache::from_environment();
    let cache = cache
        .folder()
        .with_context(|| format!("{WHAT}: no home folder to build it in; set MEMO_CACHE to a folder"))?;
    let mut digest = Sha256::new();
    for (name, text) in PACKAGE {
        digest.update(format!("{name}\0{text}\0"));
    }
    digest.update(format!("{}\0{}", torch.version, torch.folder.display()));
    let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let package = std::path::absolute(cache)?.join(format!("memo-tch-{digest}"));
    let program = package.join("target/release/memo-tch");
    // cargo puts it there when it is whole.
    if program.is_file() {
        return Ok(program);
    }
    for (name, text) in PACKAGE {
        let path = package.join(name);
        let folder = path.parent().context("a file in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("{WHAT}: making {}", folder.display()))?;
        fs::write(&path, text).with_context(|| format!("{WHAT}: writing {}", path.display()))?;
    }
    let cargo = on_path("cargo").with_context(|| {
        format!("{WHAT}: cargo builds it, and is not on the path; https://rustup.rs has it")
    })?;
    crate::notice!(
        "building the variant tch with torch {} in {}: minutes, once",
        torch.version,
        package.display()
    );
    let (out, log) = (folder.join("cargo.out"), package.join("cargo.log"));
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--target-dir", "target"])
        .current_dir(&package)
        .env("LIBTORCH", &torch.folder)
        .env("LIBTORCH_CXX11_ABI", if torch.has_cxx11_abi { "1" } else { "0" });
    for name in
        ["LIBTORCH_USE_PYTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_LIB", "LIBTORCH_STATIC", "CARGO_BUILD_TARGET"]
    {
        command.env_remove(name);
    }
    let status = finish(&mut command, &out, &log, None).context(WHAT)?;
    ensure!(
        status.success() && program.is_file(),
        "{WHAT}: cargo build fails: {}; all that it said: {}",
        first_error(&log),
        log.display()
    );
    Ok(program)
}

/// What cargo calls an error first, or its last words.
fn first_error(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| line.starts_with("error")).map_or_else(|| last_line(log), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_programs_are_carried_along() {
        for name in ["notebook", "tuned", "vmap", "implicit", "reference", "common"] {
            assert!(PROGRAMS.iter().any(|(file, _)| *file == format!("{name}.py")), "{name}");
        }
        let toml = PACKAGE.iter().find(|(name, _)| *name == "Cargo.toml").expect("its manifest").1;
        assert!(
            toml.contains(&format!("torch=={TCH_TORCH}")),
            "the version is another than Cargo.toml tells to get"
        );
    }
}
