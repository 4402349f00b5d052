//! AugMix (arXiv 1912.02781) as MEMO's authors have it, github.com/zhangmarvin/memo, `third_party.py` of both experiments:
//! three chains of one to three operations each, mixed with what they began with.

use super::{Crop, Setting, Value};

/// What a view's chains and weights are drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct AugMix {
    /// Views of a smaller number than this are the original, as it is predicted.
    pub originals: u32,
    /// The level of an operation is uniform from 0.1 to this, of 10.
    pub severity: f32,
    /// Red of the pixels that a picture is turned or moved off. Pillow takes a colour of one number, MEMO's `fillcolor=128`,
    /// as its red.
    pub fill: u32,
    /// What the chains begin with.
    pub before: Before,
    /// Probability of a flip of that.
    pub mirror: f32,
}

/// What comes before the chains.
#[derive(Clone, Debug, PartialEq)]
pub enum Before {
    /// A crop, resized to a view.
    Resized(Crop),
    /// Black pixels on each side of the image, of which a part as large as the image is taken. It becomes a view where the
    /// chains end, by the model's preprocess.
    Padded(u32),
}

impl AugMix {
    /// For ImageNet.
    pub fn imagenet() -> AugMix {
        AugMix { originals: 0, severity: 1.0, fill: 128, before: Before::Resized(Crop::ANY), mirror: 0.5 }
    }

    /// For CIFAR.
    pub fn cifar() -> AugMix {
        AugMix { before: Before::Padded(4), ..AugMix::imagenet() }
    }

    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        let mut settings = vec![
            ("severity", Value::One(&mut self.severity), 0.1..=10.0),
            ("fill", Value::Count(&mut self.fill), 0.0..=255.0),
        ];
        match &mut self.before {
            Before::Resized(crop) => settings.extend(crop.settings()),
            Before::Padded(padding) => settings.push(("padding", Value::Count(padding), 0.0..=1_000.0)),
        }
        settings.push(("mirror", Value::One(&mut self.mirror), 0.0..=1.0));
        settings.push(("originals", Value::Count(&mut self.originals), 0.0..=100_000.0));
        settings
    }
}
