//! What a model asks of a picture before it sees it: read by `clip::preprocess`, done by `kernels/augment.cu`.

use std::fmt;

use bytemuck::{Pod, Zeroable};
use serde::Serialize;

use super::pillow::Filter;

/// From 8-bit RGB to what a vision tower takes. A predicted picture is resized, the centre `H` × `H` of that is cut out, and its
/// levels become numbers. A view is `H` × `H` already, by the resize of its own random crop, and only its levels become numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Preprocess {
    pub resize: Resize,
    pub filter: Filter,
    pub scale: Scale,
}

/// The size that a picture is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Its shorter side to so many pixels, the other in proportion, cut off to whole pixels.
    ShortestEdge(usize),
    /// Whatever its shape.
    Exact { width: usize, height: usize },
}

/// What becomes of a level of 0 to 255: it is divided by `divisor`, less its channel's mean, over its deviation.
/// `struct Scale` of `kernels/augment.cu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, Serialize)]
pub struct Scale {
    pub divisor: f32,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Preprocess {
    /// OpenAI's, for images of `image_size` pixels a side.
    pub fn clip(image_size: usize) -> Preprocess {
        Preprocess { resize: Resize::ShortestEdge(image_size), filter: Filter::Bicubic, scale: Scale::CLIP }
    }
}

impl Resize {
    /// `(width, height)` of a picture of `w` × `h` pixels, resized.
    pub fn of(self, (w, h): (usize, usize)) -> (usize, usize) {
        match self {
            Resize::ShortestEdge(size) => {
                let short = w.min(h);
                (size * w / short, size * h / short)
            }
            Resize::Exact { width, height } => (width, height),
        }
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Preprocess { resize, filter, scale } = self;
        let filter = match filter {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic => "bicubic",
        };
        write!(f, "{resize}, {filter}; ")?;
        match *scale {
            Scale { divisor, mean: [0.0, 0.0, 0.0], std: [1.0, 1.0, 1.0] } => write!(f, "levels / {divisor}"),
            Scale { divisor, mean, std } => write!(f, "(levels / {divisor} - {mean:?}) / {std:?}"),
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resize::ShortestEdge(size) => write!(f, "a shortest edge of {size}"),
            Resize::Exact { width, height } => write!(f, "{width} × {height}"),
        }
    }
}

impl Scale {
    /// OpenAI's.
    #[allow(clippy::excessive_precision)] // its own digits
    pub const CLIP: Scale = Scale {
        divisor: 255.0,
        mean: [0.48145466, 0.4578275, 0.40821073],
        std: [0.26862954, 0.26130258, 0.27577711],
    };

    /// The number that a level of a channel becomes.
    pub fn number(&self, level: u8, channel: usize) -> f32 {
        (f32::from(level) / self.divisor - self.mean[channel]) / self.std[channel]
    }

    /// The level that became `number`.
    pub fn level(&self, number: f32, channel: usize) -> u8 {
        ((number * self.std[channel] + self.mean[channel]) * self.divisor).round() as u8
    }
}
