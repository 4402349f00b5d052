//! Both passes against the definition; an image's bits by itself and in a batch.

use std::ops::Range;

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

    /// dx and the sums, by the last image's weight.
    fn backward<E: Element>(
        &self,
        stream: &Stream,
        dout: &[E],
        (residual, every): (Option<&[E]>, usize),
    ) -> Result<(Vec<E>, Vec<f32>)> {
        let Data { s, r, c, .. } = *self;
        let (_, mean, rstd) = self.forward::<f32>(stream, true)?;
        let stats = [&stream.vector(&mean)?, &stream.vector(&rstd)?];
        let weight = stream.vector(&self.weight[(s - 1) * c..])?;
        let (dx, sums) = (poisoned(stream, [s * r, c]), poisoned(stream, [s, 3, c]));
        let partial = poisoned(stream, norm_partial_shape(s, r, c, None));
        let residual = residual.map(|rows| stream.upload([s * r / every, c], rows)).transpose()?;
        let residual = residual.as_ref().map(|dx| Residual { dx, every });
        let to = NormGradient { dx: &dx, partial: &partial };
        let (dout, inp) = (stream.upload([s * r, c], dout)?, stream.upload([s * r, c], &self.inp)?);
        norm_backward(stream, to, &dout, &inp, stats, &(&weight).into(), residual)?;
        norm_sums(stream, &sums, &partial)?;
        Ok((stream.read(&dx)?, stream.read(&sums)?))
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

fn backward<E: Element>(stream: &Stream) -> Result<()> {
    for shape in SHAPES {
        let data = Data::new(shape);
        let Data { s, r, c, .. } = data;
        let dout: Vec<E> = elements(s * r * c, 2);
        let weight = widen(&data.weight[(s - 1) * c..]);
        for (adds, every) in [(false, 1), (true, 1), (true, 5)] {
            if r % every != 0 {
                continue;
            }
            let residual: Vec<E> = elements(s * r / every * c, 5);
            let (mut dx, mut dw, mut db) = (Vec::new(), Vec::new(), Vec::new());
            for (row, (x, dy)) in data.inp.chunks(c).zip(dout.chunks(c)).enumerate() {
                let dy: Vec<f64> = dy.iter().map(|x| x.widen()).collect();
                let [mut d, w, b] = norm_backward_reference(&widen(x), &weight, &dy, EPS.into());
                if adds && row % every == 0 {
                    let of_row = d.iter_mut().zip(&residual[row / every * c..]);
                    of_row.for_each(|(d, residual)| *d += residual.widen());
                }
                dx.extend(d);
                dw.extend(w);
                db.extend(b);
            }
            let sums = [&dw, &db, &dx].map(|x| segment_reference(x, s, c));
            let residual_of = |rows: Range<usize>| (adds.then_some(&residual[rows]), every);
            let (got, got_sums) = data.backward(stream, &dout, residual_of(0..residual.len()))?;
            let bound = |terms| if shape.3 == 0.0 { Tolerance::of_sums(terms) } else { Tolerance::FP32 };
            // The gradient of a row of one element is exactly 0.
            let of_rows = if c == 1 { Tolerance::EXACT } else { bound(c) };
            let wide: Vec<f64> = got.iter().map(|x| x.widen()).collect();
            assert_close(&wide, &dx, rounded::<E>(of_rows));
            // Rounded once, where it is stored: what float32 makes of the same numbers, to the bit.
            let floats = |of: &[E]| of.iter().map(|x| x.widen() as f32).collect::<Vec<f32>>();
            let above = floats(&residual);
            let exact = data.backward(stream, &floats(&dout), (adds.then_some(&above[..]), every))?;
            assert!(bits(&got) == bits(&exact.0.iter().map(|&x| E::round(x.into())).collect::<Vec<E>>()));
            assert_eq!(got_sums, exact.1);
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
            let (from, of_last) = ((s - 1) * r * c, residual_of((s - 1) * r / every * c..residual.len()));
            let (alone, alone_sums) = data.last().backward(stream, &dout[from..], of_last)?;
            assert!(bits(&alone) == bits(&got[from..]));
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
    backward::<f32>(&stream)?;
    backward::<f16>(&stream)?;
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

/// Rows in terms, as they come to the numbers.
fn terms_of(rows: &[f32], c: usize) -> Vec<f16> {
    let second = |x: f32| f16::from_f32((x - f16::from_f32(x).to_f32()) / f16::SECOND_TERM);
    let row =
        |row: &[f32]| row.iter().map(|&x| f16::from_f32(x)).chain(row.iter().map(|&x| second(x))).collect();
    rows.chunks(c).flat_map(|x| -> Vec<f16> { row(x) }).collect()
}

device_test!(rows_in_terms_have_the_same_bits, |stream| {
    for shape in SHAPES {
        let mut data = Data::new(shape);
        // So that first terms are all there is to the input.
        data.inp.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
        let Data { s, r, c, .. } = data;
        let (rows, stats) = (s * r, [poisoned(&stream, s * r), poisoned(&stream, s * r)]);
        let (weight, bias) = (stream.upload([s, c], &data.weight)?, stream.upload([s, c], &data.bias)?);
        let (stats, params) = ([&stats[0], &stats[1]], [Param::from(&weight), Param::from(&bias)]);
        let inp = stream.upload([rows, c], &data.inp)?;
        let terms = poisoned::<f32>(&stream, [rows, c]);
        stream.write(&terms.halves(), &terms_of(&data.inp, c))?;

        let (float, both) = (poisoned::<f32>(&stream, [rows, c]), poisoned::<f32>(&stream, [rows, c]));
        norm_forward(&stream, &float, stats, &inp, &params, EPS)?;
        norm_forward(&stream, Rows::new(&both, true), stats, &inp, &params, EPS)?;
        assert!(bits(&stream.read(&both.halves())?) == bits(&terms_of(&stream.read(&float)?, c)));

        let (half, of_terms) = (poisoned::<f16>(&stream, [rows, c]), poisoned::<f16>(&stream, [rows, c]));
        norm_forward(&stream, &half, stats, &inp, &params, EPS)?;
        norm_forward(&stream, &of_terms, stats, Rows::new(&terms, true), &params, EPS)?;
        assert!(bits(&stream.read(&of_terms)?) == bits(&stream.read(&half)?));

        let dout = stream.upload([rows, c], &elements::<f16>(rows * c, 2))?;
        let backward = |inp: Rows<f32>| -> Result<(Vec<f16>, Vec<f32>)> {
            let (dx, sums) = (poisoned::<f16>(&stream, [rows, c]), poisoned(&stream, [s, 3, c]));
            let partial = poisoned(&stream, norm_partial_shape(s, r, c, None));
            let to = NormGradient { dx: &dx, partial: &partial };
            norm_backward(&stream, to, &dout, inp, stats, &params[0], None)?;
            norm_sums(&stream, &sums, &partial)?;
            Ok((stream.read(&dx)?, stream.read(&sums)?))
        };
        let (want, got) = (backward((&inp).into())?, backward(Rows::new(&terms, true))?);
        assert!(bits(&got.0) == bits(&want.0) && got.1 == want.1);
    }
});

/// Of tokens of S images' N views, T tokens of C, what rows that hold them come to.
fn tokens<E: Element>(stream: &Stream) -> Result<()> {
    for [s, n, t, c] in [[3, 4, 50, 768], [2, 17, 5, 33], [1, 1, 2, 1], [2, 3, 2, 1024], [1, 9, 3, 2050]] {
        let (b, rows) = (s * n, s * n * t);
        let patches = random(b * (t - 1) * c, 2.0, 1);
        let embeddings = [random(s * c, 1.0, 2), random(s * t * c, 1.0, 3)];
        let params = [random(s * c, 1.0, 4), random(s * c, 1.0, 5)];
        let dout: Vec<E> = elements(rows * c, 6);
        let d_dout = stream.upload([rows, c], &dout)?;
        let d_patches = stream.upload([b, t - 1, c], &patches)?;
        for groups in [1, s] {
            let upload = |of_images: &[f32]| {
                let of_groups = &of_images[..of_images.len() / s * groups];
                match groups {
                    1 => stream.vector(of_groups),
                    _ => stream.upload([groups, of_groups.len() / groups], of_groups),
                }
            };
            let [class, position] = [upload(&embeddings[0])?, upload(&embeddings[1])?];
            let [class, position] = [Param::from(&class), Param::from(&position)];
            let [weight, bias] = [upload(&params[0])?, upload(&params[1])?];
            let params_of = [Param::from(&weight), Param::from(&bias)];
            let tokens = Tokens { patches: &d_patches, class: &class, position: &position };
            let held: Vec<f32> = patches
                .chunks((t - 1) * c)
                .enumerate()
                .flat_map(|(view, patches)| {
                    let group = view / (b / groups);
                    let [class, position] =
                        [(0, c), (1, t * c)].map(|(i, len)| &embeddings[i][group * len..][..len]);
                    tokens_reference(patches, class, position)
                })
                .collect();
            let inp = stream.upload([rows, c], &held)?;

            let both: [Input; 2] = [tokens.into(), (&inp).into()];
            let stats = || [poisoned(stream, [rows]), poisoned(stream, [rows])];
            let (stats, outs) =
                ([stats(), stats()], [poisoned(stream, [rows, c]), poisoned(stream, [rows, c])]);
            for ((inp, out), [mean, rstd]) in both.into_iter().zip(&outs).zip(&stats) {
                norm_forward::<f32>(stream, out, [mean, rstd], inp, &params_of, EPS)?;
            }
            assert!(stream.read(&outs[0])? == stream.read(&outs[1])?, "{s} {n} {t} {c} {groups}");
            for (of_tokens, of_rows) in stats[0].iter().zip(&stats[1]) {
                assert_eq!(stream.read(of_tokens)?, stream.read(of_rows)?);
            }

            let [mean, rstd] = &stats[0];
            let (dpatches, dx) = (poisoned::<E>(stream, [b, t - 1, c]), poisoned::<E>(stream, [rows, c]));
            let partial = poisoned(stream, norm_partial_shape(s, n * t, c, Some(t)));
            let to = NormGradient { dx: &dpatches, partial: &partial };
            norm_backward(stream, to, &d_dout, tokens, [mean, rstd], &params_of[0], None)?;
            let of_rows = poisoned(stream, norm_partial_shape(s, n * t, c, None));
            let to = NormGradient { dx: &dx, partial: &of_rows };
            norm_backward(stream, to, &d_dout, &inp, [mean, rstd], &params_of[0], None)?;
            let want: Vec<E> = stream.read(&dx)?.chunks(t * c).flat_map(|view| view[c..].to_vec()).collect();
            assert!(bits(&stream.read(&dpatches)?) == bits(&want), "{s} {n} {t} {c} {groups}");

            let sums = [poisoned(stream, [s, 3, c]), poisoned(stream, [s, 3, c])];
            norm_sums(stream, &sums[0], &partial)?;
            norm_sums(stream, &sums[1], &of_rows)?;
            let [got, want] = [stream.read(&sums[0])?, stream.read(&sums[1])?];
            // Of as many numbers below 8 or so, in another order.
            assert_close(
                &got,
                &want,
                Tolerance { global: f64::INFINITY, ..Tolerance::absolute(1e-5 * (n * t) as f64) },
            );
            // The positions' gradient is the sum over the views.
            let partial = stream.read(&partial)?;
            for image in 0..s {
                let mut positions = vec![0.0; t * c];
                for row in image * n * t..(image + 1) * n * t {
                    let [inp, dout] = [
                        &held[row * c..][..c],
                        &dout[row * c..][..c].iter().map(|x| x.widen() as f32).collect::<Vec<_>>(),
                    ]
                    .map(widen);
                    let group = image * groups / s;
                    let d = norm_backward_reference(
                        &inp,
                        &widen(&params[0][group * c..][..c]),
                        &dout,
                        EPS.into(),
                    )[0]
                    .clone();
                    positions[row % t * c..].iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
                }
                let got = &partial[(3 * image + 2) * t * c..][..t * c];
                let tolerance = Tolerance::absolute(2e-5 + n as f64 * 2e-6);
                assert_close(got, &positions, Tolerance { global: f64::INFINITY, ..tolerance });
            }
        }
    }
    Ok(())
}

device_test!(tokens_are_as_rows_that_hold_them, |stream| {
    tokens::<f32>(&stream)?;
    tokens::<f16>(&stream)?;
});
