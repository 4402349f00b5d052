//! Views and preprocesses against torchvision and Pillow themselves, of two releases, bit for bit.
//!
//! `tests/make_views.py` and `tests/make_pillow.py` made the fixtures and document their layout.

use std::collections::BTreeMap;

use anyhow::Result;
use bytemuck::Zeroable;
use memo::check::poisoned;
use memo::device_test;
use memo::ops::augmenter::{Augmenter, Images};
use memo::ops::chain;
use memo::ops::draw::{Key, draw_reference, draw_views};
use memo::ops::patches::{to_rgb8, unpatchify};
use memo::ops::pillow::{self, Filter, Pillow, Rgb};
use memo::ops::preprocess::{Preprocess, Resize, Scale};
use memo::ops::view::ViewParams;
use memo::policy::Policy;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use sha2::{Digest, Sha256};

const FIXTURES: [(Pillow, usize, &[u8]); 2] = [
    (Pillow::V12_1, 6, include_bytes!("fixtures/views.safetensors")),
    (Pillow::V13, 3, include_bytes!("fixtures/views-13.safetensors")),
];

#[derive(Clone)]
struct Case {
    name: String,
    pillow: Pillow,
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
    let all = FIXTURES.into_iter().map(|(pillow, count, bytes)| cases_of(pillow, count, bytes));
    Ok(all.collect::<Result<Vec<_>>>()?.concat())
}

fn cases_of(pillow: Pillow, count: usize, bytes: &[u8]) -> Result<Vec<Case>> {
    let file = SafeTensors::deserialize(bytes)?;
    let floats = |tensor: TensorView| -> Vec<f32> { bytemuck::pod_collect_to_vec(tensor.data()) };
    let mut names: Vec<&str> =
        file.names().into_iter().filter_map(|name| name.strip_suffix(".views")).collect();
    names.sort_unstable();
    assert_eq!(names.len(), count);
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
            let factors = ViewParams { brightness, contrast, saturation, hue, ..ViewParams::zeroed() };
            ViewParams { hflip, vflip, angle, jitter_order, crop, ..factors }
        };
        Ok(Case {
            name: name.to_string(),
            pillow,
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
            let got =
                pillow::view(&case.source, params, &Preprocess::clip(case.size), case.size, case.pillow);
            assert!(got.data == want, "{:?} {}: {params:?}", case.pillow, case.name);
        }
        let original = pillow::original(&case.source, &Preprocess::clip(case.size), case.size, case.pillow);
        assert!(original.data == case.original, "{}", case.name);
        if let Some(want) = case.normalised {
            assert_eq!(pillow::normalise(&original, &Scale::CLIP), want, "{}", case.name);
        }
    }
    Ok(())
}

device_test!(the_kernels_are_pillows, |stream| {
    for case in cases()? {
        let preprocess = Preprocess::clip(case.size);
        let augmenter = Augmenter::new(case.size, case.size / 2, preprocess, case.pillow)?;
        let dims = (case.source.w, case.source.h);
        let view_len = 3 * case.size * case.size;
        let images = Images::upload(&stream, &[(0, dims, &case.source.data)])?;
        let n = case.params.len();
        let params = stream.upload([1, n], &case.params)?;
        let (views, original) =
            (poisoned::<f32>(&stream, augmenter.patches(n)), poisoned(&stream, augmenter.patches(1)));
        augmenter.make(&stream, &images, Some((&params, &views)), Some(&original))?;

        let got =
            to_rgb8(&unpatchify(&stream.read(&views)?, case.size, case.size / 2), case.size, &Scale::CLIP);
        for (i, (got, want)) in got.chunks(view_len).zip(case.views.chunks(view_len)).enumerate() {
            assert!(got == want, "{}: view {i}, {:?}", case.name, case.params[i]);
        }

        let got = unpatchify(&stream.read(&original)?, case.size, case.size / 2);
        assert!(to_rgb8(&got, case.size, &Scale::CLIP) == case.original, "{}: original", case.name);
        if let Some(want) = case.normalised {
            assert_eq!(got, want, "{}: normalised", case.name);
        }
    }
});

#[test]
fn every_colour_is_pillows() -> Result<()> {
    let file = SafeTensors::deserialize(FIXTURES[0].2)?;
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

/// What `tests/make_pillow.py` has asked a Pillow for: a picture's preprocess, or a view that is a crop of it alone.
struct Asked {
    source: Rgb,
    size: usize,
    what: What,
}

enum What {
    Original(Preprocess),
    View(ViewParams),
}

/// As `tests/make_pillow.py` makes it.
fn picture(w: usize, h: usize) -> Rgb {
    Rgb::from_fn(w, h, |x, y| {
        [0u32, 1, 2].map(|c| {
            let n = (x as u32 * 7919).wrapping_add(y as u32 * 104_729).wrapping_add(c * 15_485_863 + 13);
            ((n.wrapping_mul(2_654_435_761) >> 25) + (255 * x / (2 * w)) as u32) as u8
        })
    })
}

fn asked(case: &str) -> Asked {
    let words: Vec<&str> = case.split(' ').collect();
    let number = |word: &&str| word.parse::<usize>().unwrap();
    let (w, h) = (number(&words[0]), number(&words[1]));
    let source = picture(w, h);
    let what = match words[2] {
        "preprocess" => {
            let (resize, filter) = match words[3] {
                "shortest" => (Resize::ShortestEdge(number(&words[4])), words[5]),
                _ => (Resize::Exact { width: number(&words[4]), height: number(&words[5]) }, words[6]),
            };
            let filter = if filter == "bicubic" { Filter::Bicubic } else { Filter::Bilinear };
            What::Original(Preprocess { resize, filter, scale: Scale::CLIP })
        }
        _ => What::View(ViewParams {
            jitter_order: [0, 1, 2, 3],
            brightness: 1.0,
            contrast: 1.0,
            saturation: 1.0,
            crop: std::array::from_fn(|side| number(&words[3 + side]) as i32),
            ..ViewParams::zeroed()
        }),
    };
    Asked { source, size: number(words.last().unwrap()), what }
}

/// Cases and digests by each release.
fn pillows() -> BTreeMap<String, BTreeMap<String, String>> {
    serde_json::from_str(include_str!("fixtures/pillow.json")).unwrap()
}

fn digest(pixels: &[u8]) -> String {
    Sha256::digest(pixels)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

const RELEASES: [(&str, Pillow); 2] = [("12.1.1", Pillow::V12_1), ("13.0.0", Pillow::V13)];

#[test]
fn the_definition_resizes_as_each_pillow() {
    let pillows = pillows();
    for (release, pillow) in RELEASES {
        for (case, want) in &pillows[release] {
            let Asked { source, size, what } = asked(case);
            let got = match what {
                What::Original(preprocess) => pillow::original(&source, &preprocess, size, pillow),
                What::View(params) => pillow::view(&source, &params, &Preprocess::clip(size), size, pillow),
            };
            assert_eq!(digest(&got.data), *want, "{release}: {case}");
        }
    }
    // As the docs have it: 12.2 and 12.3 differ from 12.1 where an image is over 100 times as tall as wide.
    let differing = pillows["12.3.0"].iter().filter(|(case, want)| pillows["12.1.1"][*case] != **want);
    let tall = |(case, _): (&String, &String)| {
        let Asked { source, .. } = asked(case);
        assert!(source.h > 100 * source.w, "{case}");
    };
    assert_eq!(differing.map(tall).count(), 7);
    let moved = pillows["13.0.0"].iter().filter(|(case, want)| pillows["12.1.1"][*case] != **want);
    assert_eq!(moved.count(), 45);
}

device_test!(the_kernels_resize_as_each_pillow, |stream| {
    let pillows = pillows();
    for (release, pillow) in RELEASES {
        for (case, want) in &pillows[release] {
            let Asked { source, size, what } = asked(case);
            let (preprocess, params) = match what {
                What::Original(preprocess) => (preprocess, None),
                What::View(params) => (Preprocess::clip(size), Some(params)),
            };
            let augmenter = Augmenter::new(size, size / 2, preprocess, pillow)?;
            let images = Images::upload(&stream, &[(0, (source.w, source.h), &source.data)])?;
            let out = poisoned::<f32>(&stream, augmenter.patches(1));
            match params {
                None => augmenter.make(&stream, &images, None, Some(&out))?,
                Some(params) => {
                    let params = stream.upload([1, 1], &[params])?;
                    augmenter.make(&stream, &images, Some((&params, &out)), None)?;
                }
            }
            let got = to_rgb8(&unpatchify(&stream.read(&out)?, size, size / 2), size, &Scale::CLIP);
            assert_eq!(digest(&got), *want, "{release}: {case}");
        }
    }
});

/// A name, an image, the views' size, a policy and each view's digest.
type Program = (String, Rgb, usize, Policy, Vec<String>);

/// Drawn views of `tests/make_programs.py`: of each case its picture, size, policy, and the digests of its views.
fn programs(release: &str) -> Result<Vec<Program>> {
    let all: BTreeMap<String, BTreeMap<String, Vec<String>>> =
        serde_json::from_str(include_str!("fixtures/programs.json"))?;
    let case = |(case, digests): (&String, &Vec<String>)| {
        let [w, h, size, policy] = case.split(' ').collect::<Vec<_>>()[..] else { anyhow::bail!("{case}") };
        let source = picture(w.parse()?, h.parse()?);
        Ok((case.clone(), source, size.parse()?, policy.parse()?, digests.clone()))
    };
    all[release].iter().map(case).collect()
}

const SEED: u64 = 7;
const INDEX: u64 = 3;

#[test]
fn the_definition_draws_and_makes_what_the_libraries_make() -> Result<()> {
    let mut made = 0;
    for (release, pillow) in RELEASES {
        for (case, source, size, policy, want) in programs(release)? {
            for (view, want) in (0..).zip(want) {
                let key = Key { seed: SEED, image: INDEX, view };
                let params = draw_reference(&policy, key, (source.w, source.h));
                let got = chain::view(&source, &params, &Preprocess::clip(size), size, pillow);
                assert_eq!(
                    digest(bytemuck::cast_slice(&got)),
                    want,
                    "{release}: {case}: view {view}: {params:?}"
                );
                made += 1;
            }
        }
    }
    assert_eq!(made, 2 * 500);
    Ok(())
}

device_test!(the_kernels_draw_and_make_what_the_libraries_make, |stream| {
    for (release, pillow) in RELEASES {
        for (case, source, size, policy, want) in programs(release)? {
            let augmenter = Augmenter::new(size, size / 2, Preprocess::clip(size), pillow)?.policy(&policy);
            let images = Images::upload(&stream, &[(INDEX, (source.w, source.h), &source.data)])?;
            let params = stream.alloc([1, want.len()])?;
            draw_views(&stream, &policy, (SEED, 0), images.descs(), &params)?;
            let views = poisoned::<f32>(&stream, augmenter.patches(want.len()));
            augmenter.make(&stream, &images, Some((&params, &views)), None)?;
            let got = unpatchify(&stream.read(&views)?, size, size / 2);
            for (view, (got, want)) in got.chunks(3 * size * size).zip(want).enumerate() {
                assert_eq!(digest(bytemuck::cast_slice(got)), want, "{release}: {case}: view {view}");
            }
        }
    }
});
