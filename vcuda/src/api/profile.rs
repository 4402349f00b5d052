//! `VCUDA_PROFILE`: a line of JSON for each launch as it ends, and one for each kernel when the process does; or
//! for `-` a table on stderr.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, OnceLock};

use super::lock;
use crate::exec::profile::occupancy::Needs;
use crate::exec::profile::roofline::{LAUNCH_US, RESOURCES};
use crate::exec::profile::{
    Action, Class, Counters, Gpu, Occupancy, Roofline, Space, Totals, Unit, counters::SECTOR_BYTES, gpu,
};
use crate::exec::{Kernel, Launch, resolve};

/// Accesses that a launch's record names as its worst.
const WORST_ACCESSES: usize = 5;

/// Where the records go.
struct Profile {
    gpu: Gpu,
    /// `None`: a table on stderr.
    file: Option<File>,
    launches: u64,
    kernels: BTreeMap<String, Sum>,
}

/// A kernel's launches.
#[derive(Default)]
struct Sum {
    launches: u64,
    instructions: u64,
    flops: u64,
    dram_bytes: u64,
    time_us: f64,
    /// Modelled time by the resource that limits it.
    limits: BTreeMap<&'static str, f64>,
}

impl Sum {
    /// The resource that limits most of the time.
    fn limit(&self) -> &'static str {
        self.limits.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or("", |(name, _)| name)
    }
}

fn profile() -> Option<&'static Mutex<Profile>> {
    static PROFILE: OnceLock<Option<Mutex<Profile>>> = OnceLock::new();
    PROFILE.get_or_init(open).as_ref()
}

fn open() -> Option<Mutex<Profile>> {
    let path = std::env::var("VCUDA_PROFILE").ok().filter(|path| !path.is_empty())?;
    let file = if path == "-" {
        None
    } else {
        match File::create(&path) {
            Ok(file) => Some(file),
            Err(error) => {
                say!("VCUDA_PROFILE={path}: {error}; nothing is counted");
                return None;
            }
        }
    };
    let gpu = match std::env::var("VCUDA_GPU") {
        Err(_) => gpu::H100,
        Ok(name) => Gpu::named(&name).unwrap_or_else(|| {
            say!(
                "VCUDA_GPU={name}: expected H100, H200, A100, RTX4090, B200, RTX5090 or T4; it is H100 here"
            );
            gpu::H100
        }),
    };
    // SAFETY: the function lives as long as this library, and takes nothing that may be gone by then.
    unsafe { libc::atexit(finish) };
    Some(Mutex::new(Profile { gpu, file, launches: 0, kernels: BTreeMap::new() }))
}

/// Whether launches are counted: modules must be loaded for it.
pub fn is_on() -> bool {
    profile().is_some()
}

/// Writes a launch's record, with the path of the ranges that it was made in.
pub fn record(kernel: &Kernel, launch: &Launch, range: &str, counters: &Counters) {
    let Some(profile) = profile() else { return };
    let mut profile = lock(profile);
    let launch = &resolve(kernel, launch).unwrap_or(*launch); // it has run
    let totals = counters.totals(kernel);
    let product = |sizes: [u32; 3]| sizes.iter().map(|&n| u64::from(n)).product::<u64>();
    let (ctas, threads) = (product(launch.grid), product(launch.block) as u32);
    let shared_bytes = kernel.static_shared_bytes as u32 + launch.dynamic_shared_bytes;
    let needs = Needs { threads, registers: kernel.registers_estimate, shared_bytes };
    let occupancy = Occupancy::new(&profile.gpu, needs, ctas);
    let roofline = Roofline::new(&profile.gpu, &totals, counters, ctas);

    let sum = profile.kernels.entry(kernel.name.clone()).or_default();
    sum.launches += 1;
    sum.instructions += totals.issued();
    sum.flops += totals.flops.iter().sum::<u64>();
    sum.dram_bytes += counters.compulsory_bytes();
    sum.time_us += roofline.time_us;
    *sum.limits.entry(roofline.limit).or_default() += roofline.time_us;

    profile.launches += 1;
    let number = profile.launches - 1;
    let gpu = profile.gpu;
    let Some(file) = &mut profile.file else { return };
    let mut line = String::new();
    let _ = write!(
        line,
        "{{\"launch\":{number},\"kernel\":{},\"range\":{},\"grid\":{:?},\"cluster\":{:?},\"block\":{:?},\"static_shared_bytes\":{},\"dynamic_shared_bytes\":{}",
        quoted(&kernel.name),
        quoted(range),
        launch.grid,
        launch.cluster,
        launch.block,
        kernel.static_shared_bytes,
        launch.dynamic_shared_bytes,
    );
    line += ",\"counters\":";
    write_counters(&mut line, kernel, counters, &totals);
    line += ",\"occupancy\":";
    write_occupancy(&mut line, &occupancy, kernel.registers_estimate);
    line += ",\"roofline\":";
    write_roofline(&mut line, &gpu, &roofline, counters);
    line += ",\"roofline_us\":{";
    for (i, gpu) in gpu::ALL.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let time_us = Roofline::new(gpu, &totals, counters, ctas).time_us;
        let _ = write!(line, "{comma}\"{}\":{time_us:.4}", gpu.name);
    }
    line += "}}\n";
    write(file, &line);
}

fn write(file: &mut File, line: &str) {
    if let Err(error) = file.write_all(line.as_bytes()) {
        say!("VCUDA_PROFILE: {error}");
    }
}

fn write_counters(line: &mut String, kernel: &Kernel, counters: &Counters, totals: &Totals) {
    let _ = write!(line, "{{\"warp_instructions\":{}", totals.issued());
    let _ = write!(line, ",\"thread_instructions\":{}", totals.executed);
    let _ = write!(line, ",\"active_lanes_per_instruction\":{:.3}", totals.lanes_per_instruction());
    let _ = write!(line, ",\"branches\":{}", counters.branches);
    let _ = write!(line, ",\"divergent_branches\":{}", counters.divergent_branches);
    write_named(line, "instructions", &Class::NAMES, &totals.instructions);
    write_named(line, "flops", &Unit::NAMES, &totals.flops);
    for (space, name) in Space::NAMES.iter().enumerate() {
        let unit = if space == Space::Shared as usize { "wavefronts" } else { "sectors" };
        let _ = write!(line, ",\"{name}\":{{");
        let all = counters.traffic.get(space).into_iter().flatten().zip(Action::NAMES);
        for (i, (traffic, action)) in all.filter(|(traffic, _)| traffic.requests > 0).enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ = write!(
                line,
                "{comma}\"{}\":{{\"requests\":{},\"bytes\":{},\"{unit}\":{},\"ideal_{unit}\":{}}}",
                action, traffic.requests, traffic.bytes, traffic.units, traffic.ideal,
            );
        }
        line.push('}');
    }
    let [read, written] = [&counters.read, &counters.written].map(|set| set.count() * SECTOR_BYTES);
    let _ = write!(line, ",\"unique_bytes_read\":{read},\"unique_bytes_written\":{written}");
    line.push_str(",\"worst_accesses\":[");
    for (i, access) in counters.worst_accesses(kernel, WORST_ACCESSES).into_iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let source = access.source.map_or("null".to_string(), quoted);
        let (at, excess) = (access.ptx_line, access.excess);
        let _ = write!(line, "{comma}{{\"ptx_line\":{at},\"source\":{source},\"excess\":{excess}}}");
    }
    line.push_str("]}");
}

fn write_named(line: &mut String, name: &str, names: &[&str], values: &[u64]) {
    let _ = write!(line, ",\"{name}\":{{");
    let used = names.iter().zip(values).filter(|&(_, &value)| value > 0);
    for (i, (name, value)) in used.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(line, "{comma}\"{name}\":{value}");
    }
    line.push('}');
}

fn write_occupancy(line: &mut String, occupancy: &Occupancy, registers: u32) {
    let Occupancy { by_warps, by_registers, by_shared, by_slots, .. } = *occupancy;
    let _ = write!(
        line,
        "{{\"registers_estimate\":{registers},\"ctas_per_sm\":{},\"limit\":\"{}\",\"ctas_by\":{{\"threads\":{by_warps},\"registers\":{by_registers},\"shared_memory\":{by_shared},\"cta_slots\":{by_slots}}},\"theoretical_occupancy\":{:.4},\"waves\":{:.4},\"tail\":{:.4}}}",
        occupancy.ctas_per_sm,
        occupancy.limit(),
        occupancy.theoretical,
        occupancy.waves,
        occupancy.tail,
    );
}

fn write_roofline(line: &mut String, gpu: &Gpu, roofline: &Roofline, counters: &Counters) {
    let _ = write!(
        line,
        "{{\"kind\":\"model, not a measurement\",\"gpu\":\"{}\",\"time_us\":{:.4},\"limit\":\"{}\",\"launch_us\":{LAUNCH_US},\"sm_coverage\":{:.4},\"dram_bytes\":{},\"times_us\":{{",
        gpu.name,
        roofline.time_us,
        roofline.limit,
        roofline.coverage,
        counters.compulsory_bytes(),
    );
    let used = RESOURCES.iter().zip(roofline.times_us).filter(|&(_, time_us)| time_us > 0.0);
    for (i, (name, time_us)) in used.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(line, "{comma}\"{name}\":{time_us:.4}");
    }
    line.push_str("}}");
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// When the process ends: the kernels, the one with most modelled time first.
extern "C" fn finish() {
    let Some(profile) = profile() else { return };
    let mut profile = lock(profile);
    let Profile { gpu, file, kernels, .. } = &mut *profile;
    let mut kernels: Vec<_> = kernels.iter().collect();
    kernels.sort_by(|a, b| b.1.time_us.total_cmp(&a.1.time_us));
    let Some(file) = file else { return table(gpu, &kernels) };
    for (name, sum) in kernels {
        let mut line = format!("{{\"summary\":{},\"launches\":{}", quoted(name), sum.launches);
        let _ = write!(line, ",\"warp_instructions\":{},\"flops\":{}", sum.instructions, sum.flops);
        let _ = writeln!(
            line,
            ",\"roofline\":{{\"kind\":\"model, not a measurement\",\"gpu\":\"{}\",\"time_us\":{:.4},\"limit\":\"{}\",\"dram_bytes\":{}}}}}",
            gpu.name,
            sum.time_us,
            sum.limit(),
            sum.dram_bytes,
        );
        write(file, &line);
    }
}

fn table(gpu: &Gpu, kernels: &[(&String, &Sum)]) {
    let mut text =
        format!("vcuda: kernels on the model of a {}: a lower bound, not a measurement\n", gpu.name);
    text += " launches  time_us      GFLOP    DRAM_MB  limit                kernel\n";
    for (name, sum) in kernels {
        let (gflop, megabytes) = (sum.flops as f64 / 1e9, sum.dram_bytes as f64 / 1e6);
        let _ = writeln!(
            text,
            "{:9} {:8.1} {gflop:10.4} {megabytes:10.3}  {:20} {name}",
            sum.launches,
            sum.time_us,
            sum.limit(),
        );
    }
    let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()); // nobody may be there to read it
}
