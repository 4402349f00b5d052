//! The whole of MEMO against float64 PyTorch, see `make_models.py`: activations, loss, the gradient of
//! every parameter, and predictions after one and after three steps, for several geometries, both namings
//! and all dtypes of checkpoints.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Result;
use memo::check::{Tolerance, assert_close, fixtures, within};
use memo::clip::{Activation, Checkpoint, Naming};
use memo::data::Rgb8;
use memo::device_test;
use memo::engine::{Item, Memo, Outcome, Settings, Update, Views, Vision};
use memo::gpu::Stream;
use memo::ops::patches::patchify;
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

    fn memo(&self, stream: &Stream, batch: usize, steps: usize, update: Update) -> Result<Memo<f32>> {
        let config = self.checkpoint.config();
        let layout = config.vision_layout();
        let weights = self.checkpoint.vision_params(&layout)?;
        let (learning_rate, policy) = (self.values("lr")[0], Policy::notebook());
        let settings = Settings { views: self.views(), learning_rate, steps, seed: 0, policy, update };
        let vision = Vision { config: config.clone(), layout };
        Memo::new(stream, vision, &weights, self.values("text"), batch, settings)
    }

    /// The given views of as many copies of the image.
    fn adapt(&self, stream: &Stream, memo: &Memo<f32>, images: usize) -> Result<Vec<Outcome>> {
        let patches = self.view_patches();
        let len = self.checkpoint.config().patch_len();
        let views = Views::Given(stream.upload([patches.len() / len, len], &patches)?);
        let items = vec![Item { image: &self.image, index: 0 }; images];
        memo.adapt(&items, &views)?.into_iter().collect()
    }
}

device_test!(activations_are_pytorchs, |stream| {
    for model in MODELS {
        let case = case(model);
        // In place, the forward pass leaves what it made of the views; of the originals, what the prediction made.
        let memo = case.memo(&stream, 1, 1, Update::InPlace)?;
        case.adapt(&stream, &memo, 1)?;
        let acts = memo.acts(1);
        let config = case.checkpoint.config();
        let (n, t) = (case.views(), config.tokens());
        // PyTorch's are of views and original; here of the views.
        let of_views = |want: &[f32]| want[..want.len() / (n + 1) * n].to_vec();
        let got = |tensor| -> Result<Vec<f32>> { Ok(of_views(&stream.read(tensor)?)) };

        assert_close(&got(&acts.pre_ln.out)?, &of_views(case.values("embedded")), within(1e-6));
        let blocks = case.values("blocks");
        let len = blocks.len() / config.vision.layers;
        for (index, (want, block)) in blocks.chunks(len).zip(&acts.blocks).enumerate() {
            let mut want = of_views(want);
            if index + 1 == config.vision.layers {
                // Of the class tokens alone.
                let c = config.vision.width;
                want = want.chunks(t * c).flat_map(|tokens| &tokens[..c]).copied().collect();
            }
            assert_close(&got(&block.out)?, &want, within(2e-6));
        }
        assert_close(&got(&acts.unit)?, &of_views(case.values("features")), within(2e-6));
    }
});

device_test!(one_step_is_pytorchs, |stream| {
    for (model, update) in
        MODELS.into_iter().flat_map(|model| [(model, Update::Implicit), (model, Update::InPlace)])
    {
        let case = case(model);
        let memo = case.memo(&stream, 3, 1, update)?;
        let outcomes = case.adapt(&stream, &memo, 3)?;
        let outcome = &outcomes[0];
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

        let grads = memo.gradients(3)?;
        let hugging_face = case.checkpoint.config().vision_sources(Naming::HuggingFace);
        assert_eq!(hugging_face.len(), case.expected.keys().filter(|k| k.starts_with("grad.")).count());
        for image in 0..3 {
            let grads = stream.read(&grads.rows(image..image + 1))?;
            for source in &hugging_face {
                let want = case.values(&format!("grad.{}", source.name));
                // A key's bias shifts all of a query's scores alike: its true gradient is zero, and any
                // relative error of it would be of rounding.
                if source.name.ends_with("k_proj.bias") {
                    assert_close(&grads[source.range.clone()], want, Tolerance::absolute(1e-5));
                } else {
                    assert_close(&grads[source.range.clone()], want, within(1e-4));
                }
            }
        }
        // Nothing of an episode is left for the next, and an image does not depend on its place.
        assert_eq!(outcomes, vec![outcome.clone(); 3]);
        assert_eq!(case.adapt(&stream, &memo, 1)?, outcomes[..1]);
    }
});

device_test!(three_steps_are_pytorchs, |stream| {
    for model in MODELS {
        let case = case(model);
        let memo = case.memo(&stream, 2, 3, Update::InPlace)?;
        let outcomes = case.adapt(&stream, &memo, 2)?;
        assert_close(&outcomes[0].entropy, case.values("entropy"), Tolerance::absolute(1e-4));
        assert_close(&outcomes[0].memo.logits, case.values("adapted3"), Tolerance::absolute(2e-3));
        assert_eq!(case.adapt(&stream, &memo, 2)?, outcomes);
        assert_eq!(outcomes[0], outcomes[1]);
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
