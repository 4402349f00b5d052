//! A row of the table as a line of Markdown or CSV.

use vcuda::exec::profile::Gpu;

use crate::cases::Case;
use crate::rows::Row;

pub const TABLE_HEAD: &str = "| kernel | compiled with | what | launches | CTAs | threads | shared KB | registers | CTAs an SM | warps | tensor FLOPs | touched | moved | conflicts | µs each | bound by | share |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|\n";

/// For the eye.
pub fn line(row: &Row, gpu: &Gpu, share: f64) -> String {
    let (us, limit) = row.roofline(gpu, 1.0);
    let times = |ratio: Option<f64>| ratio.map_or("".to_string(), |ratio| format!("{ratio:.2}"));
    let what = match row.launched.product {
        Some([1, m, n, k]) => format!("{m} × {n} × {k}"),
        Some([batch, m, n, k]) => format!("{batch} of {m} × {n} × {k}"),
        None => String::new(),
    };
    let scaled = if row.scale == 1.0 { String::new() } else { format!(" scaled {:.2}", row.scale) };
    format!(
        "| {} | {} | {what}{scaled} | {} | {} | {} | {:.1} | {} | {} | {:.0} % | {} | {} | {:.2} | {} | {:.1} | {} | {:.1} % |\n",
        row.launched.kernel,
        compiled_with(&row.launched.module.1),
        row.launches,
        row.ctas(),
        row.threads(),
        row.shared_bytes() as f64 / 1024.0,
        row.assembled.registers,
        row.occupancy.ctas_per_sm,
        100.0 * row.occupancy.theoretical,
        times(row.flops_over_needed()),
        times(Some(row.touched_over_least())),
        row.moved_over_least(),
        times(row.wavefronts_over_least()),
        us / row.launches as f64,
        limit,
        100.0 * share,
    )
}

/// All numbers.
pub fn csv(case: &Case, architecture: &str, row: &Row, gpu: &Gpu) -> String {
    let launched = &row.launched;
    let [grid_x, grid_y, grid_z] = launched.launch.grid;
    let cluster: usize = launched.launch.cluster.iter().product();
    let product =
        launched.product.map_or(",,,".to_string(), |sizes| sizes.map(|size| size.to_string()).join(","));
    let worst = row.counted.worst.first().map_or("", |(place, _)| &place[..]);
    let c = &row.counted;
    format!(
        "{},{},{},{architecture},{},{},{},{product},{},{grid_x},{grid_y},{grid_z},{cluster},{},{},{},{},{},{:.4},{},{:.0},{},{:.0},{:.0},{:.0},{:.0},{:.0},{worst},{:.4},{},{:.3}\n",
        case.model.name,
        case.way,
        case.images,
        launched.module.0,
        raw_defines(&launched.module.1),
        launched.kernel,
        row.launches,
        row.threads(),
        row.assembled.registers,
        row.assembled.static_shared_bytes,
        launched.launch.shared_bytes,
        row.occupancy.ctas_per_sm,
        row.occupancy.theoretical,
        launched.flops,
        c.tensor_flops(),
        launched.bytes,
        c.touched_bytes,
        32.0 * c.sectors,
        32.0 * c.least_sectors,
        c.wavefronts,
        c.least_wavefronts,
        row.scale,
        gpu.name,
        row.roofline(gpu, 1.0).0 / row.launches as f64,
    )
}

/// As it is given to the compiler.
pub fn raw_defines(defines: &[(&str, i64)]) -> String {
    defines.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// For the eye: without what is off, with layouts by name and tiles as one.
pub fn compiled_with(defines: &[(&str, i64)]) -> String {
    let of = |wanted: &str| defines.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    let mut words = Vec::new();
    for &(name, value) in defines {
        let word = match (name, value) {
            ("LAYOUT", layout) => ["nt", "nn", "tn"][layout as usize].to_string(),
            ("ELEMENT_HALF", 1) => "fp16".to_string(),
            ("ACT", 1) => "activation".to_string(),
            ("ACT", 2) => "slope".to_string(),
            ("ACT", 3) => "in terms".to_string(),
            ("OUT_FLOAT", 1) => "to fp32".to_string(),
            ("A_TERMS", a) => format!("terms {a} × {}", of("B_TERMS").unwrap_or(1)),
            ("BM", m) => format!("{m} × {}", of("BN").unwrap_or(0)),
            ("STAGES", stages) => format!("{stages} stages"),
            ("PINGPONG", 1) => "in turn".to_string(),
            ("CLUSTER_M", 2) => "pairs below".to_string(),
            ("CLUSTER_N", 2) => "pairs beside".to_string(),
            ("TILE_N", n) => {
                format!("128 × {n}").replace("128 × ", if of("BK").is_some() { "128 × " } else { "64 × " })
            }
            ("B_TERMS" | "BN" | "BK" | "CLUSTER_M" | "CLUSTER_N", _) | (_, 0) => continue,
            ("GELU" | "CAUSAL" | "VECTOR" | "DX_FLOAT", 1) => name.to_lowercase().replace('_', " "),
            _ => format!("{} {value}", name.to_lowercase()),
        };
        words.push(word);
    }
    words.join(", ")
}
