//! Results in two terms of float16.

use super::*;

device_test!(results_in_two_terms_are_those_of_float32, |stream| {
    let bits = |terms: &[f16]| terms.iter().map(|x| x.to_bits()).collect::<Vec<u16>>();
    for [m, n, k] in SHAPES {
        let (count, before, scale) = (2, 8, f16::SECOND_TERM);
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
                product(&out).in_terms(places, scale, beside).run(&stream)?;
                let got: Vec<f32> = stream.read(&out)?;
                let same = got
                    .iter()
                    .zip(&want)
                    .all(|(got, want)| got.to_bits() == want.to_bits() || !beside && got.is_nan());
                assert!(same, "{backend:?} {m} {n} {k} {beside}");
                let first: Vec<f16> = want.iter().map(|&x| f16::from_f32(x)).collect();
                let second =
                    want.iter().zip(&first).map(|(x, first)| f16::from_f32((x - first.to_f32()) / scale));
                let second: Vec<f16> = second.collect();
                for (got, want) in [(&terms[0], &first), (&terms[1], &second)] {
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
