use half::f16;

use super::*;
use crate::check::poisoned;
use crate::device_test;
use crate::ops::draw::{Key, draw_reference, draw_views};
use crate::ops::patches::patchify;
use crate::ops::pillow::{self, Rgb};
use crate::ops::preprocess::Scale;
use crate::policy::Policy;

/// Noise over a slope, in steps of 1 or 64: both every value and many equal channels.
pub fn source(w: usize, h: usize) -> Rgb {
    let step = if (w + h).is_multiple_of(2) { 1 } else { 64 };
    Rgb::from_fn(w, h, |x, y| {
        let noise = ((x * 7919 + y * 104_729 + 13) as u32).wrapping_mul(2_654_435_761).to_le_bytes();
        [0, 1, 2].map(|c| (noise[c] / 2 + (255 * x / (2 * w)) as u8) / step * step)
    })
}

pub fn patches_of(image: &Rgb, patch_size: usize) -> Vec<f32> {
    patchify(&pillow::normalise(image, &Scale::CLIP), image.w, patch_size)
}

const SIZE: usize = 48;
const PATCH: usize = 12;
const ITEM_LEN: usize = 3 * SIZE * SIZE;

fn shape(images: usize, max_w: usize, max_h: usize) -> Shape {
    let (preprocess, pillow) = (Preprocess::clip(SIZE), Pillow::V13);
    let (image_size, patch_size) = (SIZE, PATCH);
    Shape { images, views: 3, max_w, max_h, image_size, patch_size, preprocess, pillow, chains: None }
}

/// A batch of these images, in one series of launches: views and original, by image.
fn batch<E: Element>(stream: &Stream, shape: Shape, images: &[Option<&(u64, Rgb)>]) -> Result<Vec<Vec<E>>> {
    let (mut pixels, mut descs) = (vec![0; 5], Vec::new());
    for image in images {
        descs.push(image.map_or_else(ImageDesc::default, |(index, source)| ImageDesc {
            offset: pixels.len() as u64,
            index: *index,
            w: source.w as u32,
            h: source.h as u32,
        }));
        pixels.extend(image.map_or(&[][..], |(_, source)| &source.data));
    }
    let (s, n) = (images.len(), shape.views);
    let scratch = Scratch::new(stream, shape)?;
    let (descs, params) = (stream.vector(&descs)?, stream.alloc([s, n])?);
    draw_views(stream, &Policy::notebook(), (3, 7), &descs, &params)?;
    let patches = poisoned(stream, shape.patches(s * n + s));
    let (views, originals) = (patches.rows(0..s * n), patches.rows(s * n..s * n + s));
    let pixels = stream.vector(&pixels)?;
    make_views(stream, &scratch, &descs, &pixels, Some((&params, &views)), Some(&originals))?;
    let (views, originals) = (stream.read(&views)?, stream.read(&originals)?);
    let item = originals.len() / s;
    let each = views.chunks(n * item).zip(originals.chunks(item));
    Ok(each.map(|(views, original)| [views, original].concat()).collect())
}

fn images() -> Vec<(u64, Rgb)> {
    let sizes = [(32, 32), (1, 1), (300, 7), (500, 375), (31, 64)];
    (11..).zip(sizes.map(|(w, h)| source(w, h))).collect()
}

device_test!(images_of_a_batch_equal_themselves_alone, |stream| {
    let images = images();
    let alone =
        |image: &(u64, Rgb)| Ok(batch(&stream, shape(1, image.1.w, image.1.h), &[Some(image)])?.remove(0));
    let alone = images.iter().map(alone).collect::<Result<Vec<Vec<f32>>>>()?;
    for (image, alone) in images.iter().zip(&alone) {
        for (i, got) in alone.chunks(ITEM_LEN).enumerate() {
            let key = Key { seed: 3, image: image.0, view: 7 + i as u32 };
            let params = draw_reference(&Policy::notebook(), key, (image.1.w, image.1.h));
            let view = if i < 3 {
                pillow::view(&image.1, &params, &Preprocess::clip(SIZE), SIZE, Pillow::V13)
            } else {
                pillow::original(&image.1, &Preprocess::clip(SIZE), SIZE, Pillow::V13)
            };
            assert!(got == patches_of(&view, PATCH), "view {i} of image {}", image.0);
        }
    }
    let empty = vec![0.0; alone[0].len()];
    for order in [vec![0, 1, 2, 3, 4], vec![4, 9, 3, 0], vec![9, 2, 2, 9, 1, 9]] {
        let slots: Vec<_> = order.iter().map(|&i| images.get(i)).collect();
        let got = batch::<f32>(&stream, shape(order.len(), 500, 400), &slots)?;
        for (got, i) in got.iter().zip(order) {
            assert!(got == alone.get(i).unwrap_or(&empty), "image {i}");
        }
    }
});

device_test!(the_longest_row_is_read_whole, |stream| {
    let image = (1, source(MAX_SIDE, 20));
    let got = batch::<f32>(&stream, shape(1, MAX_SIDE, 20), &[Some(&image)])?.concat();
    for (i, got) in got.chunks(ITEM_LEN).enumerate() {
        let key = Key { seed: 3, image: 1, view: 7 + i as u32 };
        let params = draw_reference(&Policy::notebook(), key, (MAX_SIDE, 20));
        let view = match i {
            3 => pillow::original(&image.1, &Preprocess::clip(SIZE), SIZE, Pillow::V13),
            _ => pillow::view(&image.1, &params, &Preprocess::clip(SIZE), SIZE, Pillow::V13),
        };
        assert!(got == patches_of(&view, PATCH), "view {i}");
    }
});

device_test!(half_is_the_rounded_value, |stream| {
    let images = images();
    let slots = [images.first(), None, images.get(4)];
    for (size, patch) in [(SIZE, PATCH), (48, 16), (48, 6), (48, 3)] {
        let shape = Shape { image_size: size, patch_size: patch, ..shape(3, 40, 70) };
        let wide = batch::<f32>(&stream, shape, &slots)?.concat();
        let half = batch::<f16>(&stream, shape, &slots)?.concat();
        let bits = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<u16>>();
        let want: Vec<f16> = wide.iter().map(|&x| f16::round(x.into())).collect();
        assert!(bits(&half) == bits(&want), "patches of {patch}");
    }
});

device_test!(what_does_not_fit_is_refused, |stream| {
    let none = |image_size, patch_size| Shape { image_size, patch_size, ..shape(1, 4, 4) };
    for (size, patch) in [(48, 0), (0, 1), (48, 15)] {
        assert!(Scratch::new(&stream, none(size, patch)).is_err());
    }
    assert!(Scratch::new(&stream, shape(1, 1, MAX_SIDE + 1)).is_err());

    let shape = shape(2, 4, 5);
    let scratch = Scratch::new(&stream, shape)?;
    let (descs, pixels) = (stream.zeros(2)?, stream.zeros(48)?);
    let (params, views) = (stream.zeros([2, 3])?, stream.zeros::<f32>(shape.patches(6))?);
    let originals = stream.zeros::<f32>(shape.patches(2))?;
    let make = |descs: &_, params: &_, views: &_, originals: &_| {
        let made = make_views(&stream, &scratch, descs, &pixels, Some((params, views)), Some(originals));
        made.err().map_or_else(String::new, |error| error.to_string())
    };
    assert_eq!(make(&descs, &params, &views, &originals), "");
    let refused = |error: String, what: &str| assert!(error.contains(what), "{error}, not {what}");
    refused(make(&stream.zeros(3)?, &params, &views, &originals), "make_views: descs");
    refused(make(&descs, &params.view([3, 2]), &views, &originals), "make_views: params");
    refused(make(&descs, &params, &views.rows(0..5), &originals), "make_views: views");
    refused(make(&descs, &params, &views, &views), "make_views: originals");
    let shifted = stream.zeros::<f32>(views.len() + 1)?.slice(1..views.len() + 1).view(views.shape());
    refused(make(&descs, &params, &shifted, &originals), "no multiple of 16 bytes");
});
