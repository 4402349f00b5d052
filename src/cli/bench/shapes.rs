//! `--shapes`: each matrix product of a batch by itself, on numbers of no meaning.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::samples::Samples;
use crate::check::random;
use crate::clip::Activation;
use crate::engine::{Dims, Precision, Settings, Update};
use crate::gpu::{Event, Stream};
use crate::ops::Element;
use crate::ops::linear::{Layout, Linear, Matrix, Output};
use half::f16;

/// Runs at least, and seconds at least, of each product.
const RUNS: usize = 5;
const SECONDS: f64 = 0.2;

/// Numbers that are made for a matrix at most.
const MOST_NUMBERS: usize = 1 << 22;

/// What a batch multiplies: `(M, N)` by a sum over K, so many at once.
#[derive(Clone, Debug)]
struct Product {
    name: String,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    batch: Option<usize>,
    act: Option<Direction>,
    /// What comes out is float32, with something added to it.
    joins: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    Forward,
    Back,
}

/// The products of one block and of the patch embedding; those that the other update has are left out.
fn products(dims: &Dims, update: Update) -> Vec<Product> {
    let &Dims { s, n, t, c, m, p, .. } = dims;
    let (rows, of_image) = (s * n * t, n * t);
    let layers = [("qkv", 3 * c, c), ("out_proj", c, c), ("fc1", m, c), ("fc2", c, m)];
    let product = |name: String, layout, [m, n, k]: [usize; 3]| Product {
        name,
        layout,
        m,
        n,
        k,
        batch: None,
        act: None,
        joins: false,
    };
    let embedding = product("patches".to_string(), Layout::Nt, [s * n * (t - 1), c, p]);
    let mut all = vec![Product { joins: true, ..embedding }];
    for (name, out, inp) in layers {
        let joins = matches!(name, "out_proj" | "fc2");
        let act = (name == "fc1").then_some(Direction::Forward);
        all.push(Product { joins, act, ..product(name.to_string(), Layout::Nt, [rows, out, inp]) });
    }
    for (name, out, inp) in layers.into_iter().rev() {
        let act = (name == "fc2").then_some(Direction::Back);
        all.push(Product { act, ..product(format!("{name}, back"), Layout::Nn, [rows, inp, out]) });
    }
    for (name, out, inp) in layers {
        let each = |name, layout, sizes| Product { batch: Some(s), ..product(name, layout, sizes) };
        match update {
            Update::InPlace => {
                let weight = each(format!("{name}, weight"), Layout::Tn, [out, inp, of_image]);
                all.push(Product { joins: true, ..weight });
            }
            Update::Implicit => {
                all.push(each(format!("{name}, x Xᵀ"), Layout::Nt, [t, of_image, inp]));
                let times_dy = each(format!("{name}, P dY"), Layout::Nn, [t, out, of_image]);
                all.push(Product { joins: true, ..times_dy });
            }
        }
    }
    all
}

/// One object for each product.
///
/// # Errors
/// Out of device memory; the launches' own.
pub fn time(stream: &Stream, dims: &Dims, settings: &Settings) -> Result<Vec<Value>> {
    let all = products(dims, settings.update);
    let time = |product: &Product| -> Result<Value> {
        let times = match (settings.precision, product.joins) {
            (Precision::Fp32, _) => runs::<f32, f32>(stream, product),
            (Precision::Fp16, true) => runs::<f16, f32>(stream, product),
            (Precision::Fp16, false) => runs::<f16, f16>(stream, product),
        };
        let samples = times.with_context(|| format!("timing {}", product.name))?;
        let &Product { m, n, k, batch, .. } = product;
        let flops = (2 * m * n * k * batch.unwrap_or(1)) as f64;
        let rate = |seconds: f64| flops / seconds / 1e12;
        let [low, high] = samples.quartiles();
        Ok(json!({
            "name": product.name, "layout": format!("{:?}", product.layout).to_lowercase(), "m": m, "n": n, "k": k,
            "batch": batch.unwrap_or(1), "median_us": samples.median() * 1e6,
            "tflop_per_s": { "median": rate(samples.median()), "quartiles": [rate(high), rate(low)] },
        }))
    };
    all.iter().map(time).collect()
}

/// Times of a product, behind one that is not counted.
fn runs<E: Element, O: Element + Output<E>>(stream: &Stream, product: &Product) -> Result<Samples> {
    let &Product { layout, m, n, k, batch, act, joins, .. } = product;
    let count = batch.unwrap_or(1);
    let matrix = |rows: usize, columns: usize, seed: u64| -> Result<Matrix<E>> {
        // Rows begin where fast copies may.
        let pitch = columns.next_multiple_of(8);
        let tensor = stream.alloc::<E>([count * rows, pitch])?;
        // The same numbers again and again: of all of them the host may have no room.
        let some = random(tensor.len().min(MOST_NUMBERS), 1.0, seed);
        let some: Vec<E> = some.iter().map(|&x| E::round(x.into())).collect();
        for begin in (0..tensor.len()).step_by(MOST_NUMBERS) {
            let part = tensor.slice(begin..tensor.len().min(begin + MOST_NUMBERS));
            stream.write(&part, &some[..part.len()])?;
        }
        Ok(Matrix::columns(&tensor, 0..columns).batched(batch))
    };
    let a = if layout == Layout::Tn { matrix(k, m, 1)? } else { matrix(m, k, 1)? };
    let b = if layout == Layout::Nt { matrix(n, k, 2)? } else { matrix(k, n, 2)? };
    let pitch = n.next_multiple_of(8);
    let out = stream.zeros::<O>([count * m, pitch])?;
    let out = Matrix::columns(&out, 0..n).batched(batch);
    let kept = if act.is_some() { Some(matrix(m, n, 3)?) } else { None };
    let addend = stream.zeros::<f32>(if joins { [count * m, pitch] } else { [0, pitch] })?;
    let run = || -> Result<()> {
        let mut linear = Linear::new(layout, a.clone(), b.clone(), out.clone());
        if joins {
            linear = linear.addend(Matrix::columns(&addend, 0..n).batched(batch));
        }
        match (act, &kept) {
            (Some(Direction::Forward), Some(kept)) => linear.keeping(Activation::QuickGelu, kept.clone()),
            (Some(Direction::Back), Some(kept)) => linear.backward(Activation::QuickGelu, kept.clone()),
            _ => linear,
        }
        .run(stream)
    };
    run()?;
    stream.synchronize()?;
    let mut seconds = Vec::new();
    while seconds.len() < RUNS || seconds.iter().sum::<f64>() < SECONDS {
        let [start, end] = [Event::new(stream.gpu())?, Event::new(stream.gpu())?];
        start.record(stream)?;
        run()?;
        end.record(stream)?;
        end.synchronize()?;
        seconds.push(end.elapsed_us(&start)? * 1e-6);
    }
    Samples::new(seconds).context("no time has passed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_nine_has_the_products_that_the_model_has() {
        let dims = Dims { s: 9, n: 50, t: 50, c: 768, m: 3072, nh: 12, p: 3072, d: 512, k: 100 };
        let flops = |update| -> usize {
            let of = |p: &Product| 2 * p.m * p.n * p.k * p.batch.unwrap_or(1);
            products(&dims, update).iter().map(of).sum()
        };
        // Of 22,500 tokens: 12 C² forward, as much back, and the same again for weights; and the patches.
        let (layer, patches) = (2 * 22_500 * 12 * 768 * 768, 2 * 22_050 * 768 * 3072);
        assert_eq!(flops(Update::InPlace), 3 * layer + patches);
        // Inputs of 768, 768, 768 and 3072, outputs of 2304, 768, 3072 and 768: each by 50 rows of 2500.
        let corrections = 9 * 2 * 50 * 2500 * (5376 + 6912);
        assert_eq!(flops(Update::Implicit), 2 * layer + patches + corrections);
    }
}
