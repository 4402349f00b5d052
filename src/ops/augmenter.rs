//! Views of batches of images of any sizes, in scratch memory that grows with them.

use std::cell::RefCell;
use std::ops::Range;

use anyhow::{Result, ensure};

use super::Element;
use super::augment::{Block, Scratch, Shape, check_patches, make_views};
use super::chain::Chains;
use super::pillow::Pillow;
use super::preprocess::Preprocess;
use super::view::{ImageDesc, MAX_SIDE, ViewParams};
use crate::gpu::{Stream, Tensor};
use crate::policy::Policy;

/// A batch's images on the device, their descriptions on the host as well.
pub struct Images {
    list: Vec<ImageDesc>,
    descs: Tensor<ImageDesc>, // (S,)
    pixels: Tensor<u8>,       // (bytes,)
}

impl Images {
    /// Of what is on the device, or will be when it is needed.
    ///
    /// * `list`: what `descs` holds, `(S,)`. An image that is all zeros is an empty slot.
    /// * `pixels`: `(bytes,)`: `(h, w, 3)` RGB of each image, where its description says.
    ///
    /// # Errors
    /// A side of 0 or over [`MAX_SIDE`], pixels past the end: the image is named by its index.
    pub fn new(list: Vec<ImageDesc>, descs: &Tensor<ImageDesc>, pixels: &Tensor<u8>) -> Result<Images> {
        descs.expect("descriptions of images", [list.len()])?;
        pixels.expect("pixels of images", [pixels.len()])?;
        for desc in &list {
            check(desc, pixels.len() as u64)?;
        }
        Ok(Images { list, descs: descs.clone(), pixels: pixels.clone() })
    }

    /// Copies images to the device: see [`ImageDesc::pack`].
    ///
    /// # Errors
    /// A side of 0 or over [`MAX_SIDE`], pixels of another size; device memory.
    pub fn upload(stream: &Stream, images: &[(u64, (usize, usize), &[u8])]) -> Result<Images> {
        let mut pixels = vec![0; images.iter().map(|(_, _, image)| image.len()).sum()];
        let list = ImageDesc::pack(images, &mut pixels)?;
        let (descs, pixels) = (stream.vector(&list)?, stream.vector(&pixels)?);
        Images::new(list, &descs, &pixels)
    }

    /// `(S,)`.
    pub fn descs(&self) -> &Tensor<ImageDesc> {
        &self.descs
    }
}

fn check(desc: &ImageDesc, bytes: u64) -> Result<()> {
    let &ImageDesc { offset, index, w, h } = desc;
    if (w, h) == (0, 0) {
        return Ok(());
    }
    let sides = 1..=MAX_SIDE as u32;
    ensure!(
        sides.contains(&w) && sides.contains(&h),
        "image {index} of {w} × {h} pixels: each side must be 1 to {MAX_SIDE}; resize it first"
    );
    let len = 3 * u64::from(w) * u64::from(h);
    ensure!(
        offset.checked_add(len).is_some_and(|end| end <= bytes),
        "image {index} of {w} × {h} pixels at byte {offset} ends past the {bytes} bytes of pixels"
    );
    Ok(())
}

/// Makes views and originals of batches in as few series of launches as its limit of scratch memory allows: of a whole
/// batch, else of some images, else of some views of an image. An image's bits are the same in any case.
///
/// The memory is used again by every call, so all calls are queued on one stream, or wait for each other.
#[derive(Debug)]
pub struct Augmenter {
    image_size: usize,
    patch_size: usize,
    preprocess: Preprocess,
    pillow: Pillow,
    chains: Option<Chains>,
    scratch_limit_bytes: usize,
    memory: RefCell<Option<Tensor<Block>>>,
}

impl Augmenter {
    /// Of scratch memory, the limit unless told otherwise.
    pub const SCRATCH_BYTES: usize = 256 << 20;

    /// * `preprocess`: of the originals; its scale is the views' too.
    /// * `pillow`: whose bits they are to be.
    ///
    /// # Errors
    /// A patch size that does not divide the image size; a preprocess whose result is smaller than that.
    pub fn new(
        image_size: usize,
        patch_size: usize,
        preprocess: Preprocess,
        pillow: Pillow,
    ) -> Result<Augmenter> {
        check_patches(image_size, patch_size)?;
        let (width, height) = preprocess.resize.of((1, 1));
        ensure!(
            width.min(height) >= image_size,
            "pictures are resized to {width} × {height} pixels, of which {image_size} × {image_size} are to be cut"
        );
        Ok(Augmenter {
            image_size,
            patch_size,
            preprocess,
            pillow,
            chains: None,
            scratch_limit_bytes: Augmenter::SCRATCH_BYTES,
            memory: RefCell::default(),
        })
    }

    /// For the views of a policy; else for those of crops alone. Views that it is not for end the launch.
    pub fn policy(self, policy: &Policy) -> Augmenter {
        Augmenter { chains: Chains::of(policy), ..self }
    }

    /// With another limit of scratch memory, where one view does not need more.
    pub fn scratch_limit(self, bytes: usize) -> Augmenter {
        Augmenter { scratch_limit_bytes: bytes, ..self }
    }

    /// The shape of as many views or originals: `(items, H/P · H/P, 3·P·P)`.
    pub fn patches(&self, items: usize) -> [usize; 3] {
        self.shape(&[], 0).patches(items)
    }

    /// Makes `N` views of each image, or their originals, or both: see [`make_views`].
    ///
    /// * `drawn`: parameters, `(S, N)`, drawn for these images; and where the views go, `(S·N, H/P · H/P, 3·P·P)`,
    ///   overwritten.
    /// * `originals`: `(S, H/P · H/P, 3·P·P)`, overwritten.
    ///
    /// # Errors
    /// Tensors of other shapes, device memory, or the launches' own.
    pub fn make<E: Element>(
        &self,
        stream: &Stream,
        images: &Images,
        drawn: Option<(&Tensor<ViewParams>, &Tensor<E>)>,
        originals: Option<&Tensor<E>>,
    ) -> Result<()> {
        let Images { list, descs, pixels } = images;
        let n = drawn.and_then(|(params, _)| params.shape().get(1)).copied().unwrap_or(0);
        self.shape(list, n).expect(descs, drawn, originals)?;
        for Series { images, views, originals: with_originals, shape } in self.plan(list, n) {
            let scratch = self.scratch(stream, shape)?;
            let items = images.start * n + views.start..(images.end - 1) * n + views.end;
            let drawn = drawn.map(|(params, patches)| {
                (params.slice(items.clone()).view([images.len(), views.len()]), patches.rows(items))
            });
            let drawn = drawn.as_ref().map(|(params, patches)| (params, patches));
            let originals = originals.filter(|_| with_originals).map(|all| all.rows(images.clone()));
            make_views(stream, &scratch, &descs.rows(images), pixels, drawn, originals.as_ref())?;
        }
        Ok(())
    }

    /// Of `n` views of each of these images.
    fn shape(&self, images: &[ImageDesc], n: usize) -> Shape {
        let most = |side: fn(&ImageDesc) -> u32| images.iter().map(side).max().unwrap_or(0) as usize;
        Shape {
            images: images.len(),
            views: n,
            max_w: most(|image| image.w),
            max_h: most(|image| image.h),
            image_size: self.image_size,
            patch_size: self.patch_size,
            preprocess: self.preprocess,
            pillow: self.pillow,
            chains: self.chains.filter(|_| n > 0),
        }
    }

    /// Whatever is left in order: as many images as fit, else as many views of the next one.
    fn plan(&self, list: &[ImageDesc], n: usize) -> Vec<Series> {
        let fits = |shape: &Shape| shape.scratch_bytes() <= self.scratch_limit_bytes;
        let (mut plan, mut first) = (Vec::new(), 0);
        while first < list.len() {
            let shape = |end, n| self.shape(&list[first..end], n);
            let end =
                (first + 2..=list.len()).take_while(|&end| fits(&shape(end, n))).last().unwrap_or(first + 1);
            let at_once = (1..=n).rev().find(|&views| fits(&shape(end, views))).unwrap_or(1);
            for start in (0..n.max(1)).step_by(at_once) {
                let views = start..n.min(start + at_once);
                let shape = shape(end, views.len());
                plan.push(Series { images: first..end, originals: start == 0, shape, views });
            }
            first = end;
        }
        plan
    }

    /// Frees the scratch memory until the next call needs some.
    pub fn free(&self) {
        self.memory.take();
    }

    /// In the memory that there is, or in more.
    fn scratch(&self, stream: &Stream, shape: Shape) -> Result<Scratch> {
        let mut memory = self.memory.borrow_mut();
        let kept = memory.take().filter(|memory| memory.len() >= shape.scratch_blocks()); // else freed first
        let kept = match kept {
            Some(kept) => kept,
            None => stream.alloc(shape.scratch_blocks())?,
        };
        Scratch::within(memory.insert(kept), shape)
    }
}

/// Part of a batch that one series of launches makes.
#[derive(Debug, PartialEq)]
struct Series {
    images: Range<usize>,
    /// Of each of them; all where there are many images.
    views: Range<usize>,
    originals: bool,
    shape: Shape,
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::check::poisoned;
    use crate::device_test;
    use crate::ops::augment::tests::source;
    use crate::ops::chain;
    use crate::ops::draw::{Key, draw_reference, draw_views};
    use crate::ops::patches::patchify;
    use crate::ops::pillow::{Filter, Rgb};
    use crate::ops::preprocess::{Resize, Scale};
    use crate::ops::view::ORIGINAL;

    fn clip(image_size: usize, patch_size: usize) -> Result<Augmenter> {
        Augmenter::new(image_size, patch_size, Preprocess::clip(image_size), Pillow::V13)
    }

    fn upload(stream: &Stream, sources: &[Rgb]) -> Result<Images> {
        let images =
            (5..).zip(sources).map(|(index, source)| (index, (source.w, source.h), &source.data[..]));
        Images::upload(stream, &images.collect::<Vec<_>>())
    }

    /// Makes `n` views and the original on the device, and compares every bit with the definition.
    fn compare(
        stream: &Stream,
        augmenter: &Augmenter,
        policy: &Policy,
        source: &Rgb,
        seed: u64,
        n: usize,
    ) -> Result<()> {
        let (size, patch) = (augmenter.image_size, augmenter.patch_size);
        let images = upload(stream, std::slice::from_ref(source))?;
        let params = stream.alloc([1, n])?;
        draw_views(stream, policy, (seed, 0), images.descs(), &params)?;
        let out = poisoned::<f32>(stream, augmenter.patches(n + 1));
        let (views, original) = (out.rows(0..n), out.rows(n..n + 1));
        augmenter.make(stream, &images, Some((&params, &views)), Some(&original))?;
        let dims = (source.w, source.h);
        for (i, got) in stream.read(&out)?.chunks(out.len() / (n + 1)).enumerate() {
            let params = draw_reference(policy, Key { seed, image: 5, view: i as u32 }, dims);
            let &Augmenter { preprocess, pillow, .. } = augmenter;
            let original = ViewParams { kind: ORIGINAL, ..ViewParams::zeroed() };
            let params = if i < n { params } else { original };
            let want = patchify(&chain::view(source, &params, &preprocess, size, pillow), size, patch);
            assert!(got == want, "{policy}: view {i} of {n} of {dims:?}: {params:?}, {augmenter:?}");
        }
        Ok(())
    }

    device_test!(views_and_original_equal_the_definition, |stream| {
        let policies: [Policy; 5] = [
            Policy::notebook(),
            Policy::mild(),
            "none".parse()?,
            "tpt:ratio=0.2..5".parse()?,
            "notebook:rotation=180,brightness=2,contrast=2,saturation=2,hue=0.5,ratio=0.2..5".parse()?,
        ];
        // Patches of 5 have zeros behind them.
        let of_sizes = [clip(32, 8)?, clip(30, 5)?];
        for (w, h) in [(1, 1), (2, 3), (7, 300), (300, 7), (45, 61), (32, 32), (100, 64)] {
            for (seed, policy) in policies.iter().enumerate() {
                for augmenter in &of_sizes {
                    compare(&stream, augmenter, policy, &source(w, h), seed as u64, 12)?;
                }
            }
        }
    });

    device_test!(chains_equal_the_definition, |stream| {
        let policies = [
            "augmix",
            "augmix:severity=10,fill=0,originals=1",
            "augmix-cifar",
            "augmix-cifar:severity=10,padding=9",
            "randaugment:ops=9",
            "randaugment:ops=4,magnitude=25,bilinear=1",
        ];
        for (seed, policy) in policies.iter().enumerate() {
            let policy = policy.parse()?;
            let augmenter = clip(32, 8)?.policy(&policy);
            for (w, h) in [(1, 1), (1, 9), (2, 3), (7, 100), (45, 61), (32, 32)] {
                compare(&stream, &augmenter, &policy, &source(w, h), seed as u64, 8)?;
            }
            compare(&stream, &clip(30, 5)?.policy(&policy), &policy, &source(45, 61), seed as u64, 8)?;
        }
    });

    device_test!(every_kind_of_preprocess_and_both_pillows_equal_the_definition, |stream| {
        let exact = |width, height| Resize::Exact { width, height };
        let sizes = [(1, 1), (2, 3), (7, 300), (300, 7), (45, 61), (90, 100), (40, 100), (90, 60)];
        for resize in [Resize::ShortestEdge(24), Resize::ShortestEdge(37), exact(24, 24), exact(80, 30)] {
            for (filter, pillow) in [(Filter::Bicubic, Pillow::V13), (Filter::Bilinear, Pillow::V12_1)] {
                let scale = Scale { divisor: 127.5, mean: [0.0, 0.25, 1.0], std: [0.5, 1.0, 2.0] };
                let preprocess = Preprocess { resize, filter, scale };
                for (w, h) in sizes {
                    for pillow in [pillow, Pillow::V13] {
                        let augmenter = Augmenter::new(24, 8, preprocess, pillow)?;
                        compare(&stream, &augmenter, &Policy::notebook(), &source(w, h), 4, 4)?;
                    }
                }
            }
        }
        let small = Preprocess { resize: Resize::ShortestEdge(23), ..Preprocess::clip(24) };
        assert!(Augmenter::new(24, 8, small, Pillow::V13).is_err());
    });

    device_test!(the_notebooks_own_size, |stream| {
        compare(&stream, &clip(224, 32)?, &Policy::notebook(), &source(32, 32), 0, 50)?;
        compare(&stream, &clip(224, 14)?, &Policy::notebook(), &source(333, 257), 1, 3)?;
    });

    device_test!(a_photograph_in_chunks_of_scratch, |stream| {
        let augmenter = clip(224, 32)?.scratch_limit(10 << 20);
        compare(&stream, &augmenter, &Policy::notebook(), &source(1500, 1100), 7, 3)?;
        let list = [ImageDesc { w: 1500, h: 1100, ..ImageDesc::default() }];
        let plan = augmenter.plan(&list, 3);
        assert_eq!(plan.iter().map(|series| series.views.clone()).collect::<Vec<_>>(), [0..2, 2..3]);
    });

    device_test!(chunks_do_not_show, |stream| {
        let sizes = [(32, 32), (1, 1), (300, 7), (200, 150), (31, 64)];
        let images = upload(&stream, &sizes.map(|(w, h)| source(w, h)))?;
        let params = stream.alloc([5, 3])?;
        draw_views(&stream, &Policy::notebook(), (1, 0), images.descs(), &params)?;
        let all = |limit: usize| {
            let augmenter = clip(48, 12)?.scratch_limit(limit);
            let (views, originals) =
                (poisoned(&stream, augmenter.patches(15)), poisoned(&stream, augmenter.patches(5)));
            // Twice, the second time in the first one's memory and each by itself.
            augmenter.make::<f32>(&stream, &images, Some((&params, &views)), Some(&originals))?;
            let both = [stream.read(&views)?, stream.read(&originals)?];
            let (views, originals) =
                (poisoned(&stream, augmenter.patches(15)), poisoned(&stream, augmenter.patches(5)));
            augmenter.make::<f32>(&stream, &images, None, Some(&originals))?;
            augmenter.make::<f32>(&stream, &images, Some((&params, &views)), None)?;
            assert!(both == [stream.read(&views)?, stream.read(&originals)?]);
            let ranges = augmenter.plan(&images.list, 3).into_iter().map(|part| (part.images, part.views));
            Ok::<_, anyhow::Error>((both, ranges.collect::<Vec<_>>()))
        };
        let (want, ranges) = all(256 << 20)?;
        assert_eq!(ranges, [(0..5, 0..3)]);
        let (got, ranges) = all(400 << 10)?;
        assert!(got == want);
        assert_eq!(ranges, [(0..3, 0..3), (3..4, 0..3), (4..5, 0..3)]);
        let (got, ranges) = all(0)?;
        assert!(got == want);
        assert_eq!(ranges.len(), 15);
    });

    device_test!(six_thousand_pixels_a_side, |stream| {
        compare(&stream, &clip(224, 32)?, &Policy::notebook(), &source(6000, 6000), 2, 1)?;
    });

    device_test!(bad_images_are_refused, |stream| {
        assert!(clip(224, 0).is_err());
        assert!(clip(224, 15).is_err());
        let (descs, pixels) = (stream.zeros(1)?, stream.zeros(48 + 5)?);
        let image = |offset, w, h| {
            let images = Images::new(vec![ImageDesc { offset, index: 77, w, h }], &descs, &pixels);
            images.map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(image(5, 4, 4), Ok(()));
        assert_eq!(image(0, 0, 0), Ok(()));
        for (offset, w, h) in
            [(0, 0, 4), (0, 4, 0), (0, 1, MAX_SIDE as u32 + 1), (6, 4, 4), (0, 4, 5), (u64::MAX, 4, 4)]
        {
            let error = image(offset, w, h).unwrap_err();
            assert!(error.contains("image 77"), "{error}");
        }
        assert!(Images::upload(&stream, &[(0, (4, 4), &[0; 47])]).is_err());
        assert!(Images::upload(&stream, &[(0, (0, 4), &[])]).is_err());
        assert!(Images::new(vec![], &descs, &pixels).is_err());

        let augmenter = clip(32, 8)?;
        let images = Images::upload(&stream, &[(0, (4, 4), &[0; 48])])?;
        let patches = stream.zeros::<f32>(augmenter.patches(1))?;
        augmenter.make(&stream, &images, None, Some(&patches))?;
        augmenter.make::<f32>(&stream, &images, None, None)?;
        assert!(augmenter.make(&stream, &images, None, Some(&patches.view([16 * 192]))).is_err());
        let params = stream.zeros([1, 2])?;
        assert!(augmenter.make(&stream, &images, Some((&params, &patches)), None).is_err());
    });
}
