//! Views and CLIP's preprocess against torchvision and Pillow themselves, bit for bit.
//!
//! `tests/make_views.py` made the fixtures and documents their layout.

use anyhow::Result;
use memo::check::poisoned;
use memo::device_test;
use memo::ops::augmenter::{Augmenter, Images};
use memo::ops::draw::ViewParams;
use memo::ops::patches::{to_rgb8, unpatchify};
use memo::ops::pillow::{self, Rgb};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};

const FIXTURES: &[u8] = include_bytes!("fixtures/views.safetensors");

struct Case {
    name: String,
    source: Rgb,
    params: Vec<ViewParams>,
    size: usize,
    /// `(n, S, S, 3)`.
    views: Vec<u8>,
    /// `(S, S, 3)`.
    original: Vec<u8>,
    /// The same, `(3, S, S)`.
    normalised: Option<Vec<f32>>,
}

fn cases() -> Result<Vec<Case>> {
    let file = SafeTensors::deserialize(FIXTURES)?;
    let floats = |tensor: TensorView| -> Vec<f32> { bytemuck::pod_collect_to_vec(tensor.data()) };
    let mut names: Vec<&str> =
        file.names().into_iter().filter_map(|name| name.strip_suffix(".views")).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 6);
    let case = |name: &str| -> Result<Case> {
        let tensor = |part: &str| file.tensor(&format!("{name}.{part}"));
        let [source, views] = [tensor("source")?, tensor("views")?];
        let integers: Vec<[u32; 10]> = bytemuck::pod_collect_to_vec(tensor("integers")?.data());
        let factors: Vec<[f32; 5]> = bytemuck::pod_collect_to_vec(tensor("floats")?.data());
        let params = |(integers, factors): (&[u32; 10], &[f32; 5])| {
            let &[hflip, vflip, o0, o1, o2, o3, ref crop @ ..] = integers;
            let &[angle, brightness, contrast, saturation, hue] = factors;
            let jitter_order = [o0, o1, o2, o3].map(|step| step as u8);
            let crop = std::array::from_fn(|side| crop[side] as i32);
            ViewParams { hflip, vflip, angle, jitter_order, brightness, contrast, saturation, hue, crop }
        };
        Ok(Case {
            name: name.to_string(),
            source: Rgb { w: source.shape()[1], h: source.shape()[0], data: source.data().to_vec() },
            params: integers.iter().zip(&factors).map(params).collect(),
            size: views.shape()[1],
            views: views.data().to_vec(),
            original: tensor("original")?.data().to_vec(),
            normalised: tensor("normalised").ok().map(floats),
        })
    };
    names.into_iter().map(case).collect()
}

#[test]
fn the_definition_is_pillows() -> Result<()> {
    for case in cases()? {
        let want = case.views.chunks(3 * case.size * case.size);
        assert_eq!(case.params.len(), want.len());
        for (params, want) in case.params.iter().zip(want) {
            let got = pillow::view(&case.source, params, case.size);
            assert!(got.data == want, "{}: {params:?}", case.name);
        }
        let original = pillow::original(&case.source, case.size);
        assert!(original.data == case.original, "{}", case.name);
        if let Some(want) = case.normalised {
            assert_eq!(pillow::normalise(&original), want, "{}", case.name);
        }
    }
    Ok(())
}

device_test!(the_kernels_are_pillows, |stream| {
    for case in cases()? {
        let augmenter = Augmenter::new(case.size, case.size / 2)?;
        let dims = (case.source.w, case.source.h);
        let view_len = 3 * case.size * case.size;
        let images = Images::upload(&stream, &[(0, dims, &case.source.data)])?;
        let n = case.params.len();
        let params = stream.upload([1, n], &case.params)?;
        let (views, original) =
            (poisoned::<f32>(&stream, augmenter.patches(n)), poisoned(&stream, augmenter.patches(1)));
        augmenter.make(&stream, &images, Some((&params, &views)), Some(&original))?;

        let got = to_rgb8(&unpatchify(&stream.read(&views)?, case.size, case.size / 2), case.size);
        for (i, (got, want)) in got.chunks(view_len).zip(case.views.chunks(view_len)).enumerate() {
            assert!(got == want, "{}: view {i}, {:?}", case.name, case.params[i]);
        }

        let got = unpatchify(&stream.read(&original)?, case.size, case.size / 2);
        assert!(to_rgb8(&got, case.size) == case.original, "{}: original", case.name);
        if let Some(want) = case.normalised {
            assert_eq!(got, want, "{}: normalised", case.name);
        }
    }
});

#[test]
fn every_colour_is_pillows() -> Result<()> {
    let file = SafeTensors::deserialize(FIXTURES)?;
    let want = file.tensor("hsv")?;
    let [mut to_hsv, mut to_rgb] = [Sha256::new(), Sha256::new()];
    for first in 0..=255 {
        for second in 0..=255 {
            for third in 0..=255 {
                to_hsv.update(pillow::rgb_to_hsv([first, second, third]));
                to_rgb.update(pillow::hsv_to_rgb([first, second, third]));
            }
        }
    }
    assert_eq!([to_hsv.finalize(), to_rgb.finalize()].concat(), want.data());
    Ok(())
}
