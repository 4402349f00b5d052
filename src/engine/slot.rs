//! A batch's way to the device and back, beside which the host prepares the next.

use anyhow::{Result, ensure};
use bytemuck::Pod;

use super::Dims;
use super::batch::Item;
use super::outcome::{Raw, RawViews, Settings, Stepped};
use super::seen::Seen;
use crate::gpu::{Event, Gpu, Pinned, Stream, Tensor};
use crate::ops::augmenter::Images;
use crate::ops::view::ImageDesc;

/// Of what a batch gives of an image.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Views.
    n: usize,
    /// Classes.
    k: usize,
    losses: usize,
    rates: usize,
    steps: usize,
}

impl Sizes {
    pub fn new(dims: &Dims, settings: &Settings) -> Sizes {
        let (losses, rates) = (settings.losses.len(), settings.learning_rates.len());
        Sizes { n: dims.n, k: dims.k, losses, rates, steps: settings.steps }
    }
}

/// Host memory of one batch on its way.
pub struct Slot {
    sizes: Sizes,
    descs: Pinned<ImageDesc>,
    pixels: Pinned<u8>,
    logits: Pinned<f32>,        // (predictions, S, K)
    averages: [Pinned<f32>; 2], // (S, K)
    choices: Pinned<i32>,       // (S, N)
    confident: Pinned<f32>,     // (S, N)
    entropy: Pinned<f32>,       // (losses, steps, S)
    flags: Pinned<u32>,         // (losses, S)
    done: Event,
    /// Whether copies may be on their way that `done` is not behind, since the driver failed.
    is_loose: bool,
}

/// Where results lie on the device.
pub struct Results<'a> {
    pub logits: &'a Tensor<f32>, // (predictions·s, K): as they were loaded, then by each loss and learning rate
    pub seen: &'a Seen,          // of s images
    pub entropy: &'a Tensor<f32>, // (losses·steps, S)
    pub flags: &'a Tensor<u32>,  // (losses, S)
}

impl Slot {
    /// For batches of `s` images.
    ///
    /// # Errors
    /// Out of memory that can be pinned.
    pub fn new(gpu: &Gpu, s: usize, sizes: Sizes) -> Result<Slot> {
        let Sizes { n, k, losses, rates, steps } = sizes;
        Ok(Slot {
            sizes,
            descs: Pinned::new(gpu, s)?,
            pixels: Pinned::new(gpu, 0)?,
            logits: Pinned::new(gpu, (1 + losses * rates) * s * k)?,
            averages: [Pinned::new(gpu, s * k)?, Pinned::new(gpu, s * k)?],
            choices: Pinned::new(gpu, s * n)?,
            confident: Pinned::new(gpu, s * n)?,
            entropy: Pinned::new(gpu, losses * steps * s)?,
            flags: Pinned::new(gpu, losses * s)?,
            done: Event::new(gpu)?,
            is_loose: false,
        })
    }

    /// Queues the images' way to the device, into `descs` and `pixels`, which grow to the largest need.
    ///
    /// # Errors
    /// A side of 0 or past the largest; out of memory; the driver's.
    pub fn send(
        &mut self,
        stream: &Stream,
        items: &[Item],
        descs: &Tensor<ImageDesc>,
        pixels: &mut Tensor<u8>,
    ) -> Result<Images> {
        // What was on its way in this memory has arrived.
        match self.is_loose {
            true => stream.synchronize()?,
            false => self.done.synchronize()?,
        }
        let bytes = items.iter().map(|item| item.image.pixels.len()).sum::<usize>();
        if self.pixels.len() < bytes {
            self.pixels = Pinned::new(stream.gpu(), bytes)?;
        }
        if pixels.len() < bytes {
            *pixels = stream.alloc(0)?; // free the old one first
            *pixels = stream.alloc(bytes)?;
        }
        let images: Vec<(u64, (usize, usize), &[u8])> =
            items.iter().map(|item| (item.index, item.image.size(), &item.image.pixels[..])).collect();
        let list = ImageDesc::pack(&images, self.pixels.as_mut_slice())?;
        self.descs.as_mut_slice()[..list.len()].copy_from_slice(&list);
        let (descs, here) = (descs.rows(0..list.len()), pixels.rows(0..bytes));
        self.is_loose = true;
        // SAFETY: this memory is written next behind `done`, which is recorded behind the copies, or, where that fails, behind
        // all of the stream's work.
        unsafe {
            stream.send(&descs, &self.descs)?;
            stream.send(&here, &self.pixels)?;
        }
        self.mark(stream)?; // and again in `fetch`, unless the work between them fails
        Images::new(list, &descs, &here)
    }

    /// Queues the results' way back.
    ///
    /// # Errors
    /// The driver's.
    pub fn fetch(&mut self, stream: &Stream, results: &Results) -> Result<()> {
        self.is_loose = true;
        // SAFETY: this memory is looked at in `wait`, behind `done`.
        unsafe {
            stream.fetch(&self.logits, 0, results.logits)?;
            stream.fetch(&self.averages[0], 0, &results.seen.averages[0])?;
            stream.fetch(&self.averages[1], 0, &results.seen.averages[1])?;
            stream.fetch(&self.choices, 0, &results.seen.choices)?;
            stream.fetch(&self.confident, 0, &results.seen.confident)?;
            stream.fetch(&self.entropy, 0, results.entropy)?;
            stream.fetch(&self.flags, 0, results.flags)?;
        }
        self.mark(stream)
    }

    /// Has `done` behind all copies.
    fn mark(&mut self, stream: &Stream) -> Result<()> {
        self.done.record(stream)?;
        self.is_loose = false;
        Ok(())
    }

    /// Images, at most.
    pub fn images(&self) -> usize {
        self.descs.len()
    }

    /// Waits for the results of the `s` images that were sent last, fetched from where there is room for `images`.
    ///
    /// # Errors
    /// Those of the work.
    pub fn wait(&self, s: usize, images: usize) -> Result<Vec<Raw>> {
        self.done.synchronize()?;
        let all = self.images();
        ensure!((1..=all).contains(&s), "results of {s} images, of {all}");
        let Sizes { n, k, losses, rates, steps } = self.sizes;
        fn row<T: Pod>(of: &Pinned<T>, row: usize, len: usize) -> Vec<T> {
            of.as_slice()[row * len..(row + 1) * len].to_vec()
        }
        let entropy = |loss: usize, i: usize| {
            (0..steps).map(|step| self.entropy.as_slice()[(loss * steps + step) * images + i]).collect()
        };
        let stepped = |loss: usize, i: usize| Stepped {
            memo: (0..rates).map(|rate| row(&self.logits, (1 + loss * rates + rate) * s + i, k)).collect(),
            entropy: entropy(loss, i),
            overflow: self.flags.as_slice()[loss * images + i] != 0,
        };
        let raw = |i: usize| Raw {
            zero_shot: row(&self.logits, i, k),
            views: RawViews {
                average: row(&self.averages[0], i, k),
                confident_average: row(&self.averages[1], i, k),
                choices: row(&self.choices, i, n).into_iter().map(|class| class as usize).collect(),
                confident: row(&self.confident, i, n).into_iter().map(|weight| weight > 0.0).collect(),
            },
            by_loss: (0..losses).map(|loss| stepped(loss, i)).collect(),
        };
        Ok((0..s).map(raw).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Rgb8;
    use crate::device_test;

    device_test!(memory_of_copies_that_were_not_all_queued_is_left_alone, |stream| {
        let sizes = Sizes { n: 2, k: 3, losses: 1, rates: 1, steps: 1 };
        let mut slot = Slot::new(stream.gpu(), 1, sizes)?;
        let (descs, mut pixels) = (stream.alloc(1)?, stream.alloc(0)?);
        let image = Rgb8 { width: 2, height: 1, pixels: vec![7; 6] };
        let items = [Item { image: &image, index: 0 }];
        let logits = stream.upload([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
        let average = |first: f32| stream.upload([1, 3], &[first, first + 1.0, first + 2.0]);
        let averages = [average(-9.0)?, average(-6.0)?];
        let (choices, confident) = (stream.upload([1, 2], &[2, 0])?, stream.upload([1, 2], &[0f32, 1.0])?);
        let seen = Seen::of(choices, confident, averages);
        let (entropy, flags) = (stream.upload([1, 1], &[7f32])?, stream.zeros([1, 1])?);
        let results = Results { logits: &logits, seen: &seen, entropy: &entropy, flags: &flags };

        slot.send(&stream, &items, &descs, &mut pixels)?;
        // There is no room for the second of three.
        let too_many = Results { entropy: &stream.zeros([2, 1])?, ..results };
        assert!(slot.fetch(&stream, &too_many).is_err() && slot.is_loose);

        slot.send(&stream, &items, &descs, &mut pixels)?;
        assert!(!slot.is_loose);
        slot.fetch(&stream, &results)?;
        let (zero_shot, memo) = (vec![1.0, 2.0, 3.0], vec![vec![4.0, 5.0, 6.0]]);
        let views = RawViews {
            average: vec![-9.0, -8.0, -7.0],
            confident_average: vec![-6.0, -5.0, -4.0],
            choices: vec![2, 0],
            confident: vec![false, true],
        };
        let by_loss = vec![Stepped { memo, entropy: vec![7.0], overflow: false }];
        assert_eq!(slot.wait(1, 1)?, [Raw { zero_shot, views, by_loss }]);
    });
}
