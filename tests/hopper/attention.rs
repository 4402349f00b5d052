//! `attention.cu`.

use half::f16;
use vcuda::exec::{Launch, TensorCore};

use crate::{Device, assert_close, bytes, halves, random};

const SOURCE: &str = include_str!("attention.cu");
const HS: usize = 64;

struct Truth {
    out: Vec<f64>,
    dqkv: Vec<f64>,
}

/// Attention and its gradient in float64: `qkv` `(B, T, 3, NH, HS)`, `dout` `(B, T, NH, HS)`.
fn truth(qkv: &[f16], dout: &[f16], [b, t, nh]: [usize; 3], scale: f64) -> Truth {
    let (mut out, mut dqkv) = (vec![0.0; b * t * nh * HS], vec![0.0; qkv.len()]);
    for (batch, head) in (0..b).flat_map(|batch| (0..nh).map(move |head| (batch, head))) {
        let at3 =
            |part: usize, token: usize, d: usize| (((batch * t + token) * 3 + part) * nh + head) * HS + d;
        let at = |token: usize, d: usize| ((batch * t + token) * nh + head) * HS + d;
        let x = |part: usize, token: usize, d: usize| f64::from(qkv[at3(part, token, d)]);
        let dy = |token: usize, d: usize| f64::from(dout[at(token, d)]);
        for i in 0..t {
            let dot = |j: usize| scale * (0..HS).map(|d| x(0, i, d) * x(1, j, d)).sum::<f64>();
            let scores: Vec<f64> = (0..t).map(dot).collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|s| (s - top).exp() / total).collect();
            let dp: Vec<f64> = (0..t).map(|j| (0..HS).map(|d| dy(i, d) * x(2, j, d)).sum()).collect();
            let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
            for j in 0..t {
                let ds = scale * p[j] * (dp[j] - delta);
                for d in 0..HS {
                    out[at(i, d)] += p[j] * x(2, j, d);
                    dqkv[at3(0, i, d)] += ds * x(1, j, d);
                    dqkv[at3(1, j, d)] += ds * x(0, i, d);
                    dqkv[at3(2, j, d)] += p[j] * dy(i, d);
                }
            }
        }
    }
    Truth { out, dqkv }
}

fn check(tokens: usize, (architecture, approx): (&str, bool), sums: Option<TensorCore>, seed: u64) {
    let (b, nh) = (2, 3);
    let scale = 1.0 / (HS as f32).sqrt();
    let c = scale * std::f32::consts::LOG2_E;
    let device = Device::new("attention", SOURCE, &[("TOKENS", tokens)], (architecture, approx));
    let (qkv, dout) = (random(b * tokens * 3 * nh * HS, 4), random(b * tokens * nh * HS, 5));
    let (qkv_at, dout_at) = (device.upload(&bytes(&qkv)), device.upload(&bytes(&dout)));
    let (out, lse, dqkv) =
        (device.alloc(2 * dout.len()), device.alloc(4 * b * nh * 64), device.alloc(2 * qkv.len()));
    let address = |at: u64| at.to_le_bytes().to_vec();
    let (heads, c, scale_bytes) = ((nh as i32).to_le_bytes(), c.to_le_bytes().to_vec(), scale.to_le_bytes());
    let launch = |tiles: u32| Launch {
        grid: [nh as u32, b as u32, 1],
        cluster: [1; 3],
        block: [128, 1, 1],
        dynamic_shared_bytes: 8192 * tiles,
    };
    let forward = [address(qkv_at), address(out), address(lse), heads.to_vec(), c.clone()];
    device.launch("forward", launch(3), &forward, (seed, sums));
    let backward = [
        address(qkv_at),
        address(dout_at),
        address(lse),
        address(dqkv),
        heads.to_vec(),
        c,
        scale_bytes.to_vec(),
    ];
    device.launch("backward", launch(5), &backward, (seed, sums));

    let want = truth(&qkv, &dout, [b, tokens, nh], scale.into());
    let [what_out, what_dqkv] = ["out", "dqkv"]
        .map(|name| format!("{name}, {tokens} tokens on {architecture}, sums {sums:?}, approx {approx}"));
    // P, whose rows add to one, is rounded to float16 on the way: by 2^-11 of the result at most, as |V| <= 1. Sums of 64
    // products err by 8 · 11 · 2^-24 of what they come to, some ten, of which the scores' become as much of P: 1e-4.
    let got = halves(&device.read(&what_out, out, 2 * dout.len()));
    assert_close(&what_out, &got, &want.out, |_| 7e-4);
    // So is dS, and their columns add to more.
    let got = halves(&device.read(&what_dqkv, dqkv, 2 * qkv.len()));
    assert_close(&what_dqkv, &got, &want.dqkv, |_| 2e-3);
}

#[test]
fn attention_and_its_gradient_are_right_for_any_number_of_tokens() {
    for (seed, tokens) in [50, 64, 17, 1].into_iter().enumerate() {
        for (approx, sums) in [(false, None), (true, Some(TensorCore::H100)), (true, Some(TensorCore::A100))]
        {
            check(tokens, ("90a", approx), sums, seed as u64);
        }
    }
    check(50, ("80", false), None, 7);
    check(50, ("80", true), Some(TensorCore::A100), 7);
}
