//! Views by chains of operations, mixed, on the device: `kernels/chain.cu` and `kernels/mix.cu`.

use anyhow::Result;
use bytemuck::Zeroable;

use super::augment::{Block, Shape, block_count};
use super::pillow::{self, Pillow, Rgb};
use super::pillow_steps::{Moves, step};
use super::preprocess::Preprocess;
use super::view::{ImageDesc, PADDED_CHAINS, RESIZED_CHAINS, ViewParams};
use super::width::width;
use super::{Element, int};
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor};
use crate::policy::{Before, Family, Policy};

/// What the chains of a policy's views can be: what the launches depend on, and not on the draw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chains {
    /// Of a view, `L`.
    pub count: usize,
    /// On the padded image, and else on a resized crop.
    pub is_padded: bool,
}

impl Chains {
    /// Of the policy's views, if they have any.
    pub fn of(policy: &Policy) -> Option<Chains> {
        match &policy.family {
            Family::Original | Family::Crops(_) => None,
            Family::AugMix(augmix) => {
                Some(Chains { count: 3, is_padded: matches!(augmix.before, Before::Padded(_)) })
            }
            Family::RandAugment(_) => Some(Chains { count: 1, is_padded: false }),
        }
    }

    /// The kind of a view that has chains.
    pub(super) fn kind(self) -> u32 {
        if self.is_padded { PADDED_CHAINS } else { RESIZED_CHAINS }
    }

    /// The most pixels of a picture, `A`.
    fn area(self, shape: &Shape) -> usize {
        if self.is_padded { shape.max_w * shape.max_h } else { shape.image_size * shape.image_size }
    }

    /// What the ends of all chains, and what they began with, are resized in, of padded images.
    fn resize(self, shape: &Shape) -> Option<Shape> {
        let images = shape.images * shape.views * (self.count + 1);
        self.is_padded.then_some(Shape { images, views: 0, chains: None, ..*shape })
    }

    /// The longest row or column of a picture.
    fn lines(self, shape: &Shape) -> usize {
        if self.is_padded { shape.max_w.max(shape.max_h) } else { shape.image_size }
    }

    /// Blocks of `bases`, `ends`, `lines`, `layers`, `levels`; and of padded images of `descs`, `resized` and the resize.
    pub(super) fn parts(self, shape: &Shape) -> [usize; 8] {
        let (views, size, area) = (shape.images * shape.views, shape.image_size, self.area(shape));
        let resize = self.resize(shape);
        let ends = resize.map_or(0, |resize| resize.images);
        [
            block_count(4 * views * area),
            block_count(8 * views * self.count),
            block_count(8 * views * self.count * self.lines(shape)),
            block_count(8 * views * self.count * area),
            block_count(768 * views * self.count),
            block_count(size_of::<ImageDesc>() * ends),
            block_count(4 * ends * size * size),
            resize.map_or(0, |resize| resize.scratch_blocks()),
        ]
    }
}

/// `struct Shape` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, Zeroable)]
struct ShapeArg {
    n: i32,
    l: i32,
    side: i32,
    area: i32,
    lines: i32,
}

/// Between the launches of [`Mixer::make`].
pub(super) struct Mixer {
    shape: Shape,
    chains: Chains,
    /// See [`Chains::parts`].
    bases: Tensor<Block>, // (S·N, A) u32
    ends: Tensor<Block>,    // (S·N, L) End
    lines: Tensor<Block>,   // (S·N, L, lines) Line
    layers: Tensor<Block>,  // (S·N, L, 2, A) u32
    levels: Tensor<Block>,  // (S·N, L, 3, 256) u8
    descs: Tensor<Block>,   // (S·N·(L + 1),) ImageDesc
    resized: Tensor<Block>, // (S·N, L + 1, H, H) u32
    resize: Option<Box<super::augment::Scratch>>,
}

impl Mixer {
    /// In memory of the sum of [`Chains::parts`].
    pub(super) fn within(memory: &Tensor<Block>, shape: Shape, chains: Chains) -> Result<Mixer> {
        let mut end = 0;
        let [bases, ends, lines, layers, levels, descs, resized, resize] =
            chains.parts(&shape).map(|blocks| {
                end += blocks;
                memory.rows(end - blocks..end)
            });
        let resize = chains.resize(&shape).map(|shape| super::augment::Scratch::within(&resize, shape));
        let resize = resize.transpose()?.map(Box::new);
        Ok(Mixer { shape, chains, bases, ends, lines, layers, levels, descs, resized, resize })
    }

    /// Where resized crops go that chains begin with, `(S·N, H, H)`.
    pub(super) fn bases(&self) -> &Tensor<Block> {
        &self.bases
    }

    /// Makes the views that have chains; of resized crops, what they begin with has been made.
    ///
    /// * `sources`: `(S, max_w·max_h)` u32.
    /// * `patches`: `(S·N, H/P · H/P, 3·P·P)`, of which other views stay as they are.
    pub(super) fn make<E: Element>(
        &self,
        stream: &Stream,
        descs: &Tensor<ImageDesc>,
        params: &Tensor<ViewParams>,
        sources: &Tensor<Block>,
        patches: &Tensor<E>,
    ) -> Result<()> {
        let Mixer { shape, chains, bases, ends, lines, layers, levels, descs: end_descs, resized, resize } =
            self;
        let &Shape { images, views, image_size: size, patch_size: patch, max_h, .. } = shape;
        let (count, area) = (images * views, chains.area(shape));
        let side = if chains.is_padded { 0 } else { size };
        let arg = || -> Result<_> {
            let (n, l, side, area) = (int(views)?, int(chains.count)?, int(side)?, int(area)?);
            Ok(Arg::bytes(&ShapeArg { n, l, side, area, lines: int(chains.lines(shape))? }))
        };
        let queue = |(file, defines), name, launch: Launch, args: &[_]| {
            let kernel = stream.kernel(file, name, defines)?;
            // SAFETY: the tensors are as large as the shape says, which `make_views` has checked; the kernels check the
            // views' programs, and that an image fits has been checked by `plan_views` before them.
            unsafe { kernel.launch(stream, launch, args) }
        };
        let (steps, mix) = (("chain", &[][..]), ("mix", E::DEFINES));
        let height = if chains.is_padded { max_h } else { size };
        let parts = height.div_ceil(4 * 8).clamp(1, 32);
        if chains.is_padded {
            queue(
                steps,
                "crop_bases",
                Launch::over([count, parts, 1], 256),
                args![descs, params, arg()?, sources, bases],
            )?;
        }
        queue(
            steps,
            "make_chains",
            Launch::over([count * chains.count, 1, 1], 512),
            args![descs, params, arg()?, bases, layers, levels, lines, ends],
        )?;
        let no_resized = None::<&Tensor<Block>>;
        let resized = if let Some(resize) = resize {
            queue(
                mix,
                "end_chains",
                Launch::over([count * (chains.count + 1), parts, 1], 256),
                args![descs, params, arg()?, ends, bases, layers, levels, resize.sources(), end_descs],
            )?;
            resize.pack_originals::<E>(stream, end_descs, resized)?;
            Some(resized)
        } else {
            no_resized
        };
        let neighbours = width(patch, 4);
        let name = match neighbours {
            4 => "mix_views_4",
            2 => "mix_views_2",
            _ => "mix_views_1",
        };
        let parts = (size * size / neighbours).div_ceil(10 * 256).clamp(1, 64);
        let scale = Arg::bytes(&shape.preprocess.scale);
        queue(
            mix,
            name,
            Launch::over([count, parts, 1], 256),
            args![
                descs,
                params,
                arg()?,
                ends,
                bases,
                layers,
                levels,
                resized,
                int(size)?,
                int(patch)?,
                scale,
                patches
            ],
        )
    }
}

/// The definition of every view, normalised, `(3, size, size)`: of those that have chains, as MEMO's `_augmix_aug` mixes
/// them, each product and each sum rounded to float32.
pub fn view(
    source: &Rgb,
    params: &ViewParams,
    preprocess: &Preprocess,
    size: usize,
    pillow: Pillow,
) -> Vec<f32> {
    let normalise = |image: &Rgb| pillow::normalise(image, &preprocess.scale);
    let base = match params.kind {
        RESIZED_CHAINS => pillow::resized_crop(source, params, size, pillow),
        PADDED_CHAINS => pillow::padded_crop(source, params),
        _ => return normalise(&pillow::view(source, params, preprocess, size, pillow)),
    };
    let finish = |image: &Rgb| match params.kind {
        PADDED_CHAINS => normalise(&pillow::original(image, preprocess, size, pillow)),
        _ => normalise(image),
    };
    let [red, green, blue, _] = params.fill.to_le_bytes();
    let moves = Moves { is_bilinear: params.is_bilinear != 0, fill: [red, green, blue] };
    let mut mix = vec![0.0; 3 * size * size];
    for number in 0..params.chains as usize {
        let end = params.chain(number).iter().fold(base.clone(), |image, next| step(&image, next, moves));
        for (sum, value) in mix.iter_mut().zip(finish(&end)) {
            *sum += params.weights[number] * value;
        }
    }
    let changed = 1.0 - params.unchanged;
    let own = finish(&base);
    own.iter().zip(mix).map(|(own, mix)| params.unchanged * own + changed * mix).collect()
}
