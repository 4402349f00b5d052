//! One step at a real model's size against float64 PyTorch, see `make_vit_b32.py`: random weights, not all of them float16's.

mod common;

use anyhow::{Error, Result};
use half::f16;
use memo::check::{Tolerance, assert_close, fixtures, random, within};
use memo::clip::{ClipConfig, Naming};
use memo::data::Rgb8;
use memo::device_test;
use memo::engine::{Batch, Item, Precision, Raw, Update, Views, Vision};
use memo::gpu::Stream;
use memo::ops::Element;
use memo::ops::patches::patchify;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

const VIEWS: usize = 4;

/// All that goes in.
struct Inputs {
    config: ClipConfig,
    weights: Vec<f32>, // in the layout's order
    image: Rgb8,
    views: Vec<f32>, // (N, 3, S, S)
}

/// A parameter, as `make_vit_b32.py` makes it.
fn parameter(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let is_norm = name.contains("norm") || name.contains("layrnorm");
    let spread = match shape {
        _ if is_norm => 0.35,
        _ if name.ends_with("bias") => 0.17,
        [_, inputs @ ..] if !inputs.is_empty() && !name.contains("position") => {
            (3.0 / inputs.iter().product::<usize>() as f32).sqrt()
        }
        _ => 0.5,
    };
    let mut values = random(shape.iter().product(), spread, seed);
    if is_norm && name.ends_with("weight") {
        values.iter_mut().for_each(|v| *v += 1.0);
    }
    let layer = name.contains(".layers.").then(|| name.split('.').nth(3)).flatten();
    let is_even = layer.is_none_or(|layer| layer.parse::<usize>().is_ok_and(|layer| layer % 2 == 0));
    if is_norm || is_even {
        values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
    }
    values
}

impl Inputs {
    /// And their SHA-256.
    fn make() -> (Inputs, [u8; 32]) {
        let config = ClipConfig::vit_b_32();
        let mut digest = Sha256::new();
        let mut weights = vec![0.0; config.vision_layout().total];
        let mut sources = config.vision_sources(Naming::HuggingFace);
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        for (seed, source) in (0..).zip(&sources) {
            let values = parameter(&source.name, &source.shape, seed);
            digest.update(bytemuck::cast_slice(&values));
            source.write(&mut weights, &values);
        }
        let side = config.image_size;
        let pixels: Vec<u8> =
            random(3 * side * side, 128.0, 1000).iter().map(|x| (x + 128.0) as u8).collect();
        let views = random(VIEWS * 3 * side * side, 1.7, 1001);
        digest.update(&pixels);
        digest.update(bytemuck::cast_slice(&views));
        let image = Rgb8 { width: side as u32, height: side as u32, pixels };
        (Inputs { config, weights, image, views }, digest.finalize().into())
    }

    /// One step at each of the expectation's rates.
    fn adapt<E: Element>(
        &self,
        stream: &Stream,
        expected: &Expected,
        (precision, update): (Precision, Update),
    ) -> Result<Raw> {
        let settings = common::plain_step(precision, update, VIEWS, &expected.lr);
        let config = &self.config;
        let vision = Vision { config: config.clone(), layout: config.vision_layout() };
        let patches = patchify(&self.views, config.image_size, config.patch_size);
        let rows = VIEWS * (config.tokens() - 1);
        let views = Views::Given(stream.upload([rows, config.patch_pitch()], &patches)?);
        let batch = Batch::<E>::new(stream, vision, &self.weights, &expected.text, 1, settings)?;
        Ok(batch.adapt(&[Item { image: &self.image, index: 0 }], &views)?.remove(0))
    }
}

/// How far float16 and float32 may be from float64.
struct Bounds {
    zero_shot: f64,
    adapted: f64,
    entropy: f64,
    /// Of the logits' change by the step, relative, at each rate. Where a step is small, what is left of rounding counts more.
    effect: [f64; 2],
}

const FP32: Bounds = Bounds { zero_shot: 5e-4, adapted: 2e-3, entropy: 1e-5, effect: [0.01, 0.01] };
const FP16: Bounds = Bounds { zero_shot: 5e-4, adapted: 0.03, entropy: 5e-3, effect: [0.05, 0.01] };

fn effect(after: &[f32], before: &[f32]) -> Vec<f64> {
    after.iter().zip(before).map(|(after, before)| f64::from(*after) - f64::from(*before)).collect()
}

/// What PyTorch computes with the inputs.
struct Expected {
    text: Vec<f32>,    // (K, D)
    logits: Vec<f32>,  // (K,) of the image
    entropy: Vec<f32>, // (1,)
    lr: Vec<f32>,      // two rates
    adapted: Vec<f32>, // (2, K)
}

impl Expected {
    /// Of inputs with this hash.
    fn open(hash: &[u8; 32]) -> Result<Expected> {
        let bytes = std::fs::read(fixtures().join("vit_b32.expected.safetensors"))?;
        let file = SafeTensors::deserialize(&bytes)?;
        assert_eq!(file.tensor("inputs")?.data(), hash, "PyTorch had other weights, image or views");
        let floats = |name| Ok::<_, Error>(bytemuck::pod_collect_to_vec(file.tensor(name)?.data()));
        Ok(Expected {
            text: floats("text")?,
            logits: floats("logits")?,
            entropy: floats("entropy")?,
            lr: floats("lr")?,
            adapted: floats("adapted")?,
        })
    }

    /// Whether a step at rate number `rate` is as PyTorch's.
    #[track_caller]
    fn check(&self, rate: usize, got: &Raw, bounds: &Bounds) {
        let want = &self.adapted[rate * self.logits.len()..][..self.logits.len()];
        assert_close(&got.zero_shot, &self.logits, Tolerance::absolute(bounds.zero_shot));
        assert_close(&got.by_loss[0].entropy, &self.entropy, Tolerance::absolute(bounds.entropy));
        assert_close(&got.by_loss[0].memo[rate], want, Tolerance::absolute(bounds.adapted));
        assert_close(
            &effect(&got.by_loss[0].memo[rate], &got.zero_shot),
            &effect(want, &self.logits),
            within(bounds.effect[rate]),
        );
    }
}

device_test!(a_step_of_vit_b32_is_pytorchs, |stream| {
    let (inputs, hash) = Inputs::make();
    let expected = Expected::open(&hash)?;
    let rates = 0..expected.lr.len();
    let [folded, in_place] = [Update::Implicit, Update::InPlace]
        .map(|update| inputs.adapt::<f16>(&stream, &expected, (Precision::Fp16, update)));
    let (folded, in_place) = (folded?, in_place?);
    for rate in rates.clone() {
        for got in [&folded, &in_place] {
            expected.check(rate, got, &FP16);
        }
        let [folded, in_place] =
            [&folded, &in_place].map(|got| effect(&got.by_loss[0].memo[rate], &got.zero_shot));
        assert_close(&folded, &in_place, within(FP16.effect[rate]));
    }
    for update in [Update::Implicit, Update::InPlace] {
        let got = inputs.adapt::<f32>(&stream, &expected, (Precision::Fp32, update))?;
        rates.clone().for_each(|rate| expected.check(rate, &got, &FP32));
    }
});
