use std::slice::from_ref;

use super::*;
use crate::check::{Tolerance, assert_close, poisoned, random, widen};
use crate::device_test;

/// Images, and lengths of parameters: whole pieces, several, odd lengths in odd places, and one of everything.
const SHAPES: [(usize, &[usize]); 4] =
    [(3, &[768, 2304, 1025, 5, 38_400]), (2, &[1024, 4, 2048]), (9, &[3, 4]), (1, &[1])];

/// A parameter that all images share, and where its results begin.
struct Shared {
    tensor: Tensor<f32>,
    column: usize,
}

/// Parameters one behind the other, and all their values.
fn shared(stream: &Stream, lens: &[usize]) -> Result<(Vec<Shared>, Vec<f32>)> {
    let mut all = Vec::new();
    let params = lens.iter().map(|&len| {
        let (values, column) = (random(len, 1.0, len as u64), all.len());
        all.extend(&values);
        Ok(Shared { tensor: stream.vector(&values)?, column })
    });
    Ok((params.collect::<Result<_>>()?, all))
}

/// With a table of its own.
fn steps(stream: &Stream, shape: [usize; 2], steps: Vec<Step>) -> Result<Steps> {
    let table = stream.alloc(table_bytes(steps.iter().map(|step| step.param.len())))?;
    Steps::new(stream, &table, shape, steps)
}

/// As [`super::step`], at the pace that the stride has.
fn step(
    stream: &Stream,
    optimizer: Optimizer,
    steps: &Steps,
    out: &Tensor<f32>,
    states: &[Tensor<f32>],
    flags: &Tensor<u32>,
    stride: Stride,
) -> Result<()> {
    let pace = stream.vector(&optimizer.pace(stride.learning_rate, stride.number))?;
    super::step::<f32>(stream, optimizer, steps, (out, &[]), states, flags, (stride, &pace))
}

/// From shared parameters, by gradients that lie where the results do.
fn from_shared(stream: &Stream, params: &[Shared], grad: &Tensor<f32>) -> Result<Steps> {
    let step = |Shared { tensor, column }: &Shared| Step {
        param: tensor.into(),
        grad: Param::each(grad, *column..column + tensor.len()),
        column: *column,
    };
    let &[s, width] = grad.shape() else { panic!("gradients of images") };
    steps(stream, [s, width], params.iter().map(step).collect())
}

/// Each image's own, in place.
fn from_own(stream: &Stream, grad: &Tensor<f32>, own: &Tensor<f32>) -> Result<Steps> {
    let &[s, width] = own.shape() else { panic!("parameters of images") };
    steps(stream, [s, width], vec![Step { param: own.into(), grad: grad.into(), column: 0 }])
}

device_test!(plain_steps_equal_the_definition, |stream| {
    for (s, lens) in SHAPES {
        let width: usize = lens.iter().sum();
        let grads = random(s * width, 3.0, 1);
        let (grad, out) = (stream.upload([s, width], &grads)?, poisoned::<f32>(&stream, [s, width]));
        let flags = stream.zeros([s])?;
        let (params, all) = shared(&stream, lens)?;
        let steps = from_shared(&stream, &params, &grad)?;
        assert_eq!(steps.len(), lens.len());
        step_plain(&stream, &steps, &out, &flags, 0.1)?;
        let want: Vec<f32> = (0..s * width).map(|i| (-0.1f32).mul_add(grads[i], all[i % width])).collect();
        assert_eq!(stream.read(&out)?, want);
        assert_eq!(stream.read(&flags)?, vec![0; s]);

        // Each image's own parameters, in place.
        step_plain(&stream, &from_own(&stream, &grad, &out)?, &out, &flags, 0.2)?;
        let want: Vec<f32> = want.iter().zip(&grads).map(|(x, g)| (-0.2f32).mul_add(*g, *x)).collect();
        assert_eq!(stream.read(&out)?, want);
    }
});

device_test!(what_does_not_fit_is_refused, |stream| {
    let (param, grad) = (stream.vector(&[1.0; 4])?, stream.zeros([2, 6])?);
    let steps =
        |shape, param: Param, grad: Param, column| steps(&stream, shape, vec![Step { param, grad, column }]);
    let (all, part) = (|| Param::from(&param), || Param::each(&grad, 1..5));
    let fits = steps([2, 6], all(), part(), 2)?;
    assert!(steps([2, 6], all(), part(), 3).is_err());
    assert!(steps([2, 6], all(), Param::each(&grad, 0..5), 0).is_err());
    assert!(steps([2, 6], all(), all(), 0).is_err());
    assert!(steps([3, 6], all(), part(), 0).is_err());
    assert!(steps([3, 6], part(), Param::each(&stream.zeros([3, 4])?, 0..4), 0).is_err());
    let short = Step { param: all(), grad: part(), column: 2 };
    assert!(Steps::new(&stream, &stream.zeros(47)?, [2, 6], vec![short]).is_err());
    let out = stream.zeros([2, 6])?;
    assert!(step_plain(&stream, &fits, &out, &stream.zeros(3)?, 0.1).is_err());
    assert!(step_plain(&stream, &fits, &stream.zeros([2, 7])?, &stream.zeros(2)?, 0.1).is_err());

    let (adamw, flags) = (Optimizer::AdamW { weight_decay: 0.0 }, stream.zeros(2)?);
    let take = |shapes: &[[usize; 2]], number| {
        let states: Vec<_> = shapes.iter().map(|&shape| stream.zeros(shape)).collect::<Result<_>>()?;
        step(
            &stream,
            adamw,
            &fits,
            &out,
            &states,
            &flags,
            Stride { number, learning_rate: 0.1, loss_scale: 1.0 },
        )
    };
    take(&[], 0)?;
    take(&[[2, 6]; 2], 1)?;
    assert!(take(&[], 1).is_err());
    assert!(take(&[[2, 6]], 0).is_err());
    assert!(take(&[[2, 6], [2, 5]], 1).is_err());
});

const OPTIMIZERS: [Optimizer; 5] = [
    Optimizer::Sgd { momentum: 0.9, weight_decay: 0.0 },
    Optimizer::Sgd { momentum: 0.9, weight_decay: 0.3 },
    Optimizer::Sgd { momentum: 0.0, weight_decay: 0.3 },
    Optimizer::AdamW { weight_decay: 0.3 },
    Optimizer::AdamW { weight_decay: 0.0 },
];

/// All parameters of `s` images after each of three steps, and the gradients.
fn three_steps(
    stream: &Stream,
    optimizer: Optimizer,
    (s, lens): (usize, &[usize]),
    grads: &[Vec<f32>],
) -> Result<Vec<Vec<f32>>> {
    let width: usize = lens.iter().sum();
    let (grad, out) = (poisoned(stream, [s, width]), poisoned(stream, [s, width]));
    let (params, _) = shared(stream, lens)?;
    let states: Vec<_> = (0..optimizer.states(3)).map(|_| poisoned(stream, [s, width])).collect();
    let flags = stream.zeros(s)?;
    let tables = [from_shared(stream, &params, &grad)?, from_own(stream, &grad, &out)?];
    let mut after = Vec::new();
    for (number, grads) in grads.iter().enumerate() {
        stream.write(&grad, grads)?;
        let stride = Stride { number, learning_rate: 0.05, loss_scale: 8.0 };
        step(stream, optimizer, &tables[number.min(1)], &out, &states, &flags, stride)?;
        after.push(stream.read(&out)?);
    }
    assert_eq!(stream.read(&flags)?, vec![0; s]);
    Ok(after)
}

device_test!(steps_of_every_optimizer_equal_the_definition, |stream| {
    for (optimizer, (s, lens)) in OPTIMIZERS.into_iter().flat_map(|o| SHAPES.map(|shape| (o, shape))) {
        let width: usize = lens.iter().sum();
        let all = widen(&shared(&stream, lens)?.1);
        let mut grads: Vec<Vec<f32>> = (1..4).map(|seed| random(s * width, 24.0, seed)).collect();
        // No gradient at all, and one that AdamW's epsilon weighs as much as.
        (grads[0][0], grads[1][0], grads[2][0]) = (0.0, 0.0, 8e-8);
        let after = three_steps(&stream, optimizer, (s, lens), &grads)?;
        for steps in 1..=3 {
            let of = |i: usize| -> Vec<f64> {
                grads[..steps].iter().map(|grads| f64::from(grads[i]) / 8.0).collect()
            };
            let rate = f64::from(0.05f32);
            let want: Vec<f64> =
                (0..s * width).map(|i| step_reference(optimizer, rate, all[i % width], &of(i))).collect();
            // Of a step of order 0.05 or a few times that, a few roundings.
            let tolerance = Tolerance { relative: 2e-7, global: 2e-7, ..Tolerance::absolute(1e-7) };
            assert_close(&after[steps - 1], &want, tolerance);
        }
        // An image by itself has the same bits.
        let last: Vec<Vec<f32>> = grads.iter().map(|grads| grads[(s - 1) * width..].to_vec()).collect();
        let alone = three_steps(&stream, optimizer, (1, lens), &last)?;
        assert_eq!(alone[2], after[2][(s - 1) * width..]);
    }
});

device_test!(the_only_step_needs_no_state, |stream| {
    let (s, lens) = SHAPES[0];
    let width: usize = lens.iter().sum();
    let grads = random(s * width, 24.0, 1);
    let (params, _) = shared(&stream, lens)?;
    for optimizer in OPTIMIZERS {
        let (grad, out) = (stream.upload([s, width], &grads)?, poisoned(&stream, [s, width]));
        let steps = from_shared(&stream, &params, &grad)?;
        let stride = Stride { number: 0, learning_rate: 0.05, loss_scale: 8.0 };
        step(&stream, optimizer, &steps, &out, &[], &stream.zeros(s)?, stride)?;
        assert_eq!(stream.read(&out)?, three_steps(&stream, optimizer, (s, lens), from_ref(&grads))?[0]);
    }
});

device_test!(overflow_is_flagged_and_flags_stay, |stream| {
    for (s, lens) in SHAPES {
        let width: usize = lens.iter().sum();
        let grads = random(s * width, 6e4, 1);
        let (grad, out) = (poisoned(&stream, [s, width]), poisoned(&stream, [s, width]));
        let steps = from_shared(&stream, &shared(&stream, lens)?.0, &grad)?;
        let flags = stream.zeros(s)?;
        let take = |flags: &Tensor<u32>, with: Option<(usize, f32)>| -> Result<Vec<Vec<u32>>> {
            let mut grads = grads.clone();
            with.into_iter().for_each(|(at, bad)| grads[at] = bad);
            stream.write(&grad, &grads)?;
            let stride = Stride { number: 0, learning_rate: 0.1, loss_scale: 1.0 };
            let mut found = Vec::new();
            step_plain(&stream, &steps, &out, flags, 0.1)?;
            found.push(stream.read(flags)?);
            for optimizer in OPTIMIZERS {
                step(&stream, optimizer, &steps, &out, &[], flags, stride)?;
                found.push(stream.read(flags)?);
            }
            Ok(found)
        };
        assert!(take(&flags, Some((0, f32::MAX)))?.iter().all(|found| found == &vec![0; s]));
        for bad in [f32::INFINITY, f32::NAN] {
            // The last gradient of the last image.
            stream.write(&flags, &vec![0; s])?;
            let want: Vec<u32> = (0..s).map(|i| u32::from(i + 1 == s)).collect();
            assert!(take(&flags, Some((s * width - 1, bad)))?.iter().all(|found| found == &want));
            assert!(take(&flags, None)?.iter().all(|found| found == &want));
        }
    }
});

#[test]
fn what_an_optimizer_keeps() {
    let sgd = |momentum, weight_decay| Optimizer::Sgd { momentum, weight_decay };
    let adamw = Optimizer::AdamW { weight_decay: 0.0 };
    let plain = [(Optimizer::PLAIN, 9), (sgd(0.9, 0.0), 1)];
    assert!(plain.iter().all(|&(optimizer, steps)| optimizer.is_plain(steps)));
    let others = [(sgd(0.9, 0.0), 2), (sgd(0.0, 0.1), 1), (adamw, 1)];
    assert!(!others.iter().any(|&(optimizer, steps)| optimizer.is_plain(steps)));
    let states = [Optimizer::PLAIN, sgd(0.9, 0.1), sgd(0.0, 0.1), adamw].map(|o| [o.states(1), o.states(2)]);
    assert_eq!(states, [[0, 0], [0, 1], [0, 0], [0, 2]]);
}

device_test!(results_in_two_terms_are_those_of_float32, |stream| {
    for (s, lens) in SHAPES {
        let width: usize = lens.iter().sum();
        let grad = stream.upload([s, width], &random(s * width, 3.0, 1))?;
        let (params, _) = shared(&stream, lens)?;
        let (steps, flags) = (from_shared(&stream, &params, &grad)?, stream.zeros(s)?);
        for optimizer in OPTIMIZERS {
            let [alone, out]: [Tensor<f32>; 2] =
                [poisoned(&stream, [s, width]), poisoned(&stream, [s, width])];
            let terms: [Tensor<f16>; 2] = [poisoned(&stream, [s, width]), poisoned(&stream, [s, width])];
            let stride = Stride { number: 0, learning_rate: 0.05, loss_scale: 8.0 };
            step(&stream, optimizer, &steps, &alone, &[], &flags, stride)?;
            let pace = stream.vector(&optimizer.pace(stride.learning_rate, 0))?;
            super::step(&stream, optimizer, &steps, (&out, &terms), &[], &flags, (stride, &pace))?;
            let (alone, out) = (stream.read(&alone)?, stream.read(&out)?);
            assert_eq!(out, alone);
            let [first, second] = [stream.read(&terms[0])?, stream.read(&terms[1])?];
            for (x, terms) in out.iter().zip(first.iter().zip(&second)) {
                let first = f16::from_f32(*x);
                let second = f16::from_f32((x - first.to_f32()) / f16::SECOND_TERM);
                assert_eq!((terms.0.to_bits(), terms.1.to_bits()), (first.to_bits(), second.to_bits()));
            }
        }
    }
});
