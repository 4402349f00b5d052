//! Room for the factors of a product.

use super::fragment::Columns;
use super::gemm::{BLOCK, PER_PANEL, TILE, stride};

/// What computing a product needs, kept from one to the next: panels, where D is, and the columns of a single one.
#[derive(Default)]
pub struct Scratch {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    /// Of the upper and the lower rows of each block, whether A has anything but zeros there.
    pub has: Vec<[bool; 2]>,
    pub d: Vec<[*mut f32; 4]>,
    pub columns: Vec<Columns>,
}

impl Scratch {
    /// Makes the panels large enough; A has nothing yet.
    pub fn reserve(&mut self, blocks: usize, depth: usize) {
        let (a, b) = (blocks * BLOCK * depth, PER_PANEL * TILE * stride(depth));
        self.a.resize(self.a.len().max(a), 0.0);
        self.b.resize(self.b.len().max(b), 0.0);
        self.has.clear();
        self.has.resize(blocks, [false; 2]);
    }
}
