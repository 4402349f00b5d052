//! What a launch does, as the virtual device counts it, and the time that GPUs would take for that at least.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use vcuda::exec::profile::roofline::{LAUNCH_US, RESOURCES};
use vcuda::exec::profile::{Class, Counters, Gpu, Roofline, Space, Totals, Unit};

/// What one launch does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counted {
    pub kernel: String,
    pub grid: [usize; 3],
    pub block: [usize; 3],
    pub dynamic_shared_bytes: usize,
    /// Instructions of warps by [`Class`], and floating-point operations by [`Unit`].
    pub instructions: Vec<f64>,
    pub flops: Vec<f64>,
    /// Device memory that is read or written, each sector of 32 bytes once for each of the two.
    pub touched_bytes: f64,
    /// Sectors that go between L2 and multiprocessors, and as few as the same bytes would take side by side.
    pub sectors: f64,
    pub least_sectors: f64,
    /// Of shared memory, and as few as would do without bank conflicts.
    pub wavefronts: f64,
    pub least_wavefronts: f64,
    /// Where most of what is beyond that comes from, in wavefronts and sectors.
    pub worst: Vec<(String, f64)>,
    /// The least time of this very launch, by the names of GPUs.
    pub roofline_us: BTreeMap<String, f64>,
}

impl Counted {
    /// Of a record of `VCUDA_PROFILE`.
    ///
    /// # Errors
    /// One that lacks something.
    pub fn read(record: &Value) -> Result<Counted> {
        let counters = &record["counters"];
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let sum = |space: &str, unit: &str| -> f64 {
            let actions = counters[space].as_object().into_iter().flatten();
            actions.map(|(_, traffic)| number(&traffic[unit])).sum()
        };
        let named =
            |what: &str, names: &[&str]| names.iter().map(|name| number(&counters[what][name])).collect();
        let worst = counters["worst_accesses"].as_array().into_iter().flatten();
        let place = |access: &Value| {
            let source = access["source"].as_str().unwrap_or_default();
            source.rsplit('/').next().unwrap_or_default().to_string()
        };
        Ok(Counted {
            kernel: record["kernel"].as_str().context("no name")?.to_string(),
            grid: serde_json::from_value(record["grid"].clone())?,
            block: serde_json::from_value(record["block"].clone())?,
            dynamic_shared_bytes: number(&record["dynamic_shared_bytes"]) as usize,
            instructions: named("instructions", &Class::NAMES),
            flops: named("flops", &Unit::NAMES),
            touched_bytes: number(&counters["unique_bytes_read"]) + number(&counters["unique_bytes_written"]),
            sectors: sum("global", "sectors"),
            least_sectors: sum("global", "ideal_sectors"),
            wavefronts: sum("shared", "wavefronts"),
            least_wavefronts: sum("shared", "ideal_wavefronts"),
            worst: worst.map(|access| (place(access), number(&access["excess"]))).collect(),
            roofline_us: serde_json::from_value(record["roofline_us"].clone())?,
        })
    }

    /// Floating-point operations of tensor cores.
    pub fn tensor_flops(&self) -> f64 {
        let units = self.flops.iter().zip(Unit::NAMES);
        units.filter(|(_, unit)| unit.starts_with("tensor")).map(|(flops, _)| flops).sum()
    }

    /// All that is counted of instructions, operations and traffic but for what device memory must give.
    fn counts(&mut self) -> impl Iterator<Item = &mut f64> {
        let traffic =
            [&mut self.sectors, &mut self.least_sectors, &mut self.wavefronts, &mut self.least_wavefronts];
        self.instructions.iter_mut().chain(&mut self.flops).chain(traffic)
    }

    /// The mean of several launches of one likeness, which draws and crops alone tell apart.
    pub fn mean(all: &[&Counted]) -> Counted {
        // The worst places stay those of the first.
        let mut mean = all[0].clone();
        for other in &all[1..] {
            let mut other = (*other).clone();
            mean.counts().zip(other.counts()).for_each(|(sum, value)| *sum += *value);
            mean.touched_bytes += other.touched_bytes;
        }
        let part = 1.0 / all.len() as f64;
        mean.scaled(part, part)
    }

    /// What a launch does that has so many times as much work, and touches so many times as many bytes.
    pub fn scaled(mut self, work: f64, bytes: f64) -> Counted {
        self.counts().for_each(|count| *count *= work);
        self.touched_bytes *= bytes;
        self
    }

    /// The least time on a GPU and what it is the time of, were the work that of so many CTAs, the tensor cores at this share of
    /// their peak.
    pub fn roofline(&self, gpu: &Gpu, ctas: usize, tensor_share: f64) -> (f64, &'static str) {
        let mut totals = Totals::default();
        totals
            .instructions
            .iter_mut()
            .zip(&self.instructions)
            .for_each(|(to, from)| *to = from.round() as u64);
        totals.flops.iter_mut().zip(&self.flops).for_each(|(to, from)| *to = from.round() as u64);
        let mut counters = Counters::default();
        counters.traffic = vec![Default::default(); Space::COUNT];
        counters.traffic[Space::Global as usize][0].units = self.sectors.round() as u64;
        counters.traffic[Space::Shared as usize][0].units = self.wavefronts.round() as u64;
        let mut times_us = Roofline::new(gpu, &totals, &counters, ctas as u64).times_us;
        for (name, us) in RESOURCES.iter().zip(&mut times_us) {
            match *name {
                "tensor" => *us /= tensor_share,
                "DRAM" => *us = self.touched_bytes / (gpu.dram_gb_per_s * 1e3),
                _ => {}
            }
        }
        let longest = (0..times_us.len()).max_by(|&i, &j| times_us[i].total_cmp(&times_us[j])).unwrap_or(0);
        let limit = if times_us[longest] > LAUNCH_US { RESOURCES[longest] } else { "launch" };
        (times_us[longest] + LAUNCH_US, limit)
    }
}
