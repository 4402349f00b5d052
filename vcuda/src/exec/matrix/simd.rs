//! The hosts' vectors, as [`super::gemm`] and [`super::panel`] use them.

#[cfg(target_arch = "x86_64")]
use std::arch::{asm, x86_64::*};

use super::gemm::{BLOCK, Panels, Simd, add_in_order};
use crate::exec::arithmetic::half::{F16, Format};
use crate::exec::host::Host;

/// Something that is compiled for each host.
pub trait Job {
    type Output;

    /// # Safety
    /// As [`Simd`], and as the job has it.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Does it as a host does it best.
///
/// # Safety
/// It is this machine's, or less; and as the job has it.
pub unsafe fn run_on<J: Job>(host: Host, job: J) -> J::Output {
    // SAFETY: the caller's; so below.
    unsafe {
        match host {
            Host::Baseline => job.run::<Baseline>(),
            #[cfg(target_arch = "x86_64")]
            Host::Avx2 => on_avx2(job),
            #[cfg(target_arch = "x86_64")]
            Host::Avx512 => on_avx512(job),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
unsafe fn on_avx2<J: Job>(job: J) -> J::Output {
    unsafe { job.run::<Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
unsafe fn on_avx512<J: Job>(job: J) -> J::Output {
    unsafe { job.run::<Avx512>() }
}

/// A product, compiled once for each host.
struct Multiply<'a> {
    panels: &'a Panels<'a>,
    first: usize,
    b: &'a [f32],
}
impl Job for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        unsafe { self.panels.multiply_with::<S>(self.first, self.b) }
    }
}

impl Panels<'_> {
    /// Adds the product of A and a panel of B, which has the tiles from `first` on, to D.
    ///
    /// # Safety
    /// As [`Simd`]; D's registers have 32 elements each.
    #[inline(always)]
    pub unsafe fn multiply<S: Simd>(&self, first: usize, b: &[f32]) {
        unsafe { run_on(S::HOST, Multiply { panels: self, first, b }) }
    }
}

/// Any host.
pub struct Baseline;

impl Simd for Baseline {
    const HOST: Host = Host::Baseline;
    type Eight = [f32; 8];
    type Vector = [f32; 8];
    const VECTORS: usize = 2;
    const ROWS: usize = 2;
    const COLUMNS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> [f32; 8] {
        [0.0; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        // SAFETY: the caller's; so below.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add_product(a: [f32; 8], b: *const f32, mut c: [f32; 8]) -> [f32; 8] {
        let b = unsafe { *b };
        for i in 0..8 {
            c[i] = a[i].mul_add(b, c[i]);
        }
        c
    }

    #[inline(always)]
    unsafe fn load_sums(registers: [*mut f32; 2], v: usize) -> [[f32; 8]; 4] {
        let (register, mut out) = (registers[v], [[0.0; 8]; 4]);
        for row in 0..8 {
            for column in 0..4 {
                out[column][row % 2 * 4 + row / 2] = unsafe { *register.add(4 * row + column) };
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn store_sums(registers: [*mut f32; 2], v: usize, sums: [[f32; 8]; 4]) {
        for row in 0..8 {
            for column in 0..4 {
                unsafe { *registers[v].add(4 * row + column) = sums[column][row % 2 * 4 + row / 2] };
            }
        }
    }

    #[inline(always)]
    unsafe fn halves(bits: [u32; 4]) -> [f32; 8] {
        let mut out = [0.0; 8];
        for i in 0..8 {
            out[i] = F16::widen(bits[i / 2] >> (16 * (i % 2)) & 0xffff);
        }
        out
    }

    #[inline(always)]
    unsafe fn eight(values: [f32; 8]) -> [f32; 8] {
        values
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, values: [f32; 8]) {
        unsafe { to.cast::<[f32; 8]>().write_unaligned(values) };
    }

    #[inline(always)]
    unsafe fn even_odd([a, b, c, d, e, f, g, h]: [f32; 8]) -> [f32; 8] {
        [a, c, e, g, b, d, f, h]
    }

    #[inline(always)]
    unsafe fn transpose(rows: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        let mut out = [[0.0; 8]; 8];
        for i in 0..8 {
            for j in 0..8 {
                out[j][i] = rows[i][j];
            }
        }
        out
    }
}

/// The four rows of 4x4 of each half, transposed.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn quarters([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    unsafe {
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(ab, cd),
            _mm256_shuffle_ps::<0xee>(ab, cd),
            _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
        ]
    }
}

/// The same of all four quarters.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn wide_quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    unsafe {
        let (ab, cd) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
        [
            _mm512_shuffle_ps::<0x44>(ab, cd),
            _mm512_shuffle_ps::<0xee>(ab, cd),
            _mm512_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm512_shuffle_ps::<0xee>(ab_high, cd_high),
        ]
    }
}

/// What AVX2 and AVX-512 have in common.
#[cfg(target_arch = "x86_64")]
macro_rules! eights {
    () => {
        type Eight = __m256;

        #[inline(always)]
        unsafe fn halves(bits: [u32; 4]) -> __m256 {
            unsafe { _mm256_cvtph_ps(std::mem::transmute::<[u32; 4], __m128i>(bits)) }
        }

        #[inline(always)]
        unsafe fn eight(values: [f32; 8]) -> __m256 {
            unsafe { _mm256_loadu_ps(values.as_ptr()) }
        }

        #[inline(always)]
        unsafe fn store(to: *mut f32, values: __m256) {
            unsafe { _mm256_storeu_ps(to, values) };
        }

        #[inline(always)]
        unsafe fn even_odd(values: __m256) -> __m256 {
            unsafe { _mm256_permutevar8x32_ps(values, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7)) }
        }

        #[inline(always)]
        unsafe fn transpose([a, b, c, d, e, f, g, h]: [__m256; 8]) -> [__m256; 8] {
            // Pairs of rows, then of pairs, in each half; then the halves.
            unsafe {
                let (upper, lower) = (quarters([a, b, c, d]), quarters([e, f, g, h]));
                let mut out = [a; 8];
                for i in 0..4 {
                    out[i] = _mm256_permute2f128_ps::<0x20>(upper[i], lower[i]);
                    out[i + 4] = _mm256_permute2f128_ps::<0x31>(upper[i], lower[i]);
                }
                out
            }
        }
    };
}

/// [`Simd::add_products`] of three vectors of rows and four columns, for which the compiler has one register too few: it uses the
/// others for loads that could wait.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn three_by_four(
    [x, y, z]: [*const f32; 3],
    (b, stride): (*const f32, usize),
    depth: usize,
    sums: &mut [[__m256; 3]; 4],
) {
    if depth == 0 {
        return;
    }
    let [[a0, a1, a2], [b0, b1, b2], [c0, c1, c2], [d0, d1, d2]] = sums;
    // SAFETY: the caller's: the loop reads the elements of each vector of rows, a block's from one to the next, and of each column.
    unsafe {
        asm!(
            "2:",
            "vmovups {x}, [{px}]",
            "vmovups {y}, [{py}]",
            "vmovups {z}, [{pz}]",
            "vbroadcastss {w}, [{b}]",
            "vfmadd231ps {a0}, {x}, {w}",
            "vfmadd231ps {a1}, {y}, {w}",
            "vfmadd231ps {a2}, {z}, {w}",
            "vbroadcastss {w}, [{b} + {s}]",
            "vfmadd231ps {b0}, {x}, {w}",
            "vfmadd231ps {b1}, {y}, {w}",
            "vfmadd231ps {b2}, {z}, {w}",
            "vbroadcastss {w}, [{b} + 2 * {s}]",
            "vfmadd231ps {c0}, {x}, {w}",
            "vfmadd231ps {c1}, {y}, {w}",
            "vfmadd231ps {c2}, {z}, {w}",
            "vbroadcastss {w}, [{b} + {s3}]",
            "vfmadd231ps {d0}, {x}, {w}",
            "vfmadd231ps {d1}, {y}, {w}",
            "vfmadd231ps {d2}, {z}, {w}",
            "add {px}, {row}",
            "add {py}, {row}",
            "add {pz}, {row}",
            "add {b}, 4",
            "cmp {b}, {end}",
            "jne 2b",
            px = inout(reg) x => _,
            py = inout(reg) y => _,
            pz = inout(reg) z => _,
            b = inout(reg) b => _,
            end = in(reg) b.add(depth),
            s = in(reg) stride * size_of::<f32>(),
            s3 = in(reg) 3 * stride * size_of::<f32>(),
            row = const BLOCK * size_of::<f32>(),
            a0 = inout(ymm_reg) *a0, a1 = inout(ymm_reg) *a1, a2 = inout(ymm_reg) *a2,
            b0 = inout(ymm_reg) *b0, b1 = inout(ymm_reg) *b1, b2 = inout(ymm_reg) *b2,
            c0 = inout(ymm_reg) *c0, c1 = inout(ymm_reg) *c1, c2 = inout(ymm_reg) *c2,
            d0 = inout(ymm_reg) *d0, d1 = inout(ymm_reg) *d1, d2 = inout(ymm_reg) *d2,
            x = out(ymm_reg) _, y = out(ymm_reg) _, z = out(ymm_reg) _, w = out(ymm_reg) _,
            options(readonly, nostack),
        );
    }
}

/// AVX2 with fused multiply-adds: 12 of 16 registers hold sums. Two units that take four cycles each are busy with eight.
#[cfg(target_arch = "x86_64")]
pub struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx2 {
    const HOST: Host = Host::Avx2;
    type Vector = __m256;
    const VECTORS: usize = 2;
    const ROWS: usize = 3;
    const COLUMNS: usize = 4;
    eights!();

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn add_product(a: __m256, b: *const f32, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, _mm256_broadcast_ss(&*b), c) }
    }

    #[inline(always)]
    unsafe fn add_products<const VECTORS: usize, const COLUMNS: usize>(
        a: [*const f32; VECTORS],
        (b, stride): (*const f32, usize),
        depth: usize,
        sums: &mut [[__m256; VECTORS]; COLUMNS],
    ) {
        unsafe {
            if let (&[x, y, z], 4) = (&a[..], COLUMNS) {
                return three_by_four([x, y, z], (b, stride), depth, &mut *(&raw mut *sums).cast());
            }
            add_in_order::<Avx2, VECTORS, COLUMNS>(a, (b, stride), depth, sums)
        }
    }

    #[inline(always)]
    unsafe fn load_sums(registers: [*mut f32; 2], v: usize) -> [__m256; 4] {
        unsafe {
            let mut pairs = [_mm256_setzero_ps(); 4];
            for i in 0..4 {
                pairs[i] = _mm256_loadu_ps(registers[v].add(8 * i));
            }
            quarters(pairs)
        }
    }

    #[inline(always)]
    unsafe fn store_sums(registers: [*mut f32; 2], v: usize, sums: [__m256; 4]) {
        unsafe {
            let pairs = quarters(sums);
            for i in 0..4 {
                _mm256_storeu_ps(registers[v].add(8 * i), pairs[i]);
            }
        }
    }
}

/// AVX-512: 16 of 32 registers hold sums, of two blocks' rows and a tile's columns.
#[cfg(target_arch = "x86_64")]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Simd for Avx512 {
    const HOST: Host = Host::Avx512;
    type Vector = __m512;
    const VECTORS: usize = 1;
    const ROWS: usize = 2;
    const COLUMNS: usize = 8;
    eights!();

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn add_product(a: __m512, b: *const f32, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, _mm512_set1_ps(*b), c) }
    }

    #[inline(always)]
    unsafe fn load_sums([upper, lower]: [*mut f32; 2], _: usize) -> [__m512; 4] {
        unsafe {
            let mut pairs = [_mm512_setzero_ps(); 4];
            for i in 0..4 {
                let upper = _mm512_castps256_ps512(_mm256_loadu_ps(upper.add(8 * i)));
                pairs[i] = _mm512_insertf32x8::<1>(upper, _mm256_loadu_ps(lower.add(8 * i)));
            }
            wide_quarters(pairs)
        }
    }

    #[inline(always)]
    unsafe fn store_sums([upper, lower]: [*mut f32; 2], _: usize, sums: [__m512; 4]) {
        unsafe {
            let pairs = wide_quarters(sums);
            for i in 0..4 {
                _mm256_storeu_ps(upper.add(8 * i), _mm512_castps512_ps256(pairs[i]));
                _mm256_storeu_ps(lower.add(8 * i), _mm512_extractf32x8_ps::<1>(pairs[i]));
            }
        }
    }
}
