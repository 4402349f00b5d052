//! What a model's files say of its preprocess: Hugging Face's `processor_config.json` and `preprocessor_config.json`, with the
//! defaults of transformers' `CLIPImageProcessor`, and open_clip's `preprocess_cfg`, with those of its `PreprocessCfg`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::config_file::json;
use super::fields::Section;
use crate::ops::pillow::Filter;
use crate::ops::preprocess::{Preprocess, Resize, Scale};

/// transformers 5's file for all of a model's input, and the one that earlier versions write for its images.
const NEWER: &str = "processor_config.json";
const OLDER: &str = "preprocessor_config.json";

/// Fields with what pictures are made by.
const PICTURES: [&str; 6] = ["size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std"];

/// The most pixels that a side is resized to: 32-bit sizes hold what comes of any image.
const MOST: usize = 16_384;

/// What Hugging Face's files beside `weights` say; nothing where there are none.
///
/// # Errors
/// What does not make `image_size` × `image_size` pixels of every picture, or is not what a CLIP asks for, with file and field;
/// two files that disagree, of which transformers 5 takes the one and transformers 4 the other.
pub fn beside(weights: &Path, image_size: usize) -> Result<Option<Preprocess>> {
    let read = |name: &str| -> Result<Option<Preprocess>> {
        let path = weights.with_file_name(name);
        if !path.is_file() {
            return Ok(None);
        }
        let read = || {
            let json = json(&path)?;
            let file = Section::file(&json)?;
            match (name, file.get("image_processor")) {
                // transformers takes nothing of such a file, and its pictures from the older one, without which it stops.
                (NEWER, None) => match PICTURES.iter().find(|&&field| file.get(field).is_some()) {
                    Some(field) => bail!("{field} is not in its image_processor, where it belongs"),
                    None => Ok(None),
                },
                (NEWER, _) => hugging_face(&file.section("image_processor")?, image_size).map(Some),
                _ => hugging_face(&file, image_size).map(Some),
            }
        };
        read().with_context(|| format!("reading {}", path.display()))
    };
    match (read(NEWER)?, read(OLDER)?) {
        (Some(newer), Some(older)) if newer != older => bail!(
            "reading {}: {NEWER} and {OLDER} disagree: {newer} and {older}; transformers 5 takes the first, transformers 4 the \
             second: remove the one that is wrong",
            weights.with_file_name(NEWER).display()
        ),
        (newer, older) => Ok(newer.or(older)),
    }
}

/// Of an image processor's section.
fn hugging_face(file: &Section, image_size: usize) -> Result<Preprocess> {
    for field in ["image_processor_type", "feature_extractor_type"] {
        let Some(kind) = file.get(field) else { continue };
        let name = kind.as_str().and_then(|name| name.strip_prefix("CLIP"));
        let known = ["ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor"];
        let is_clips = name.is_some_and(|name| known.contains(&name));
        ensure!(is_clips, "{} is {kind}, not a CLIPImageProcessor", file.called(field));
    }
    // transformers refuses these, or takes what its version has for them.
    for field in PICTURES {
        ensure!(!file.is_null(field), "{} is null; say it, or leave it out", file.called(field));
    }
    for field in ["do_pad", "use_square_size"] {
        ensure!(!file.flag(field, false)?, "{} is true; CLIP's images have none of that", file.called(field));
    }
    ensure!(
        file.flag("do_resize", true)?,
        "{} is false; pictures of any size are resized",
        file.called("do_resize")
    );

    let filter = match file.get("resample").map(|value| (value, value.as_u64())) {
        None | Some((_, Some(3))) => Filter::Bicubic,
        Some((_, Some(2))) => Filter::Bilinear,
        Some((value, _)) => {
            bail!("{} is {value}; 2 (bilinear) and 3 (bicubic) are known", file.called("resample"))
        }
    };
    let divisor = match file.flag("do_rescale", true)? {
        true => 1.0 / file.number("rescale_factor", 1.0 / 255.0)?,
        false => 1.0,
    };
    ensure!(
        divisor > 0.0 && (divisor as f32).is_normal(),
        "{} is {}; a positive number is needed",
        file.called("rescale_factor"),
        1.0 / divisor
    );
    let (mean, std) = match file.flag("do_normalize", true)? {
        true => deviations(file, "image_mean", "image_std")?,
        false => ([0.0; 3], [1.0; 3]),
    };
    let scale = Scale { divisor: divisor as f32, mean, std };
    let resize = resize(file)?;
    match (file.flag("do_center_crop", true)?, resize) {
        (true, _) => {
            let crop = match file.get("crop_size") {
                None => (224, 224),
                Some(value) => exact(value).with_context(|| {
                    format!("{} is {value}, not a height and a width", file.called("crop_size"))
                })?,
            };
            ensure!(
                crop == (image_size, image_size),
                "{} is {} × {}; the model takes {image_size} × {image_size}",
                file.called("crop_size"),
                crop.0,
                crop.1
            );
            let (width, height) = resize.of((1, 1));
            ensure!(
                width.min(height) >= image_size,
                "{} is {resize}, less than the {image_size} × {image_size} pixels that are cut from it: they would have a black edge",
                file.called("size")
            );
        }
        (false, Resize::Exact { width, height }) => ensure!(
            (width, height) == (image_size, image_size),
            "{} is {resize}; the model takes {image_size} × {image_size}",
            file.called("size")
        ),
        (false, Resize::ShortestEdge(_)) => bail!(
            "{} is false where {} is {resize}: pictures that are not square would stay so; the model takes {image_size} × {image_size}",
            file.called("do_center_crop"),
            file.called("size")
        ),
    }
    Ok(Preprocess { resize, filter, scale })
}

/// `size`: a number or an object.
fn resize(file: &Section) -> Result<Resize> {
    let name = file.called("size");
    let Some(value) = file.get("size") else { return Ok(Resize::ShortestEdge(224)) };
    let resize = match value {
        Value::Number(_) => {
            let square = file.flag("default_to_square", false)?;
            ensure!(
                !square,
                "{} is true where {name} is {value}: say its height and width",
                file.called("default_to_square")
            );
            pixels(value).map(Resize::ShortestEdge)
        }
        Value::Object(sides) if sides.len() == 1 => {
            sides.get("shortest_edge").and_then(pixels).map(Resize::ShortestEdge)
        }
        _ => exact(value).map(|(width, height)| Resize::Exact { width, height }),
    };
    resize.with_context(|| format!("{name} is {value}, neither a shortest_edge nor a height and a width"))
}

/// `(width, height)` of a side, of both in a list, height first, or of an object.
fn exact(value: &Value) -> Option<(usize, usize)> {
    match value {
        Value::Number(_) => pixels(value).map(|side| (side, side)),
        Value::Array(sides) => match &sides[..] {
            [height, width] => Some((pixels(width)?, pixels(height)?)),
            _ => None,
        },
        Value::Object(sides) if sides.len() == 2 => {
            Some((pixels(sides.get("width")?)?, pixels(sides.get("height")?)?))
        }
        _ => None,
    }
}

fn pixels(value: &Value) -> Option<usize> {
    value.as_u64().map(|side| side as usize).filter(|side| (1..=MOST).contains(side))
}

/// Of the levels of each channel; OpenAI's by default.
fn deviations(section: &Section, mean: &str, std: &str) -> Result<([f32; 3], [f32; 3])> {
    let [means, stds] = [(mean, Scale::CLIP.mean), (std, Scale::CLIP.std)].map(|(field, default)| {
        let Some(value) = section.get(field) else { return Ok(default) };
        let numbers = value.as_array().map(|all| all.iter().map(|x| Some(x.as_f64()? as f32)));
        let numbers: Option<Vec<f32>> = numbers.and_then(Iterator::collect);
        let three = numbers.and_then(|all| <[f32; 3]>::try_from(all).ok());
        let three = three.filter(|three| three.iter().all(|x| x.is_finite()));
        three.with_context(|| format!("{} is {value}, not three numbers", section.called(field)))
    });
    let (means, stds) = (means?, stds?);
    ensure!(stds.iter().all(|x| *x != 0.0), "{} has a 0", section.called(std));
    Ok((means, stds))
}

/// Of open_clip's `preprocess_cfg`. Its `size` is passed over, as open_clip does: the model's image size stands in its place.
///
/// # Errors
/// What is not what a CLIP asks for, with the field.
pub fn open_clip(section: &Section, image_size: usize) -> Result<Preprocess> {
    let choice = |field: &str, default: &'static str, known: &[&'static str]| -> Result<&'static str> {
        let Some(value) = section.get(field) else { return Ok(default) };
        let found = known.iter().find(|&&known| value == known).copied();
        found
            .with_context(|| format!("{} is {value}; {} is known", section.called(field), known.join(" or ")))
    };
    choice("mode", "RGB", &["RGB"])?;
    let resize = match choice("resize_mode", "shortest", &["shortest", "squash"])? {
        "squash" => Resize::Exact { width: image_size, height: image_size },
        _ => Resize::ShortestEdge(image_size),
    };
    let filter = match choice("interpolation", "bicubic", &["bicubic", "bilinear", "random"])? {
        "bilinear" => Filter::Bilinear,
        _ => Filter::Bicubic, // `random` is open_clip's for training; it evaluates with bicubic
    };
    let (mean, std) = deviations(section, "mean", "std")?;
    Ok(Preprocess { resize, filter, scale: Scale { divisor: 255.0, mean, std } })
}
