//! `memo augment`: an image's random views, for the eye and for other programs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use super::options::DeviceOptions;
use super::{Usage, print, session};
use crate::clip::Checkpoint;
use crate::data::read_image;
use crate::data::views::ViewSet;
use crate::ops::augmenter::{Augmenter, Images};
use crate::ops::draw::draw_views;
use crate::ops::pillow::Pillow;
use crate::ops::preprocess::Preprocess;
use crate::policy::Policy;
use crate::report::grid;
use crate::{interrupt, output};

const EXAMPLES: &str = "\
Examples:
  memo augment photo.jpg --grid views.png
  memo augment photo.jpg --index 17 --views 8 --params-out views.json
  memo augment photo.jpg --model MODEL --views-out views.safetensors";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Augment {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Views to draw
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true)]
    views: u32,
    /// Seed of the views
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// The image's index in its dataset, which decides its views together with the seed
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    index: u64,
    /// How views are drawn: notebook, mild, tpt, augmix, augmix-cifar, randaugment or none, with changes such as
    /// mild:rotation=10,scale=0.5..1
    #[arg(long, default_value = "notebook")]
    policy: Policy,
    /// The Pillow release whose resizing is reproduced to the bit
    #[arg(long, value_enum, default_value_t)]
    pillow: Pillow,
    /// Take the views' size and normalisation from a model, as for --views-in; else they are OpenAI's
    #[arg(long, short, value_name = "PATH", conflicts_with = "size")]
    model: Option<PathBuf>,
    /// Width and height of a view
    #[arg(long, default_value_t = 224, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096), allow_negative_numbers = true)]
    size: u32,
    #[command(flatten)]
    device: DeviceOptions,
    /// Write a contact sheet: the original first, then the views
    #[arg(long, value_name = "OUT.png")]
    grid: Option<PathBuf>,
    /// Write the normalised views: safetensors with `views` (N, 3, H, H) float32
    #[arg(long, value_name = "FILE")]
    views_out: Option<PathBuf>,
    /// Write what was drawn: a JSON array, one object a view
    #[arg(long, value_name = "FILE.json")]
    params_out: Option<PathBuf>,
}

impl Augment {
    pub fn run(self) -> Result<()> {
        if self.grid.is_none() && self.views_out.is_none() && self.params_out.is_none() {
            let why = "nothing to write: give --grid OUT.png, --views-out FILE or --params-out FILE.json";
            return Err(Usage(why.to_string()).into());
        }
        if let Some(path) = self
            .grid
            .as_ref()
            .filter(|path| path.extension().is_none_or(|end| !end.eq_ignore_ascii_case("png")))
            .filter(|path| output::is_plain(path))
        {
            return Err(Usage(format!("--grid {}: the sheet is a PNG; name it .png", path.display())).into());
        }
        let written: Vec<&PathBuf> =
            [&self.grid, &self.views_out, &self.params_out].into_iter().flatten().collect();
        written.iter().try_for_each(|path| output::check(path))?;
        let image = read_image(&self.image)?;
        let (w, h) = (image.width as usize, image.height as usize);
        let (size, preprocess) = match &self.model {
            None => (self.size as usize, Preprocess::clip(self.size as usize)),
            Some(model) => {
                let checkpoint = Checkpoint::open(model, None)?;
                (checkpoint.config().image_size, checkpoint.config().preprocess)
            }
        };
        let n = self.views as usize;
        let stream = session::open_device(self.device)?;
        // One patch as large as the view: the patches are then the view itself, channel by channel.
        let augmenter = Augmenter::new(size, size, preprocess, self.pillow)?.policy(&self.policy);
        let images = Images::upload(&stream, &[(self.index, (w, h), &image.pixels)])?;
        let params = stream.alloc([1, n])?;
        interrupt::catch()?;
        draw_views(&stream, &self.policy, (self.seed, 0), images.descs(), &params)?;

        if let Some(path) = &self.params_out {
            let mut drawn = serde_json::to_value(stream.read(&params)?)?;
            for view in drawn.as_array_mut().into_iter().flatten() {
                view["pillow"] = serde_json::to_value(self.pillow)?;
            }
            let text = serde_json::to_string_pretty(&drawn)? + "\n";
            output::write(path, text.as_bytes())?;
        }
        if self.grid.is_some() || self.views_out.is_some() {
            let patches = stream.alloc(augmenter.patches(n)).with_context(|| {
                format!("making room for {n} views; fewer (--views) or smaller (--size) ones need less")
            })?;
            augmenter.make::<f32>(&stream, &images, Some((&params, &patches)), None)?;
            let set = ViewSet::from_patches(&stream.read(&patches)?, size, size);
            if let Some(path) = &self.views_out {
                output::write(path, &set.serialized(&preprocess.scale)?)?;
            }
            if let Some(path) = &self.grid {
                let mut pictures = vec![image];
                pictures.extend(set.pictures(&preprocess.scale));
                output::write(path, &grid::square(&pictures)?)?;
            }
        }
        // Where one of them was stdout, it has that alone.
        match written.iter().any(|path| output::is_stdout(path)) {
            true => Ok(()),
            false => print(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>()),
        }
    }
}
