//! Both kernels against the definition, whole and of the first queries alone; a sample's bits by itself and in a batch.

use super::*;
use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen, within};
use crate::device_test;

const fn shape(b: usize, t: usize, nh: usize, hs: usize, causal: bool) -> Shape {
    Shape { b, t, nh, hs, causal }
}

/// Shape and spread of the values: image and text heads, tiles met exactly and by one more or less,
/// odd heads, one token, scores so far apart that few of a row count.
const CASES: [(Shape, f32); 19] = [
    (shape(2, 50, 3, 64, false), 1.5),
    (shape(1, 77, 2, 64, true), 1.5),
    (shape(1, 197, 1, 64, false), 1.5),
    (shape(1, 257, 1, 64, false), 1.5),
    (shape(1, 577, 1, 64, false), 1.5),
    (shape(1, 129, 1, 80, false), 1.5),
    (shape(1, 65, 1, 104, false), 1.5),
    (shape(1, 128, 1, 16, true), 1.5),
    (shape(2, 50, 1, 80, false), 1.5),
    (shape(1, 50, 1, 88, true), 1.5),
    (shape(1, 65, 1, 128, false), 1.5),
    (shape(1, 90, 1, 33, true), 1.5),
    (shape(3, 17, 5, 7, false), 1.5),
    (shape(2, 17, 3, 32, false), 1.5),
    (shape(1, 64, 1, 64, false), 1.5),
    (shape(1, 63, 1, 32, false), 4.0),
    (shape(2, 5, 2, 7, false), 1.5),
    (shape(1, 31, 2, 1, true), 3.0),
    (shape(1, 1, 1, 1, false), 1.5),
];

struct Results<E> {
    out: Vec<E>,
    dqkv: Vec<E>,
    dbias: Vec<f32>,
}

/// What the kernels make of it, with `out` and `dout` of `out_rows` tokens.
fn run<E: Element>(
    stream: &Stream,
    shape: Shape,
    (queries, out_rows): (usize, usize),
    qkv: &[E],
    dout: &[E],
) -> Result<Results<E>> {
    let Shape { b, t, nh, .. } = shape;
    let c = shape.width();
    let (qkv, dout) = (stream.upload([b, t, 3 * c], qkv)?, stream.upload([b, out_rows, c], dout)?);
    let (out, lse) = (poisoned(stream, [b, out_rows, c]), poisoned(stream, [b, nh, t]));
    attention_forward::<E>(stream, &out, &lse, &qkv, shape, queries)?;
    let (dqkv, dbias) = (poisoned(stream, [b, t, 3 * c]), poisoned(stream, [b, 3 * c]));
    let scratch = poisoned(stream, [backward_scratch_len::<E>(shape)]);
    attention_backward::<E>(stream, &dqkv, &dbias, &dout, &out, &lse, &qkv, &scratch, shape, queries)?;
    Ok(Results { out: stream.read(&out)?, dqkv: stream.read(&dqkv)?, dbias: stream.read(&dbias)? })
}

fn wide<E: Element>(x: &[E]) -> Vec<f64> {
    x.iter().map(|x| x.widen()).collect()
}

fn rounded<E: Element>(x: &[f32]) -> Vec<E> {
    x.iter().map(|&x| E::round(x.into())).collect()
}

/// The first `queries` of a sample's `rows` tokens.
fn first<T: Copy>(x: &[T], rows: usize, c: usize, queries: usize) -> Vec<T> {
    x.chunks_exact(rows * c).flat_map(|sample| sample[..queries * c].iter().copied()).collect()
}

fn check<E: Element>(
    stream: &Stream,
    shape: Shape,
    spread: f32,
    (queries, out_rows): (usize, usize),
    [of_out, of_gradient]: [Tolerance; 2],
) -> Result<()> {
    let Shape { b, t, .. } = shape;
    let c = shape.width();
    let qkv: Vec<E> = rounded(&random(b * t * 3 * c, spread, 1));
    let dout: Vec<E> = rounded(&random(b * out_rows * c, 1.0, 2));
    let got = run::<E>(stream, shape, (queries, out_rows), &qkv, &dout)?;
    let want = first(&attention_reference(&wide(&qkv), shape), t, c, queries);
    assert_close(&wide(&first(&got.out, out_rows, c, queries)), &want, of_out);
    let mut whole = vec![0.0; b * t * c];
    for (to, from) in whole.chunks_exact_mut(t * c).zip(dout.chunks_exact(out_rows * c)) {
        to[..queries * c].copy_from_slice(&wide(&from[..queries * c]));
    }
    let want = attention_backward_reference(&wide(&qkv), &whole, shape);
    assert_close(&wide(&got.dqkv), &want, of_gradient);
    let mut dbias = vec![0.0; b * 3 * c];
    for (i, x) in want.iter().enumerate() {
        dbias[i / (t * 3 * c) * 3 * c + i % (3 * c)] += x;
    }
    assert_close(&got.dbias, &dbias, of_gradient);

    // The last sample alone, and another run.
    let alone = Shape { b: 1, ..shape };
    let (last_qkv, last_dout) = (&qkv[(b - 1) * t * 3 * c..], &dout[(b - 1) * out_rows * c..]);
    let last = run::<E>(stream, alone, (queries, out_rows), last_qkv, last_dout)?;
    let bits = |x: &[E]| -> Vec<u8> { bytemuck::cast_slice(x).to_vec() };
    assert_eq!(bits(&last.out), bits(&got.out[(b - 1) * out_rows * c..]), "alone it has other bits");
    assert_eq!(bits(&last.dqkv), bits(&got.dqkv[(b - 1) * t * 3 * c..]), "alone it has other bits");
    assert_eq!(last.dbias, got.dbias[(b - 1) * 3 * c..], "alone it has other bits");
    Ok(())
}

/// P and dS are rounded to float16 where they are multiplied, as results are: by 2^-11 at most each, in a sum of many
/// independent ones by less than half of it; dS is a difference that may be half as large as what it is of.
const FP16: [f64; 2] = [5e-4, 1.5e-3];

device_test!(kernels_equal_the_definition, |stream| {
    for (shape, spread) in CASES {
        check::<f32>(&stream, shape, spread, (shape.t, shape.t), [Tolerance::FP32; 2])?;
    }
    let wide_head = shape(1, 65, 1, 131, true);
    check::<f32>(&stream, wide_head, 1.5, (65, 65), [Tolerance::FP32; 2])?;
});

device_test!(tensor_core_kernels_equal_the_definition, |stream| {
    let is_turing = is_turing(&stream);
    for (shape, spread) in CASES {
        let got = check::<f16>(&stream, shape, spread, (shape.t, shape.t), FP16.map(within));
        match is_turing && shape.hs > 112 {
            true => assert!(got.unwrap_err().to_string().contains("--precision fp32")),
            false => got?,
        }
    }
});

device_test!(some_queries_are_the_first_of_all, |stream| {
    for (shape, queries, out_rows) in [
        (shape(2, 50, 2, 64, false), 1, 1),
        (shape(2, 50, 1, 64, false), 1, 50),
        (shape(2, 50, 1, 32, false), 17, 20),
        (shape(2, 77, 1, 32, true), 1, 1),
        (shape(1, 197, 1, 64, false), 1, 1),
        (shape(1, 130, 1, 9, false), 70, 130),
    ] {
        check::<f32>(&stream, shape, 1.5, (queries, out_rows), [Tolerance::FP32; 2])?;
        check::<f16>(&stream, shape, 1.5, (queries, out_rows), FP16.map(within))?;
    }
});

device_test!(what_cannot_be_is_refused_by_name, |stream| {
    let refuse = |shape: Shape, queries: usize, out_len: usize| {
        let (out, lse) = (stream.zeros::<f16>(out_len)?, stream.zeros(shape.rows())?);
        let qkv = stream.zeros(shape.tokens() * 3 * shape.width())?;
        let error = attention_forward(&stream, &out, &lse, &qkv, shape, queries);
        Ok::<String, anyhow::Error>(error.expect_err("refused").to_string())
    };
    assert!(refuse(shape(1, 2, 1, 131, false), 2, 262)?.contains("131 channels"));
    assert!(refuse(shape(1, 2, 1, 8, false), 3, 24)?.contains("3 queries of 2"));
    assert!(refuse(shape(2, 3, 1, 8, false), 2, 16)?.contains("16 elements"));
});

#[test]
fn the_definition_is_its_own_derivative() {
    for causal in [false, true] {
        let shape = Shape { b: 1, t: 4, nh: 2, hs: 3, causal };
        let (qkv, g) = (widen(&random(72, 1.0, 1)), widen(&random(24, 1.0, 2)));
        let f = |x: &[f64]| attention_reference(x, shape).iter().zip(&g).map(|(y, g)| y * g).sum();
        finite_difference(&qkv, f, &attention_backward_reference(&qkv, &g, shape));
    }
}

device_test!(a_result_in_two_terms_is_that_of_float32, |stream| {
    for (shape, queries) in
        [(shape(2, 50, 3, 64, false), 50), (shape(1, 90, 2, 33, true), 90), (shape(3, 17, 2, 7, false), 1)]
    {
        let Shape { b, t, nh, .. } = shape;
        let (rows, c) = (b * queries, shape.width());
        let qkv = stream.upload([b, t, 3 * c], &random(b * t * 3 * c, 1.5, 1))?;
        let lse = poisoned(&stream, [b, nh, t]);
        let (float, both) = (poisoned::<f32>(&stream, [rows, c]), poisoned::<f32>(&stream, [rows, c]));
        attention_forward(&stream, &float, &lse, &qkv, shape, queries)?;
        attention_forward(&stream, Rows::new(&both, true), &lse, &qkv, shape, queries)?;
        let (float, both) = (stream.read(&float)?, stream.read(&both.halves())?);
        for (want, got) in float.chunks(c).zip(both.chunks(2 * c)) {
            for (x, (first, second)) in want.iter().zip(got[..c].iter().zip(&got[c..])) {
                let rest = f16::from_f32((x - first.to_f32()) / f16::SECOND_TERM);
                assert_eq!(
                    (first.to_bits(), second.to_bits()),
                    (f16::from_f32(*x).to_bits(), rest.to_bits())
                );
            }
        }
    }
});
