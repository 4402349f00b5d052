//! Stored values to float32, all finite.

use std::mem::take;

use anyhow::{Context, Result, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

use super::sources::Source;
use super::weights::{Tensor, Weights};

/// Values converted at once: they stay in the first-level cache until they are checked.
const AT_ONCE: usize = 2048;

/// Fills a tower's buffer from its sources, which are in the buffer's order and have the shapes they say.
///
/// # Errors
/// A missing tensor, a dtype other than F32, F16 or BF16, a value that is not finite.
pub fn fill(buffer: &mut [f32], sources: &[Source], weights: &Weights) -> Result<()> {
    let mut pieces = Vec::with_capacity(sources.len());
    let (mut rest, mut at) = (buffer, 0);
    for source in sources {
        let (_, tail) = take(&mut rest).split_at_mut(source.range.start - at);
        let (out, tail) = tail.split_at_mut(source.range.len());
        (rest, at) = (tail, source.range.end);
        let tensor = weights.tensor(&source.name).with_context(|| format!("{} is missing", source.name))?;
        pieces.push((source, tensor, out));
    }
    for (source, tensor, out) in pieces {
        convert_source(source, &tensor, out).with_context(|| source.name.clone())?;
    }
    Ok(())
}

fn convert_source(source: &Source, tensor: &Tensor, out: &mut [f32]) -> Result<()> {
    if !source.transposed {
        return convert(tensor, out);
    }
    let mut stored = vec![0.0; out.len()];
    convert(tensor, &mut stored)?;
    let [columns, rows] = source.shape[..] else { bail!("a transposed tensor has two dimensions") };
    (0..out.len()).for_each(|i| out[i] = stored[i % columns * rows + i / columns]);
    Ok(())
}

/// A tensor's values, as many as `out` has.
pub fn convert(tensor: &Tensor, out: &mut [f32]) -> Result<()> {
    let bytes = match tensor.dtype {
        Dtype::F32 => 4,
        Dtype::F16 | Dtype::BF16 => 2,
        other => bail!("its dtype is {other:?}; F32, F16 and BF16 are known"),
    };
    for (i, (out, data)) in out.chunks_mut(AT_ONCE).zip(tensor.data.chunks(bytes * AT_ONCE)).enumerate() {
        // Copied first: a file's values may lie at any address.
        match tensor.dtype {
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
        if !out.iter().fold(true, |all, v| all & v.is_finite()) {
            let at = out.iter().position(|v| !v.is_finite()).unwrap_or(0);
            bail!("element {} is {}", i * AT_ONCE + at, out[at]);
        }
    }
    Ok(())
}
