//! The least time that a launch could take on a GPU: that of its busiest resource, were everything else free.
//!
//! Resources of a multiprocessor are as busy as on the one that gets most CTAs: with `c` CTAs on `s`
//! multiprocessors the work of `ceil(c / s)` of them, if all are alike. L2 and device memory are shared
//! by all. What the model leaves out makes a kernel slower: latency, dependences, the scheduler, caches that
//! are too small; or faster: L1 (every global access is taken to reach L2), and L2 from an earlier launch (every
//! touched sector is taken to come from device memory once).

use super::class::{Class, Unit};
use super::counters::{Counters, SECTOR_BYTES, Space};
use super::gpu::Gpu;
use super::totals::Totals;

/// Warp instructions that a multiprocessor issues a clock.
const ISSUE_PER_CLOCK: f64 = 4.0;
/// Bytes that come from L2 to a multiprocessor a clock (Jia et al., "Dissecting the NVIDIA Volta GPU
/// Architecture via Microbenchmarking", 2018).
const FILL_BYTES_PER_CLOCK: f64 = 64.0;
/// What one more kernel in a stream costs: assumed, between the 1 µs of a graph's node and several of a launch.
pub const LAUNCH_US: f64 = 2.0;

/// Resources, in the order of [`Roofline::times_us`].
pub const RESOURCES: [&str; 14] = [
    "fp32",
    "fp64",
    "fp16",
    "integer",
    "special",
    "convert",
    "warp",
    "memory instructions",
    "tensor",
    "shared memory",
    "issue",
    "L1 fill",
    "L2",
    "DRAM",
];

/// A model's answer; never a measurement.
#[derive(Clone, Debug)]
pub struct Roofline {
    /// By [`RESOURCES`], without the launch.
    pub times_us: [f64; RESOURCES.len()],
    /// The longest of them, and the launch.
    pub time_us: f64,
    /// The resource that it is the time of.
    pub limit: &'static str,
    /// Mean work of a multiprocessor over that of the busiest: 1 where the grid fills all of them evenly.
    pub coverage: f64,
}

impl Roofline {
    pub fn new(gpu: &Gpu, totals: &Totals, counters: &Counters, ctas: u64) -> Roofline {
        let sms = f64::from(gpu.sms);
        let coverage = ctas as f64 / (sms * (ctas as f64 / sms).ceil()).max(1.0);
        let clocks_per_us = gpu.clock_ghz * 1e3;
        // Microseconds for work that is spread over the multiprocessors.
        let spread =
            |work: f64, per_clock: f64| work / (per_clock * sms * clocks_per_us * coverage.max(1e-9));
        let warps = |classes: &[Class]| -> f64 {
            classes.iter().map(|&class| totals.instructions[class as usize] as f64).sum::<f64>() * 32.0
        };
        let pipe = |classes: &[Class], lanes: f64| spread(warps(classes), lanes);
        let (lanes, peaks) = (gpu.lanes, gpu.tensor);
        let tensor = [
            (Unit::TensorFp16, peaks.fp16),
            (Unit::TensorTf32, peaks.tf32),
            (Unit::TensorFp64, peaks.fp64),
            (Unit::TensorInt8, peaks.int8),
        ];
        let tensor_us: f64 =
            tensor.iter().map(|&(unit, peak)| totals.flops[unit as usize] as f64 / (peak * 1e6)).sum();
        let global_bytes = (counters.all_traffic(Space::Global).units * SECTOR_BYTES) as f64;
        let times_us = [
            pipe(&[Class::Fp32], lanes.fp32),
            pipe(&[Class::Fp64], lanes.fp64),
            pipe(&[Class::Fp16], lanes.fp16),
            pipe(&[Class::Integer], lanes.integer),
            pipe(&[Class::Special], lanes.special),
            pipe(&[Class::Convert], lanes.convert),
            pipe(&[Class::Warp], lanes.warp),
            pipe(&[Class::Load, Class::Store, Class::Atomic, Class::Matrix], lanes.memory),
            tensor_us / coverage.max(1e-9),
            spread(counters.all_traffic(Space::Shared).units as f64, 1.0),
            spread(totals.issued() as f64, ISSUE_PER_CLOCK),
            spread(global_bytes, FILL_BYTES_PER_CLOCK),
            global_bytes / (gpu.l2_bytes_per_clock * clocks_per_us),
            counters.compulsory_bytes() as f64 / (gpu.dram_gb_per_s * 1e3),
        ];
        let longest = (0..times_us.len()).max_by(|&i, &j| times_us[i].total_cmp(&times_us[j])).unwrap_or(0);
        Roofline {
            times_us,
            time_us: times_us[longest] + LAUNCH_US,
            limit: if times_us[longest] > LAUNCH_US { RESOURCES[longest] } else { "launch" },
            coverage,
        }
    }
}
