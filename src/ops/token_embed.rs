//! Token and position embeddings of the text tower, `kernels/token_embed.cu`.

use anyhow::{Result, ensure};

use super::{expect_len, int};
use crate::args;
use crate::gpu::{Launch, Stream, Tensor};

/// `out[b][t] = table[ids[b][t]] + position[t]`.
///
/// * `out`: `(B, T, C)` fp32, overwritten. `ids`: `(B, T)`, each below `V` (the tokenizer's promise).
/// * `table`: `(V, C)` fp32. `position`: `(T, C)` fp32.
///
/// # Errors
/// A buffer of another length; the launch's own.
pub fn token_embed_forward(
    stream: &Stream,
    out: &Tensor<f32>,
    ids: &Tensor<i32>,
    table: &Tensor<f32>,
    position: &Tensor<f32>,
    (b, t, c): (usize, usize, usize),
) -> Result<()> {
    expect_len(
        "token_embed_forward",
        &[("out", out.len(), b * t * c), ("ids", ids.len(), b * t), ("position", position.len(), t * c)],
    )?;
    ensure!(table.len().is_multiple_of(c), "token_embed_forward: the table has no whole number of rows");
    let launch = Launch::new(b * t, 128);
    let kernel = stream.kernel("token_embed", "token_embed_forward", &[])?;
    // SAFETY: the lengths are those of the kernel, checked above.
    unsafe { kernel.launch(stream, launch, args![out, ids, table, position, int(t)?, int(c)?]) }
}

/// The definition.
pub fn token_embed_reference(
    ids: &[i32],
    table: &[f32],
    position: &[f32],
    (b, t, c): (usize, usize, usize),
) -> Vec<f32> {
    let mut out = vec![0.0; b * t * c];
    for (row, out) in out.chunks_mut(c).enumerate() {
        let (token, place) = (ids[row] as usize * c, row % t * c);
        for (j, out) in out.iter_mut().enumerate() {
            *out = table[token + j] + position[place + j];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close, poisoned, random};
    use crate::device_test;

    device_test!(kernel_equals_the_definition, |stream| {
        for (b, t, c, v) in [(3, 77, 512, 40), (2, 7, 33, 5), (1, 1, 1, 1)] {
            let ids: Vec<i32> = (0..b * t).map(|i| (i * i % v) as i32).collect();
            let (table, position) = (random(v * c, 1.0, 1), random(t * c, 1.0, 2));
            let out = poisoned(&stream, b * t * c);
            let (d_ids, d_table) = (stream.vector(&ids)?, stream.vector(&table)?);
            token_embed_forward(&stream, &out, &d_ids, &d_table, &stream.vector(&position)?, (b, t, c))?;
            let want = token_embed_reference(&ids, &table, &position, (b, t, c));
            assert_close(&stream.read(&out)?, &want, Tolerance::EXACT);
        }
    });
}
