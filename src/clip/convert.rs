//! Stored values to float32, all finite.

use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;

use anyhow::{Context, Result, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::sources::Source;
use super::weights::{Tensor, Weights};
use crate::threads::together;

/// Values converted at once: they stay in the first-level cache until they are checked.
const AT_ONCE: usize = 2048;
/// Values read at once.
const READ_AT_ONCE: usize = 128 * AT_ONCE;

/// A tensor and its place in the buffer.
struct Piece<'a> {
    source: &'a Source,
    tensor: Tensor<'a>,
    out: &'a mut [f32],
}

/// Fills a tower's buffer from its sources, which are in the buffer's order and have the shapes they say. All
/// cores take part: a ViT-B/32 of 605 MB takes 0.14 s on two, 0.27 s on one.
///
/// # Errors
/// A missing tensor, a dtype other than F32, F16 or BF16, a value that is not finite: the first in the buffer.
pub fn fill(buffer: &mut [f32], sources: &[Source], weights: &Weights) -> Result<()> {
    let mut pieces = Vec::with_capacity(sources.len());
    let (mut rest, mut at) = (buffer, 0);
    for source in sources {
        let (_, tail) = take(&mut rest).split_at_mut(source.range.start - at);
        let (out, tail) = tail.split_at_mut(source.range.len());
        (rest, at) = (tail, source.range.end);
        let tensor = weights.tensor(&source.name).with_context(|| format!("{} is missing", source.name))?;
        pieces.push(Piece { source, tensor, out });
    }
    let threads = available_parallelism().map_or(1, usize::from).min(pieces.len());
    let queue = Mutex::new(pieces.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    // Each stops at its first failure. What lies before it was taken before it, so the first of all is found.
    let work = || -> Result<(), (usize, anyhow::Error)> {
        while let Some((i, piece)) = next() {
            piece.fill().map_err(|error| (i, error))?;
        }
        Ok(())
    };
    let failures = together(threads, work).into_iter().filter_map(Result::err);
    failures.min_by_key(|(i, _)| *i).map_or(Ok(()), |(_, error)| Err(error))
}

impl Piece<'_> {
    fn fill(self) -> Result<()> {
        let Piece { source, tensor, out } = self;
        if !source.transposed && source.padding == 0 {
            return convert(&tensor, out).with_context(|| source.name.clone());
        }
        let mut stored = vec![0.0; source.count()];
        convert(&tensor, &mut stored).with_context(|| source.name.clone())?;
        if !source.transposed {
            source.spread(out, &stored);
            return Ok(());
        }
        let (rows, columns) = (source.shape[1], source.shape[0]);
        (0..out.len()).for_each(|i| out[i] = stored[i % columns * rows + i / columns]);
        Ok(())
    }
}

/// A tensor's values, as many as `out` has.
pub fn convert(tensor: &Tensor, out: &mut [f32]) -> Result<()> {
    let bytes = match tensor.dtype {
        Dtype::F32 => 4,
        Dtype::F16 | Dtype::BF16 => 2,
        other => bail!("its dtype is {other:?}; F32, F16 and BF16 are known"),
    };
    let mut buffer = vec![0; bytes * READ_AT_ONCE.min(out.len())];
    for (i, out) in out.chunks_mut(READ_AT_ONCE).enumerate() {
        let data = &mut buffer[..bytes * out.len()];
        tensor.read(i * bytes * READ_AT_ONCE, data)?;
        for (j, (out, data)) in out.chunks_mut(AT_ONCE).zip(data.chunks(bytes * AT_ONCE)).enumerate() {
            to_float(tensor.dtype, data, out);
            if !out.iter().fold(true, |all, v| all & v.is_finite()) {
                let at = out.iter().position(|v| !v.is_finite()).unwrap_or(0);
                bail!("element {} is {}", i * READ_AT_ONCE + j * AT_ONCE + at, out[at]);
            }
        }
    }
    Ok(())
}

/// Up to [`AT_ONCE`] values. Copied first: a file's may lie at any address.
fn to_float(dtype: Dtype, data: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(data),
        Dtype::F16 => {
            let mut halves = [f16::ZERO; AT_ONCE];
            let halves = &mut halves[..out.len()];
            bytemuck::cast_slice_mut(halves).copy_from_slice(data);
            halves.convert_to_f32_slice(out);
        }
        _ => {
            let mut halves = [bf16::ZERO; AT_ONCE];
            let halves = &mut halves[..out.len()];
            bytemuck::cast_slice_mut(halves).copy_from_slice(data);
            halves.convert_to_f32_slice(out);
        }
    }
}
