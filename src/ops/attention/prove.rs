//! Attention in float16 proves itself before it is used, as products do ([`crate::ops::linear::prove`]): of nothing else does
//! so much depend on what a card's tensor cores, and copies to its shared memory, make of the kernels.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use half::f16;

use super::{Shape, attention_backward, attention_forward, backward_scratch_len};
use crate::clip::ClipConfig;
use crate::gpu::Stream;
use crate::ops::Element;

const KERNEL: &str = "attention_mma";
/// Heads, so that the second begins behind the first.
const NH: usize = 2;
/// Of the greatest: P and dS are rounded to float16, and results are.
const TOLERANCE: f32 = 4e-3;

/// Devices on which it has proved itself, by their numbers, with the tokens and channels of a head.
static PROVED: Mutex<BTreeSet<(usize, usize, usize)>> = Mutex::new(BTreeSet::new());

/// Has the kernels for this model's images compute two heads and their gradient, and holds them against the plain kernels' in
/// float32. Once a process, device and shape: a second call does nothing.
///
/// # Errors
/// It is wrong, or fails, on this device; the plain kernels' own.
pub fn prove_attention(stream: &Stream, config: &ClipConfig) -> Result<()> {
    let shape = Shape {
        b: 1,
        t: config.tokens(),
        nh: NH,
        hs: config.vision.width / config.vision.heads,
        causal: false,
    };
    let mut proved = PROVED.lock().unwrap_or_else(PoisonError::into_inner);
    let proof = (stream.gpu().ordinal(), shape.t, shape.hs);
    if proved.contains(&proof) && !stream.is_rehearsal() {
        return Ok(());
    }
    let (qkv, dout) = inputs(shape);
    let want = run::<f32>(stream, shape, &qkv, &dout)?;
    let got = run::<f16>(stream, shape, &qkv, &dout)
        .map_err(|error| error.context(format!("trying {KERNEL}, which --precision fp32 does without")))?;
    if stream.is_rehearsal() {
        return Ok(());
    }
    let found = ["out", "dqkv", "dbias"]
        .iter()
        .zip(got.iter().zip(&want))
        .find_map(|(name, (got, want))| Some(format!("{name}{}", difference(got, want)?)));
    let on = stream.architecture();
    ensure!(
        found.is_none(),
        "{KERNEL} does not work on this device (sm_{on}): {}; --precision fp32 does without it",
        found.unwrap_or_default()
    );
    proved.insert(proof);
    Ok(())
}

/// `(T, 3 C)` and `(T, C)` of multiples of 1/64 between -2 and 2, which float16 has.
fn inputs(shape: Shape) -> (Vec<f32>, Vec<f32>) {
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0xff) as f32 / 64.0 - 2.0;
    let values = |from: usize, len: usize| (from..from + len).map(value).collect();
    let len = shape.tokens() * shape.width();
    (values(1, 3 * len), values(1 << 20, len))
}

/// `out`, `dqkv` and `dbias`.
fn run<E: Element>(stream: &Stream, shape: Shape, qkv: &[f32], dout: &[f32]) -> Result<[Vec<f32>; 3]> {
    let (t, c) = (shape.t, shape.width());
    let rounded = |x: &[f32]| -> Vec<E> { x.iter().map(|&x| E::round(x.into())).collect() };
    let (qkv, dout) =
        (stream.upload([1, t, 3 * c], &rounded(qkv))?, stream.upload([1, t, c], &rounded(dout))?);
    let (out, lse) = (stream.alloc::<E>([1, t, c])?, stream.alloc::<f32>([1, NH, t])?);
    let (dqkv, dbias) = (stream.alloc::<E>([1, t, 3 * c])?, stream.alloc::<f32>([1, 3 * c])?);
    let scratch = stream.alloc::<f32>([backward_scratch_len::<E>(shape)])?;
    // NaN, where nobody writes.
    stream.fill_bytes(&out, 0xff)?;
    stream.fill_bytes(&dqkv, 0xff)?;
    stream.fill_bytes(&dbias, 0xff)?;
    attention_forward::<E>(stream, &out, &lse, &qkv, shape, t)?;
    attention_backward::<E>(stream, &dqkv, &dbias, &dout, &out, &lse, &qkv, &scratch, shape, t)?;
    let wide = |x: Vec<E>| x.into_iter().map(|x| x.widen() as f32).collect();
    Ok([wide(stream.read(&out)?), wide(stream.read(&dqkv)?), stream.read(&dbias)?])
}

/// The first element that is wrong, in words.
fn difference(got: &[f32], want: &[f32]) -> Option<String> {
    let most = want.iter().fold(0f32, |most, x| most.max(x.abs()));
    let is_off = |(&got, &want): (&f32, &f32)| got.is_nan() || (got - want).abs() > TOLERANCE * most;
    let at = got.iter().zip(want).position(is_off)?;
    Some(format!("[{at}] is {}, not {}", got[at], want[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;

    device_test!(attention_of_these_models_proves_itself, |stream| {
        for config in [ClipConfig::vit_b_32(), ClipConfig::vit_l_14()] {
            prove_attention(&stream, &config)?;
        }
    });

    #[test]
    fn one_wrong_element_is_found() {
        let want: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
        assert_eq!(difference(&want, &want), None);
        for wrong in [0.51, 0.49, f32::NAN] {
            let mut got = want.clone();
            got[500] = wrong;
            assert_eq!(difference(&got, &want), Some(format!("[500] is {wrong}, not 0.5")));
        }
    }
}
