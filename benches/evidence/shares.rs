//! Which kernels a batch's modelled time is of, on stdout: what `--only` is for.

use std::collections::BTreeMap;

use anyhow::Result;
use memo::gpu::Gpu;
use vcuda::exec::profile::gpu::H100;

use crate::Count;
use crate::alike::ctas;
use crate::cases::Case;
use crate::rows::count_of;

/// Of some launches.
#[derive(Default)]
struct Sum {
    launches: usize,
    us: f64,
    touched_bytes: f64,
    least_bytes: f64,
}

/// Prints a batch's kernels by their time on the model of the H100, and the share that no product has.
///
/// # Errors
/// A launch like none that was counted.
pub fn print(gpu: &Gpu, case: &Case, architecture: &str, count: &Count) -> Result<()> {
    let launches = case.launches(gpu, architecture, (case.model.config)().vision.layers)?;
    let (mut kernels, mut all, mut outside) = (BTreeMap::<&str, Sum>::new(), 0.0, 0.0);
    for launched in &launches {
        let (counted, _) = count_of(case, launched, (&count.launches, &count.counted))?;
        let (us, _) = counted.roofline(&H100, ctas(launched), 1.0);
        let sum = kernels.entry(launched.kernel).or_default();
        sum.launches += 1;
        sum.us += us;
        sum.touched_bytes += counted.touched_bytes;
        sum.least_bytes += launched.bytes as f64;
        all += us;
        outside += if launched.product.is_none() { us } else { 0.0 };
    }
    println!(
        "{}: {} launches, {:.2} ms at least, of which {:.1} % outside products",
        case.name(),
        launches.len(),
        all / 1e3,
        100.0 * outside / all
    );
    let mut sorted: Vec<_> = kernels.into_iter().collect();
    sorted.sort_by(|a, b| b.1.us.total_cmp(&a.1.us));
    for (kernel, Sum { launches, us, touched_bytes, least_bytes }) in sorted {
        println!(
            "  {kernel:26}{launches:5} launches {us:10.1} us {:6.2} %   {:.3} times the least bytes",
            100.0 * us / all,
            touched_bytes / least_bytes.max(1.0)
        );
    }
    Ok(())
}
