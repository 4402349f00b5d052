//! The launch of `kernels/linear_wgmma.cu`: tiles, and tensor maps of the operands.

use anyhow::{Result, ensure};
use bytemuck::{Pod, Zeroable};
use cudarc::driver::sys::{
    self, CUresult, CUtensorMapDataType_enum as DataType, CUtensorMapFloatOOBfill_enum as Outside,
    CUtensorMapInterleave_enum as Interleave, CUtensorMapL2promotion_enum as Promotion,
    CUtensorMapSwizzle_enum as Swizzle,
};

use super::backend::Kind;
use super::{Layout, Params};
use crate::gpu::{Arg, Kernel, Launch, Stream};
use crate::ops::int;

const NAME: &str = "linear_wgmma";
/// One warpgroup that brings operands and two that multiply.
const THREADS: usize = 384;
/// Columns of a box, 128 bytes of float16: what the swizzle spans.
const BOX_COLUMNS: usize = 64;

/// What a CTA computes at a time, and how its two warpgroups share that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    m: usize,
    n: usize,
    stages: usize,
    /// A tile each, rather than half of one.
    pingpong: bool,
    /// CTAs with tiles below one another, each of which brings half of B for both; or beside one another, and half of A.
    cluster: [usize; 2],
}

impl Tile {
    /// By the result's columns and type and the operands' terms, never by its rows.
    fn choose(kind: Kind, n: i32) -> Tile {
        let (below, beside) = ([2, 1], [1, 2]);
        // Beside one another no CTA is without rows, however few there are; of so few columns one would have none.
        let cluster = if n <= 128 { below } else { beside };
        if kind.has_two_terms() {
            // A warpgroup has registers for 64 by 128 sums twice; the rest of shared memory is stages.
            let stages = if kind.terms == [2, 2] { 3 } else { 4 };
            Tile { m: 128, n: 128, stages, pingpong: false, cluster }
        } else if kind.out_float || n <= 128 {
            // A float32 result with its addend moves 8 bytes an element, which bounds a product of K 768: one warpgroup
            // writes while the other multiplies.
            Tile { m: 128, n: 128, stages: 5, pingpong: true, cluster }
        } else {
            // Most multiplications for each byte read. By the modelled time of M 2550, N 3072, K 768 on an H100, 12.2 us of
            // it in tensor cores, L2 bounds single CTAs to 17.4 us and pairs to 12.6.
            Tile { m: 128, n: 256, stages: 4, pingpong: false, cluster: below }
        }
    }

    /// The stages of so many terms, sums on their way out, and barriers.
    fn shared_bytes(self, [a_terms, b_terms]: [usize; 2]) -> usize {
        let rows = a_terms * self.m + b_terms * self.n;
        self.stages * (2 * BOX_COLUMNS * rows + 16) + 32_768 + 16
    }

    fn defines(self) -> [(&'static str, i64); 6] {
        let Tile { m, n, stages, pingpong, cluster: [cluster_m, cluster_n] } = self;
        let sizes = [
            ("BM", m),
            ("BN", n),
            ("STAGES", stages),
            ("PINGPONG", pingpong.into()),
            ("CLUSTER_M", cluster_m),
            ("CLUSTER_N", cluster_n),
        ];
        sizes.map(|(name, value)| (name, value as i64))
    }
}

/// The tile of such products of N columns, as the source is compiled for it.
pub(super) fn tile_defines(kind: Kind, n: i32) -> [(&'static str, i64); 6] {
    Tile::choose(kind, n).defines()
}

/// Queues the product by the kernel for its kind and N.
///
/// # Errors
/// Operands whose rows do not all begin at multiples of 16 bytes; the driver's.
pub(super) fn launch(stream: &Stream, kernel: &Kernel, params: &Params, kind: Kind) -> Result<()> {
    ensure!(params.aligned & 3 == 3, "{NAME}: rows of A or B begin elsewhere than at multiples of 16 bytes");
    let [m, n, k, batch] = [params.m, params.n, params.k, params.batch].map(|size| size as usize);
    let tile = Tile::choose(kind, params.n);
    let [below, beside] = tile.cluster;
    let tiles = m.div_ceil(below * tile.m) * n.div_ceil(beside * tile.n) * batch;
    if tiles == 0 {
        return Ok(()); // of nothing there is no tensor map
    }
    int(tiles)?; // as the kernel counts them
    let ctas = below * beside;
    let clusters = tiles.min(stream.gpu().multiprocessors()? / ctas).max(1);
    let launch = Launch { cluster: [ctas, 1, 1], ..Launch::new(clusters * ctas, THREADS) }
        .shared(tile.shared_bytes(kind.terms));
    if stream.is_rehearsal() {
        // What lies nowhere has no tensor map. SAFETY: nothing is launched.
        return unsafe { kernel.launch(stream, launch, &[]) };
    }

    // Along the columns of a matrix boxes are as wide as the swizzle allows; along its rows, as the tile is long.
    let map = |address, step, pitch, rows, is_transposed, box_rows| {
        let (shape, box_rows) = if is_transposed { ([k, rows], BOX_COLUMNS) } else { ([rows, k], box_rows) };
        let count = if step == 0 { 1 } else { batch };
        TensorMap::new(address, [count, shape[0], shape[1]], [step, pitch as u64], box_rows)
    };
    let is_nt = kind.layout == Layout::Nt;
    let of_a =
        |address| map(address, params.a_step, params.a_pitch, m, kind.layout == Layout::Tn, tile.m / beside);
    let of_b = |address| map(address, params.b_step, params.b_pitch, n, !is_nt, tile.n / below);
    let mut maps = Vec::new();
    for address in &[params.a, params.a2][..kind.terms[0]] {
        maps.push(of_a(*address)?);
    }
    for address in &[params.b, params.b2][..kind.terms[1]] {
        maps.push(of_b(*address)?);
    }

    // SAFETY: shapes, pitches and steps are those of live tensors, which `Linear::params` has checked against each other;
    // the maps have no more than the matrices of A and B, and the kernel writes no row or column past `params`.
    unsafe { kernel.launch(stream, launch, &[Arg::all(&maps), Arg::bytes(params)]) }
}

/// `CUtensorMap`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TensorMap([u64; 16]);

impl TensorMap {
    /// Of `count` matrices of float16, `step` elements apart, whose rows are `pitch` apart, in boxes of 64 columns by `box_rows`
    /// rows; outside is zero.
    fn new(
        address: u64,
        [count, rows, columns]: [usize; 3],
        [step, pitch]: [u64; 2],
        box_rows: usize,
    ) -> Result<TensorMap> {
        let dims = [columns as u64, rows as u64, count as u64];
        // One matrix that all share has no step, and a map wants one.
        let step = if count == 1 { pitch * rows as u64 } else { step };
        let strides = [2 * pitch, 2 * step];
        let (boxes, every) = ([BOX_COLUMNS as u32, box_rows as u32, 1], [1u32; 3]);
        let mut map = TensorMap([0; 16]);
        // SAFETY: 128 bytes at a multiple of 64 to write, sizes of three dimensions and strides of two to read; device
        // memory is not touched.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                (&raw mut map).cast(),
                DataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
                3,
                address as *mut _,
                dims.as_ptr(),
                strides.as_ptr(),
                boxes.as_ptr(),
                every.as_ptr(),
                Interleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                Promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                Outside::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        ensure!(
            result == CUresult::CUDA_SUCCESS,
            "{NAME}: a tensor map of {dims:?}, strides {strides:?}: {result:?}"
        );
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_a_multiprocessor() {
        for (n, out_float, terms) in [
            (64, false, [1, 1]),
            (768, false, [1, 1]),
            (768, true, [1, 1]),
            (768, true, [2, 1]),
            (64, true, [2, 2]),
        ] {
            let kind = Kind {
                element: &[],
                layout: Layout::Nt,
                terms,
                act: 0,
                gelu: false,
                out_float,
                out_terms: false,
                addend_terms: false,
            };
            let shared = Tile::choose(kind, n).shared_bytes(terms);
            assert!(shared <= 232_448, "{n}, {terms:?}: {shared}");
        }
    }
}
