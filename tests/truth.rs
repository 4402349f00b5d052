//! The whole of MEMO against float64 PyTorch, see `make_models.py`: activations, loss, the gradient of
//! every parameter, and predictions after one and after three steps, for several geometries, both namings
//! and all dtypes of checkpoints.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Result;
use memo::check::{Tolerance, assert_close, fixtures, within};
use memo::clip::{Activation, Checkpoint, Naming, VisionTower};
use memo::data::Rgb8;
use memo::device_test;
use memo::episode::{Memo, Settings, Views};
use memo::gpu::Stream;
use memo::ops::augment::{Augmenter, patchify};
use memo::policy::Policy;
use safetensors::{Dtype, SafeTensors};

/// One model and what is expected of it.
struct Case {
    checkpoint: Checkpoint,
    naming: Naming,
    /// Tensors by name: shape and values.
    expected: HashMap<String, (Vec<usize>, Vec<f32>)>,
    image: Rgb8,
}

const MODELS: [&str; 4] = ["tiny", "t50", "odd", "openai.safetensors"];

fn case(model: &str) -> Case {
    let folder: PathBuf = fixtures().join("models");
    let naming = if model.ends_with(".safetensors") { Naming::OpenAi } else { Naming::HuggingFace };
    let activation = (naming == Naming::OpenAi).then_some(Activation::QuickGelu);
    let checkpoint = Checkpoint::open(&folder.join(model), activation).unwrap();
    let name = model.trim_end_matches(".safetensors");
    let bytes = std::fs::read(folder.join(format!("{name}.expected.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data());
    let names = file.names().into_iter().filter(|name| file.tensor(name).unwrap().dtype() == Dtype::F32);
    let expected = names
        .map(|name| (name.to_string(), (file.tensor(name).unwrap().shape().to_vec(), floats(name))))
        .collect();
    let image = file.tensor("image").unwrap();
    let side = image.shape()[0] as u32;
    let image = Rgb8 { width: side, height: side, pixels: image.data().to_vec() };
    Case { checkpoint, naming, expected, image }
}

impl Case {
    fn values(&self, name: &str) -> &[f32] {
        &self.expected.get(name).unwrap_or_else(|| panic!("no {name}")).1
    }

    fn views(&self) -> usize {
        self.expected["views"].0[0]
    }

    fn view_patches(&self) -> Vec<f32> {
        let config = self.checkpoint.config();
        patchify(self.values("views"), config.image_size, config.patch_size)
    }

    fn memo(&self, stream: &Stream, steps: usize) -> Result<Memo> {
        let config = self.checkpoint.config();
        let layout = config.vision_layout();
        let weights = self.checkpoint.vision_params(&layout)?;
        let vision = VisionTower::new(stream, config, layout, &weights, self.views() + 1)?;
        let augmenter = Augmenter::new(stream, config.image_size, config.patch_size)?;
        let learning_rate = self.values("lr")[0];
        let settings =
            Settings { views: self.views(), learning_rate, steps, seed: 0, policy: Policy::notebook() };
        Memo::new(stream, vision, augmenter, self.values("text"), settings)
    }
}

device_test!(activations_are_pytorchs, |stream| {
    for model in MODELS {
        let case = case(model);
        let memo = case.memo(&stream, 1)?;
        let (vision, n) = (memo.vision(), case.views());
        let mut patches = case.view_patches();
        let original = stream.alloc(vision.image_len())?;
        let config = case.checkpoint.config();
        let side = case.image.width as usize;
        Augmenter::new(&stream, config.image_size, config.patch_size)?.original(
            &stream.vector(&case.image.pixels)?,
            (side, side),
            &original,
        )?;
        patches.extend(stream.read(&original)?);
        stream.write(&vision.patches.slice(0..patches.len()), &patches)?;
        let unit = vision.forward(&stream, n + 1)?;

        assert_close(&stream.read(&vision.block_input(n + 1))?, case.values("embedded"), within(1e-6));
        let blocks = case.values("blocks");
        let len = blocks.len() / config.vision.layers;
        for (index, want) in blocks.chunks(len).enumerate() {
            assert_close(&stream.read(&vision.block_output(index, n + 1))?, want, within(2e-6));
        }
        assert_close(&stream.read(&unit)?, case.values("features"), within(2e-6));
    }
});

device_test!(one_step_is_pytorchs, |stream| {
    for model in MODELS {
        let case = case(model);
        let memo = case.memo(&stream, 1)?;
        let before = stream.read(&memo.vision().params)?;
        let views = stream.vector(&case.view_patches())?;
        let outcome = memo.adapt(&case.image, Views::Given(&views))?;

        let k = outcome.zero_shot.logits.len();
        let original = &case.values("logits")[case.views() * k..];
        assert_close(&outcome.zero_shot.logits, original, Tolerance::absolute(5e-4));
        assert_close(&outcome.entropy, &case.values("entropy")[..1], Tolerance::absolute(1e-5));
        assert_close(&outcome.memo.logits, case.values("adapted1"), Tolerance::absolute(2e-3));
        let effect = |after: &[f32], before: &[f32]| -> Vec<f64> {
            after.iter().zip(before).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
        };
        let want = effect(case.values("adapted1"), original);
        assert_close(&effect(&outcome.memo.logits, &outcome.zero_shot.logits), &want, within(0.01));

        let grads = stream.read(&memo.vision().grads)?;
        let hugging_face = case.checkpoint.config().vision_sources(Naming::HuggingFace);
        assert_eq!(hugging_face.len(), case.expected.keys().filter(|k| k.starts_with("grad.")).count());
        for source in hugging_face {
            let want = case.values(&format!("grad.{}", source.name));
            // A key's bias shifts all of a query's scores alike: its true gradient is zero, and any
            // relative error of it would be of rounding.
            if source.name.ends_with("k_proj.bias") {
                assert_close(&grads[source.range], want, Tolerance::absolute(1e-5));
            } else {
                assert_close(&grads[source.range], want, within(1e-4));
            }
        }
        let after = stream.read(&memo.vision().params)?;
        assert!(before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()), "{model}: not restored");
    }
});

device_test!(three_steps_are_pytorchs, |stream| {
    for model in MODELS {
        let case = case(model);
        let memo = case.memo(&stream, 3)?;
        let views = stream.vector(&case.view_patches())?;
        let outcome = memo.adapt(&case.image, Views::Given(&views))?;
        assert_close(&outcome.entropy, case.values("entropy"), Tolerance::absolute(1e-4));
        assert_close(&outcome.memo.logits, case.values("adapted3"), Tolerance::absolute(2e-3));
        // Nothing of an episode is left for the next.
        assert_eq!(memo.adapt(&case.image, Views::Given(&views))?, outcome);
    }
});

#[test]
fn both_namings_hold_the_same_model() {
    let case = case("openai.safetensors");
    assert_eq!(case.naming, Naming::OpenAi);
    let config = case.checkpoint.config();
    assert_eq!((config.tokens(), config.vision.layers, config.vision.heads), (5, 2, 1));
    assert!(case.checkpoint.text_params(&config.text_layout()).is_ok());
}
