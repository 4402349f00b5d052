//! Where views come from, and how they become patches.

use anyhow::Result;
use bytemuck::Pod;

use super::Dims;
use super::buffers::Bound;
use super::outcome::Settings;
use crate::gpu::{Stream, Tensor};
use crate::ops::Element;
use crate::ops::augmenter::{Augmenter, Images};
use crate::ops::draw::draw_views;

/// Where views come from.
pub enum Views {
    /// Drawn from the policy.
    Drawn,
    /// The user's own, `(N·(T - 1), P)` normalised patches as [`crate::ops::patches::patchify`] makes them, the same for every
    /// image and step.
    Given(Tensor<f32>),
}

/// Makes the patches of a batch.
pub struct Patches<'a> {
    pub stream: &'a Stream,
    pub augmenter: &'a Augmenter,
    pub settings: &'a Settings,
    pub dims: Dims,
}

impl Patches<'_> {
    /// The originals, the same in every pass.
    ///
    /// # Errors
    /// An image that is too large; the launches' own.
    pub fn originals<E: Element>(&self, bound: &Bound<E>, images: &Images) -> Result<()> {
        let s = images.descs().len();
        let originals = self.items(&bound.originals.patches);
        let first = originals.rows(0..s);
        self.augmenter.make(self.stream, images, None, Some(&first))?;
        (s..originals.shape()[0])
            .step_by(s)
            .try_for_each(|begin| self.stream.copy(&originals.rows(begin..begin + s), &first))
    }

    /// Views of all images, in the order of their random numbers.
    ///
    /// # Errors
    /// An image that is too large; the launches' own.
    pub fn views<E: Element>(
        &self,
        bound: &Bound<E>,
        images: &Images,
        views: &Views,
        step: usize,
    ) -> Result<()> {
        let (s, stream, patches) = (images.descs().len(), self.stream, &bound.views.patches);
        match views {
            Views::Given(given) => {
                let of_image = patches.shape()[0] / s;
                let given = E::rounded(stream, &given.view(given.len()))?.view(given.shape());
                (0..s).try_for_each(|i| stream.copy(&patches.rows(i * of_image..(i + 1) * of_image), &given))
            }
            Views::Drawn => {
                let Settings { policy, seed, .. } = self.settings;
                let (params, first) = (&bound.view_params, (step * self.dims.n) as u32);
                draw_views(stream, policy, (*seed, first), images.descs(), params)?;
                self.augmenter.make(stream, images, Some((params, &self.items(patches))), None)
            }
        }
    }

    /// By sequence, as the augmentation makes them: `(items, T - 1, P)`.
    fn items<T: Pod>(&self, patches: &Tensor<T>) -> Tensor<T> {
        let Dims { t, p, .. } = self.dims;
        patches.view([patches.shape()[0] / (t - 1), t - 1, p])
    }
}
