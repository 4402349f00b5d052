//! What the environment asks for: read once, and what cannot be is named and ignored.

use std::sync::OnceLock;

use super::version;
use crate::exec::profile::gpu;
use crate::exec::{Checks, Options, TensorCore};
use crate::memory::MOST_DEVICES;

pub struct Settings {
    pub options: Options,
    /// Compute capability.
    pub capability: (i32, i32),
    /// The CUDA version of the driver that is played.
    pub driver_version: i32,
    pub devices: usize,
    /// Memory of each device.
    pub memory_bytes: usize,
    /// Kernels after which the devices are gone.
    pub lost_after: Option<usize>,
    /// Whether to report what contexts leave allocated.
    pub leaks: bool,
    /// Whether streams' work waits for somebody to need it, and is done in an order drawn from the seed then.
    pub defers: bool,
}

pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(read)
}

/// A variable's number, if it is one of these.
fn number(name: &str, least: usize, most: usize) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    let value = text.parse::<usize>().ok().filter(|n| (least..=most).contains(n));
    if value.is_none() {
        let range =
            if most == usize::MAX { "above 0".to_string() } else { format!("from {least} to {most}") };
        say!("{name}={text}: expected a number {range}; it is ignored");
    }
    value
}

fn read() -> Settings {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (capability, gpu) = match std::env::var("VCUDA_ARCH").as_deref() {
        Ok("sm_75") => ((7, 5), &gpu::T4),
        Ok("sm_80") => ((8, 0), &gpu::A100),
        Ok("sm_89") => ((8, 9), &gpu::RTX4090),
        // Its multiprocessors have room for as much.
        Ok("sm_120") => ((12, 0), &gpu::RTX4090),
        Ok("sm_90a" | "sm_90") | Err(_) => ((9, 0), &gpu::H100),
        Ok(other) => {
            say!("VCUDA_ARCH={other}: expected sm_75, sm_80, sm_89, sm_90a or sm_120; it is ignored");
            ((9, 0), &gpu::H100)
        }
    };
    let mut checks = Checks::default();
    let mut leaks = false;
    for check in std::env::var("VCUDA_CHECK").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        leaks = true;
        match check {
            "all" => checks = Checks { approx: checks.approx, ..Checks::ALL },
            "init" => checks.init = true,
            "race" => checks.race = true,
            "async" => checks.asynchrony = true,
            "approx" => checks.approx = true,
            "memory" => {}
            _ => {
                say!(
                    "VCUDA_CHECK={check}: memory, init, race, async, approx and all are known; it is ignored"
                )
            }
        }
    }
    let sums = match std::env::var("VCUDA_SUMS").as_deref() {
        Ok("a100") => Some(TensorCore::A100),
        Ok("h100") => Some(TensorCore::H100),
        Ok("") | Err(_) => None,
        Ok(other) => {
            say!("VCUDA_SUMS={other}: expected a100 or h100; it is ignored");
            None
        }
    };
    let devices = number("VCUDA_DEVICES", 1, MOST_DEVICES).unwrap_or(1);
    let seed = number("VCUDA_SEED", 0, usize::MAX).unwrap_or(0) as u64;
    Settings {
        options: Options {
            threads: number("VCUDA_THREADS", 1, usize::MAX).unwrap_or(cores),
            checks,
            seed,
            gpu,
            sums,
        },
        capability,
        driver_version: driver_version(capability),
        devices,
        memory_bytes: number("VCUDA_MEMORY_BYTES", 1, usize::MAX)
            .unwrap_or_else(|| available_bytes() / devices),
        lost_after: number("VCUDA_LOST_AFTER", 0, usize::MAX),
        leaks,
        defers: leaks || seed != 0,
    }
}

/// The driver's version, if it is one that knows such a device.
fn driver_version(capability: (i32, i32)) -> i32 {
    let Ok(text) = std::env::var("VCUDA_DRIVER_VERSION") else { return version::NEWEST };
    let oldest = match capability {
        (12, _) => 12_080,
        (8, 9) | (9, _) => 11_080,
        _ => 11_000,
    };
    version::parse(&text).filter(|version| (oldest..=version::NEWEST).contains(version)).unwrap_or_else(|| {
        let [from, to] = [oldest, version::NEWEST].map(version::name);
        say!("VCUDA_DRIVER_VERSION={text}: expected a version like 12.4 or 12040, from {from} to {to}; it is ignored");
        version::NEWEST
    })
}

/// The host's memory that can be had without swapping.
fn available_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kilobytes.unwrap_or(1 << 20) * 1024
}
