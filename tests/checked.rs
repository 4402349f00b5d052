//! The engine's whole pass on the virtual device under all checks, on either architecture and in whatever order work is done:
//! no launch reads what nobody wrote, or races, or forgets to wait. And with approximate instructions as far off as may be, and
//! sums as tensor cores have them, results are as near the truth as `truth.rs` has them be.

mod common;

use std::collections::HashMap;
use std::thread;

use anyhow::Result;
use common::{Case, in_child, is_child};
use memo::check::{Tolerance, assert_close, random, test_stream};
use memo::data::Rgb8;
use memo::engine::{Item, Loss, Outcome, Precision, Update, Views, encode_text, prepare};
use memo::ops::Optimizer;

/// Numbers by name.
type Results = HashMap<String, Vec<f32>>;

/// What follows this on a line of the child's is a result: its name and its numbers.
const RESULT: &str = "result ";

fn noise(seed: u64, width: u32, height: u32) -> Rgb8 {
    let pixels = random((3 * width * height) as usize, 128.0, seed);
    Rgb8 { width, height, pixels: pixels.iter().map(|x| (x + 128.0) as u8).collect() }
}

/// Text, then two images of two views each, in both precisions and both ways: prints every number. Of the model with zeros behind
/// its patches, in float16 alone.
fn whole_pass() -> Result<()> {
    let stream = test_stream();
    let print = |name: &str, values: &[f32]| println!("{RESULT}{name} {values:?}");
    for model in ["tiny", "odd", "p14"] {
        let case = Case::open(model);
        let config = case.checkpoint.config();
        let layout = config.text_layout();
        let weights = case.checkpoint.text_params(&layout)?;
        let ids = vec![vec![1, 5, 7, 3, 2], vec![1, 9, 2, 0, 0]];
        let images = [noise(1, 5, 40), noise(2, 32, 32)];
        let items: Vec<Item> = images.iter().zip(0..).map(|(image, index)| Item { image, index }).collect();
        let precisions = match model {
            "p14" => vec![Precision::Fp16],
            _ => vec![Precision::Fp32, Precision::Fp16],
        };
        for precision in precisions {
            let text = encode_text(&stream, config, &layout, &weights, &ids, &[4, 2], precision)?;
            print(&format!("{model}.{precision:?}.text"), &text);
            // Of several steps the second takes each image's own weights.
            let plain = Optimizer::PLAIN;
            let mut ways =
                vec![("implicit", Update::Implicit, 1, plain), ("in-place", Update::InPlace, 2, plain)];
            if model == "odd" {
                ways.push(("adamw", Update::InPlace, 2, Optimizer::AdamW { weight_decay: 0.01 }));
                let heavy = Optimizer::Sgd { momentum: 0.9, weight_decay: 0.01 };
                ways.push(("momentum", Update::InPlace, 3, heavy));
                ways.extend(
                    ["augmix", "augmix-cifar", "randaugment"].map(|of| (of, Update::Implicit, 1, plain)),
                );
            }
            for (way, update, steps, optimizer) in ways {
                let mut settings = case.optimized(case.settings(precision, update, 2, steps), optimizer);
                // Those whose ways are no policies go by the case's.
                settings.policy = way.parse().unwrap_or(settings.policy);
                if model == "tiny" {
                    settings.losses = vec![Loss::All, Loss::Confident];
                }
                let classes = case.values("text").len() / config.embed_dim;
                prepare(&stream, config, classes, &settings)?;
                let mut memo = case.memo(&stream, 2, &settings)?;
                for (i, outcome) in memo.adapt(&items, &Views::Drawn)?.into_iter().enumerate() {
                    let Outcome { zero_shot, memo, entropy, overflow, .. } = outcome?;
                    assert!(!overflow);
                    let name = format!("{model}.{precision:?}.{way}.{i}");
                    print(&format!("{name}.zero_shot"), &zero_shot.logits);
                    print(&format!("{name}.memo"), &memo[0].as_ref().expect("finite").logits);
                    print(&format!("{name}.entropy"), &entropy);
                }
            }
        }
    }
    Ok(())
}

/// What a child printed, by name.
fn results(settings: &[(&str, &str)]) -> Results {
    let output = in_child("the_whole_pass_holds_under_all_checks", settings);
    let [said, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{settings:?}: {said}{errors}");
    assert!(!errors.contains("vcuda"), "{settings:?}: {errors}");
    let line = |line: &str| {
        let (name, values) = line.strip_prefix(RESULT)?.split_once(' ')?;
        Some((name.to_string(), serde_json::from_str(values).expect("numbers")))
    };
    said.lines().filter_map(line).collect()
}

/// To those of a run without checks, as far as `truth.rs` lets results be from the truth.
fn assert_near(got: &Results, want: &Results) {
    assert!(!want.is_empty() && got.len() == want.len(), "{} results, not {}", got.len(), want.len());
    for (name, want) in want {
        let bound = match (name.rsplit('.').next(), name.contains("Fp16")) {
            (Some("zero_shot"), _) => 5e-4,
            (Some("memo"), true) => 0.03,
            (Some("memo"), false) => 2e-3,
            (Some("entropy"), true) => 5e-3,
            _ => 1e-5,
        };
        assert_close(&got[name], want, Tolerance::absolute(bound));
    }
}

#[test]
fn the_whole_pass_holds_under_all_checks() {
    if is_child() {
        return whole_pass().unwrap_or_else(|error| panic!("{error:#}"));
    }
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    let on = |arch: &'static str, sums: &'static str| {
        let arch = ("VCUDA_ARCH", arch);
        let plain = results(&[arch]);
        assert_near(&results(&[arch, ("VCUDA_SUMS", sums)]), &plain);
        for seed in ["0", "1", "2"] {
            let checked = results(&[arch, ("VCUDA_CHECK", "all,approx"), ("VCUDA_SEED", seed)]);
            assert_near(&checked, &plain);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| on("sm_90a", "h100"));
        scope.spawn(|| on("sm_80", "a100"));
    });
}
