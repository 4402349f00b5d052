//! What is adapted to: the user's images, or ones made here, of the sizes that people have.

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::data::{Dataset, Rgb8};

/// Sizes of made images.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Sizes {
    /// 32 by 32, as CIFAR's
    Cifar,
    /// Photographs, as in ImageNet: 500 by 375, 375 by 500, and so on
    Photos,
}

/// Width and height of ImageNet's most frequent photographs, one in sixteen larger.
const PHOTOS: [(u32, u32); 16] = [
    (500, 375),
    (500, 375),
    (375, 500),
    (500, 333),
    (500, 375),
    (333, 500),
    (500, 375),
    (500, 500),
    (400, 300),
    (500, 375),
    (640, 480),
    (375, 500),
    (500, 334),
    (300, 225),
    (500, 375),
    (1600, 1200),
];

/// Images that are gone through again and again.
pub struct Pictures(Vec<Rgb8>);

/// Of a dataset, at most.
const MOST: usize = 256;

impl Pictures {
    pub fn made(sizes: Sizes) -> Pictures {
        Pictures(match sizes {
            Sizes::Cifar => (0..16).map(|seed| made(32, 32, seed)).collect(),
            Sizes::Photos => {
                PHOTOS.iter().zip(0..).map(|(&(width, height), seed)| made(width, height, seed)).collect()
            }
        })
    }

    /// The first images of a dataset.
    ///
    /// # Errors
    /// An image that cannot be read; none in it.
    pub fn of(dataset: &Dataset) -> Result<Pictures> {
        ensure!(!dataset.is_empty(), "timing: there is no image in --data");
        let images = (0..dataset.len().min(MOST)).map(|index| Ok(dataset.get(index)?.image));
        Ok(Pictures(images.collect::<Result<_>>()?))
    }

    /// The image whose turn it is.
    pub fn get(&self, turn: usize) -> &Rgb8 {
        &self.0[turn % self.0.len()]
    }
}

/// Waves of a few lengths in each colour, and a little noise.
fn made(width: u32, height: u32, seed: u64) -> Rgb8 {
    let mut state = seed;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as f32 / 16.0
    };
    let turn = seed as f32 * 0.7;
    let mut pixels = Vec::with_capacity(3 * (width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
            for colour in 0..3 {
                let wave = (x * (5.0 + colour as f32) + turn).sin() + (y * 7.0 + x * 3.0 - turn).cos();
                pixels.push((112.0 + 48.0 * wave + noise()).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Rgb8 { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_pictures_have_their_size_and_differ() {
        for sizes in [Sizes::Cifar, Sizes::Photos] {
            let pictures = Pictures::made(sizes);
            for turn in 0..16 {
                let Rgb8 { width, height, pixels } = pictures.get(turn);
                assert_eq!(pixels.len(), (3 * width * height) as usize);
                assert_ne!(pictures.get(turn).pixels, pictures.get(turn + 1).pixels);
                assert_eq!(pictures.get(turn).pixels, pictures.get(turn + 16).pixels);
            }
        }
    }
}
