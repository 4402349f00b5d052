//! What a classifier takes of device memory, before any of it is taken.

use anyhow::Result;
use half::f16;

use super::batch::Batch;
use super::memo::Memo;
use super::outcome::{Precision, Settings};
use super::vision::Vision;
use crate::gpu::Entry;
use crate::ops::Element;
use crate::ops::augmenter::Augmenter;

/// Device memory, in bytes.
pub struct Needs<'a> {
    vision: &'a Vision,
    classes: usize,
    settings: &'a Settings,
    /// The vision tower's weights, in every form that they are kept in.
    pub weights: usize,
    /// The labels' features.
    pub text: usize,
    /// The buffers of one image in float32, made when gradients first overflow in float16.
    pub exact: usize,
}

impl<'a> Needs<'a> {
    /// * `weights`: the vision tower's, in the layout's order.
    ///
    /// # Errors
    /// More than can be counted.
    pub fn new(
        vision: &'a Vision,
        weights: &[f32],
        classes: usize,
        settings: &'a Settings,
    ) -> Result<Needs<'a>> {
        let is_exact = || vision.layout.matrices().all(|range| weights[range].iter().all(|&x| f16::holds(x)));
        Needs::of(vision, settings.precision == Precision::Fp32 || is_exact(), classes, settings)
    }

    /// * `is_exact`: whether products take the matrices without rounding.
    ///
    /// # Errors
    /// More than can be counted.
    pub fn of(
        vision: &'a Vision,
        is_exact: bool,
        classes: usize,
        settings: &'a Settings,
    ) -> Result<Needs<'a>> {
        let float = size_of::<f32>();
        let (each, exact) = match settings.precision {
            Precision::Fp32 => (float, 0),
            Precision::Fp16 => {
                // As they are, rounded, and with a second term where they have more digits than that.
                let halves = if is_exact { 1 } else { 2 };
                let (exact, _) = Batch::<f32>::plan(vision, 1, classes, settings)?;
                (float + halves * size_of::<f16>(), exact)
            }
        };
        let text = float * classes * vision.config.embed_dim;
        Ok(Needs { vision, classes, settings, weights: each * vision.layout.total, text, exact })
    }

    /// Of a batch of `s` images, one allocation: see [`Memo::plan`].
    ///
    /// # Errors
    /// Its own.
    pub fn buffers(&self, s: usize) -> Result<(usize, Vec<Entry>)> {
        Memo::plan(self.vision, s, self.classes, self.settings)
    }

    /// What views are made in, at most: unless one of them needs more.
    pub const VIEWS: usize = Augmenter::SCRATCH_BYTES;

    /// All together, for `s` images at once.
    ///
    /// # Errors
    /// More than can be counted.
    pub fn total(&self, s: usize) -> Result<usize> {
        Ok(self.weights + self.text + self.exact + Needs::VIEWS + self.buffers(s)?.0)
    }

    /// As many images at once as `room` bytes do for, of `most`; 0 where they do for none.
    pub fn images_in(&self, room: usize, most: usize) -> usize {
        let fits = |s: usize| self.total(s).is_ok_and(|total| total <= room);
        let (mut fit, mut past) = (0, most + 1);
        while past - fit > 1 {
            let s = fit + (past - fit) / 2;
            match fits(s) {
                true => fit = s,
                false => past = s,
            }
        }
        fit
    }
}
