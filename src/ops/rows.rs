//! Rows of float32, or of as exact pairs of float16 in the same memory.

use crate::gpu::Tensor;

/// A matrix `(rows, C)`. In terms, its memory has of each row C first terms, numbers rounded to float16, then C second ones: what
/// rounding has left over [`super::Element::SECOND_TERM`]. So products take them, and nothing has to be converted.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    pub tensor: &'a Tensor<T>,
    pub in_terms: bool,
}

impl<'a, T> Rows<'a, T> {
    /// * `in_terms`: whether they are.
    pub fn new(tensor: &'a Tensor<T>, in_terms: bool) -> Rows<'a, T> {
        Rows { tensor, in_terms }
    }
}

impl<'a, T> From<&'a Tensor<T>> for Rows<'a, T> {
    fn from(tensor: &'a Tensor<T>) -> Rows<'a, T> {
        Rows::new(tensor, false)
    }
}
