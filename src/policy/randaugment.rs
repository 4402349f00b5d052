//! RandAugment (arXiv 1909.13719) as torchvision has it, after the crop and flip of its ImageNet training.

use super::{Crop, Operation, Setting, Step, Value};

/// What a view's operations are drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct RandAugment {
    /// Views of a smaller number than this are the original, as it is predicted.
    pub originals: u32,
    /// Operations of a view, one after the other; torchvision's `num_ops`.
    pub ops: u32,
    /// Of 30, of all operations.
    pub magnitude: u32,
    /// 1 moves pixels by bilinear interpolation, 0 to the nearest.
    pub bilinear: u32,
    /// What is cut out first, and resized to a view.
    pub crop: Crop,
    /// Probability of a flip of that.
    pub mirror: f32,
}

impl Default for RandAugment {
    fn default() -> RandAugment {
        RandAugment { originals: 0, ops: 2, magnitude: 9, bilinear: 0, crop: Crop::ANY, mirror: 0.5 }
    }
}

impl RandAugment {
    pub(super) fn settings(&mut self) -> Vec<Setting<'_>> {
        let [scale, ratio] = self.crop.settings();
        vec![
            ("ops", Value::Count(&mut self.ops), 1.0..=9.0),
            ("magnitude", Value::Count(&mut self.magnitude), 0.0..=30.0),
            ("bilinear", Value::Count(&mut self.bilinear), 0.0..=1.0),
            scale,
            ratio,
            ("mirror", Value::One(&mut self.mirror), 0.0..=1.0),
            ("originals", Value::Count(&mut self.originals), 0.0..=100_000.0),
        ]
    }

    /// Torchvision's operations in its order at the magnitude, with `1` and `-1` for a sign.
    pub fn space(&self) -> [[Step; 2]; 14] {
        let magnitude = self.magnitude;
        let signed = |operation, argument: fn(f32) -> f32, end: f32| {
            [1.0, -1.0].map(|sign| Step::new(operation, argument(sign * linspace(0.0, end, magnitude))))
        };
        let always = |operation, argument| [Step::new(operation, argument); 2];
        // Of the side, a little more than torchvision's so that the product is not below its whole number of pixels; what
        // it moves right comes from the left.
        let share = (f64::from(magnitude) / 30.0 * (150.0 / 331.0) * (1.0 + 1e-7)) as f32;
        let moved = |operation| [Step::new(operation, -share), Step::new(operation, share)];
        let bits = 8.0 - (f64::from(magnitude) / 7.5).round_ties_even() as f32;
        let factor: fn(f32) -> f32 = |magnitude| (1.0 + f64::from(magnitude)) as f32;
        let same: fn(f32) -> f32 = |magnitude| magnitude;
        [
            always(Operation::Identity, 0.0),
            signed(Operation::ShearX, same, 0.3),
            signed(Operation::ShearY, same, 0.3),
            moved(Operation::TranslateX),
            moved(Operation::TranslateY),
            signed(Operation::Rotate, same, 30.0),
            signed(Operation::Brightness, factor, 0.9),
            signed(Operation::Color, factor, 0.9),
            signed(Operation::Contrast, factor, 0.9),
            signed(Operation::Sharpness, factor, 0.9),
            always(Operation::Posterize, bits),
            always(Operation::Solarize, linspace(255.0, 0.0, magnitude)),
            always(Operation::AutoContrast, 0.0),
            always(Operation::Equalize, 0.0),
        ]
    }
}

/// `torch.linspace(start, end, 31)[index]` in float32.
fn linspace(start: f32, end: f32, index: u32) -> f32 {
    let step = (end - start) / 30.0;
    match index {
        0..15 => step.mul_add(index as f32, start),
        _ => (-step).mul_add((30 - index) as f32, end),
    }
}
