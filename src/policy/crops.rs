//! Torchvision's transforms one after the other: flips, rotation, colour jitter, a random resized crop, a flip.

use super::{Setting, Value};

/// The ranges that a view's parameters are drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Crops {
    /// Views of a smaller number than this are the original, as it is predicted.
    pub originals: u32,
    /// Probability of a horizontal flip.
    pub hflip: f32,
    /// Probability of a vertical flip.
    pub vflip: f32,
    /// Degrees: the angle is uniform in ± this.
    pub rotation: f32,
    /// The factor is uniform in `[max(0, 1 − brightness), 1 + brightness]`; 0 leaves the step out.
    pub brightness: f32,
    /// As brightness.
    pub contrast: f32,
    /// As brightness.
    pub saturation: f32,
    /// Turns of the colour wheel: the shift is uniform in ± this; 0 leaves the step out.
    pub hue: f32,
    /// What is cut out, and resized to a view.
    pub crop: Crop,
    /// Probability of a horizontal flip of the finished view.
    pub mirror: f32,
}

/// The ranges of torchvision's `RandomResizedCrop`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    /// The crop's share of the image's area, uniform.
    pub scale: (f32, f32),
    /// The crop's width over height, log-uniform.
    pub ratio: (f32, f32),
}

impl Crop {
    /// Torchvision's default.
    pub const ANY: Crop = Crop { scale: (0.08, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) };

    pub(super) fn settings(&mut self) -> [Setting<'_>; 2] {
        [
            ("scale", Value::Range(&mut self.scale), 1e-6..=1.0),
            ("ratio", Value::Range(&mut self.ratio), 0.01..=100.0),
        ]
    }
}

impl Crops {
    /// The MEMO notebook's: both flips, ±30°, all four jitters at 0.2, torchvision's default crop.
    pub fn notebook() -> Crops {
        Crops {
            originals: 0,
            hflip: 0.5,
            vflip: 0.5,
            rotation: 30.0,
            brightness: 0.2,
            contrast: 0.2,
            saturation: 0.2,
            hue: 0.2,
            crop: Crop::ANY,
            mirror: 0.0,
        }
    }

    /// For images that a flip or a tight crop would make into something else, such as digits.
    pub fn mild() -> Crops {
        Crops {
            hflip: 0.0,
            vflip: 0.0,
            rotation: 15.0,
            hue: 0.0,
            crop: Crop { scale: (0.6, 1.0), ..Crop::ANY },
            ..Crops::notebook()
        }
    }

    /// What TPT and ZERO take: the original, then crops of which every other is mirrored.
    pub fn tpt() -> Crops {
        Crops {
            originals: 1,
            hflip: 0.0,
            vflip: 0.0,
            rotation: 0.0,
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            hue: 0.0,
            crop: Crop::ANY,
            mirror: 0.5,
        }
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        use Value::{Count, One};
        let [scale, ratio] = self.crop.settings();
        vec![
            ("hflip", One(&mut self.hflip), 0.0..=1.0),
            ("vflip", One(&mut self.vflip), 0.0..=1.0),
            ("rotation", One(&mut self.rotation), 0.0..=180.0),
            ("brightness", One(&mut self.brightness), 0.0..=10.0),
            ("contrast", One(&mut self.contrast), 0.0..=10.0),
            ("saturation", One(&mut self.saturation), 0.0..=10.0),
            ("hue", One(&mut self.hue), 0.0..=0.5),
            scale,
            ratio,
            ("mirror", One(&mut self.mirror), 0.0..=1.0),
            ("originals", Count(&mut self.originals), 0.0..=100_000.0),
        ]
    }
}
