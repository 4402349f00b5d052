//! `kernels/attention_mma.cu`.

use half::f16;
use memo::gpu::SOURCES;
use memo::ops::attention::{Shape, attention_backward_reference, attention_reference};
use vcuda::exec::{Launch, TensorCore};

use crate::{Device, assert_close, bytes, halves, random};

fn check(shape: Shape, (architecture, approx): (&str, bool), sums: Option<TensorCore>, seed: u64) {
    if !crate::driven::runs("80") {
        return;
    }
    let Shape { b, t, nh, hs, causal } = shape;
    let c = nh * hs;
    let source = SOURCES.iter().find(|(stem, _)| *stem == "attention_mma").expect("a source").1;
    let defines = [("ELEMENT_HALF", 1), ("TOKENS", t), ("HEAD", hs), ("CAUSAL", causal.into())];
    let device = Device::new("attention_mma", source, &defines, (architecture, approx));
    let scale = 1.0 / (hs as f32).sqrt();
    let (qkv, dout) = (random(b * t * 3 * c, 4), random(b * t * c, 5));
    let (qkv_at, dout_at) = (device.upload(&bytes(&qkv)), device.upload(&bytes(&dout)));
    let (out, lse, dqkv) =
        (device.alloc(2 * dout.len()), device.alloc(4 * b * nh * t), device.alloc(2 * qkv.len()));
    let blocks = t.div_ceil(64);
    let (dbias_at, partial, delta) =
        (device.alloc(4 * b * 3 * c), device.alloc(4 * b * blocks * 2 * c), device.alloc(4 * b * nh * t));
    let address = |at: u64| at.to_le_bytes().to_vec();
    let int = |n: usize| (n as i32).to_le_bytes().to_vec();
    let rest = [int(nh), int(t), int(t), scale.to_le_bytes().to_vec()];
    let block = t.next_multiple_of(16).min(64);
    let pitch = hs.next_multiple_of(16) * 2 + 16;
    let (tile, square) = (block * pitch, block * (2 * block + 16));
    let stages = if t <= 64 || hs > 112 { 1 } else { 2 };
    let launch = |y: usize, shared: usize| Launch {
        grid: [(b * nh) as u32, y as u32, 1],
        cluster: [1; 3],
        block: [block as u32 * 2, 1, 1],
        dynamic_shared_bytes: shared as u32,
    };
    let run = |name: &'static str, y: usize, shared: usize, tensors: &[u64]| {
        let args: Vec<Vec<u8>> = tensors.iter().map(|&at| address(at)).chain(rest.clone()).collect();
        device.launch(name, launch(y, shared), &args, (seed, sums));
    };
    run("attention_forward", blocks, tile * (1 + 2 * stages), &[out, lse, qkv_at]);
    if t <= 64 {
        let shared = 4 * tile + square + if square > tile { square } else { 0 };
        run("attention_backward", 1, shared, &[dqkv, dbias_at, dout_at, qkv_at, lse]);
    } else {
        let shared = tile * (2 + 2 * stages);
        run("attention_backward_q", blocks, shared, &[dqkv, delta, partial, dout_at, out, qkv_at, lse]);
        let tensors = [dqkv, dbias_at, delta, partial, dout_at, qkv_at, lse];
        run("attention_backward_kv", blocks, shared + stages * block * 8, &tensors);
    }
    let wide = |x: &[f16]| -> Vec<f64> { x.iter().map(|&x| x.into()).collect() };
    let [what_out, what_dqkv, what_dbias] = ["out", "dqkv", "dbias"]
        .map(|name| format!("{name}, {shape:?} on {architecture}, sums {sums:?}, approx {approx}"));
    let got = halves(&device.read(&what_out, out, 2 * dout.len()));
    // P, whose rows add to one, is rounded to float16 on the way: by 2^-11 of the result at most, as |V| <= 1. Sums of 64
    // products err by 8 · 11 · 2^-24 of what they come to, some ten, of which the scores' become as much of P: 1e-4.
    assert_close(&what_out, &got, &attention_reference(&wide(&qkv), shape), |_| 7e-4);
    // So is dS, and their columns add to more.
    let got = halves(&device.read(&what_dqkv, dqkv, 2 * qkv.len()));
    let want = attention_backward_reference(&wide(&qkv), &wide(&dout), shape);
    assert_close(&what_dqkv, &got, &want, |_| 2e-3);
    let got: Vec<f64> = device
        .read(&what_dbias, dbias_at, 4 * b * 3 * c)
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).into())
        .collect();
    let mut dbias = vec![0.0; b * 3 * c];
    for (i, x) in want.iter().enumerate() {
        dbias[i / (t * 3 * c) * 3 * c + i % (3 * c)] += x;
    }
    // A sum of as many, whose errors are each their own.
    assert_close(&what_dbias, &got, &dbias, |_| 1e-4 * t as f64);
}

#[test]
fn attention_and_its_gradient_are_right() {
    let shape = |t, nh, hs, causal| Shape { b: 2, t, nh, hs, causal };
    let (exact, h100, a100) = ((false, None), (true, Some(TensorCore::H100)), (true, Some(TensorCore::A100)));
    // Both tiles' kernels in each manner of adding.
    for (seed, (approx, sums)) in [exact, h100, a100].into_iter().enumerate() {
        check(shape(50, 3, 64, false), ("90a", approx), sums, seed as u64);
        check(shape(77, 1, 64, true), ("80", approx), sums, seed as u64);
    }
    for (t, hs, causal) in [
        (64, 64, false),
        (17, 32, false),
        (5, 7, true),
        (1, 1, false),
        (50, 80, false),
        (64, 128, true),
        (197, 64, false),
        (65, 128, false),
        (90, 33, true),
    ] {
        check(shape(t, 1, hs, causal), ("90a", false), None, 7);
    }
}
