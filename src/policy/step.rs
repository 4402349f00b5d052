//! Steps of a chain of operations on an 8-bit picture.

use bytemuck::{Pod, Zeroable};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// What a step does, as Pillow has it: `enum Operation` of `kernels/view.cuh`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `ImageOps.autocontrast`.
    AutoContrast,
    /// `ImageOps.equalize`.
    Equalize,
    /// `ImageOps.posterize`, to so many bits.
    Posterize,
    /// `ImageOps.solarize`, from a threshold on.
    Solarize,
    /// `ImageEnhance.Brightness`, by a factor, as the next three.
    Brightness,
    Contrast,
    Color,
    Sharpness,
    /// `Image.rotate`, degrees anticlockwise.
    Rotate,
    /// `Image.transform`: a row's pixels come from as much further right for each row down.
    ShearX,
    /// A column's from as much further down for each column to the right.
    ShearY,
    /// Pixels come from as much further right, of the width: rounded towards 0.
    TranslateX,
    /// From as much further down, of the height.
    TranslateY,
    /// Nothing.
    Identity,
}

impl Operation {
    pub const ALL: [(&str, Operation); 14] = [
        ("autocontrast", Operation::AutoContrast),
        ("equalize", Operation::Equalize),
        ("posterize", Operation::Posterize),
        ("solarize", Operation::Solarize),
        ("brightness", Operation::Brightness),
        ("contrast", Operation::Contrast),
        ("color", Operation::Color),
        ("sharpness", Operation::Sharpness),
        ("rotate", Operation::Rotate),
        ("shear_x", Operation::ShearX),
        ("shear_y", Operation::ShearY),
        ("translate_x", Operation::TranslateX),
        ("translate_y", Operation::TranslateY),
        ("identity", Operation::Identity),
    ];
}

/// An operation and its argument: `struct Step` of `kernels/view.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct Step {
    operation: u32,
    pub argument: f32,
}

impl Step {
    pub fn new(operation: Operation, argument: f32) -> Step {
        Step { operation: operation as u32, argument }
    }

    /// None where its number is none of an operation.
    pub fn operation(&self) -> Option<Operation> {
        Operation::ALL.get(self.operation as usize).map(|(_, operation)| *operation)
    }
}

impl Serialize for Step {
    /// The operation's name with its argument, as float64 of its exact value; null where it has none.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = Operation::ALL.get(self.operation as usize).map_or("unknown", |(name, _)| name);
        let without = [Operation::AutoContrast, Operation::Equalize, Operation::Identity];
        let has_one = self.operation().is_some_and(|operation| !without.contains(&operation));
        let mut step = serializer.serialize_map(Some(1))?;
        step.serialize_entry(name, &has_one.then_some(f64::from(self.argument)))?;
        step.end()
    }
}
