//! Multi-head self-attention and its gradient: `kernels/attention_mma.cu` in float16, on tensor cores, and
//! `kernels/attention.cu` in float32.

use anyhow::{Result, ensure};
use half::f16;

use super::{Element, Rows, expect_len, int};
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor, compute_capability};
pub use prove::prove_attention;

mod prove;

/// Samples, tokens, heads, width of a head; whether a token sees only itself and what is before it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub b: usize,
    pub t: usize,
    pub nh: usize,
    pub hs: usize,
    pub causal: bool,
}

impl Shape {
    fn tokens(&self) -> usize {
        self.b * self.t
    }

    fn width(&self) -> usize {
        self.nh * self.hs
    }

    fn rows(&self) -> usize {
        self.b * self.nh * self.t
    }

    fn scale(&self) -> f32 {
        1.0 / (self.hs as f32).sqrt()
    }

    /// Multiplications and additions of so many products of this many queries and all tokens.
    fn flops(&self, products: usize, queries: usize) -> u64 {
        (2 * products * self.b * self.nh * queries * self.t * self.hs) as u64
    }

    /// Rows of a CTA.
    fn tile_rows<E: Element>(&self) -> usize {
        if is_half::<E>() { self.t.next_multiple_of(16).min(64) } else { 32 }
    }

    /// Whether a CTA makes the whole gradient of a head.
    fn fits_one_tile<E: Element>(&self) -> bool {
        is_half::<E>() && self.t <= 64
    }
}

fn is_half<E: Element>() -> bool {
    E::NAME == f16::NAME
}

/// Whether what is compiled for the stream has no copies that go on while threads compute.
fn is_turing(stream: &Stream) -> bool {
    compute_capability(stream.architecture()) < 80
}

/// The kernels of an element type, shape and number of queries.
struct Plan {
    shape: Shape,
    stem: &'static str,
    defines: Vec<(&'static str, i64)>,
    threads: usize,
    tile_rows: usize,
    /// A tile of tokens, and how many of each walk are kept.
    tile_bytes: usize,
    stages: usize,
    /// The kernels' last arguments.
    sizes: Vec<Arg>,
}

impl Plan {
    /// `out_len`: of `out` or `dout`, by which a sample has as many tokens. `aligned`: all tensors are, to 16 bytes.
    fn new<E: Element>(
        stream: &Stream,
        operator: &str,
        shape: Shape,
        queries: usize,
        out_len: usize,
        aligned: bool,
    ) -> Result<Plan> {
        let Shape { b, t, nh, hs, causal } = shape;
        ensure!((1..=t).contains(&queries), "{operator}: {queries} queries of {t} tokens");
        ensure!(b * shape.width() > 0, "{operator}: nothing in {shape:?}");
        let out_rows = out_len / (b * shape.width());
        ensure!(
            out_rows >= queries && out_rows * b * shape.width() == out_len,
            "{operator}: {out_len} elements are not those of {queries} queries or more in {shape:?}"
        );
        int(3 * t.max(out_rows) * shape.width())?; // places in a sample, which kernels count in 32 bits
        let (queries, out_rows, scale, heads) = (int(queries)?, int(out_rows)?, shape.scale(), int(nh)?);
        let tile_rows = shape.tile_rows::<E>();
        if !is_half::<E>() {
            let sizes = args![int(t)?, heads, int(hs)?, queries, out_rows, scale, i32::from(causal)].to_vec();
            let defines = E::DEFINES.to_vec();
            let stem = "attention";
            return Ok(Plan {
                shape,
                stem,
                defines,
                threads: 128,
                tile_rows,
                tile_bytes: 0,
                stages: 0,
                sizes,
            });
        }
        ensure!(hs <= 128, "{operator}: heads of {hs} channels: 128 is the most in float16");
        let vector = aligned && hs.is_multiple_of(8);
        let mut defines = E::DEFINES.to_vec();
        defines.extend([
            ("TOKENS", t as i64),
            ("HEAD", hs as i64),
            ("CAUSAL", causal.into()),
            ("VECTOR", vector.into()),
        ]);
        let depth = hs.next_multiple_of(16);
        Ok(Plan {
            shape,
            stem: "attention_mma",
            defines,
            threads: 2 * tile_rows,
            tile_rows,
            tile_bytes: tile_rows * (2 * depth + 16),
            stages: if t <= 64 || depth > 112 || is_turing(stream) { 1 } else { 2 },
            sizes: args![heads, queries, out_rows, scale].to_vec(),
        })
    }

    /// Launches a kernel over `rows` tokens of each head: `own` tiles of a CTA, `walked` ones, and `more` bytes.
    ///
    /// # Safety
    /// The tensors are as long as the kernel has them.
    unsafe fn launch(
        &self,
        stream: &Stream,
        name: &'static str,
        rows: usize,
        shared_bytes: usize,
        tensors: &[Arg],
    ) -> Result<()> {
        let Shape { b, nh, hs, .. } = self.shape;
        let most = stream.gpu().shared_bytes()?;
        ensure!(
            shared_bytes <= most,
            "{name}: heads of {hs} channels take {shared_bytes} bytes of shared memory in float16, and a CTA of this GPU has \
             {most}: --precision fp32 takes less"
        );
        let grid = [b * nh, rows.div_ceil(self.tile_rows), 1];
        let launch = Launch::over(grid, self.threads).shared(shared_bytes);
        let args = [tensors, &self.sizes].concat();
        // SAFETY: the caller's promise.
        unsafe { stream.kernel(self.stem, name, &self.defines)?.launch(stream, launch, &args) }
    }
}

/// `out = softmax(Q Kᵀ / sqrt(HS)) V`, head by head, of the first `queries` tokens.
///
/// * `out`: `(B, any number >= queries, C)`; only float32 may be in terms. `lse`: `(B, NH, T)`, for the gradient. Both overwritten for these tokens, others
///   are left as they are.
/// * `qkv`: `(B, T, 3C)`: queries, keys, values, each head after head.
///
/// Any of them may as well be a matrix of all samples' rows.
///
/// # Errors
/// A buffer of another length; in float16, heads of more than 128 channels, or of so many that the GPU's shared memory is too little
/// (Turing's, of more than 96 or 112); the launch's own.
pub fn attention_forward<'a, E: Element>(
    stream: &Stream,
    out: impl Into<Rows<'a, E>>,
    lse: &Tensor<f32>,
    qkv: &Tensor<E>,
    shape: Shape,
    queries: usize,
) -> Result<()> {
    let Rows { tensor: out, in_terms } = out.into();
    let lens = [("lse", lse.len(), shape.rows()), ("qkv", qkv.len(), shape.tokens() * 3 * shape.width())];
    expect_len("attention_forward", &lens)?;
    let aligned = out.is_aligned(16) && qkv.is_aligned(16);
    let mut plan = Plan::new::<E>(stream, "attention_forward", shape, queries, out.len(), aligned)?;
    if in_terms {
        ensure!(!is_half::<E>(), "attention_forward: {} in terms", E::NAME);
        plan.defines.push(("OUT_TERMS", (1.0 / f16::SECOND_TERM) as i64));
    }
    let shared_bytes = plan.tile_bytes * (1 + 2 * plan.stages);
    stream.note_work(shape.flops(2, queries), 0);
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { plan.launch(stream, "attention_forward", queries, shared_bytes, args![out, lse, qkv]) }
}

/// Floats of scratch that [`attention_backward`] needs.
pub fn backward_scratch_len<E: Element>(shape: Shape) -> usize {
    match shape.fits_one_tile::<E>() {
        true => 0,
        false => shape.rows() + shape.b * shape.t.div_ceil(shape.tile_rows::<E>()) * 2 * shape.width(),
    }
}

/// The gradient of [`attention_forward`]'s input, and its sums over a sample's tokens, which are those of a bias.
///
/// * `dqkv`: `(B, T, 3C)`, overwritten; the gradient of queries that are not among the first is zero.
/// * `dbias`: `(B, 3C)`, overwritten: of dq as it is stored; of dv the sum of `dout`, which it comes to; of dk zero, which it
///   comes to, whatever the bias of keys.
/// * `dout`, `out`: `(B, any number >= queries, C)`, both alike. `lse`, `qkv`: the forward pass's.
/// * `scratch`: [`backward_scratch_len`] floats or more.
///
/// # Errors
/// As [`attention_forward`].
#[allow(clippy::too_many_arguments)] // forward's operands and their gradients
pub fn attention_backward<E: Element>(
    stream: &Stream,
    dqkv: &Tensor<E>,
    dbias: &Tensor<f32>,
    dout: &Tensor<E>,
    out: &Tensor<E>,
    lse: &Tensor<f32>,
    qkv: &Tensor<E>,
    scratch: &Tensor<f32>,
    shape: Shape,
    queries: usize,
) -> Result<()> {
    let (n, c) = (shape.tokens(), shape.width());
    let lens = [
        ("dqkv", dqkv.len(), n * 3 * c),
        ("dbias", dbias.len(), shape.b * 3 * c),
        ("out", out.len(), dout.len()),
        ("lse", lse.len(), shape.rows()),
        ("qkv", qkv.len(), n * 3 * c),
    ];
    expect_len("attention_backward", &lens)?;
    let scratch_len = backward_scratch_len::<E>(shape);
    ensure!(scratch.len() >= scratch_len, "attention_backward: scratch is too short");
    let aligned = [dqkv, dout, out, qkv].iter().all(|tensor| tensor.is_aligned(16));
    let plan = Plan::new::<E>(stream, "attention_backward", shape, queries, dout.len(), aligned)?;
    let Plan { tile_bytes, tile_rows, stages, .. } = plan;
    let t = shape.t;
    if shape.fits_one_tile::<E>() {
        let square_bytes = tile_rows * (2 * tile_rows + 16);
        let squares = if square_bytes > tile_bytes { 2 } else { 1 };
        let tensors = args![dqkv, dbias, dout, qkv, lse];
        let shared_bytes = 4 * tile_bytes + squares * square_bytes;
        stream.note_work(shape.flops(5, queries), 0);
        // SAFETY: the lengths are those of the kernel, checked above.
        return unsafe { plan.launch(stream, "attention_backward", t, shared_bytes, tensors) };
    }
    let (delta, partial) = (scratch.slice(0..shape.rows()), scratch.slice(shape.rows()..scratch_len));
    // Two of the five products are needed once; that the second kernel makes them again is its own affair.
    let shared_bytes = tile_bytes * (2 + 2 * stages);
    stream.note_work(shape.flops(3, queries), 0);
    let tensors = args![dqkv, &delta, &partial, dout, out, qkv, lse];
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { plan.launch(stream, "attention_backward_q", t, shared_bytes, tensors) }?;
    let tensors = args![dqkv, dbias, &delta, &partial, dout, qkv, lse];
    let shared_bytes = shared_bytes + stages * tile_rows * 2 * size_of::<f32>();
    stream.note_work(shape.flops(2, queries), 0);
    // SAFETY: as above.
    unsafe { plan.launch(stream, "attention_backward_kv", t, shared_bytes, tensors) }
}

/// The definition, in float64: `(B, T, C)` of `(B, T, 3, NH, HS)`.
pub fn attention_reference(qkv: &[f64], shape: Shape) -> Vec<f64> {
    let Shape { b, t, nh, hs, .. } = shape;
    let c = nh * hs;
    let mut out = vec![0.0; b * t * c];
    for (image, head, query) in (0..b * nh * t).map(|i| (i / (nh * t), i / t % nh, i % t)) {
        let p = probabilities(qkv, shape, image, head, query);
        for d in 0..hs {
            let value = |key: usize| qkv[at(shape, image, key, 2, head) + d];
            out[(image * t + query) * c + head * hs + d] = (0..t).map(|key| p[key] * value(key)).sum();
        }
    }
    out
}

/// The gradient of `Σ dout · attention`, in float64: `(B, T, 3, NH, HS)`.
pub fn attention_backward_reference(qkv: &[f64], dout: &[f64], shape: Shape) -> Vec<f64> {
    let Shape { b, t, nh, hs, .. } = shape;
    let (c, scale) = (nh * hs, 1.0 / (hs as f64).sqrt());
    let mut dqkv = vec![0.0; qkv.len()];
    for (image, head, query) in (0..b * nh * t).map(|i| (i / (nh * t), i / t % nh, i % t)) {
        let p = probabilities(qkv, shape, image, head, query);
        let dy = &dout[(image * t + query) * c + head * hs..][..hs];
        let dp: Vec<f64> = (0..t)
            .map(|key| dy.iter().zip(&qkv[at(shape, image, key, 2, head)..]).map(|(d, v)| d * v).sum())
            .collect();
        let mean: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
        let q = at(shape, image, query, 0, head);
        for key in 0..t {
            let (k, v) = (at(shape, image, key, 1, head), at(shape, image, key, 2, head));
            let ds = p[key] * (dp[key] - mean) * scale;
            for d in 0..hs {
                dqkv[q + d] += ds * qkv[k + d];
                dqkv[k + d] += ds * qkv[q + d];
                dqkv[v + d] += p[key] * dy[d];
            }
        }
    }
    dqkv
}

/// Where head `head` of query (0), key (1) or value (2) `token` begins.
fn at(shape: Shape, image: usize, token: usize, part: usize, head: usize) -> usize {
    (((image * shape.t + token) * 3 + part) * shape.nh + head) * shape.hs
}

fn probabilities(qkv: &[f64], shape: Shape, image: usize, head: usize, query: usize) -> Vec<f64> {
    let Shape { t, hs, causal, .. } = shape;
    let q = &qkv[at(shape, image, query, 0, head)..][..hs];
    let scores: Vec<f64> = (0..t)
        .map(|key| match causal && key > query {
            true => f64::NEG_INFINITY,
            false => {
                let k = &qkv[at(shape, image, key, 1, head)..][..hs];
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (hs as f64).sqrt()
            }
        })
        .collect();
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

#[cfg(test)]
mod tests;
