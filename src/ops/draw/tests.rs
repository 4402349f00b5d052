use anyhow::Result;
use bytemuck::Zeroable;

use super::reference::{central_crop, permutation, philox4x32_10};
use super::*;
use crate::device_test;
use crate::ops::view::{JITTERS, ORIGINAL};

/// Random123's `kat_vectors`.
#[test]
fn philox_gives_the_published_answers() {
    assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(
        philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
    assert_eq!(
        philox4x32_10([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
}

fn policies() -> Result<Vec<Policy>> {
    // The last asks for crops that seldom fit, so that tries and fallback are drawn too.
    let names = ["notebook", "mild", "tpt", "none", "augmix:originals=1", "augmix-cifar:severity=10"];
    let more = ["randaugment:ops=9", "notebook:hflip=1,contrast=2,hue=0.5,scale=0.9..1,ratio=0.2..0.4"];
    names.iter().chain(&more).map(|text| text.parse()).collect()
}

const SIZES: [(usize, usize); 6] = [(32, 32), (1, 1), (7, 300), (300, 7), (45, 61), (6000, 4001)];

fn desc(index: u64, (w, h): (usize, usize)) -> ImageDesc {
    ImageDesc { offset: 0, index, w: w as u32, h: h as u32 }
}

device_test!(kernel_equals_the_definition, |stream| {
    for policy in policies()? {
        let (seed, view, n) = (0x0123_4567_89ab_cdef, u32::MAX - 150, 151);
        let image = |i: usize| (5 << 33 | 7) + i as u64;
        let mut descs: Vec<_> = SIZES.iter().enumerate().map(|(i, size)| desc(image(i), *size)).collect();
        descs.insert(2, desc(0, (0, 0)));
        let params = stream.alloc([descs.len(), n])?;
        draw_views(&stream, &policy, (seed, view), &stream.vector(&descs)?, &params)?;
        for (got, desc) in stream.read(&params)?.chunks(n).zip(descs) {
            let size = (desc.w as usize, desc.h as usize);
            let at = |i| draw_reference(&policy, Key { seed, image: desc.index, view: view + i }, size);
            let want = |i| if desc.w == 0 { ViewParams::zeroed() } else { at(i) };
            assert_eq!(got, (0..n as u32).map(want).collect::<Vec<_>>(), "{policy} {size:?}");
        }
    }
});

device_test!(views_do_not_depend_on_how_many_are_drawn, |stream| {
    let policy = Policy::notebook();
    let descs = stream.vector(&[desc(9, (32, 32))])?;
    let draw = |view, n| {
        let params = stream.alloc([1, n])?;
        draw_views(&stream, &policy, (3, view), &descs, &params)?;
        stream.read(&params)
    };
    let all = draw(0, 50)?;
    assert_eq!(draw(17, 4)?, all[17..21]);
    for (a, b) in [((4, 9, 0), (3, 9, 0)), ((3, 8, 0), (3, 9, 0)), ((3, 9, 1), (3, 9, 0))] {
        let at = |(seed, image, view)| draw_reference(&policy, Key { seed, image, view }, (32, 32));
        assert_ne!(at(a), at(b));
    }
});

#[test]
fn draws_fill_their_ranges_evenly() {
    let policy = Policy::notebook();
    const N: u32 = 24_000;
    let views: Vec<ViewParams> =
        (0..N).map(|view| draw_reference(&policy, Key { seed: 1, image: 2, view }, (640, 480))).collect();
    // Five standard deviations of each count or mean.
    let near = |value: f64, want: f64, sigma: f64| {
        let bound = 5.0 * sigma / f64::from(N).sqrt();
        assert!((value - want).abs() < bound, "{value} is further than {bound} from {want}");
    };
    let mean = |of: &dyn Fn(&ViewParams) -> f64| views.iter().map(of).sum::<f64>() / f64::from(N);
    near(mean(&|v| v.hflip.into()), 0.5, 0.5);
    near(mean(&|v| v.vflip.into()), 0.5, 0.5);
    near(mean(&|v| v.angle.into()), 0.0, 60.0 / 12f64.sqrt());
    near(mean(&|v| v.brightness.into()), 1.0, 0.4 / 12f64.sqrt());
    near(mean(&|v| v.contrast.into()), 1.0, 0.4 / 12f64.sqrt());
    near(mean(&|v| v.saturation.into()), 1.0, 0.4 / 12f64.sqrt());
    near(mean(&|v| v.hue.into()), 0.0, 0.4 / 12f64.sqrt());
    for index in 0..24 {
        let share = mean(&|v| f64::from(u8::from(v.jitter_order == permutation(index))));
        near(share, 1.0 / 24.0, (23.0f64 / 576.0).sqrt());
    }
    for view in &views {
        let [top, left, height, width] = view.crop;
        assert!(top >= 0 && left >= 0 && top + height <= 480 && left + width <= 640);
        assert!(view.angle.abs() <= 30.0 && view.hue.abs() <= 0.2);
        let area = f64::from(height * width) / (640.0 * 480.0);
        let ratio = f64::from(width) / f64::from(height);
        assert!((0.079..=1.0).contains(&area) && (0.745..=1.34).contains(&ratio), "{view:?}");
    }
}

/// As TPT has them: the original first, then crops with every other mirrored and nothing else.
#[test]
fn tpt_mirrors_every_other_crop() -> Result<()> {
    let (policy, n) = ("tpt".parse()?, 4_000);
    let draw = |view| draw_reference(&policy, Key { seed: 1, image: 2, view }, (640, 480));
    assert_eq!(draw(0), ViewParams { kind: ORIGINAL, ..ViewParams::zeroed() });
    let views: Vec<ViewParams> = (1..=n).map(draw).collect();
    for view in &views {
        let &ViewParams { jitter_order, crop, mirror, .. } = view;
        let plain = ViewParams { brightness: 1.0, contrast: 1.0, saturation: 1.0, ..ViewParams::zeroed() };
        assert_eq!(*view, ViewParams { jitter_order, crop, mirror, ..plain });
    }
    let mirrored = views.iter().filter(|view| view.mirror == 1).count() as f64;
    assert!((mirrored - 2_000.0).abs() < 5.0 * f64::sqrt(1_000.0), "{mirrored}");
    Ok(())
}

#[test]
fn the_fallback_is_torchvisions() {
    assert_eq!(central_crop(Crop::ANY, 300, 7), [0, 145, 7, 9]);
    assert_eq!(central_crop(Crop::ANY, 7, 300), [145, 0, 9, 7]);
    assert_eq!(central_crop(Crop::ANY, 40, 40), [0, 0, 40, 40]);
    assert_eq!(central_crop(Crop { ratio: (50.0, 60.0), ..Crop::ANY }, 1, 9), [4, 0, 1, 1]);
}

#[test]
fn prints_the_exact_values() -> Result<()> {
    let view = draw_reference(&Policy::notebook(), Key { seed: 0, image: 0, view: 0 }, (32, 32));
    let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&view)?)?;
    assert_eq!(json["angle"].as_f64(), Some(view.angle.into()));
    assert_eq!(json["hue"].as_f64(), Some(view.hue.into()));
    assert_eq!(json["hflip"].as_bool(), Some(view.hflip == 1));
    assert_eq!(json["crop"], serde_json::json!(view.crop));
    assert_eq!(json["jitter_order"][0], JITTERS[usize::from(view.jitter_order[0])]);
    let keys: Vec<_> = json.as_object().into_iter().flat_map(|object| object.keys()).collect();
    let want = "hflip vflip angle jitter_order brightness contrast saturation hue crop mirror";
    assert_eq!(keys, want.split(' ').collect::<Vec<_>>());
    let mild = draw_reference(&Policy::mild(), Key { seed: 0, image: 0, view: 0 }, (32, 32));
    assert!(serde_json::to_value(mild)?["hue"].is_null());
    let none = draw_reference(&"none".parse()?, Key { seed: 0, image: 0, view: 0 }, (32, 32));
    assert_eq!(serde_json::to_value(none)?, serde_json::json!({"original": true}));
    Ok(())
}
