//! The same episode on two devices, number by number. A process has one driver, so it takes two runs:
//!
//! ```sh
//! side_by_side --device virtual --write virtual.safetensors
//! side_by_side --device gpu --compare virtual.safetensors
//! ```
//!
//! Views must be equal to the bit; activations, logits and every gradient within float32's reach.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use memo::check::{fixtures, random};
use memo::clip::{Checkpoint, Naming};
use memo::data::Rgb8;
use memo::engine::{Batch, Item, Precision, Settings, Update, Views, Vision};
use memo::gpu::{DeviceChoice, Gpu, Stream};
use memo::policy::Policy;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Largest relative error of a whole tensor between two devices.
const BOUND: f64 = 1e-4;

#[derive(Parser)]
struct Options {
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Where to write this device's numbers
    #[arg(long)]
    write: Option<PathBuf>,
    /// Another device's numbers to compare with
    #[arg(long)]
    compare: Option<PathBuf>,
    /// cargo passes it to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let stream = Gpu::open(options.device)?.stream()?;
    let numbers = ["tiny", "t50", "odd"]
        .iter()
        .map(|model| episode(&stream, model))
        .collect::<Result<Vec<_>>>()?
        .concat();
    println!("{}: {} tensors", stream.gpu().name()?, numbers.len());
    if let Some(path) = &options.write {
        let tensors: Vec<(String, TensorView)> = numbers
            .iter()
            .map(|(name, values)| {
                let tensor = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values))?;
                Ok((name.clone(), tensor))
            })
            .collect::<Result<_>>()?;
        safetensors::serialize_to_file(tensors, None, path)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let Some(path) = &options.compare else { return Ok(()) };
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let other = SafeTensors::deserialize(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let (mut worst, mut equal) = ((0.0, String::new()), 0);
    for (name, values) in &numbers {
        let want: Vec<f32> = bytemuck::pod_collect_to_vec(other.tensor(name)?.data());
        ensure!(
            want.len() == values.len(),
            "{name}: {} values, {} on the other device",
            values.len(),
            want.len()
        );
        let pairs = || values.iter().zip(&want).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let norm = pairs().map(|(_, b)| b * b).sum::<f64>().sqrt().max(1e-30);
        let error = pairs().map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt() / norm;
        equal += values.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()) as usize;
        println!("{error:9.2e}  {name}");
        ensure!(!error.is_nan(), "{name}: not a number");
        ensure!(!name.ends_with("patches") || error == 0.0, "{name}: views differ between the devices");
        if error > worst.0 {
            worst = (error, name.clone());
        }
    }
    println!(
        "equal to the bit: {equal} of {}; worst relative error {:.2e} ({})",
        numbers.len(),
        worst.0,
        worst.1
    );
    ensure!(worst.0 <= BOUND, "the devices differ by more than {BOUND:e}");
    Ok(())
}

/// What one step on a model computes: views, unit features, logits, gradients.
fn episode(stream: &Stream, model: &str) -> Result<Vec<(String, Vec<f32>)>> {
    let checkpoint = Checkpoint::open(&fixtures().join("models").join(model), None)?;
    let config = checkpoint.config();
    let (n, k) = (6, 10);
    let layout = config.vision_layout();
    let weights = checkpoint.vision_params(&layout)?;
    let settings = Settings {
        views: n,
        learning_rates: vec![1e-4],
        seed: 7,
        precision: Precision::Fp32,
        loss_scale: 1.0,
        ..Settings::one_step(Policy::notebook())
    };
    let text: Vec<f32> = random(k * config.embed_dim, 1.0, 3)
        .chunks(config.embed_dim)
        .flat_map(|row| {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter().map(move |x| x / norm).collect::<Vec<f32>>()
        })
        .collect();
    let vision = Vision { config: config.clone(), layout };
    let in_place = Settings { update: Update::InPlace, ..settings.clone() };
    let [memo, in_place] = [settings, in_place]
        .map(|settings| Batch::<f32>::new(stream, vision.clone(), &weights, &text, 1, settings));
    let (memo, in_place) = (memo?, in_place?);
    let pixels = random(40 * 33 * 3, 127.0, 9).iter().map(|x| (x + 128.0) as u8).collect();
    let image = Rgb8 { width: 40, height: 33, pixels };
    let items = [Item { image: &image, index: 5 }];
    let outcome = memo.adapt(&items, &Views::Drawn)?.remove(0);
    let outcome_in_place = in_place.adapt(&items, &Views::Drawn)?.remove(0);

    let mut numbers = vec![
        ("patches".to_string(), stream.read(&memo.views_of(1)?.patches)?),
        ("zero_shot".to_string(), outcome.zero_shot),
        ("memo".to_string(), outcome.by_loss[0].memo.concat()),
        ("memo in place".to_string(), outcome_in_place.by_loss[0].memo.concat()),
        ("entropy".to_string(), outcome.by_loss[0].entropy.clone()),
    ];
    let grads = stream.read(&in_place.gradients(1)?)?;
    for source in config.vision_sources(Naming::HuggingFace) {
        // The true gradient of a key's bias is zero: what is there is rounding.
        if !source.name.ends_with("k_proj.bias") {
            let values = source.values(&grads);
            numbers.push((source.name, values));
        }
    }
    Ok(numbers.into_iter().map(|(name, values)| (format!("{model}.{name}"), values)).collect())
}
