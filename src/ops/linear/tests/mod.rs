//! Products against their definition: layouts, shapes, batches, epilogues, types, backends.

use super::*;
use crate::check::{Tolerance, assert_close, poisoned, random};
use crate::device_test;
use crate::gpu::Tensor;

mod terms;

const LAYOUTS: [Layout; 3] = [Layout::Nt, Layout::Nn, Layout::Tn];

/// What a case asks for beside its shape.
#[derive(Clone, Copy, Debug, Default)]
struct Case {
    /// 0: a matrix each.
    batch: usize,
    /// Whether all products share B, bias and addend.
    shared: bool,
    /// Columns of each matrix beside those that take part.
    more: usize,
    bias: bool,
    addend: bool,
    act: Option<(Activation, bool)>,
    scale: Option<(f32, f32)>,
    /// Whether A, and whether B, has a second term.
    second: [bool; 2],
}

/// Numbers of E between -1 and 1.
fn elements<E: Element>(len: usize, seed: u64) -> Vec<E> {
    random(len, 1.0, seed).iter().map(|&x| E::round(x.into())).collect()
}

/// How far a sum of `k` products of factors up to one may be off, whichever way it is added: for each eight products
/// 11 · 2^-24 of the greatest sum on the way (an A100 cuts nine terms to 24 bits below the greatest and their sum to 23,
/// float32 multiply-adds round eight times by half a unit). A sum's deviation is √k / 3; four of them, and what is beside it.
/// Then half a unit of what it is stored as.
fn tolerance<O: Element>(k: usize) -> Tolerance {
    let k = k as f64;
    let greatest = 4.0 * k.sqrt() / 3.0 + 3.0;
    let of_sum = 11.0 / 8.0 * (k + 8.0) * 2f64.powi(-24) * greatest;
    let unit = if size_of::<O>() == 2 { 2f64.powi(-11) } else { 2f64.powi(-22) };
    Tolerance { relative: unit, ..Tolerance::absolute(of_sum + unit / 1024.0) }
}

fn check<E: Element, O: Element + Output<E>>(
    stream: &Stream,
    layout: Layout,
    [m, n, k]: [usize; 3],
    case: Case,
    backend: Backend,
) -> Result<()> {
    let what = format!("{layout:?} {m} x {n} x {k} of {} to {} by {backend:?}, {case:?}", E::NAME, O::NAME);
    let count = case.batch.max(1);
    let common = if case.shared { 1 } else { count };
    let (a_rows, a_columns) = if layout == Layout::Tn { (k, m) } else { (m, k) };
    let (b_rows, b_columns) = if layout == Layout::Nt { (n, k) } else { (k, n) };
    let [mut a_pitch, mut b_pitch, n_pitch] = [a_columns, b_columns, n].map(|columns| columns + case.more);
    if !backend.takes(0) {
        (a_pitch, b_pitch) = (a_pitch.next_multiple_of(8), b_pitch.next_multiple_of(8));
    }
    let shape = |own: usize, rows: usize, pitch: usize| -> Vec<usize> {
        let matrix = [own, rows, pitch];
        if case.batch == 0 || own != count { matrix[1..].to_vec() } else { matrix.to_vec() }
    };
    let shapes = [
        shape(count, a_rows, a_pitch),
        shape(common, b_rows, b_pitch),
        shape(common, m, n_pitch),
        shape(count, m, n_pitch),
    ];
    let len = |i: usize| shapes[i].iter().product::<usize>();
    let (a, b) = (elements::<E>(len(0), 1), elements::<E>(len(1), 2));
    let (addend, bias) = (random(len(2), 1.0, 3), random(common * n, 1.0, 4));
    // Small enough that the product of two second terms does not count, great enough that any other does.
    let second_scale = if k < 256 { 1.0 / 4096.0 } else { 1.0 / 256.0 };
    let second = |i: usize| elements::<E>(if case.second[i] { len(i) } else { 0 }, 6 + i as u64);
    let (a2, b2) = (second(0), second(1));
    let kept: Vec<E> = random(len(3), 3.0, 5).iter().map(|&x| E::round(x.into())).collect();
    let upload = |i: usize| shapes[i].as_slice();
    let d_a = stream.upload(upload(0), &a)?;
    let d_b = stream.upload(upload(1), &b)?;
    let second =
        |i: usize, values: &[E]| case.second[i].then(|| stream.upload(upload(i), values)).transpose();
    let (d_a2, d_b2) = (second(0, &a2)?, second(1, &b2)?);
    let d_addend = stream.upload(upload(2), &addend)?;
    let bias_shape: &[usize] = if case.batch == 0 || case.shared { &[n] } else { &[count, n] };
    let d_bias = stream.upload(bias_shape, &bias)?;
    let is_backward = case.act.is_some_and(|(_, is_forward)| !is_forward);
    let d_kept = if is_backward { stream.upload(upload(3), &kept)? } else { poisoned(stream, upload(3)) };
    let d_out: Tensor<O> = poisoned(stream, upload(3));

    let run = || -> Result<Vec<f64>> {
        let (alpha, beta) = case.scale.unwrap_or((1.0, 1.0));
        let mut linear = Linear::new(
            layout,
            Matrix::columns(&d_a, 0..a_columns),
            Matrix::columns(&d_b, 0..b_columns),
            Matrix::columns(&d_out, 0..n),
        )
        .scale(alpha, beta)
        .backend(backend);
        if case.second != [false; 2] {
            let columns = |term: &Option<Tensor<E>>, columns| {
                term.as_ref().map(|term| Matrix::columns(term, 0..columns))
            };
            let (a2, b2) = (columns(&d_a2, a_columns), columns(&d_b2, b_columns));
            linear = linear.second_terms(a2, b2, second_scale);
        }
        if case.bias {
            linear = linear.bias(&d_bias);
        }
        if case.addend {
            linear = linear.addend(Matrix::columns(&d_addend, 0..n));
        }
        linear = match case.act {
            None => linear,
            Some((kind, true)) => linear.keeping(kind, Matrix::columns(&d_kept, 0..n)),
            Some((kind, false)) => linear.backward(kind, Matrix::columns(&d_kept, 0..n)),
        };
        linear.run(stream)?;
        Ok(stream.read(&d_out)?.into_iter().map(Element::widen).collect())
    };
    let out = run()?;
    assert_eq!(bits(&out), bits(&run()?), "{what}: another run gives other bits");
    let got_kept = stream.read(&d_kept)?;

    let both = |first: &[E], second: &[E], at: usize| {
        first[at].widen() + second.get(at).map_or(0.0, |x| f64::from(second_scale) * x.widen())
    };
    let (alpha, beta) = case.scale.map_or((1.0, 1.0), |(alpha, beta)| (alpha.into(), f64::from(beta)));
    for p in 0..count {
        let q = if case.shared { 0 } else { p };
        let at = |i: usize, j: usize| (p * m + i) * n_pitch + j;
        let mut sums = product_reference(
            layout,
            [m, n, k],
            |i, j| both(&a, &a2, (p * a_rows + i) * a_pitch + j),
            |i, j| both(&b, &b2, (q * b_rows + i) * b_pitch + j),
        );
        let (mut want_kept, mut kept_now) = (Vec::new(), Vec::new());
        for (e, y) in sums.iter_mut().enumerate() {
            let (i, j) = (e / n, e % n);
            *y *= alpha;
            if case.bias {
                *y += beta * f64::from(bias[q * n + j]);
            }
            if case.addend {
                *y += f64::from(addend[(q * m + i) * n_pitch + j]);
            }
            match case.act {
                None => {}
                Some((kind, true)) => {
                    want_kept.push(*y);
                    kept_now.push(got_kept[at(i, j)].widen());
                    *y = activation_reference(*y, kind).0;
                }
                Some((kind, false)) => *y *= activation_reference(kept[at(i, j)].widen(), kind).1,
            }
        }
        let got: Vec<f64> = (0..m * n).map(|e| out[at(e / n, e % n)]).collect();
        println!("{what}, product {p}");
        assert_close(&got, &sums, tolerance::<O>(k));
        assert_close(&kept_now, &want_kept, tolerance::<E>(k));
    }
    // What is beside the columns is not written.
    assert!((0..out.len()).filter(|i| i % n_pitch >= n).all(|i| out[i].is_nan()), "{what}: columns beside");
    Ok(())
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// The backends of E that this device has.
fn backends<E: Element>(stream: &Stream) -> Vec<Backend> {
    let is_half = size_of::<E>() == 2;
    let architecture = stream.gpu().architecture();
    let faster = Backend::FASTER.into_iter().filter(|b| is_half && b.runs_on(architecture));
    faster.chain([Backend::Simt]).collect()
}

/// Every layout of one shape and case, in every type and by every backend.
fn check_all(stream: &Stream, shape: [usize; 3], case: Case) -> Result<()> {
    for layout in LAYOUTS {
        check::<f32, f32>(stream, layout, shape, case, Backend::Simt)?;
        for backend in backends::<f16>(stream) {
            check::<f16, f16>(stream, layout, shape, case, backend)?;
            check::<f16, f32>(stream, layout, shape, case, backend)?;
        }
    }
    Ok(())
}

/// M, N, K: whole tiles, ragged in each, both tiles of N, rows that are and are not multiples of 16 bytes, one.
const SHAPES: [[usize; 3]; 7] =
    [[128, 128, 64], [130, 136, 72], [50, 70, 65], [65, 257, 31], [7, 3, 5], [1, 1, 1], [3, 64, 16]];

device_test!(products_equal_the_definition, |stream| {
    for shape in SHAPES {
        check_all(&stream, shape, Case::default())?;
        let all = Case { bias: true, addend: true, scale: Some((-0.25, 2.0)), ..Case::default() };
        check_all(&stream, shape, all)?;
    }
});

device_test!(activations_equal_the_definition, |stream| {
    for kind in [Activation::QuickGelu, Activation::Gelu] {
        for shape in [[66, 136, 40], [5, 37, 9]] {
            for is_forward in [true, false] {
                let case = Case { bias: true, act: Some((kind, is_forward)), ..Case::default() };
                check_all(&stream, shape, case)?;
            }
        }
    }
});

device_test!(batches_equal_the_definition, |stream| {
    for shape in [[70, 136, 72], [9, 20, 33]] {
        for (shared, more) in [(false, 0), (true, 0), (false, 8), (true, 3)] {
            let case = Case {
                batch: 3,
                shared,
                more,
                bias: true,
                addend: true,
                act: (more == 8).then_some((Activation::QuickGelu, true)),
                ..Case::default()
            };
            check_all(&stream, shape, case)?;
        }
    }
});

device_test!(products_of_two_terms_equal_the_definition, |stream| {
    for second in [[true, false], [false, true], [true, true]] {
        for backend in backends::<f16>(&stream) {
            for shape in SHAPES.into_iter().chain([[100, 300, 768], [3, 136, 3072]]) {
                let case = Case { second, ..Case::default() };
                check::<f16, f32>(&stream, Layout::Nt, shape, case, backend)?;
            }
            let case =
                Case { second, bias: true, addend: true, scale: Some((-0.25, 2.0)), ..Case::default() };
            for case in [case, Case { batch: 3, more: 8, ..case }, Case { batch: 3, shared: true, ..case }] {
                check::<f16, f32>(&stream, Layout::Nt, [70, 136, 72], case, backend)?;
            }
            let case = Case { act: Some((Activation::QuickGelu, true)), ..case };
            check::<f16, f16>(&stream, Layout::Nt, [66, 136, 40], case, backend)?;
        }
    }
});

device_test!(layers_of_vits_equal_the_definition, |stream| {
    // N, K of ViT-B/32 and L/14: attention's two, the MLP's two, patches and projection.
    let layers = [
        [2304, 768],
        [768, 768],
        [3072, 768],
        [768, 3072],
        [512, 768],
        [3072, 1024],
        [1024, 1024],
        [4096, 1024],
        [1024, 4096],
        [768, 1024],
        [1024, 588],
    ];
    for [n, k] in layers {
        for backend in backends::<f16>(&stream) {
            let case = Case { bias: true, ..Case::default() };
            check::<f16, f16>(&stream, Layout::Nt, [3, n, k], case, backend)?;
            check::<f16, f16>(&stream, Layout::Nn, [3, k, n], Case::default(), backend)?;
            check::<f16, f32>(&stream, Layout::Tn, [n / 16, k, 50], Case::default(), backend)?;
        }
        check::<f32, f32>(&stream, Layout::Nt, [3, n, k], Case::default(), Backend::Simt)?;
    }
});

/// Rows alone, at the end of more of them, and in a batch.
fn rows_have_their_own_bits<E: Element, O: Element + Output<E>>(
    stream: &Stream,
    backend: Backend,
) -> Result<()> {
    let [n, k, rows] = [136, 200, 150];
    let (inp, weight) = (elements::<E>(rows * k, 1), elements::<E>(n * k, 2));
    let (d_inp, d_weight) = (stream.upload([rows, k], &inp)?, stream.upload([n, k], &weight)?);
    let all: Tensor<O> = poisoned(stream, [rows, n]);
    Linear::nt(&d_inp, &d_weight, &all).backend(backend).run(stream)?;
    let all: Vec<f64> = stream.read(&all)?.into_iter().map(Element::widen).collect();
    for (from, count) in [(0, 1), (149, 1), (20, 130), (63, 66)] {
        let part: Tensor<O> = poisoned(stream, [count, n]);
        Linear::nt(&d_inp.rows(from..from + count), &d_weight, &part).backend(backend).run(stream)?;
        let part: Vec<f64> = stream.read(&part)?.into_iter().map(Element::widen).collect();
        assert_eq!(bits(&part), bits(&all[from * n..][..count * n]), "{backend:?}: rows {from} + {count}");
    }
    let batch: Tensor<O> = poisoned(stream, [3, 50, n]);
    Linear::nt(&d_inp.view([3, 50, k]), &d_weight, &batch).backend(backend).run(stream)?;
    let batch: Vec<f64> = stream.read(&batch)?.into_iter().map(Element::widen).collect();
    assert_eq!(bits(&batch), bits(&all), "{backend:?}: in a batch");
    Ok(())
}

device_test!(a_rows_bits_depend_on_no_other_row, |stream| {
    rows_have_their_own_bits::<f32, f32>(&stream, Backend::Simt)?;
    for backend in backends::<f16>(&stream) {
        rows_have_their_own_bits::<f16, f16>(&stream, backend)?;
        rows_have_their_own_bits::<f16, f32>(&stream, backend)?;
    }
});

device_test!(unaligned_rows_give_the_same, |stream| {
    let [m, n, k] = [70, 136, 64];
    let (inp, weight) = (elements::<f16>(m * k + 8, 1), elements::<f16>(n * k, 2));
    let d_weight = stream.upload([n, k], &weight)?;
    for backend in backends::<f16>(&stream).into_iter().filter(|backend| backend.takes(0)) {
        let run = |inp: &Tensor<f16>| -> Result<Vec<f32>> {
            let out = poisoned(&stream, [m, n]);
            Linear::nt(inp, &d_weight, &out).backend(backend).run(&stream)?;
            stream.read(&out)
        };
        let shifted = stream.upload([m * k + 8, 1], &inp)?.rows(1..m * k + 1).view([m, k]);
        let aligned = stream.upload([m, k], &inp[1..m * k + 1])?;
        assert_eq!(run(&shifted)?, run(&aligned)?, "{backend:?}");
    }
});

device_test!(a_backend_that_does_not_take_unaligned_rows_says_so, |stream| {
    let [m, n, k] = [70, 136, 63];
    let (a, b, out) = (stream.zeros::<f16>([m, k])?, stream.zeros([n, k])?, stream.alloc::<f32>([m, n])?);
    for backend in backends::<f16>(&stream).into_iter().filter(|backend| !backend.takes(0)) {
        let refused = Linear::nt(&a, &b, &out).backend(backend).run(&stream).expect_err("a refusal");
        assert!(refused.to_string().contains("multiples of 16 bytes"), "{refused}");
    }
    Linear::nt(&a, &b, &out).run(&stream)?;
    assert!(stream.read(&out)?.iter().all(|&x| x == 0.0));
});

device_test!(out_may_be_the_addend, |stream| {
    let [m, n, k] = [70, 136, 40];
    let (a, b, x) = (elements::<f16>(m * k, 1), elements::<f16>(n * k, 2), random(m * n, 1.0, 3));
    let (a, b) = (stream.upload([m, k], &a)?, stream.upload([n, k], &b)?);
    for backend in backends::<f16>(&stream) {
        let (out, addend) = (poisoned(&stream, [m, n]), stream.upload([m, n], &x)?);
        Linear::nt(&a, &b, &out).addend(&addend).backend(backend).run(&stream)?;
        let want: Vec<f32> = stream.read(&out)?;
        Linear::nt(&a, &b, &addend).addend(&addend).backend(backend).run(&stream)?;
        assert_eq!(stream.read(&addend)?, want, "{backend:?}");
    }
});

device_test!(of_no_columns_what_is_added_stays, |stream| {
    let [m, n] = [70, 136];
    let (a, b, x) = (stream.zeros::<f32>([m, 5])?, stream.zeros([n, 5])?, random(m * n, 1.0, 3));
    let (addend, out) = (stream.upload([m, n], &x)?, poisoned::<f32>(&stream, [m, n]));
    let nothing = || Linear::nt(Matrix::columns(&a, 2..2), Matrix::columns(&b, 3..3), &out);
    nothing().addend(&addend).run(&stream)?;
    assert_eq!(stream.read(&out)?, x);
    nothing().run(&stream)?;
    assert_eq!(stream.read(&out)?, vec![0.0; m * n]);

    let (a, b) = (stream.zeros::<f16>([m, 8])?, stream.zeros([n, 8])?);
    let half = Linear::nt(Matrix::columns(&a, 0..0), Matrix::columns(&b, 0..0), &out).run(&stream);
    assert!(half.expect_err("a refusal").to_string().contains("sums of nothing, in fp16"));
});

device_test!(shapes_that_do_not_fit_are_refused, |stream| {
    let zeros = |shape: &[usize]| stream.zeros::<f32>(shape);
    let (a, b, out, bias) = (zeros(&[4, 8])?, zeros(&[6, 8])?, zeros(&[4, 6])?, zeros(&[6])?);
    let said = |linear: Linear<f32, f32>| linear.run(&stream).expect_err("a refusal").to_string();
    Linear::nt(&a, &b, &out).bias(&bias).run(&stream)?;
    assert_eq!(said(Linear::nn(&a, &b, &out)), "linear: B is (6, 8), not (8, 6)");
    assert_eq!(said(Linear::tn(&a, &b, &out)), "linear: A is (4, 8), not (4, 4)");
    assert!(said(Linear::nt(&a, &b, &out).addend(&a)).contains("addend is (4, 8), not (4, 6)"));
    assert!(said(Linear::nt(&a, &b, &out).bias(&a)).contains("bias"));
    assert!(said(Linear::nt(&a, &b, &out).backward(Activation::Gelu, &b)).contains("kept is (6, 8)"));
    assert!(said(Linear::nt(&a.view([2, 2, 8]), &b, &out)).contains("A is (2, 8), not (4, 8)"));
    let (two, three) = (zeros(&[2, 4, 6])?, zeros(&[3, 4, 8])?);
    assert!(said(Linear::nt(&three, &b, &two)).contains("A is for 3 products, out for 2"));
    assert!(said(Linear::nt(&three.view([96]), &b, &two)).contains("neither a matrix nor"));
    assert!(said(Linear::nt(Matrix::columns(&a, 1..9), &b, &out)).contains("columns 1..9 of A"));
    let second = |x: &Tensor<f32>| Some(Matrix::from(x));
    assert!(said(Linear::nt(&a, &b, &out).second_terms(second(&b), None, 1.0)).contains("A's second term"));
    let in_terms = |first: &Tensor<f32>, second: &Tensor<f32>| {
        said(Linear::nt(&a, &b, &out).in_terms([first.into(), second.into()], true))
    };
    assert!(in_terms(&out, &out).contains("fp32 of fp32 in terms"));
    assert!(
        said(Linear::nn(&a, &b.view([8, 6]), &out).second_terms(second(&a), None, 1.0)).contains("in Nn")
    );
});

device_test!(float32_is_not_multiplied_as_float16, |stream| {
    let (a, b, out) = (stream.zeros::<f32>([8, 8])?, stream.zeros([8, 8])?, stream.zeros::<f32>([8, 8])?);
    for backend in [Backend::Mma, Backend::Wgmma] {
        let refused = Linear::nt(&a, &b, &out).backend(backend).run(&stream).unwrap_err();
        assert!(refused.to_string().contains("multiplies float16 alone"), "{refused}");
    }
});

/// Products whose operands or results are parts of longer rows equal those of matrices by themselves.
fn parts_of_rows<E: Element>(stream: &Stream, backend: Backend) -> Result<()> {
    let (count, m, n, k, before, behind) = (3, 50, 72, 136, 64, 192);
    let part = before..before + n * k;
    let row_len = part.end + behind;
    let (a, b) = (elements::<E>(count * m * k, 1), elements::<E>(count * row_len, 2));
    let own: Vec<E> = b.chunks(row_len).flat_map(|row| &row[part.clone()]).copied().collect();
    let (a, b) = (stream.upload([count, m, k], &a)?, stream.upload([count, row_len], &b)?);
    let own = stream.upload([count, n, k], &own)?;

    let [out, want]: [Tensor<f32>; 2] = [poisoned(stream, [count, m, n]), poisoned(stream, [count, m, n])];
    Linear::nt(&a, Matrix::each(&b, part.clone(), k), &out).backend(backend).run(stream)?;
    Linear::nt(&a, &own, &want).backend(backend).run(stream)?;
    assert_eq!(stream.read(&out)?, stream.read(&want)?);

    // A weight's gradient, (n, k) of (m, n) and (m, k), added to another part.
    let dout = stream.upload([count, m, n], &elements::<E>(count * m * n, 3))?;
    let snapshot = stream.upload([count, row_len], &random(count * row_len, 1.0, 4))?;
    let (place, want): (Tensor<f32>, Tensor<f32>) =
        (poisoned(stream, [count, row_len]), poisoned(stream, [count, n, k]));
    Linear::tn(&dout, &a, Matrix::each(&place, part.clone(), k))
        .scale(-0.5, 1.0)
        .addend(Matrix::each(&snapshot, part.clone(), k))
        .backend(backend)
        .run(stream)?;
    Linear::tn(&dout, &a, &want).scale(-0.5, 1.0).backend(backend).run(stream)?;
    let (place, want, snapshot) = (stream.read(&place)?, stream.read(&want)?, stream.read(&snapshot)?);
    for (p, row) in place.chunks(row_len).enumerate() {
        for (i, x) in row.iter().enumerate() {
            match i.checked_sub(before).filter(|i| *i < n * k) {
                Some(at) => {
                    let sum = f64::from(want[p * n * k + at]) + f64::from(snapshot[p * row_len + i]);
                    assert!((f64::from(*x) - sum).abs() < 1e-5, "{p} {i}: {x}, not {sum}");
                }
                None => assert!(x.is_nan(), "{p} {i}: written past its part"),
            }
        }
    }
    Ok(())
}

device_test!(parts_of_rows_are_matrices, |stream| {
    parts_of_rows::<f32>(&stream, Backend::Simt)?;
    for backend in backends::<f16>(&stream) {
        parts_of_rows::<f16>(&stream, backend)?;
    }
});
