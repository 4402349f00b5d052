//! Launches that do the same, and what one does by what a smaller one of its kind does.
//!
//! Blocks of a tower are alike, so a model with a few of them has every launch that the whole one has. That this is so is
//! looked up, launch by launch, not believed: see [`layers_that_suffice`].

use anyhow::{Result, ensure};
use memo::gpu::{Gpu, Launched};

use crate::cases::Case;
use crate::counted::Counted;

/// What makes launches do the same, whatever number of stages a product keeps.
pub type Likeness<'a> =
    (&'a str, Vec<(&'a str, i64)>, &'a str, [usize; 3], [usize; 3], Option<[usize; 4]>, u64, u64);

pub fn likeness(launched: &Launched) -> Likeness<'_> {
    let Launched { module: (stem, defines), kernel, launch, product, flops, bytes } = launched;
    let defines = defines.iter().filter(|(name, _)| *name != "STAGES").copied().collect();
    (stem, defines, kernel, launch.grid, launch.block, *product, *flops, *bytes)
}

/// The same, of any size.
pub fn kind(launched: &Launched) -> (&str, Vec<(&str, i64)>, &str) {
    let (stem, defines, kernel, ..) = likeness(launched);
    (stem, defines, kernel)
}

/// How much work a launch is, next to others of its kind: of a product its whole tiles and the length of its sums, else its
/// CTAs. Of a tile of Hopper's products, the rows of a warpgroup that has none cost nothing.
pub fn work(launched: &Launched) -> f64 {
    let ctas = ctas(launched) as f64;
    match launched.product {
        Some([_, m, _, k]) if launched.kernel == "linear_wgmma" => {
            let define = |name: &str| launched.module.1.iter().find(|(define, _)| *define == name);
            let rows = ["BM", "CLUSTER_M"].map(|name| define(name).map_or(1, |(_, value)| *value as usize));
            let rows = rows.iter().product::<usize>();
            let done = m.next_multiple_of(WARPGROUP_ROWS) as f64 / m.next_multiple_of(rows) as f64;
            ctas * done * k as f64
        }
        Some([.., k]) => ctas * k as f64,
        None => ctas,
    }
}

/// Of `wgmma`.
const WARPGROUP_ROWS: usize = 64;

/// CTAs; of a persistent product's kernel as many as there are tiles.
pub fn ctas(launched: &Launched) -> usize {
    let of = |name: &str| {
        launched.module.1.iter().find(|(define, _)| *define == name).map(|(_, value)| *value as usize)
    };
    match (launched.product, of("BM"), of("BN"), of("CLUSTER_M"), of("CLUSTER_N")) {
        (Some([batch, m, n, _]), Some(tile_m), Some(tile_n), Some(below), Some(beside)) => {
            let clusters = m.div_ceil(below * tile_m) * n.div_ceil(beside * tile_n) * batch;
            clusters * below * beside
        }
        _ => launched.launch.grid.iter().product(),
    }
}

/// The counts of `launches` by those of a smaller batch, launch by launch.
///
/// # Errors
/// Launches of other kinds.
pub fn scaled(launches: &[Launched], small: &[Launched], counted: &[Counted]) -> Result<Vec<Counted>> {
    ensure!(
        launches.len() == small.len(),
        "{} launches, {} of the smaller batch",
        launches.len(),
        small.len()
    );
    let one = |((launched, small), counted): ((&Launched, &Launched), &Counted)| -> Result<Counted> {
        ensure!(kind(launched) == kind(small), "{launched:?} is not as {small:?} of the smaller batch");
        let bytes = launched.bytes as f64 / (small.bytes as f64).max(1.0);
        Ok(counted.clone().scaled(work(launched) / work(small), bytes))
    };
    launches.iter().zip(small).zip(counted).map(one).collect()
}

/// The fewest blocks with which a model has the same products and attention as the whole one, and all of its kernels: what goes
/// over all parameters at once is alone longer there.
///
/// # Errors
/// Those of going through a batch.
pub fn layers_that_suffice(gpu: &Gpu, case: &Case, architecture: &str) -> Result<usize> {
    let whole = (case.model.config)().vision.layers;
    let all = case.launches(gpu, architecture, whole)?;
    for layers in 1..whole {
        let few = case.launches(gpu, architecture, layers)?;
        let is_there = |launched: &Launched| {
            let mut alike = few.iter().filter(|other| kind(other) == kind(launched));
            alike.any(|other| launched.flops == 0 || likeness(other) == likeness(launched))
        };
        if all.iter().all(is_there) {
            return Ok(layers);
        }
    }
    Ok(whole)
}
