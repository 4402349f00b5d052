//! The table: launches of a batch that are alike, with what their kernel is, what is needed, and what they do.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use memo::gpu::{Launched, ModuleKey};
use vcuda::exec::profile::occupancy::Needs;
use vcuda::exec::profile::{Gpu, Occupancy};

use crate::alike::{ctas, kind, likeness, work};
use crate::cases::{Architecture, Case};
use crate::counted::Counted;
use crate::sass::Assembled;

/// Every kernel as it is assembled, by module and name.
pub type Kernels = BTreeMap<(ModuleKey, String), Assembled>;

/// Launches that are alike.
pub struct Row<'a> {
    pub launched: Launched,
    pub launches: usize,
    pub assembled: &'a Assembled,
    pub occupancy: Occupancy,
    pub counted: Counted,
    /// Times as many CTAs as the launch that was counted: 1 where it is the same.
    pub scale: f64,
}

impl Row<'_> {
    /// Of its grid.
    pub fn ctas(&self) -> usize {
        self.launched.launch.grid.iter().product()
    }

    pub fn threads(&self) -> usize {
        self.launched.launch.block.iter().product()
    }

    pub fn shared_bytes(&self) -> usize {
        self.assembled.static_shared_bytes as usize + self.launched.launch.shared_bytes
    }

    /// Tensor cores' operations over those of the products and attention that are needed; none outside tensor cores.
    pub fn flops_over_needed(&self) -> Option<f64> {
        let has = self.counted.tensor_flops() > 0.0 && self.launched.flops > 0;
        has.then(|| self.counted.tensor_flops() / self.launched.flops as f64)
    }

    /// Bytes of device memory that are touched, over the least.
    pub fn touched_over_least(&self) -> f64 {
        self.counted.touched_bytes / (self.launched.bytes as f64).max(1.0)
    }

    /// Bytes between L2 and multiprocessors over the least that must come from device memory.
    pub fn moved_over_least(&self) -> f64 {
        32.0 * self.counted.sectors / (self.launched.bytes as f64).max(1.0)
    }

    /// Wavefronts of shared memory over those without bank conflicts; none where it is not used.
    pub fn wavefronts_over_least(&self) -> Option<f64> {
        let least = self.counted.least_wavefronts;
        (least > 0.0).then(|| self.counted.wavefronts / least)
    }

    /// The least time of all these launches, the tensor cores at this share of their peak, and what it is the time of.
    pub fn roofline(&self, gpu: &Gpu, tensor_share: f64) -> (f64, &'static str) {
        let (us, limit) = self.counted.roofline(gpu, ctas(&self.launched), tensor_share);
        (us * self.launches as f64, limit)
    }
}

/// The rows of a batch of `all` launches; `few` of a smaller model were counted.
///
/// # Errors
/// A launch like none that was counted.
pub fn rows<'a>(
    case: &Case,
    architecture: &Architecture,
    kernels: &'a Kernels,
    all: &[Launched],
    (few, counted): (&[Launched], &[Counted]),
) -> Result<Vec<Row<'a>>> {
    ensure!(few.len() == counted.len(), "{} of {} launches were counted", counted.len(), few.len());
    let mut groups: Vec<(Launched, usize)> = Vec::new();
    let mut places = HashMap::new();
    for launched in all {
        let place = *places.entry(format!("{:?}", likeness(launched))).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, launches)) => *launches += 1,
            None => groups.push((launched.clone(), 1)),
        }
    }
    let row = |(launched, launches): (Launched, usize)| -> Result<Row<'a>> {
        let (counted, scale) = count_of(case, &launched, (few, counted))?;
        let key = (launched.module.clone(), launched.kernel.to_string());
        let assembled = kernels.get(&key).with_context(|| format!("{key:?} was not assembled"))?;
        let product = |sizes: [usize; 3]| sizes.iter().product::<usize>();
        let needs = Needs {
            threads: product(launched.launch.block) as u32,
            registers: assembled.registers,
            shared_bytes: assembled.static_shared_bytes + launched.launch.shared_bytes as u32,
        };
        let occupancy = Occupancy::new(&architecture.gpu, needs, product(launched.launch.grid) as u64);
        Ok(Row { launched, launches, assembled, occupancy, counted, scale })
    };
    groups.into_iter().map(row).collect()
}

/// What a launch does, by those that were counted, and how many times as much that is.
///
/// # Errors
/// A launch like none of them.
pub fn count_of(
    case: &Case,
    launched: &Launched,
    (few, counted): (&[Launched], &[Counted]),
) -> Result<(Counted, f64)> {
    let of = |is: &dyn Fn(&Launched) -> bool| -> Vec<(&Launched, &Counted)> {
        few.iter().zip(counted).filter(|(other, _)| is(other)).collect()
    };
    let mut twins = of(&|other| likeness(other) == likeness(launched));
    if twins.is_empty() && launched.flops == 0 {
        // The one that is nearest in size.
        twins = of(&|other| kind(other) == kind(launched));
        twins.sort_by(|a, b| work(b.0).total_cmp(&work(a.0)));
        twins.truncate(1);
    }
    let first =
        twins.first().with_context(|| format!("{}: nothing like {launched:?} was counted", case.name()))?;
    let scale = if likeness(first.0) == likeness(launched) { 1.0 } else { work(launched) / work(first.0) };
    let counted: Vec<&Counted> = twins.iter().map(|(_, counted)| *counted).collect();
    let counted = match scale {
        1.0 => Counted::mean(&counted),
        _ => counted[0].clone().scaled(scale, launched.bytes as f64 / first.0.bytes as f64),
    };
    Ok((counted, scale))
}
