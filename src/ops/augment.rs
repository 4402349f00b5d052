//! Views of a batch's images, and their preprocess, on the device: `kernels/augment.cu`.
//!
//! The definition in plain loops is [`super::pillow`]; the results equal it bit for bit.

#[cfg(test)]
pub(super) mod tests;

use anyhow::{Result, ensure};
use bytemuck::{Pod, Zeroable};

use super::chain::{Chains, Mixer};
use super::patches::patch_pitch;
use super::pillow::{Filter, Pillow};
use super::preprocess::{Preprocess, Resize};
use super::view::{CROP, ImageDesc, MAX_SIDE, RESIZED_CHAINS, ViewParams};
use super::width::{expect_aligned, width};
use super::{Element, int};
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor};

/// What scratch memory is counted in, and where each of its parts may begin.
pub(super) type Block = [u64; 2];

/// What views are made of and into: all that their scratch memory depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Images of a batch, `S`.
    pub images: usize,
    /// Views of each, `N`.
    pub views: usize,
    /// The most that an image may be wide and high.
    pub max_w: usize,
    pub max_h: usize,
    /// Side of a view, `H`.
    pub image_size: usize,
    /// `P`, which divides it.
    pub patch_size: usize,
    /// Of the originals; its scale is the views' too.
    pub preprocess: Preprocess,
    /// Whose bits they are to be.
    pub pillow: Pillow,
    /// Of views that have chains of operations.
    pub chains: Option<Chains>,
}

/// Blocks of so many bytes.
pub(super) fn block_count(bytes: usize) -> usize {
    bytes.div_ceil(size_of::<Block>())
}

impl Shape {
    /// Views and originals.
    fn items(&self) -> usize {
        self.images * (self.views + 1)
    }

    /// Of [`Scratch`].
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_blocks() * size_of::<Block>()
    }

    pub(super) fn scratch_blocks(&self) -> usize {
        let chains = self.chains.map_or([0; 8], |chains| chains.parts(self));
        self.parts().iter().chain(&chains).sum()
    }

    /// Blocks of `sources`, `views`, `bounds`, `weights` and `rows`.
    fn parts(&self) -> [usize; 5] {
        let (items, size) = (self.items(), self.image_size);
        let bytes = [
            4 * self.images * self.max_w * self.max_h,
            96 * items,
            16 * items * size,
            8 * items * self.taps() * size,
            4 * items * self.max_rows() * size,
        ];
        bytes.map(block_count)
    }

    /// The most inputs that an output of a resize can have, `K` (Pillow's `ksize`): of a view's whole image, bilinear, or
    /// of the original.
    fn taps(&self) -> usize {
        let of = |from: usize, to: usize| from as f64 / to as f64;
        let [short, long] = [self.max_w.min(self.max_h), self.max_w.max(self.max_h)];
        let preprocess = match self.preprocess.resize {
            // The long side shrinks as the short one does, but to whole pixels: by up to 1 in `size` more.
            Resize::ShortestEdge(size) => f64::min(of(short, size) * (1.0 + of(1, size)), of(long, size)),
            Resize::Exact { width, height } => f64::max(of(self.max_w, width), of(self.max_h, height)),
        };
        let inputs = |filter: Filter, scale: f64| 2 * (filter.support() * scale.max(1.0)).ceil() as usize + 1;
        usize::max(
            inputs(Filter::Bilinear, of(long, self.image_size)),
            inputs(self.preprocess.filter, preprocess),
        )
    }

    /// The most pixels of a row that is resized across; where Pillow may scale down first, of a column too.
    fn max_row(&self) -> usize {
        match self.pillow {
            Pillow::V13 => self.max_w.max(self.max_h),
            Pillow::V12_1 => self.max_w,
        }
    }

    /// The most rows of a crop, or columns where it is scaled down first: it is then taller than wide, unless it becomes
    /// wider than tall.
    fn max_rows(&self) -> usize {
        match self.preprocess.resize {
            Resize::Exact { width, height } if width > height => self.max_row().max(self.max_h),
            _ => self.max_h,
        }
    }

    /// `(items, H/P · H/P, 3·P·P)`, and zeros behind each: see [`patch_pitch`].
    pub fn patches(&self, items: usize) -> [usize; 3] {
        let tiles = self.image_size / self.patch_size;
        [items, tiles * tiles, patch_pitch(self.patch_size)]
    }

    /// What [`make_views`] is given.
    pub(super) fn expect<E: Element>(
        &self,
        descs: &Tensor<ImageDesc>,
        drawn: Option<(&Tensor<ViewParams>, &Tensor<E>)>,
        originals: Option<&Tensor<E>>,
    ) -> Result<()> {
        let &Shape { images, views, patch_size, .. } = self;
        let neighbours = width(patch_size, NEIGHBOURS);
        descs.expect("make_views: descs", [images])?;
        if let Some((params, patches)) = drawn {
            params.expect("make_views: params", [images, views])?;
            patches.expect("make_views: views", self.patches(images * views))?;
            expect_aligned("make_views: views", patches, neighbours)?;
        }
        if let Some(patches) = originals {
            patches.expect("make_views: originals", self.patches(images))?;
            expect_aligned("make_views: originals", patches, neighbours)?;
        }
        Ok(())
    }
}

/// The memory between the launches of [`make_views`].
pub struct Scratch {
    shape: Shape,
    sources: Tensor<Block>, // (S, max_w·max_h) u32
    views: Tensor<Block>,   // (items,) View
    bounds: Tensor<Block>,  // (items, 2, H) int2
    weights: Tensor<Block>, // (items, 2, K, H) i32
    rows: Tensor<Block>,    // (items, max_rows, H) u32
    mixer: Option<Mixer>,
}

impl Scratch {
    /// # Errors
    /// A patch size that does not divide the image size, a side over [`MAX_SIDE`]; device memory.
    pub fn new(stream: &Stream, shape: Shape) -> Result<Scratch> {
        check_patches(shape.image_size, shape.patch_size)?;
        Scratch::within(&stream.alloc(shape.scratch_blocks())?, shape)
    }

    /// In memory of [`Shape::scratch_blocks`] or more.
    pub(super) fn within(memory: &Tensor<Block>, shape: Shape) -> Result<Scratch> {
        let Shape { max_w, max_h, .. } = shape;
        ensure!(
            max_w.max(max_h) <= MAX_SIDE,
            "images of up to {max_w} × {max_h} pixels: no side may be over {MAX_SIDE}"
        );
        let mut end = 0;
        let [sources, views, bounds, weights, rows] = shape.parts().map(|blocks| {
            end += blocks;
            memory.rows(end - blocks..end)
        });
        let rest = memory.rows(end..memory.len());
        let mixer = shape.chains.map(|chains| Mixer::within(&rest, shape, chains)).transpose()?;
        Ok(Scratch { shape, sources, views, bounds, weights, rows, mixer })
    }

    /// `(S, max_w·max_h)` u32.
    pub(super) fn sources(&self) -> &Tensor<Block> {
        &self.sources
    }

    /// Resizes images that are [`Scratch::sources`] already as originals are, to 8-bit pixels.
    ///
    /// * `descs`: `(S,)` ImageDesc.
    /// * `packed`: `(S, H, H)` u32, overwritten, but for empty slots.
    pub(super) fn pack_originals<E: Element>(
        &self,
        stream: &Stream,
        descs: &Tensor<Block>,
        packed: &Tensor<Block>,
    ) -> Result<()> {
        let items = Items { views: 0, originals: self.shape.images };
        self.plan::<E>(stream, items, LAYERS, args![descs, None::<&Tensor<ViewParams>>])?;
        self.resize_rows::<E>(stream, items)?;
        self.resize_columns::<E>(stream, items, PACK, [None, None], Some(packed))
    }
}

/// By how many neighbours a thread makes at a time: 1, 2, 4.
const RESIZE: [&str; 3] = ["resize_columns_1", "resize_columns_2", "resize_columns_4"];
const PACK: [&str; 3] = ["pack_columns_1", "pack_columns_2", "pack_columns_4"];

/// Of these at most.
const NEIGHBOURS: usize = 4;

/// `LAYERS` of the kernels.
const LAYERS: u32 = 4;

/// `struct Resize` of the kernels.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ResizeArg {
    short_side: i32,
    width: i32,
    height: i32,
    is_bicubic: i32,
}

impl ResizeArg {
    fn new(preprocess: &Preprocess) -> Result<ResizeArg> {
        let (short_side, width, height) = match preprocess.resize {
            Resize::ShortestEdge(size) => (size, 0, 0),
            Resize::Exact { width, height } => (0, width, height),
        };
        let is_bicubic = i32::from(preprocess.filter == Filter::Bicubic);
        Ok(ResizeArg { short_side: int(short_side)?, width: int(width)?, height: int(height)?, is_bicubic })
    }
}

/// Makes `N` views of each image, or their originals, or both. The original is what the shape's [`Preprocess`] makes of it.
/// Nothing that is launched depends on an image's size.
///
/// * `scratch`: of this `S` and `N`.
/// * `descs`: `(S,)`, of sizes that fit the scratch's shape and of places inside `pixels`, or the launch fails.
/// * `pixels`: `(bytes,)`: `(h, w, 3)` RGB of each image, where its description says.
/// * `drawn`: parameters, `(S, N)`, drawn for these images or the launch fails; and where the views go, `(S·N, H/P · H/P,
///   3·P·P)`, overwritten.
/// * `originals`: `(S, H/P · H/P, 3·P·P)`, overwritten.
///
/// Views and originals are normalised, patches row by row, and in each channel, then row, then column, as in the patch
/// convolution's weight; rounded to `E` at the very end. Zeros for empty slots.
///
/// # Errors
/// Tensors of other shapes; the launches' own.
pub fn make_views<E: Element>(
    stream: &Stream,
    scratch: &Scratch,
    descs: &Tensor<ImageDesc>,
    pixels: &Tensor<u8>,
    drawn: Option<(&Tensor<ViewParams>, &Tensor<E>)>,
    originals: Option<&Tensor<E>>,
) -> Result<()> {
    let Scratch { shape, sources, views, mixer, .. } = scratch;
    shape.expect(descs, drawn, originals)?;
    pixels.expect("make_views: pixels", [pixels.len()])?;
    let &Shape { images: s, max_w, max_h, .. } = shape;
    let items = Items {
        views: if drawn.is_some() { s * shape.views } else { 0 },
        originals: if originals.is_some() { s } else { 0 },
    };
    if items.count() == 0 {
        return Ok(());
    }
    let (params, patches) = drawn.unzip();
    let kind = shape.chains.map_or(CROP, Chains::kind);
    scratch.plan::<E>(stream, items, kind, args![descs, params])?;
    let pixels_most = int(max_w * max_h)?;
    let parts = (max_w * max_h).div_ceil(8 * 256).clamp(1, 64);
    scratch.queue::<E>(
        stream,
        "pack_sources",
        Launch::over([s, parts, 1], 256),
        args![descs, pixels, pixels.len() as u64, pixels_most, sources],
    )?;
    if kind == CROP {
        let parts = max_h.div_ceil(4 * 8).clamp(1, 32);
        let launch = Launch::over([items.views, parts, 1], 256);
        scratch.queue::<E>(stream, "sum_luma", launch, args![sources, pixels_most, views])?; // others have no jitter
    }
    scratch.resize_rows::<E>(stream, items)?;
    scratch.resize_columns(stream, items, RESIZE, [patches, originals], None)?;
    let (Some((params, patches)), Some(mixer)) = (drawn, mixer) else { return Ok(()) };
    if kind == RESIZED_CHAINS {
        let items = Items { originals: 0, ..items };
        scratch.resize_columns::<E>(stream, items, PACK, [None, None], Some(mixer.bases()))?;
    }
    mixer.make(stream, descs, params, sources, patches)
}

/// Of a grid, views before originals.
#[derive(Clone, Copy)]
struct Items {
    views: usize,
    originals: usize,
}

impl Items {
    fn count(self) -> usize {
        self.views + self.originals
    }
}

impl Scratch {
    fn queue<E: Element>(
        &self,
        stream: &Stream,
        name: &'static str,
        launch: Launch,
        args: &[Arg],
    ) -> Result<()> {
        let kernel = stream.kernel("augment", name, E::DEFINES)?;
        // SAFETY: the shapes are the kernels', checked by `make_views`, and the scratch memory is as large as its shape says.
        // The kernels check what only the device knows: sizes, crops and places.
        unsafe { kernel.launch(stream, launch, args) }
    }

    /// * `kind`: of the views that have chains, see `plan_views`.
    /// * `made_of`: descriptions and parameters.
    fn plan<E: Element>(&self, stream: &Stream, items: Items, kind: u32, made_of: &[Arg]) -> Result<()> {
        let Scratch { shape, views, bounds, weights, .. } = self;
        let &Shape { images, max_w, max_h, image_size: size, .. } = shape;
        let n = items.views / images.max(1);
        let resize = Arg::bytes(&ResizeArg::new(&shape.preprocess)?);
        let is_pillow_13 = i32::from(shape.pillow == Pillow::V13);
        let sizes = args![int(images)?, int(n)?, int(max_w)?, int(max_h)?, int(size)?, int(shape.taps())?];
        let rest = args![resize, is_pillow_13, kind, views, bounds, weights];
        let launch = Launch::over([items.count(), (2 * size).div_ceil(128), 1], 128);
        self.queue::<E>(stream, "plan_views", launch, &[made_of, sizes, rest].concat())
    }

    fn resize_rows<E: Element>(&self, stream: &Stream, items: Items) -> Result<()> {
        let Scratch { shape, sources, views, bounds, weights, rows, .. } = self;
        let size = shape.image_size;
        let (row, rows_most) = (shape.max_row(), shape.max_rows());
        let (name, together) =
            if 16 * row <= 48 << 10 { ("resize_rows", 4) } else { ("resize_rows_wide", 1) };
        let parts = rows_most.div_ceil(together).clamp(1, 32);
        let launch = Launch::over([items.count(), parts, 1], size.next_multiple_of(32).min(256));
        let [pixels_most, rows_most] = [int(shape.max_w * shape.max_h)?, int(rows_most)?];
        let (h, k) = (int(size)?, int(shape.taps())?);
        let args = args![sources, pixels_most, rows_most, h, k, views, bounds, weights, rows];
        self.queue::<E>(stream, name, launch.shared(4 * together * row), args)
    }

    /// Of the items that are written so.
    ///
    /// * `kernels`: [`RESIZE`], into patches of views and originals, or [`PACK`], into `packed`.
    fn resize_columns<E: Element>(
        &self,
        stream: &Stream,
        items: Items,
        kernels: [&'static str; 3],
        [patches, originals]: [Option<&Tensor<E>>; 2],
        packed: Option<&Tensor<Block>>,
    ) -> Result<()> {
        let Scratch { shape, views, bounds, weights, rows, .. } = self;
        let &Shape { image_size: size, patch_size: patch, .. } = shape;
        let neighbours = width(patch, NEIGHBOURS);
        let name = kernels[neighbours.ilog2() as usize];
        let divisor = |of: usize, most: usize| (1..=most).rev().find(|d| of.is_multiple_of(*d)).unwrap_or(1);
        let band = divisor(patch, 32);
        let across = (size / neighbours).min(256);
        let grid = Launch::over([items.count(), size / band, 1], across);
        let launch = Launch { block: [across, divisor(band, 256 / across), 1], ..grid };
        let sizes = [
            int(shape.max_rows())?,
            int(size)?,
            int(patch)?,
            int(shape.taps())?,
            int(band)?,
            int(items.views)?,
        ];
        let [rows_most, h, p, k, band, drawn] = sizes;
        let scale = Arg::bytes(&shape.preprocess.scale);
        let args = args![
            rows, rows_most, h, p, k, band, scale, views, bounds, weights, drawn, patches, originals, packed
        ];
        self.queue::<E>(stream, name, launch, args)
    }
}

pub(super) fn check_patches(image_size: usize, patch_size: usize) -> Result<()> {
    ensure!(
        patch_size > 0 && image_size > 0 && image_size.is_multiple_of(patch_size),
        "images of {image_size} pixels: not a whole number of patches of {patch_size}"
    );
    Ok(())
}
