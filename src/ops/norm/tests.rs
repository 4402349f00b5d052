//! Both passes against the definition; an image's bits by itself and in a batch.

use half::f16;

use super::super::segment::segment_reference;
use super::*;
use crate::check::{Tolerance, assert_close, finite_difference, poisoned, random, widen};
use crate::device_test;

const EPS: f32 = 1e-5;

/// S, R, C, and the mean of the input.
const SHAPES: [(usize, usize, usize, f32); 8] = [
    (3, 200, 768, 0.0),
    (2, 65, 33, 0.0),
    (1, 1, 1, 0.0),
    (2, 70, 1024, 0.0),
    (2, 5, 1280, 0.0),
    (1, 3, 2050, 0.0),
    (1, 2, 3076, 0.0),
    // Means of 100 leave float32 about 7e-6 of a deviation; sums of squares would leave 1e-3.
    (3, 15, 258, 100.0),
];

fn elements<E: Element>(len: usize, seed: u64) -> Vec<E> {
    random(len, 1.0, seed).iter().map(|&x| E::round(x.into())).collect()
}

/// Float32's tolerance, and of a number that is rounded to E half a unit of it.
fn rounded<E: Element>(tolerance: Tolerance) -> Tolerance {
    match E::NAME {
        "fp32" => tolerance,
        // 2^-11 of each, which over many is 2^-11 / √3 at most; below 2^-14 half of 2^-24.
        _ => Tolerance {
            relative: tolerance.relative + 1.0 / 2048.0,
            global: tolerance.global + 1.0 / 2048.0,
            absolute: tolerance.absolute + 3e-8,
            rms: f64::INFINITY,
        },
    }
}

fn bits<E: Element>(elements: &[E]) -> &[u8] {
    bytemuck::cast_slice(elements)
}

/// One norm's data of S images.
struct Data {
    s: usize,
    r: usize,
    c: usize,
    inp: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Data {
    fn new((s, r, c, mean): (usize, usize, usize, f32)) -> Data {
        let inp = random(s * r * c, 2.0, 1).iter().map(|x| mean + x).collect();
        Data { s, r, c, inp, weight: random(s * c, 1.0, 3), bias: random(s * c, 1.0, 4) }
    }

    /// The last image by itself.
    fn last(&self) -> Data {
        let (image, params) = ((self.s - 1) * self.r * self.c, (self.s - 1) * self.c);
        let [weight, bias] = [&self.weight, &self.bias].map(|x| x[params..].to_vec());
        Data { s: 1, inp: self.inp[image..].to_vec(), weight, bias, ..*self }
    }

    /// Output, mean and rstd, with a set of parameters an image, or the last one's for all.
    fn forward<O: Element>(&self, stream: &Stream, shared: bool) -> Result<(Vec<O>, Vec<f32>, Vec<f32>)> {
        let Data { s, r, c, .. } = *self;
        let upload = |params: &[f32]| match shared {
            true => stream.upload([c], &params[(s - 1) * c..]),
            false => stream.upload([s, c], params),
        };
        let (weight, bias) = (upload(&self.weight)?, upload(&self.bias)?);
        let (out, mean, rstd) =
            (poisoned(stream, [s * r, c]), poisoned(stream, [s * r]), poisoned(stream, [s * r]));
        let inp = stream.upload([s * r, c], &self.inp)?;
        norm_forward(stream, &out, [&mean, &rstd], &inp, &[(&weight).into(), (&bias).into()], EPS)?;
        Ok((stream.read(&out)?, stream.read(&mean)?, stream.read(&rstd)?))
    }

    /// dx, what it has no digits for where it is E, and the sums, by the last image's weight.
    fn backward<D: Element, E: Element>(
        &self,
        stream: &Stream,
        dout: &[E],
        (residual, every): (Option<&[[E; 2]]>, usize),
    ) -> Result<(Vec<D>, Vec<E>, Vec<f32>)> {
        let Data { s, r, c, .. } = *self;
        let (_, mean, rstd) = self.forward::<f32>(stream, true)?;
        let stats = [&stream.vector(&mean)?, &stream.vector(&rstd)?];
        let weight = stream.vector(&self.weight[(s - 1) * c..])?;
        let (dx, low) = (poisoned(stream, [s * r, c]), poisoned(stream, [s * r, c]));
        let (sums, partial) = (poisoned(stream, [s, 3, c]), poisoned(stream, norm_partial_shape(s, r, c)));
        let has_low = D::NAME == E::NAME;
        let residual = match residual {
            None => None,
            Some(rows) => {
                let [high, rest] = [0, 1].map(|i| rows.iter().map(|terms| terms[i]).collect::<Vec<E>>());
                let in_place = every == 1 && has_low;
                let second = if in_place { low.clone() } else { poisoned(stream, [s * r / every, c]) };
                stream.write(&second, &rest)?;
                Some((stream.upload([s * r / every, c], &high)?, second))
            }
        };
        let residual = residual.as_ref().map(|(dx, low)| Residual { dx, low: Some(low), every });
        let to = NormGradient { dx: &dx, low: has_low.then_some(&low), sums: &sums, partial: &partial };
        let (dout, inp) = (stream.upload([s * r, c], dout)?, stream.upload([s * r, c], &self.inp)?);
        norm_backward(stream, to, &dout, &inp, stats, &(&weight).into(), residual)?;
        let low = if has_low { stream.read(&low)? } else { Vec::new() };
        Ok((stream.read(&dx)?, low, stream.read(&sums)?))
    }
}

fn forward<O: Element>(stream: &Stream) -> Result<()> {
    for shape in SHAPES {
        let data = Data::new(shape);
        let Data { s, r, c, .. } = data;
        for shared in [false, true] {
            let (out, mean, rstd) = data.forward::<O>(stream, shared)?;
            let (mut want, mut want_mean, mut want_rstd) = (Vec::new(), Vec::new(), Vec::new());
            for (row, x) in data.inp.chunks(c).enumerate() {
                let group = if shared { s - 1 } else { row / r };
                let param = |p: &[f32]| widen(&p[group * c..][..c]);
                let (m, d, y) =
                    norm_reference(&widen(x), &param(&data.weight), &param(&data.bias), EPS.into());
                want.extend(y);
                want_mean.push(m);
                want_rstd.push(d);
            }
            let wide: Vec<f64> = out.iter().map(|x| x.widen()).collect();
            assert_close(&wide, &want, rounded::<O>(Tolerance::FP32));
            assert_close(&mean, &want_mean, Tolerance { relative: 1e-6, ..Tolerance::absolute(1e-6) });
            assert_close(&rstd, &want_rstd, Tolerance { relative: 1e-5, ..Tolerance::absolute(0.0) });
            let (alone, ..) = data.last().forward::<O>(stream, shared)?;
            assert!(bits(&alone) == bits(&out[(s - 1) * r * c..]));
        }
    }
    Ok(())
}

fn backward<D: Element, E: Element>(stream: &Stream) -> Result<()> {
    for shape in SHAPES {
        let data = Data::new(shape);
        let Data { s, r, c, .. } = data;
        let dout: Vec<E> = elements(s * r * c, 2);
        let weight = widen(&data.weight[(s - 1) * c..]);
        for (adds, every) in [(false, 1), (true, 1), (true, 5)] {
            if r % every != 0 {
                continue;
            }
            let second = f64::from(E::SECOND_TERM);
            let terms = |x: f64| {
                let high = E::round(x);
                [high, E::round((x - high.widen()) / second)]
            };
            let residual: Vec<[E; 2]> =
                random(s * r / every * c, 1.0, 5).iter().map(|&x| terms(x.into())).collect();
            let (mut dx, mut dw, mut db) = (Vec::new(), Vec::new(), Vec::new());
            for (row, (x, dy)) in data.inp.chunks(c).zip(dout.chunks(c)).enumerate() {
                let dy: Vec<f64> = dy.iter().map(|x| x.widen()).collect();
                let [mut d, w, b] = norm_backward_reference(&widen(x), &weight, &dy, EPS.into());
                if adds && row % every == 0 {
                    let of_row = d.iter_mut().zip(&residual[row / every * c..]);
                    of_row.for_each(|(d, [high, low])| *d += high.widen() + second * low.widen());
                }
                dx.extend(d);
                dw.extend(w);
                db.extend(b);
            }
            let sums = [&dw, &db, &dx].map(|x| segment_reference(x, s, c));
            let (got, low, got_sums) =
                data.backward::<D, E>(stream, &dout, (adds.then_some(&residual[..]), every))?;
            let bound = |terms| if shape.3 == 0.0 { Tolerance::of_sums(terms) } else { Tolerance::FP32 };
            // The gradient of a row of one element is exactly 0.
            let of_rows = if c == 1 { Tolerance::EXACT } else { bound(c) };
            let wide: Vec<f64> = got.iter().map(|x| x.widen()).collect();
            let all: Vec<f64> = match low[..] {
                [] => wide.clone(),
                _ => wide.iter().zip(&low).map(|(high, low)| high + second * low.widen()).collect(),
            };
            assert_close(&all, &dx, of_rows);
            // The first term is the whole, rounded.
            let of_first = all.iter().zip(&wide).find(|(all, first)| {
                let half_a_digit = first.abs() / 2048.0 + 3e-8;
                (*all - *first).abs() > half_a_digit
            });
            assert_eq!(of_first, None);
            for (kind, want) in sums.iter().enumerate() {
                let got: Vec<f32> =
                    (0..s).flat_map(|s| &got_sums[(3 * s + kind) * c..][..c]).copied().collect();
                // Sums of dx have the errors of its rows, and cancel where nothing is added.
                let tolerance = if kind == 2 {
                    Tolerance { global: f64::INFINITY, ..Tolerance::absolute(2e-5 + r as f64 * 2e-6) }
                } else {
                    bound(r)
                };
                assert_close(&got, want, tolerance);
            }
            let of_last = adds.then_some(&residual[(s - 1) * r / every * c..]);
            let from = (s - 1) * r * c;
            let (alone, alone_low, alone_sums) =
                data.last().backward::<D, E>(stream, &dout[from..], (of_last, every))?;
            assert!(bits(&alone) == bits(&got[from..]));
            assert!(bits(&alone_low) == bits(&low[low.len() - alone_low.len()..]));
            assert_eq!(alone_sums, got_sums[(s - 1) * 3 * c..]);
        }
    }
    Ok(())
}

device_test!(forward_equals_the_definition, |stream| {
    forward::<f32>(&stream)?;
    forward::<f16>(&stream)?;
});

device_test!(backward_equals_the_definition, |stream| {
    backward::<f32, f32>(&stream)?;
    backward::<f16, f16>(&stream)?;
    backward::<f32, f16>(&stream)?;
});

#[test]
fn the_definition_is_its_own_derivative() {
    let [x, w, b, g] =
        [(2.0, 1), (1.0, 2), (1.0, 3), (1.0, 4)].map(|(spread, seed)| widen(&random(7, spread, seed)));
    let f = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
        norm_reference(x, w, b, 1e-5).2.iter().zip(&g).map(|(y, g)| y * g).sum()
    };
    let [dx, dw, db] = norm_backward_reference(&x, &w, &g, 1e-5);
    finite_difference(&x, |x| f(x, &w, &b), &dx);
    finite_difference(&w, |w| f(&x, w, &b), &dw);
    finite_difference(&b, |b| f(&x, &w, b), &db);
}
