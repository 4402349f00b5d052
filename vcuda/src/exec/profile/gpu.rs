//! The GPUs that a launch can be modelled on. Sources, all NVIDIA's unless said otherwise:
//!
//! * multiprocessors, clocks, memory bandwidth, peak rates without sparsity: the H100, H200 and A100 datasheets and
//!   architecture whitepapers (SXM boards; A100 of 80 GB), the Ada and RTX Blackwell whitepapers for the RTX 4090 and 5090,
//!   "NVIDIA Blackwell Architecture Technical Brief" 2.1, table 3, for a B200 of an HGX B200 (7.7 TB/s, 1.1 PFLOP/s of tf32), whose
//!   multiprocessors and clock are those that its users see, the T4's datasheet;
//! * lanes a clock of each pipe, and the limits of a multiprocessor: CUDA C++ Programming Guide, "Arithmetic
//!   Instructions" and "Technical Specifications per Compute Capability";
//! * L2: the A100 whitepaper's 5120 bytes a clock. NVIDIA publishes none for the others: Hopper and the
//!   B200 are taken to have the A100's, the RTX 4090 2048 bytes, near the 1946 that were seen of one
//!   (github.com/smallscientist1/cuda_microbenchmark, analysis_RTX4090.md); the RTX 5090 its share, by multiprocessors, of the 8.7 TB/s
//!   that were seen of the 188 of an RTX PRO 6000, which has the same chip (Chips and Cheese, "Blackwell: Nvidia's Massive GPU", 2025);
//!   the T4 the 1270 GB/s of "Dissecting the NVidia Turing T4 GPU via Microbenchmarking" (arXiv 1903.07486), not looked up again.

/// What the model needs to know of a GPU.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    pub name: &'static str,
    pub sms: u32,
    pub clock_ghz: f64,
    pub dram_gb_per_s: f64,
    pub l2_bytes_per_clock: f64,
    pub limits: Limits,
    /// Lanes a clock and multiprocessor.
    pub lanes: Lanes,
    pub tensor: TensorPeaks,
}

/// What a multiprocessor has room for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub warps: u32,
    pub ctas: u32,
    pub registers: u32,
    pub shared_bytes: u32,
}

/// Lanes that each pipe takes a clock. Half precision counts pairs as one lane.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    pub fp32: f64,
    pub fp64: f64,
    pub fp16: f64,
    pub integer: f64,
    pub special: f64,
    pub convert: f64,
    pub warp: f64,
    pub memory: f64,
}

/// Dense peaks of the tensor cores, TFLOP/s (int8: TOP/s), with float32 sums.
#[derive(Clone, Copy, Debug)]
pub struct TensorPeaks {
    pub fp16: f64,
    pub tf32: f64,
    pub fp64: f64,
    pub int8: f64,
}

const HOPPER: Limits = Limits { warps: 64, ctas: 32, registers: 65_536, shared_bytes: 228 << 10 };
const HOPPER_LANES: Lanes = Lanes {
    fp32: 128.0,
    fp64: 64.0,
    fp16: 128.0,
    integer: 64.0,
    special: 16.0,
    convert: 64.0,
    warp: 32.0,
    memory: 32.0,
};

pub const H100: Gpu = Gpu {
    name: "H100",
    sms: 132,
    clock_ghz: 1.98,
    dram_gb_per_s: 3350.0,
    l2_bytes_per_clock: 5120.0,
    limits: HOPPER,
    lanes: HOPPER_LANES,
    tensor: TensorPeaks { fp16: 989.4, tf32: 494.7, fp64: 66.9, int8: 1978.9 },
};

pub const H200: Gpu = Gpu { name: "H200", dram_gb_per_s: 4800.0, ..H100 };

pub const A100: Gpu = Gpu {
    name: "A100",
    sms: 108,
    clock_ghz: 1.41,
    dram_gb_per_s: 2039.0,
    l2_bytes_per_clock: 5120.0,
    limits: Limits { warps: 64, ctas: 32, registers: 65_536, shared_bytes: 164 << 10 },
    lanes: Lanes { fp32: 64.0, fp64: 32.0, ..HOPPER_LANES },
    tensor: TensorPeaks { fp16: 312.0, tf32: 156.0, fp64: 19.5, int8: 624.0 },
};

pub const RTX4090: Gpu = Gpu {
    name: "RTX4090",
    sms: 128,
    clock_ghz: 2.52,
    dram_gb_per_s: 1008.0,
    l2_bytes_per_clock: 2048.0,
    limits: Limits { warps: 48, ctas: 24, registers: 65_536, shared_bytes: 100 << 10 },
    lanes: Lanes { fp64: 2.0, fp16: 64.0, ..HOPPER_LANES },
    // It has no tensor cores for float64: its rate is the plain one's.
    tensor: TensorPeaks { fp16: 165.2, tf32: 82.6, fp64: 1.29, int8: 660.6 },
};

/// Its peaks are those of `tcgen05`: kernels of `mma.sync` come less near to them. Not a GB200's, whose memory and tensor cores are
/// faster.
pub const B200: Gpu = Gpu {
    name: "B200",
    sms: 148,
    clock_ghz: 1.965,
    dram_gb_per_s: 7700.0,
    tensor: TensorPeaks { fp16: 2250.0, tf32: 1100.0, fp64: 37.0, int8: 4500.0 },
    ..H100
};

pub const RTX5090: Gpu = Gpu {
    name: "RTX5090",
    sms: 170,
    clock_ghz: 2.407,
    dram_gb_per_s: 1792.0,
    l2_bytes_per_clock: 3268.0,
    lanes: Lanes { integer: 128.0, ..RTX4090.lanes },
    tensor: TensorPeaks { fp16: 209.5, tf32: 104.8, fp64: 1.64, int8: 838.0 },
    ..RTX4090
};

pub const T4: Gpu = Gpu {
    name: "T4",
    sms: 40,
    clock_ghz: 1.59,
    dram_gb_per_s: 320.0,
    l2_bytes_per_clock: 800.0,
    limits: Limits { warps: 32, ctas: 16, registers: 65_536, shared_bytes: 64 << 10 },
    lanes: Lanes { fp32: 64.0, fp64: 2.0, fp16: 64.0, memory: 16.0, ..HOPPER_LANES },
    // Of float32 and float64 it has plain units alone.
    tensor: TensorPeaks { fp16: 65.0, tf32: 8.1, fp64: 0.25, int8: 130.0 },
};

/// All of them.
pub const ALL: [Gpu; 7] = [H100, H200, A100, RTX4090, B200, RTX5090, T4];

impl Gpu {
    /// By name, as `VCUDA_GPU` has it.
    pub fn named(name: &str) -> Option<Gpu> {
        ALL.into_iter().find(|gpu| gpu.name.eq_ignore_ascii_case(name))
    }
}
