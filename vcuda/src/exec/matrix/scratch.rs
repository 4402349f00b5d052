//! Room for the factors of a product.

use super::fragment::Columns;
use super::gemm::{BLOCK, PER_PANEL, TILE, stride};

/// What computing a product needs, kept from one to the next: panels, where D is, and the columns of a single one.
#[derive(Default)]
pub struct Scratch {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub d: Vec<[*mut f32; 4]>,
    pub columns: Vec<Columns>,
}

impl Scratch {
    /// Makes the panels large enough.
    pub fn reserve(&mut self, blocks: usize, depth: usize) {
        let (a, b) = (blocks * BLOCK * depth, PER_PANEL * TILE * stride(depth));
        self.a.resize(self.a.len().max(a), 0.0);
        self.b.resize(self.b.len().max(b), 0.0);
    }
}
