//! A batch's way to the device and back, beside which the host prepares the next.

use anyhow::{Result, ensure};

use super::batch::Item;
use super::outcome::Raw;
use crate::gpu::{Event, Gpu, Pinned, Stream, Tensor};
use crate::ops::augmenter::Images;
use crate::ops::draw::ImageDesc;

/// Host memory of one batch on its way.
pub struct Slot {
    descs: Pinned<ImageDesc>,
    pixels: Pinned<u8>,
    logits: Pinned<f32>,  // (P, S, K)
    entropy: Pinned<f32>, // (steps, S)
    flags: Pinned<u32>,   // (S,)
    done: Event,
    /// Whether copies may be on their way that `done` is not behind, since the driver failed.
    is_loose: bool,
}

/// Where results lie on the device.
pub struct Results<'a> {
    pub logits: &'a Tensor<f32>, // (P·s, K): as they were loaded, then by each learning rate
    pub entropy: &'a Tensor<f32>, // (steps, S)
    pub flags: &'a Tensor<u32>,  // (s,)
}

impl Slot {
    /// For batches of `s` images, `k` logits of each, and so many steps.
    ///
    /// # Errors
    /// Out of memory that can be pinned.
    pub fn new(gpu: &Gpu, s: usize, k: usize, steps: usize) -> Result<Slot> {
        Ok(Slot {
            descs: Pinned::new(gpu, s)?,
            pixels: Pinned::new(gpu, 0)?,
            logits: Pinned::new(gpu, s * k)?,
            entropy: Pinned::new(gpu, steps * s)?,
            flags: Pinned::new(gpu, s)?,
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
        self.flags.len()
    }

    /// Waits for the results of the `s` images that were sent last, of `k` classes each, fetched from where there is room for
    /// `images`.
    ///
    /// # Errors
    /// Those of the work.
    pub fn wait(&self, s: usize, images: usize, k: usize) -> Result<Vec<Raw>> {
        self.done.synchronize()?;
        let all = self.flags.len();
        ensure!((1..=all).contains(&s), "results of {s} images, of {all}");
        let (passes, steps) = (self.logits.len() / all / k, self.entropy.len() / all);
        let entropy = &self.entropy.as_slice()[..steps * images];
        let logits = |pass: usize, i: usize| {
            let row = pass * s + i;
            self.logits.as_slice()[row * k..(row + 1) * k].to_vec()
        };
        let raw = |i: usize| Raw {
            zero_shot: logits(0, i),
            memo: (1..passes).map(|pass| logits(pass, i)).collect(),
            entropy: entropy.iter().skip(i).step_by(images).copied().collect(),
            overflow: self.flags.as_slice()[i] != 0,
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
        let mut slot = Slot::new(stream.gpu(), 1, 2 * 3, 1)?;
        let (descs, mut pixels) = (stream.alloc(1)?, stream.alloc(0)?);
        let image = Rgb8 { width: 2, height: 1, pixels: vec![7; 6] };
        let items = [Item { image: &image, index: 0 }];
        let logits = stream.upload([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
        let (entropy, flags) = (stream.upload([1, 1], &[7f32])?, stream.zeros(1)?);
        let results = Results { logits: &logits, entropy: &entropy, flags: &flags };

        slot.send(&stream, &items, &descs, &mut pixels)?;
        // There is no room for the second of three.
        let too_many = Results { entropy: &stream.zeros([2, 1])?, ..results };
        assert!(slot.fetch(&stream, &too_many).is_err() && slot.is_loose);

        slot.send(&stream, &items, &descs, &mut pixels)?;
        assert!(!slot.is_loose);
        slot.fetch(&stream, &results)?;
        let (zero_shot, memo) = (vec![1.0, 2.0, 3.0], vec![vec![4.0, 5.0, 6.0]]);
        assert_eq!(slot.wait(1, 1, 3)?, [Raw { zero_shot, memo, entropy: vec![7.0], overflow: false }]);
    });
}
