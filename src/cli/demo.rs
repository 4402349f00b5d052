//! `memo demo`: a small trained CLIP and shifted images, both inside the repository.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::fleet::evaluate;
use super::options::{AdaptOptions, Batch, DeviceOptions, ModelOptions};
use super::{print, session};
use crate::data::views::ViewSet;
use crate::data::{Dataset, Evaluated};
use crate::metrics::Totals;
use crate::ops::augmenter::{Augmenter, Images};
use crate::ops::draw::draw_views;
use crate::records::Row;
use crate::report::{self, Progress, grid};
use crate::{interrupt, notice, output};

/// The shifts of the demo's images, tensors of `demo-images.safetensors`.
const CORRUPTIONS: [&str; 4] = ["noise", "blur", "rotation", "contrast"];

#[derive(Args)]
pub struct Demo {
    #[command(flatten)]
    device: DeviceOptions,
    /// Folder for the contact sheet
    #[arg(long, default_value = "demo-out", value_name = "FOLDER")]
    out: PathBuf,
    /// Images of each corruption, of 100 that there are
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100), allow_negative_numbers = true)]
    limit: u32,
}

impl Demo {
    pub fn run(self) -> Result<()> {
        let no_folder = || format!("{} is there and no folder; --out names one", self.out.display());
        ensure!(self.out.is_dir() || !self.out.exists(), no_folder());
        let assets = find_assets()?;
        let model = ModelOptions {
            model: assets.join("demo-model"),
            activation: None,
            logit_scale: None,
            device: self.device,
        };
        // From an earlier trial on digits under the same kinds of damage, so its gains flatter MEMO: a
        // demonstration, not an unbiased estimate.
        let adapt = AdaptOptions::mild(16, 3e-3);
        let checkpoint = session::open_checkpoint(&model)?;
        let stream = session::open_device(self.device)?;
        let (images, labels) = (assets.join("demo-images.safetensors"), assets.join("demo-labels.txt"));
        let datasets = CORRUPTIONS
            .iter()
            .map(|name| Ok(Evaluated::from(Dataset::from_safetensors(&images, name, &labels)?)))
            .collect::<Result<Vec<_>>>()?;
        let counts: Vec<usize> = datasets.iter().map(|set| set.len().min(self.limit as usize)).collect();
        let (labels, most) = (datasets[0].data().labels(), counts.iter().copied().max().unwrap_or(0));
        let mut memo = session::classifier(&stream, &checkpoint, labels, &adapt, Batch::Auto, most)?;

        interrupt::catch()?;
        let start = Instant::now();
        let asked: usize = counts.iter().sum();
        let mut progress = Progress::new(asked, 0);
        let mut all = Totals::default();
        let mut rows = Vec::new();
        for ((name, dataset), count) in CORRUPTIONS.iter().zip(&datasets).zip(counts) {
            let mut totals = Totals::default();
            let indices: Vec<usize> = (0..count).collect();
            evaluate(&mut memo, dataset, &indices, None, &mut |row| {
                if let Row::Failure(failure) = &row {
                    bail!("reading image {} of {name}: {}", failure.index, failure.error);
                }
                totals.add(&row);
                all.add(&row);
                progress.advance(&all);
                Ok(())
            })?;
            rows.push((name.to_string(), totals));
        }
        drop(progress);
        let images_per_s = all.images() as f64 / start.elapsed().as_secs_f64();
        // First of all: a sheet that cannot be written is no reason to lose it.
        print(&report::demo_table(&rows, images_per_s))?;
        if all.images() < asked {
            notice!("note: {} of {asked} images are not done", asked - all.images());
        }
        interrupt::check()?;

        let sheet = self.out.join("views.png");
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("making the folder {}", self.out.display()))?;
        let size = checkpoint.config().image_size;
        let config = checkpoint.config();
        let augmenter =
            Augmenter::new(size, size, config.preprocess, adapt.fixed.pillow)?.policy(&adapt.policy);
        let mut pictures = Vec::new();
        for dataset in &datasets {
            let original = dataset.data().get(0)?.image;
            let (w, h) = (original.width as usize, original.height as usize);
            let images = Images::upload(&stream, &[(0, (w, h), &original.pixels)])?;
            let (params, patches) = (stream.alloc([1, 7])?, stream.alloc(augmenter.patches(7))?);
            draw_views(&stream, &adapt.policy, (adapt.fixed.seed, 0), images.descs(), &params)?;
            augmenter.make::<f32>(&stream, &images, Some((&params, &patches)), None)?;
            pictures.push(original);
            pictures.extend(
                ViewSet::from_patches(&stream.read(&patches)?, size, size).pictures(&config.preprocess.scale),
            );
        }
        output::write(&sheet, &grid::rows(&pictures, 8)?)?;
        print(&format!("\nEach row of {} is an image and seven of its views.\n", sheet.display()))
    }
}

/// `assets/`: `MEMO_ASSETS`, or found upwards from the program, or where it was built.
fn find_assets() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("MEMO_ASSETS") {
        return Ok(PathBuf::from(folder));
    }
    let program = std::env::current_exe().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = program.ancestors().skip(1).chain([built]);
    folders
        .map(|folder| folder.join("assets"))
        .find(|assets| assets.join("demo-model").is_dir())
        .context("finding the demo's model: no assets/demo-model above the program; MEMO_ASSETS names the project's folder assets")
}
