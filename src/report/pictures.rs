//! The images themselves, small, for a page.

use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};

use super::document::{Example, Picture, RunReport};
use crate::data::{Dataset, Rgb8};

/// The longer side of a picture at most; smaller images are not enlarged.
const SIDE: u32 = 160;
/// Up to here each pixel is shown as a square.
const SMALL: u32 = 64;

/// Gives a run's examples their pictures. Those that are not what the run saw are left out, which its notes tell.
pub fn add(run: &mut RunReport, dataset: &Dataset) {
    let (mut missing, mut why) = (0, None);
    for example in run.fixed.iter_mut().chain(&mut run.broken) {
        match picture(example, dataset) {
            Ok(picture) => example.picture = Some(picture),
            Err(error) => {
                missing += 1;
                why.get_or_insert(format!("{error:#}"));
            }
        }
    }
    if let Some(why) = why {
        run.notes.push(format!("{missing} pictures are left out; the first one: {why}"));
    }
}

/// What is known of an image beside its place and digest.
fn named(group: Option<&str>, file: Option<&str>) -> String {
    [group, file].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn picture(example: &Example, dataset: &Dataset) -> Result<Picture> {
    let &Example { index, digest, .. } = example;
    let images = dataset.len();
    ensure!(index < images, "image {index} is not among the {images} of the data");
    let sample = dataset.sample(index).with_context(|| format!("image {index}"))?;
    let now = named(dataset.group(index), dataset.file(index).as_deref());
    let then = named(example.group.as_deref(), example.file.as_deref());
    let told = if now == then { String::new() } else { format!(": {now:?}, not {then:?}") };
    ensure!(sample.digest == format!("{digest:016x}"), "image {index} is another than the run's{told}");
    let Rgb8 { width, height, pixels } = sample.image;
    let image =
        RgbImage::from_raw(width, height, pixels).context("an image has as many pixels as its size says")?;
    let longer = width.max(height);
    let side = |side: u32| (side * SIDE / longer.max(1)).max(1);
    let image = match longer <= SIDE {
        true => image,
        false => imageops::resize(&image, side(width), side(height), FilterType::Triangle),
    };
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png)?;
    Ok(Picture {
        source: format!("data:image/png;base64,{}", STANDARD.encode(png.into_inner())),
        width: image.width(),
        height: image.height(),
        is_small: longer <= SMALL,
    })
}
