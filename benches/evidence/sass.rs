//! What a source's kernels are on a GPU: what the assembler says of them, and which instructions they have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use memo::gpu::Nvrtc;
use serde::{Deserialize, Serialize};

/// One kernel, as it is assembled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Assembled {
    pub kernel: String,
    /// Of a thread.
    pub registers: u32,
    /// Of a thread, as are those spilled: stored and loaded, each instruction counted once.
    pub stack_bytes: u32,
    pub spill_store_bytes: u32,
    pub spill_load_bytes: u32,
    /// What it declares itself; a launch may add to it.
    pub static_shared_bytes: u32,
    /// How often each instruction is in its text, by the name before the first dot.
    pub instructions: BTreeMap<String, u32>,
}

impl Assembled {
    /// How often an instruction is in the text.
    pub fn count(&self, instruction: &str) -> u32 {
        self.instructions.get(instruction).copied().unwrap_or(0)
    }
}

/// Compiles a source for a GPU of this architecture, such as `90a`; its kernels by name.
///
/// # Errors
/// The compiler's log; NVIDIA's disassembler is not there, or cannot read the cubin.
pub fn assemble(stem: &str, source: &str, architecture: &str) -> Result<Vec<Assembled>> {
    let (cubin, log) = Nvrtc::any()?.compile_verbosely(stem, source, architecture)?;
    let mut kernels = said_of_kernels(&log)?;
    ensure!(!kernels.is_empty(), "kernels/{stem}.cu: the assembler says nothing of any kernel: {log}");
    let mut texts = instructions(&disassemble(&cubin)?);
    for kernel in &mut kernels {
        let text = texts.remove(&kernel.kernel);
        kernel.instructions =
            text.with_context(|| format!("disassembling kernels/{stem}.cu: no {}", kernel.kernel))?;
    }
    kernels.sort_by(|a, b| a.kernel.cmp(&b.kernel));
    Ok(kernels)
}

/// The lines of `ptxas -v`.
fn said_of_kernels(log: &str) -> Result<Vec<Assembled>> {
    let mut kernels: Vec<Assembled> = Vec::new();
    for line in log.lines() {
        if let Some((_, name)) = line.split_once("Compiling entry function '") {
            let kernel = name.split('\'').next().unwrap_or_default().to_string();
            kernels.push(Assembled { kernel, ..Assembled::default() });
            continue;
        }
        let Some(kernel) = kernels.last_mut() else { continue };
        // Such as `0 bytes stack frame, 0 bytes spill stores` and `Used 168 registers, used 16 barriers, 1024 bytes smem`.
        for part in line.rsplit(" : ").next().unwrap_or_default().split(", ") {
            let words: Vec<&str> = part.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<u32>().with_context(|| format!("ptxas -v: {line}"));
            match words[..] {
                [.., _, "bytes", "stack", "frame"] => kernel.stack_bytes = number(words.len() - 4)?,
                [_, "bytes", "spill", "stores"] => kernel.spill_store_bytes = number(0)?,
                [_, "bytes", "spill", "loads"] => kernel.spill_load_bytes = number(0)?,
                ["Used", _, "registers"] => kernel.registers = number(1)?,
                [_, "bytes", "smem"] => kernel.static_shared_bytes = number(0)?,
                _ => {}
            }
        }
    }
    for kernel in &kernels {
        ensure!(kernel.registers > 0, "ptxas -v: how many registers {} takes is not in {log}", kernel.kernel);
    }
    Ok(kernels)
}

/// By function, how often each instruction is in `nvdisasm`'s text.
fn instructions(text: &str) -> BTreeMap<String, BTreeMap<String, u32>> {
    let mut functions = BTreeMap::new();
    let mut function = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            function = Some(functions.entry(name.to_string()).or_insert_with(BTreeMap::new));
        }
        // Such as `/*0130*/  @!P0 LDGSTS.E.BYPASS.128 [R2], desc[UR4][R4.64] ;`.
        let Some((_, after)) = line.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) else {
            continue;
        };
        let opcode = after.split_whitespace().find(|word| !word.starts_with('@'));
        let opcode = opcode.map(|word| word.split(['.', ';']).next().unwrap_or_default());
        if let (Some(function), Some(opcode)) = (&mut function, opcode) {
            *function.entry(opcode.to_string()).or_insert(0) += 1;
        }
    }
    functions
}

/// A cubin's SASS.
///
/// # Errors
/// NVIDIA's disassembler is not there, or cannot read it.
pub fn disassemble(cubin: &[u8]) -> Result<String> {
    let program = nvdisasm()?;
    let file = tempfile::NamedTempFile::new().context("making a file for a cubin")?;
    std::fs::write(&file, cubin).context("writing a cubin")?;
    let output = Command::new(&program)
        .args(["--print-code", "--no-dataflow"])
        .arg(file.path())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "running {}: {}", program.display(), said.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// NVIDIA's disassembler: `MEMO_NVDISASM`, the project's own, that of `PATH` or a toolkit's.
fn nvdisasm() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("MEMO_NVDISASM") {
        return Ok(program.into());
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".nvdisasm/nvidia");
    let wheels = std::fs::read_dir(own).into_iter().flatten().flatten();
    let own = wheels.map(|wheel| wheel.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let toolkit = PathBuf::from("/usr/local/cuda/bin");
    let mut folders = own.chain(std::env::split_paths(&path)).chain([toolkit]);
    folders.find_map(|folder| Some(folder.join("nvdisasm")).filter(|program| program.is_file())).context(
        "finding nvdisasm, NVIDIA's disassembler: not in MEMO_NVDISASM, .nvdisasm/, PATH or /usr/local/cuda/bin; get it with \
         `make nvdisasm`",
    )
}
