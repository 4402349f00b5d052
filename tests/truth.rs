//! The whole of MEMO against float64 PyTorch, see `make_models.py` and `make_steps.py`: activations, loss, the gradient of
//! every parameter, and predictions after one and after three steps, for several geometries, both namings
//! and all dtypes of checkpoints.

mod common;

use anyhow::Result;
use common::Case;
use half::f16;
use memo::check::{Tolerance, assert_close, within};
use memo::clip::Naming;
use memo::device_test;
use memo::engine::{Batch, Item, Loss, Precision, Raw, Settings, Update};
use memo::gpu::Stream;
use memo::ops::{Element, Optimizer};

const MODELS: [&str; 5] = ["tiny", "t50", "odd", "openai.safetensors", "p14"];

fn precision<E: Element>() -> Precision {
    if E::NAME == "fp16" { Precision::Fp16 } else { Precision::Fp32 }
}

/// For up to `images` at once, of PyTorch's views.
fn batch<E: Element>(
    case: &Case,
    stream: &Stream,
    images: usize,
    steps: usize,
    update: Update,
) -> Result<Batch<E>> {
    case.batch(stream, images, &case.settings(precision::<E>(), update, case.views(), steps))
}

/// PyTorch's views of as many copies of the image.
fn adapt<E: Element>(case: &Case, stream: &Stream, batch: &Batch<E>, images: usize) -> Result<Vec<Raw>> {
    batch.adapt(&vec![Item { image: &case.image, index: 0 }; images], &case.given(stream, case.views())?)
}

device_test!(activations_are_pytorchs, |stream| {
    for model in MODELS {
        let case = Case::open(model);
        let batch = batch::<f32>(&case, &stream, 1, 1, Update::Implicit)?;
        adapt(&case, &stream, &batch, 1)?;
        let acts = batch.views_of(1)?;
        let config = case.checkpoint.config();
        let (n, t) = (case.views(), config.tokens());
        // PyTorch's are of views and original.
        let of_views = |want: &[f32]| want[..want.len() / (n + 1) * n].to_vec();

        assert_close(&stream.read(&acts.pre_ln.out)?, &of_views(case.values("embedded")), within(1e-6));
        let blocks = case.values("blocks");
        let len = blocks.len() / config.vision.layers;
        for (index, (want, block)) in blocks.chunks(len).zip(&acts.blocks).enumerate() {
            let mut want = of_views(want);
            if index + 1 == config.vision.layers {
                // Of the class tokens alone.
                let c = config.vision.width;
                want = want.chunks(t * c).flat_map(|tokens| &tokens[..c]).copied().collect();
            }
            assert_close(&stream.read(&block.out)?, &want, within(2e-6));
        }
        assert_close(&stream.read(&acts.unit)?, &of_views(case.values("features")), within(2e-6));
    }
});

/// How far a precision may be from float64.
struct Bounds {
    zero_shot: f64,
    adapted: f64,
    entropy: f64,
    /// Of the logits' change by the step, relative.
    effect: f64,
    gradient: f64,
    /// Of a key's bias, whose true gradient is zero: it shifts all of a query's scores alike.
    key_bias: f64,
}

const FP32: Bounds =
    Bounds { zero_shot: 5e-4, adapted: 2e-3, entropy: 1e-5, effect: 0.01, gradient: 1e-4, key_bias: 1e-5 };
/// Errors of the views' logits come out in the loss's gradient, relative to it, and so in the effect.
const FP16: Bounds =
    Bounds { zero_shot: 5e-4, adapted: 0.03, entropy: 5e-3, effect: 0.05, gradient: 0.05, key_bias: 1e-3 };

/// What a step changes.
fn effect(after: &[f32], before: &[f32]) -> Vec<f64> {
    after.iter().zip(before).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
}

/// Every image's gradient of every parameter: `(images, total)`.
#[track_caller]
fn gradients(case: &Case, all: &[f32], bounds: &Bounds) {
    let config = case.checkpoint.config();
    let hugging_face = config.vision_sources(Naming::HuggingFace);
    assert_eq!(hugging_face.len(), case.expected.keys().filter(|k| k.starts_with("grad.")).count());
    for grads in all.chunks_exact(config.vision_layout().total) {
        for source in &hugging_face {
            let want = case.values(&format!("grad.{}", source.name));
            let got = &source.values(grads);
            if source.name.ends_with("k_proj.bias") {
                assert_close(got, want, Tolerance::absolute(bounds.key_bias));
            } else {
                assert_close(got, want, within(bounds.gradient));
            }
        }
    }
}

fn one_step<E: Element>(stream: &Stream, update: Update, bounds: &Bounds) -> Result<()> {
    for model in MODELS {
        let case = Case::open(model);
        let batch = batch::<E>(&case, stream, 3, 1, update)?;
        let all = adapt(&case, stream, &batch, 3)?;
        let raw = &all[0];
        let original = &case.values("logits")[case.views() * raw.zero_shot.len()..];
        let want = effect(case.values("adapted1"), original);
        assert_close(&raw.zero_shot, original, Tolerance::absolute(bounds.zero_shot));
        assert_close(
            &raw.by_loss[0].entropy,
            &case.values("entropy")[..1],
            Tolerance::absolute(bounds.entropy),
        );
        assert_close(&raw.by_loss[0].memo[0], case.values("adapted1"), Tolerance::absolute(bounds.adapted));
        assert_close(&effect(&raw.by_loss[0].memo[0], &raw.zero_shot), &want, within(bounds.effect));

        if update == Update::InPlace {
            gradients(&case, &stream.read(&batch.gradients(3)?)?, bounds);
        }
        // Nothing of an episode is left for the next, and an image does not depend on its place.
        assert!(all.iter().all(|other| other == raw));
        assert_eq!(adapt(&case, stream, &batch, 1)?, all[..1]);
    }
    Ok(())
}

device_test!(one_step_is_pytorchs, |stream| {
    for update in [Update::Implicit, Update::InPlace] {
        one_step::<f32>(&stream, update, &FP32)?;
    }
});

device_test!(one_step_in_float16_is_pytorchs, |stream| {
    for update in [Update::Implicit, Update::InPlace] {
        one_step::<f16>(&stream, update, &FP16)?;
    }
});

fn three_steps<E: Element>(stream: &Stream, bounds: &Bounds) -> Result<()> {
    for model in MODELS {
        let case = Case::open(model);
        let batch = batch::<E>(&case, stream, 2, 3, Update::InPlace)?;
        let all = adapt(&case, stream, &batch, 2)?;
        assert_close(
            &all[0].by_loss[0].entropy,
            case.values("entropy"),
            Tolerance::absolute(10.0 * bounds.entropy),
        );
        assert_close(
            &all[0].by_loss[0].memo[0],
            case.values("adapted3"),
            Tolerance::absolute(bounds.adapted),
        );
        assert_eq!(adapt(&case, stream, &batch, 2)?, all);
        assert_eq!(all[0], all[1]);
    }
    Ok(())
}

device_test!(three_steps_are_pytorchs, |stream| {
    three_steps::<f32>(&stream, &FP32)?;
    three_steps::<f16>(&stream, &FP16)?;
});

/// The cases of `make_steps.py`.
fn other_steps<E: Element>(stream: &Stream, bounds: &Bounds) -> Result<()> {
    for model in MODELS {
        let case = Case::open(model);
        let mut settings = case.settings(precision::<E>(), Update::InPlace, case.views(), 3);
        for name in ["sgd", "sgd_decayed", "adamw", "adamw_decayed"] {
            let of = |what: &str| case.values(&format!("{name}.{what}"));
            let &[learning_rate, momentum, weight_decay] = of("settings") else { panic!("three settings") };
            settings.learning_rates = vec![learning_rate];
            settings.optimizer = match name.starts_with("sgd") {
                true => Optimizer::Sgd { momentum, weight_decay },
                false => Optimizer::AdamW { weight_decay },
            };
            let batch: Batch<E> = case.batch(stream, 2, &settings)?;
            let all = adapt(&case, stream, &batch, 2)?;
            let (raw, original) = (&all[0], &case.values("logits")[case.views() * all[0].zero_shot.len()..]);
            let (got, want) =
                (effect(&raw.by_loss[0].memo[0], &raw.zero_shot), effect(of("adapted"), original));
            assert_close(&raw.by_loss[0].entropy, of("entropy"), Tolerance::absolute(10.0 * bounds.entropy));
            assert_close(&raw.by_loss[0].memo[0], of("adapted"), Tolerance::absolute(bounds.adapted));
            assert_close(&got, &want, within(bounds.effect));
            assert_eq!(all[0], all[1]);
            assert_eq!(adapt(&case, stream, &batch, 2)?, all);
        }
    }
    Ok(())
}

device_test!(steps_of_other_optimizers_are_pytorchs, |stream| {
    other_steps::<f32>(&stream, &FP32)?;
});

device_test!(steps_of_other_optimizers_in_float16_are_pytorchs, |stream| {
    other_steps::<f16>(&stream, &FP16)?;
});

/// As in `make_predictors.py`: the logit scale, the share of the views that are confident, and the rate of their steps.
const OF_PREDICTORS: (f32, f64, f32) = (16.0, 0.5, 1e-3);

/// The selection, the averages, and steps on the confident views, by themselves and behind MEMO's own.
fn predictors<E: Element>(stream: &Stream, update: Update, steps: usize, bounds: &Bounds) -> Result<()> {
    let (scale, confident, rate) = OF_PREDICTORS;
    for model in MODELS {
        let case = Case::open(model);
        let by = |losses: &[Loss], rates: &[f32]| -> Result<Raw> {
            let (losses, learning_rates) = (losses.to_vec(), rates.to_vec());
            let settings = case.settings(precision::<E>(), update, case.views(), steps);
            let settings = Settings { confident, losses, learning_rates, ..settings };
            let batch: Batch<E> = case.batch_at(stream, scale, 2, &settings)?;
            let all = adapt(&case, stream, &batch, 2)?;
            assert_eq!(all[0], all[1]);
            assert_eq!(adapt(&case, stream, &batch, 1)?, all[..1]);
            Ok(all[0].clone())
        };
        let raw = by(&[Loss::Confident], &[rate])?;
        let views = &raw.views;
        let selected: Vec<f32> = views.confident.iter().map(|&is| f32::from(u8::from(is))).collect();
        assert_eq!(selected, case.values("selected"), "{model}");
        let probabilities = |logs: &[f32]| logs.iter().map(|x| x.exp()).collect::<Vec<f32>>();
        for (got, name) in [(&views.average, "view_average"), (&views.confident_average, "confident_average")]
        {
            let [got, want] = [got, case.values(name)].map(probabilities);
            assert_close(&got, &want, Tolerance::absolute(bounds.entropy));
        }
        let (got, name) = (&raw.by_loss[0], format!("confident.adapted{steps}"));
        let want = case.values(&name);
        let change = effect(want, case.values("confident.logits"));
        assert_close(&raw.zero_shot, case.values("confident.logits"), Tolerance::absolute(bounds.zero_shot));
        let entropies = &case.values("confident.entropy")[..steps];
        assert_close(&got.entropy, entropies, Tolerance::absolute(10.0 * bounds.entropy));
        assert_close(&got.memo[0], want, Tolerance::absolute(bounds.adapted));
        assert_close(&effect(&got.memo[0], &raw.zero_shot), &change, within(bounds.effect));

        // Beside the other loss, before it and behind it, and beside other rates, each is what it is alone.
        let all = by(&[Loss::All], &[rate])?;
        assert_eq!((&all.zero_shot, &all.views), (&raw.zero_shot, views));
        let rates = if steps == 1 { &[rate, rate / 2.0][..] } else { &[rate] };
        for order in [[Loss::All, Loss::Confident], [Loss::Confident, Loss::All]] {
            let both = by(&order, rates)?;
            assert_eq!((&both.zero_shot, &both.views), (&raw.zero_shot, views), "{model}");
            for (loss, got) in order.iter().zip(&both.by_loss) {
                let alone = if *loss == Loss::All { &all } else { &raw };
                let alone = &alone.by_loss[0];
                assert_eq!(
                    (&got.memo[0], &got.entropy),
                    (&alone.memo[0], &alone.entropy),
                    "{model}: {loss:?}"
                );
            }
        }
    }
    Ok(())
}

device_test!(predictors_are_pytorchs, |stream| {
    predictors::<f32>(&stream, Update::Implicit, 1, &FP32)?;
    predictors::<f32>(&stream, Update::InPlace, 1, &FP32)?;
    predictors::<f32>(&stream, Update::InPlace, 3, &FP32)?;
});

device_test!(predictors_in_float16_are_pytorchs, |stream| {
    predictors::<f16>(&stream, Update::Implicit, 1, &FP16)?;
    predictors::<f16>(&stream, Update::InPlace, 1, &FP16)?;
    predictors::<f16>(&stream, Update::InPlace, 3, &FP16)?;
});

#[test]
fn both_namings_hold_the_same_model() {
    let case = Case::open("openai.safetensors");
    assert_eq!(case.naming, Naming::OpenAi);
    let config = case.checkpoint.config();
    assert_eq!((config.tokens(), config.vision.layers, config.vision.heads), (5, 2, 1));
    assert!(case.checkpoint.text_params(&config.text_layout()).is_ok());
}
