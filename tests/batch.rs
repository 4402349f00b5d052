//! What the engine promises of a batch: an image's bits depend on nothing but the image, its index and the settings.

mod common;

use anyhow::Result;
use common::Case;
use half::f16;
use memo::check::{Tolerance, assert_close, random, test_stream};
use memo::clip::LOGIT_SCALE;
use memo::data::Rgb8;
use memo::device_test;
use memo::engine::{
    Batch, Item, Loss, Memo, Outcome, Precision, Raw, RawViews, Settings, Update, Views, encode_text, prepare,
};
use memo::gpu::Stream;
use memo::ops::{Element, Optimizer};

/// Width and height of a batch's images: CIFAR's, thin ones, a photograph's, a pixel.
const SIZES: [(u32, u32); 9] =
    [(32, 32), (5, 40), (400, 130), (1, 1), (32, 32), (40, 5), (20, 20), (1, 33), (56, 57)];

fn images() -> Vec<Rgb8> {
    let noise = |(seed, &(width, height)): (u64, &(u32, u32))| {
        let pixels = random((3 * width * height) as usize, 128.0, seed);
        Rgb8 { width, height, pixels: pixels.iter().map(|x| (x + 128.0) as u8).collect() }
    };
    (0..).zip(&SIZES).map(noise).collect()
}

/// Everything of a result, to the bit.
fn bits(raw: &Raw) -> Vec<u32> {
    let RawViews { average, confident_average, choices, confident } = &raw.views;
    let steps = raw.by_loss.iter().flat_map(|by| by.memo.iter().flatten().chain(&by.entropy));
    let all = raw.zero_shot.iter().chain(steps).chain(average).chain(confident_average);
    let views = choices.iter().map(|&class| class as u32).chain(confident.iter().map(|&is| u32::from(is)));
    let overflow = raw.by_loss.iter().map(|by| u32::from(by.overflow));
    all.map(|x| x.to_bits()).chain(views).chain(overflow).collect()
}

/// Adapts to these images, in this order, in as few batches as may be.
fn adapt<E: Element>(
    batch: &Batch<E>,
    images: &[Rgb8],
    order: &[usize],
    views: &Views,
) -> Result<Vec<Vec<u32>>> {
    let mut all = Vec::new();
    for part in order.chunks(batch.images()) {
        let items: Vec<Item> =
            part.iter().map(|&i| Item { image: &images[i], index: FIRST + i as u64 }).collect();
        all.extend(batch.adapt(&items, views)?.iter().map(bits));
    }
    Ok(all)
}

/// Images alone, then in batches of several sizes, in several orders.
fn stays_itself<E: Element>(stream: &Stream, model: &str, settings: &Settings, case: &Case) -> Result<()> {
    let images = images();
    let all: Vec<usize> = (0..images.len()).collect();
    let one = case.batch::<E>(stream, 1, settings)?;
    let alone = adapt(&one, &images, &all, &Views::Drawn)?;
    assert!((1..alone.len()).all(|i| alone[i] != alone[0]), "the images tell themselves apart");
    let expect = |batch: &Batch<E>, order: &[usize]| -> Result<()> {
        let got = adapt(batch, &images, order, &Views::Drawn)?;
        for (place, (&i, got)) in order.iter().zip(&got).enumerate() {
            let at_once = batch.images();
            assert!(
                *got == alone[i],
                "{model}: image {i} at {place} of {order:?}, {at_once} at once, is another than alone: {settings:?}"
            );
        }
        Ok(())
    };

    let nine = case.batch::<E>(stream, 9, settings)?;
    expect(&nine, &[8, 7, 6, 5, 4, 3, 2, 1, 0])?;
    // Behind a larger batch, and again.
    expect(&nine, &[3, 2])?;
    expect(&one, &[2])?;
    // The last batch is short.
    expect(&case.batch::<E>(stream, 7, settings)?, &[2, 3, 4, 5, 6, 7, 8, 0, 1])?;
    expect(&case.batch::<E>(stream, 2, settings)?, &[6, 7, 4])?;
    expect(&case.batch::<E>(stream, 3, settings)?, &[5, 6, 2])?;

    // One batch is queued behind another.
    let items = |order: &[usize]| -> Vec<Item> {
        order.iter().map(|&i| Item { image: &images[i], index: FIRST + i as u64 }).collect()
    };
    let first = nine.queue(&items(&[1, 5]), &Views::Drawn)?;
    let second = nine.queue(&items(&[3, 0, 4]), &Views::Drawn)?;
    for (queued, order) in [(first, &[1, 5][..]), (second, &[3, 0, 4])] {
        let got = nine.finish(queued)?;
        let same = got.iter().zip(order).all(|(raw, &i)| bits(raw) == alone[i]);
        assert!(same && got.len() == order.len(), "{model}: of two batches under way: {settings:?}");
    }

    let given = case.given(stream, settings.views)?;
    let order = [3, 0, 2];
    let together = adapt(&nine, &images, &order, &given)?;
    assert!(together == adapt(&one, &images, &order, &given)?, "{model}: of given views: {settings:?}");
    Ok(())
}

const MOMENTUM: Optimizer = Optimizer::Sgd { momentum: 0.9, weight_decay: 0.01 };
const ADAMW: Optimizer = Optimizer::AdamW { weight_decay: 0.01 };

/// Steps taken in every way.
const WAYS: [(Update, usize, Optimizer); 5] = [
    (Update::Implicit, 1, Optimizer::PLAIN),
    (Update::InPlace, 1, Optimizer::PLAIN),
    (Update::InPlace, 3, Optimizer::PLAIN),
    (Update::InPlace, 2, MOMENTUM),
    (Update::InPlace, 2, ADAMW),
];

fn every_way<E: Element>(stream: &Stream, model: &str, precision: Precision) -> Result<()> {
    let case = Case::open(model);
    for (update, steps, optimizer) in WAYS {
        if (precision == Precision::Fp32 && steps > 1) || (model != "odd" && optimizer != Optimizer::PLAIN) {
            continue;
        }
        // One is enough where a view has many tokens.
        let n = if model == "t50" { 1 } else { 2 };
        let mut settings = case.optimized(case.settings(precision, update, n, steps), optimizer);
        if model == "odd" {
            settings.losses = vec![Loss::All, Loss::Confident];
        }
        stays_itself::<E>(stream, model, &settings, &case)?;
    }
    Ok(())
}

device_test!(an_image_is_the_same_in_any_batch, |stream| {
    for model in ["tiny", "odd", "t50"] {
        every_way::<f32>(&stream, model, Precision::Fp32)?;
    }
});

device_test!(in_float16_an_image_is_the_same_in_any_batch, |stream| {
    for model in ["tiny", "odd", "t50"] {
        every_way::<f16>(&stream, model, Precision::Fp16)?;
    }
});

device_test!(what_a_batch_of_another_size_leaves_is_nobodys, |stream| {
    let images = images();
    for (model, optimizer) in
        [("odd", MOMENTUM), ("odd", ADAMW), ("p14", MOMENTUM), ("p14", ADAMW), ("p14", Optimizer::PLAIN)]
    {
        let case = Case::open(model);
        let settings = case.optimized(case.settings(Precision::Fp16, Update::InPlace, 2, 3), optimizer);
        let alone = adapt(&case.batch::<f16>(&stream, 1, &settings)?, &images, &[0, 1, 2, 3], &Views::Drawn)?;
        let three = case.batch::<f16>(&stream, 3, &settings)?;
        // From graphs the second time.
        for order in [[0, 1, 2].as_slice(), &[3], &[2, 0, 3], &[1, 2], &[0], &[1, 3], &[3, 2, 1]] {
            let got = adapt(&three, &images, order, &Views::Drawn)?;
            let want: Vec<_> = order.iter().map(|&i| alone[i].clone()).collect();
            assert!(got == want, "{model}, {optimizer:?}: {order:?}");
        }
    }
});

/// The index of the first of a test's images.
const FIRST: u64 = 7;

/// What becomes of these images at once.
fn outcomes(memo: &mut Memo, images: &[Rgb8]) -> Result<Vec<Outcome>> {
    let items: Vec<Item> = images.iter().zip(FIRST..).map(|(image, index)| Item { image, index }).collect();
    memo.adapt(&items, &Views::Drawn)?.into_iter().collect()
}

device_test!(what_overflows_is_computed_again_in_float32, |stream| {
    let images = &images()[..5];
    for (model, update, steps, optimizer) in [
        ("tiny", Update::Implicit, 1, Optimizer::PLAIN),
        ("odd", Update::InPlace, 1, Optimizer::PLAIN),
        ("tiny", Update::InPlace, 2, ADAMW),
    ] {
        let case = Case::open(model);
        let settings_in = |precision| case.optimized(case.settings(precision, update, 2, steps), optimizer);
        let exact = settings_in(Precision::Fp32);
        let exact = outcomes(&mut case.memo(&stream, 5, &exact)?, images)?;
        let scaled = |power: i32, at_once: usize| {
            let settings = settings_in(Precision::Fp16);
            case.memo(&stream, at_once, &Settings { loss_scale: 2f32.powi(power), ..settings })
        };
        let plain = outcomes(&mut scaled(12, 5)?, images)?;
        assert!(plain.iter().all(|outcome| !outcome.overflow), "{model}: at the scale that is the default");

        let check = |power: i32| -> Result<usize> {
            let (got, mut alone) = (outcomes(&mut scaled(power, 5)?, images)?, scaled(power, 1)?);
            for (i, got) in got.iter().enumerate() {
                if got.overflow {
                    let want = Outcome { overflow: true, ..exact[i].clone() };
                    assert_eq!(*got, want, "{model}, 2^{power}: image {i}");
                } else {
                    let items = [Item { image: &images[i], index: FIRST + i as u64 }];
                    let want = alone.adapt(&items, &Views::Drawn)?.remove(0)?;
                    assert_eq!(*got, want, "{model}, 2^{power}: image {i}");
                    // As near as `truth.rs` has float16 be: nothing has overflowed unseen.
                    let [got, want] =
                        [got, &plain[i]].map(|outcome| &outcome.memo[0].as_ref().unwrap().logits);
                    assert_close(got, want, Tolerance::absolute(0.03));
                }
            }
            Ok(got.iter().filter(|outcome| outcome.overflow).count())
        };
        let (mut some, mut power) = (0, 14);
        while some == 0 {
            power += 2;
            some = check(power)?;
        }
        assert!(some < images.len(), "{model}: at 2^{power} all overflow, so that none has a neighbour");
        assert_eq!(check(60)?, images.len(), "{model}: at 2^60");
    }
});

device_test!(what_waits_and_is_never_finished_holds_nothing_up, |stream| {
    let (case, images) = (Case::open("tiny"), images());
    let mut memo = case.memo(&stream, 2, &case.settings(Precision::Fp32, Update::Implicit, 2, 1))?;
    let items: Vec<Item> = images.iter().zip(FIRST..).map(|(image, index)| Item { image, index }).collect();
    assert!(memo.queue(&items[..3], &Views::Drawn)?.waits());
    let queued = memo.queue(&items[..2], &Views::Drawn)?;
    assert!(!queued.waits());
    assert_eq!(memo.finish(queued, &items[..2], &Views::Drawn)?.len(), 2);
});

/// That a step is one step, in whatever way it is taken.
///
/// In both ways 2 + 4 layers products follow upon each other, each of which rounds what it leaves: to float32's 24 digits,
/// even in float16, where the predicted images go in two terms. So much of a logit, which is up to 100, is noise. Folded in,
/// the step's own products have operands of their type's digits: x, and x Xᵀ, where it is stored. So much of what the step
/// changes is noise.
fn both_ways<E: Element>(stream: &Stream, precision: Precision, operand: f64) -> Result<()> {
    for model in ["tiny", "odd", "t50"] {
        let case = Case::open(model);
        let n = case.views();
        let adapted = |update: Update| -> Result<Raw> {
            let batch = case.batch::<E>(stream, 1, &case.settings(precision, update, n, 1))?;
            let items = [Item { image: &case.image, index: 0 }];
            Ok(batch.adapt(&items, &case.given(stream, n)?)?.remove(0))
        };
        let (implicit, in_place) = (adapted(Update::Implicit)?, adapted(Update::InPlace)?);
        assert_eq!((&implicit.zero_shot, &implicit.views), (&in_place.zero_shot, &in_place.views));
        let [implicit_memo, in_place_memo] = [&implicit, &in_place].map(|raw| &raw.by_loss[0]);
        assert_eq!(implicit_memo.entropy, in_place_memo.entropy);

        let pairs = implicit_memo.memo[0].iter().zip(&implicit.zero_shot);
        let effect = pairs.map(|(after, before)| f64::from((after - before).abs())).fold(0.0, f64::max);
        assert!(effect > 0.1, "{model}: a step that changes something, not {effect}");
        let products = (2 + 4 * case.checkpoint.config().vision.layers) as f64;
        let digits = 2.0 * products * 2f64.powi(-24) * f64::from(LOGIT_SCALE);
        let bound = digits + 2.0 * operand * effect;
        assert_close(&implicit_memo.memo[0], &in_place_memo.memo[0], Tolerance::absolute(bound));
    }
    Ok(())
}

device_test!(a_step_is_the_same_folded_in_and_taken_in_place, |stream| {
    both_ways::<f32>(&stream, Precision::Fp32, 2f64.powi(-24))?;
    both_ways::<f16>(&stream, Precision::Fp16, 2f64.powi(-11))?;
});

/// That each of several rates has what it has alone, whatever the batch.
fn several_rates<E: Element>(
    stream: &Stream,
    precision: Precision,
    (update, optimizer): (Update, Optimizer),
) -> Result<()> {
    let case = Case::open("odd");
    let n = case.views();
    let adapted = |rates: &[f32], at_once: usize, images: usize| -> Result<Vec<Raw>> {
        let learning_rates = rates.to_vec();
        let settings = case.settings(precision, update, n, 1);
        let settings = Settings { learning_rates, optimizer, ..settings };
        let batch = case.batch::<E>(stream, at_once, &settings)?;
        let items = [Item { image: &case.image, index: 0 }; 3];
        // A whole batch before a short one leaves nothing behind.
        batch.adapt(&items[..at_once], &case.given(stream, n)?)?;
        batch.adapt(&items[..images], &case.given(stream, n)?)
    };
    let rates = [1e-4, 3e-4, 0.0];
    let all = adapted(&rates, 3, 2)?;
    assert_eq!(all[0], all[1]);
    for (i, &rate) in rates.iter().enumerate() {
        let alone = adapted(&[rate], 1, 1)?.remove(0);
        assert_eq!((&alone.zero_shot, &alone.views), (&all[0].zero_shot, &all[0].views));
        let [alone, memo] = [&alone, &all[0]].map(|raw| &raw.by_loss[0]);
        assert_eq!((&alone.memo[..], &alone.entropy), (&memo.memo[i..=i], &memo.entropy));
    }
    let memo = &all[0].by_loss[0].memo;
    assert_eq!(memo[2], all[0].zero_shot, "a rate of 0 changes nothing");
    assert!(memo[0] != memo[1] && memo[0] != all[0].zero_shot);
    Ok(())
}

device_test!(several_rates_are_what_each_is_alone, |stream| {
    for (update, steps, optimizer) in WAYS {
        if steps == 1 || optimizer != Optimizer::PLAIN {
            several_rates::<f32>(&stream, Precision::Fp32, (update, optimizer))?;
            several_rates::<f16>(&stream, Precision::Fp16, (update, optimizer))?;
        }
    }
    let case = Case::open("tiny");
    let rates = vec![1e-4, 1e-5];
    let settings = case.settings(Precision::Fp32, Update::InPlace, 2, 3);
    let refused = case.batch::<f32>(&stream, 1, &Settings { learning_rates: rates, ..settings });
    assert!(refused.err().is_some_and(|error| error.to_string().contains("several rates are of one step")));
});

device_test!(from_the_second_batch_on_a_graph_is_launched, |stream| {
    let case = Case::open("odd");
    let images = images();
    for (update, steps, optimizer) in WAYS {
        let settings = case.optimized(case.settings(Precision::Fp16, update, 3, steps), optimizer);
        let batch = case.batch::<f16>(&stream, 2, &settings)?;
        let run = |order: &[usize]| -> Result<[usize; 2]> {
            let before = [stream.launches(), stream.graphs()];
            adapt(&batch, &images, order, &Views::Drawn)?;
            Ok([stream.launches() - before[0], stream.graphs() - before[1]])
        };
        let [launches, graphs] = run(&[0, 1])?;
        assert_eq!(graphs, 0);
        assert_eq!(run(&[3, 6])?, [launches, steps], "{update:?}");
        assert_eq!(run(&[4])?, [launches, 0], "another number of images");
        assert_eq!(run(&[5, 3])?, [launches, steps]);
        assert_eq!(run(&[5])?, [launches, steps]);
    }
});

device_test!(steps_between_the_first_and_the_last_are_one_graph, |stream| {
    let case = Case::open("odd");
    let images = images();
    for optimizer in [Optimizer::PLAIN, MOMENTUM, ADAMW] {
        let settings = case.optimized(case.settings(Precision::Fp16, Update::InPlace, 2, 6), optimizer);
        let batch = case.batch::<f16>(&stream, 2, &settings)?;
        let run = || adapt(&batch, &images, &[0, 4], &Views::Drawn);
        let before = stream.graphs();
        let first = run()?;
        let some = stream.graphs() - before;
        let again = run()?;
        let all = stream.graphs() - before - some;
        // The first, the last and one between them are launched one by one, once.
        assert_eq!([some, all], [3, 6], "{optimizer:?}");
        assert!(first == again, "{optimizer:?}: from graphs it is another");
    }
});

device_test!(nothing_is_compiled_after_the_start, |stream| {
    drop(stream);
    for model in ["tiny", "odd"] {
        let case = Case::open(model);
        let config = case.checkpoint.config();
        for (precision, (update, steps, optimizer)) in [Precision::Fp32, Precision::Fp16]
            .into_iter()
            .flat_map(|precision| WAYS.map(|way| (precision, way)))
        {
            let settings = case.optimized(case.settings(precision, update, 2, steps), optimizer);
            // A device of its own, on which nothing is loaded.
            let stream = test_stream();
            let gpu = stream.gpu();
            let classes = case.values("text").len() / config.embed_dim;
            prepare(&stream, config, classes, &settings)?;
            let loaded = gpu.loaded();
            assert!(loaded > 0);
            let layout = config.text_layout();
            let weights = case.checkpoint.text_params(&layout)?;
            encode_text(&stream, config, &layout, &weights, &vec![vec![1; 9]; 70], &[5; 70], precision)?;
            let mut memo = case.memo(&stream, 3, &settings)?;
            for count in [3, 1] {
                outcomes(&mut memo, &images()[..count])?;
            }
            if precision == Precision::Fp16 {
                let settings = Settings { loss_scale: 2f32.powi(60), ..settings.clone() };
                assert!(outcomes(&mut case.memo(&stream, 1, &settings)?, &images()[..1])?[0].overflow);
            }
            assert_eq!(gpu.loaded(), loaded, "{model}: {settings:?}");
        }
    }
});
