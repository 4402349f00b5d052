//! Results and addends in two terms of float16.

use super::*;

/// A number in two terms, as they come to it.
fn in_terms(x: f32) -> [f16; 2] {
    let first = f16::from_f32(x);
    [first, f16::from_f32((x - first.to_f32()) / f16::SECOND_TERM)]
}

device_test!(results_in_two_terms_are_those_of_float32, |stream| {
    let bits = |terms: &[f16]| terms.iter().map(|x| x.to_bits()).collect::<Vec<u16>>();
    for [m, n, k] in SHAPES {
        let (count, before) = (2, 8);
        let row_len = (before + m * n).next_multiple_of(8) + 8;
        let part = before..before + m * n;
        let (a, b) = (elements::<f16>(count * k * m, 1), elements::<f16>(count * k * n, 2));
        let pitches = [m, n].map(|columns| columns.next_multiple_of(8));
        let padded = |x: &[f16], columns: usize, pitch: usize| -> Result<Tensor<f16>> {
            let rows = x
                .chunks(columns)
                .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(f16::ZERO, pitch - columns)));
            stream.upload([count, k, pitch], &rows.collect::<Vec<f16>>())
        };
        let (a, b) = (padded(&a, m, pitches[0])?, padded(&b, n, pitches[1])?);
        let snapshot = stream.upload([m, n], &random(m * n, 1.0, 3))?;
        for backend in backends::<f16>(&stream) {
            let [want, out]: [Tensor<f32>; 2] =
                [poisoned(&stream, [count, row_len]), poisoned(&stream, [count, row_len])];
            let product = |out: &Tensor<f32>| {
                let (a, b) = (Matrix::columns(&a, 0..m), Matrix::columns(&b, 0..n));
                let out = Matrix::each(out, part.clone(), n);
                Linear::tn(a, b, out).scale(-0.5, 1.0).addend(&snapshot).backend(backend)
            };
            product(&want).run(&stream)?;
            let want: Vec<f32> = stream.read(&want)?;
            for beside in [true, false] {
                let terms: [Tensor<f16>; 2] =
                    [poisoned(&stream, [count, row_len]), poisoned(&stream, [count, row_len])];
                let places = terms.each_ref().map(|term| Matrix::each(term, part.clone(), n));
                stream.fill_bytes(&out, 0xff)?;
                product(&out).in_terms(places, beside).run(&stream)?;
                let got: Vec<f32> = stream.read(&out)?;
                let same = got
                    .iter()
                    .zip(&want)
                    .all(|(got, want)| got.to_bits() == want.to_bits() || !beside && got.is_nan());
                assert!(same, "{backend:?} {m} {n} {k} {beside}");
                let wanted = [0, 1].map(|i| want.iter().map(|&x| in_terms(x)[i]).collect::<Vec<f16>>());
                for (got, want) in terms.iter().zip(&wanted) {
                    let got = stream.read(got)?;
                    for (got, want) in got.chunks(row_len).zip(want.chunks(row_len)) {
                        assert_eq!(
                            bits(&got[part.clone()]),
                            bits(&want[part.clone()]),
                            "{backend:?} {m} {n} {k}"
                        );
                        let beside = got[..before].iter().chain(&got[part.end..]);
                        assert!(beside.into_iter().all(|x| x.is_nan()), "{backend:?}: beside its part");
                    }
                }
            }
        }
    }
});

// Side by side in the memory of floats, as the towers have them, of operands in two terms, activated.
device_test!(rows_in_terms_are_as_good_as_float32, |stream| {
    for [m, n, k] in [[130, 136, 72], [50, 70, 65], [7usize, 4, 8]] {
        let (count, pitch) = (2, usize::next_multiple_of(k, 8));
        let operand = |rows: usize, seed: u64| {
            stream.upload([count * rows, pitch], &elements::<f16>(count * rows * pitch, seed))
        };
        let (a, a2, b) = (operand(m, 1)?, operand(m, 2)?, operand(n, 3)?);
        let terms: Vec<[f16; 2]> = random(count * m * 2 * n, 1.0, 4).iter().map(|&x| in_terms(x)).collect();
        let sums: Vec<f32> =
            terms.iter().map(|[first, second]| first.to_f32() + f16::SECOND_TERM * second.to_f32()).collect();
        // Rows of twice as many columns, of which the first count.
        let side_by_side: Vec<f16> = terms
            .chunks(2 * n)
            .flat_map(|row| {
                [0, 1]
                    .map(|i| row[..n].iter().map(move |x| x[i]))
                    .into_iter()
                    .flatten()
                    .chain(vec![f16::NAN; 2 * n])
            })
            .collect();
        let addend = stream.upload([count * m, 2 * n], &sums)?;
        let in_place = poisoned::<f32>(&stream, [count * m, 2 * n]);
        stream.write(&in_place.halves(), &side_by_side)?;
        for backend in backends::<f16>(&stream) {
            let [float, both]: [Tensor<f32>; 2] =
                [poisoned(&stream, [count * m, n]), poisoned(&stream, [count * m, n])];
            let product = |out: &Tensor<f32>| {
                let [a, a2, b] = [&a, &a2, &b].map(|x| Matrix::columns(x, 0..k).batched(count));
                let product = Linear::nt(a, b, Matrix::from(out).batched(count));
                product.second_terms(Some(a2), None, f16::SECOND_TERM).backend(backend)
            };
            let around = Matrix::columns(&addend, 0..n).batched(count);
            product(&float).addend(around).activation(Activation::Gelu).run(&stream)?;
            let side_by_side = |rows: &Tensor<f32>| -> [Matrix<f16>; 2] {
                let terms = f16::side_by_side(rows, n).into_iter().map(|term| term.batched(count));
                terms.collect::<Vec<_>>().try_into().ok().expect("two terms")
            };
            let product =
                product(&both).addend_in_terms(side_by_side(&in_place)).activation(Activation::Gelu);
            product.in_terms(side_by_side(&both), false).run(&stream)?;
            let (want, got) = (stream.read(&float)?, stream.read(&both.halves())?);
            for (want, got) in want.chunks(n).zip(got.chunks(2 * n)) {
                let want: Vec<f16> =
                    [0, 1].iter().flat_map(|&i| want.iter().map(move |&x| in_terms(x)[i])).collect();
                assert!(
                    want.iter().zip(got).all(|(want, got)| want.to_bits() == got.to_bits()),
                    "{backend:?} {m} {n} {k}"
                );
            }
        }
    }
});

device_test!(terms_that_do_not_lie_alike_are_refused, |stream| {
    let halves = |shape: &[usize]| stream.zeros::<f16>(shape);
    let (a, b, first, other) = (halves(&[4, 8])?, halves(&[6, 8])?, halves(&[4, 6])?, halves(&[4, 12])?);
    let out = stream.zeros([4, 6])?;
    type Product = Linear<f16, f32>;
    let said = |of: fn(Product, [Matrix<f16>; 2]) -> Product, second: Matrix<f16>| {
        let refused = of(Linear::nt(&a, &b, &out), [(&first).into(), second]).run(&stream);
        refused.expect_err("a refusal").to_string()
    };
    let columns = || Matrix::columns(&other, 6..12);
    let result = |product: Linear<f16, f32>, terms| product.in_terms(terms, false);
    assert!(said(result, (&other).into()).contains("out in terms is (4, 12), not (4, 6)"));
    assert!(said(result, columns()).contains("out in terms: the second term is Some(Place"));
    assert!(said(Linear::addend_in_terms, columns()).contains("addend: the second term is Some(Place"));
    let kept = Linear::<f16, f32>::nt(&a, &b, &out).keeping(Activation::Gelu, &first);
    let refused = kept.in_terms([(&first).into(), (&first).into()], false).run(&stream);
    assert!(refused.expect_err("a refusal").to_string().contains("and what is kept"));
});
