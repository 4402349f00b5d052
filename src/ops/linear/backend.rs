//! What computes a product: which backend, on which tile.
//!
//! A backend is a kernel, and what is launched here or, for Hopper, in `wgmma.rs`.

use std::any::TypeId;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;

use super::{Layout, Params, wgmma};
use crate::gpu::{Arg, Defines, Launch, ModuleKey, Stream, compute_capability};
use crate::ops::Element;
use half::f16;

/// A kernel of products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Multiply-adds in float32: float32 operands, and the others' proof.
    Simt,
    /// `mma.sync` on float16, sm_75 and up.
    Mma,
    /// `wgmma` on float16, Hopper alone; rows of A and B at multiples of 16 bytes.
    Wgmma,
}

/// What a source is compiled for, whichever the backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub element: Defines<'static>,
    /// `LAYOUT` of `kernels/linear.cuh`, and so on.
    pub layout: Layout,
    pub terms: [usize; 2],
    pub act: i64,
    pub gelu: bool,
    /// Whether the result is float32, of operands that are not.
    pub out_float: bool,
    /// Whether the result, and what is added, is in two terms.
    pub out_terms: bool,
    pub addend_terms: bool,
}

impl Kind {
    pub(super) fn new<E: Element, O: Element>(
        layout: Layout,
        terms: [usize; 2],
        act: i64,
        gelu: bool,
    ) -> Kind {
        let out_float = size_of::<O>() > size_of::<E>();
        Kind {
            element: E::DEFINES,
            layout,
            terms,
            act,
            gelu,
            out_float,
            out_terms: false,
            addend_terms: false,
        }
    }

    /// Whether A or B is in two terms.
    pub(super) fn has_two_terms(self) -> bool {
        self.terms != [1, 1]
    }

    pub(super) fn defines(self) -> Vec<(&'static str, i64)> {
        let mut defines = self.element.to_vec();
        defines.push(("LAYOUT", self.layout as i64));
        defines.push(("ACT", self.act));
        defines.push(("GELU", self.gelu.into()));
        defines.push(("OUT_FLOAT", self.out_float.into()));
        for (name, is_so) in [("OUT_TERMS", self.out_terms), ("ADDEND_TERMS", self.addend_terms)] {
            defines.extend(is_so.then_some((name, 1)));
        }
        if self.has_two_terms() {
            let [a, b] = self.terms;
            defines.extend([("A_TERMS", a as i64), ("B_TERMS", b as i64)]);
        }
        defines
    }
}

impl Backend {
    /// Those that are faster than the plain one, the fastest first.
    pub(super) const FASTER: [Backend; 2] = [Backend::Wgmma, Backend::Mma];

    /// The stem and name of its kernel.
    pub fn kernel(self) -> &'static str {
        match self {
            Backend::Simt => "linear_simt",
            Backend::Mma => "linear_mma",
            Backend::Wgmma => "linear_wgmma",
        }
    }

    /// Whether such a device has what it needs.
    pub(super) fn runs_on(self, architecture: &str) -> bool {
        match self {
            Backend::Simt => true,
            Backend::Mma => compute_capability(architecture) >= 75,
            Backend::Wgmma => architecture == "90a",
        }
    }

    /// Whether operands may lie so; `aligned` is of [`Params`].
    pub(super) fn takes(self, aligned: i32) -> bool {
        self != Backend::Wgmma || aligned & 3 == 3
    }

    /// Where its kernel for such products of N columns is.
    pub(super) fn module(self, kind: Kind, n: i32, architecture: &str) -> ModuleKey {
        let mut defines = kind.defines();
        match self {
            Backend::Wgmma => defines.extend(wgmma::tile_defines(kind, n)),
            _ => defines.extend(tile(self, kind.terms, n, architecture).defines()),
        }
        (self.kernel(), defines)
    }

    /// Queues the product.
    pub(super) fn launch(self, stream: &Stream, params: &Params, kind: Kind) -> Result<()> {
        let architecture = stream.architecture();
        let (stem, defines) = self.module(kind, params.n, architecture);
        let kernel = stream.kernel(stem, stem, &defines)?;
        if self == Backend::Wgmma {
            return wgmma::launch(stream, &kernel, params, kind);
        }
        let tile = tile(self, kind.terms, params.n, architecture);
        let [m, n, batch] = [params.m, params.n, params.batch].map(|size| size as usize);
        let grid = [n.div_ceil(tile.n), m.div_ceil(tile.m), batch];
        let launch = Launch::over(grid, 128).shared(tile.shared_bytes(kind.terms));
        // SAFETY: shapes, pitches and steps are those of live tensors, which `Linear::params` has checked against each
        // other; a launch keeps to them.
        unsafe { kernel.launch(stream, launch, &[Arg::bytes(params)]) }
    }
}

/// Backends that have failed their proof in this process, a bit each: on one device is on all, so that an image's bits do not
/// depend on where it was computed.
static REFUSED: AtomicU8 = AtomicU8::new(0);

/// Never again; whether it was in use until now.
pub(super) fn refuse(backend: Backend) -> bool {
    let bit = 1 << backend as u8;
    REFUSED.fetch_or(bit, Ordering::Relaxed) & bit == 0
}

/// The fastest one that runs there, takes such operands and has not failed its proof. `aligned` is of [`Params`].
pub(super) fn choose<E: Element>(architecture: &str, aligned: i32) -> Backend {
    let is_half = TypeId::of::<E>() == TypeId::of::<f16>();
    best(is_half, architecture, aligned, REFUSED.load(Ordering::Relaxed))
}

fn best(is_half: bool, architecture: &str, aligned: i32, refused: u8) -> Backend {
    let may = |backend: &Backend| {
        is_half
            && backend.runs_on(architecture)
            && backend.takes(aligned)
            && refused & 1 << *backend as u8 == 0
    };
    Backend::FASTER.into_iter().find(may).unwrap_or(Backend::Simt)
}

/// Of the output, what a CTA of [`Backend::Simt`] or [`Backend::Mma`] computes; and how it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    m: usize,
    n: usize,
    /// Of the sums, a step, and steps in shared memory; 0 where they are the kernel's own.
    k: usize,
    stages: usize,
}

/// The tile by N, terms and architecture, never by M, so that a row's bits are the same in any batch.
fn tile(backend: Backend, terms: [usize; 2], n: i32, architecture: &str) -> Tile {
    // The wide tile multiplies twice as much for each load, unless half of it would lie outside, or sums twice as many would
    // not stay in registers.
    let is_wide = n > 64 && (backend == Backend::Simt || terms == [1, 1]);
    let n = if is_wide { 128 } else { 64 };
    if backend == Backend::Simt {
        return Tile { m: 64, n, k: 0, stages: 0 };
    }
    let (stages, bytes) = match compute_capability(architecture) {
        // 64 KB of shared memory a multiprocessor, and no copies that go on meanwhile.
        ..80 => (2, 48 << 10),
        // 100 KB of shared memory a multiprocessor: 48 a CTA, so that one finishes its sums while another multiplies.
        86..=89 | 120.. => (3, 48 << 10),
        // 164 KB and more: 64 a CTA, and room for more loads on their way, which a memory farther away needs.
        _ => (4, 64 << 10),
    };
    let tile = Tile { m: 128, n, k: 32, stages };
    Tile { stages: stages.min(bytes / tile.stage_bytes(terms)), ..tile }
}

impl Tile {
    fn defines(&self) -> Vec<(&'static str, i64)> {
        let mut defines = vec![("TILE_N", self.n as i64)];
        if self.stages > 0 {
            defines.extend([("BK", self.k as i64), ("STAGES", self.stages as i64)]);
        }
        defines
    }

    fn stage_bytes(&self, [a_terms, b_terms]: [usize; 2]) -> usize {
        (a_terms * self.m + b_terms * self.n) * self.k * size_of::<f16>()
    }

    /// Dynamic shared memory: the stages, or afterwards 32 rows of a warp's sums, if that is more.
    fn shared_bytes(&self, terms: [usize; 2]) -> usize {
        if self.stages == 0 {
            return 0;
        }
        let sums = 4 * 32 * (self.n / 2 + 8) * size_of::<f32>();
        (self.stages * self.stage_bytes(terms)).max(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_backend_that_runs_there_takes_the_operands_and_was_not_refused() {
        let [mma, wgmma] = [Backend::Mma, Backend::Wgmma].map(|backend| 1 << backend as u8);
        assert_eq!(best(true, "80", 7, 0), Backend::Mma);
        assert_eq!(best(true, "120", 0, 0), Backend::Mma);
        assert_eq!(best(true, "75", 7, 0), Backend::Mma);
        assert_eq!(best(true, "70", 7, 0), Backend::Simt);
        assert_eq!(best(true, "80", 7, mma), Backend::Simt);
        assert_eq!(best(false, "90a", 7, 0), Backend::Simt);
        assert_eq!(best(true, "90a", 3, 0), Backend::Wgmma);
        assert_eq!(best(true, "90a", 6, 0), Backend::Mma);
        assert_eq!(best(true, "90a", 7, wgmma), Backend::Mma);
        assert_eq!(best(true, "90a", 7, wgmma | mma), Backend::Simt);
    }

    #[test]
    fn a_tile_fits_the_smallest_multiprocessor() {
        for terms in [[1, 1], [2, 1], [1, 2], [2, 2]] {
            let tile = tile(Backend::Mma, terms, 768, "75");
            assert!(tile.stages > 1 && tile.shared_bytes(terms) <= 64 << 10, "{tile:?}");
        }
    }

    #[test]
    fn two_tiles_fit_a_multiprocessor() {
        for (architecture, bytes) in [("80", 167_936), ("86", 102_400), ("89", 102_400), ("120", 102_400)] {
            for (n, terms) in [(64, [1, 1]), (768, [1, 1]), (768, [2, 1]), (768, [1, 2]), (768, [2, 2])] {
                let tile = tile(Backend::Mma, terms, n, architecture);
                let shared = tile.shared_bytes(terms);
                assert!(
                    tile.stages > 1 && 2 * (shared + 1024) <= bytes,
                    "sm_{architecture}: {tile:?}, {shared}"
                );
            }
        }
    }
}
