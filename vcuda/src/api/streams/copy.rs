//! Copies and fills of up to three dimensions, row by row.

use super::touch::Touch;
use crate::api::error::{Outcome, Status};
use crate::api::objects::allocation;
use crate::api::objects::memory::{aligned, copy_row, fill_row, inside};
use crate::order::When;

/// One side of a copy: its first byte, and the bytes from row to row and from layer to layer.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub address: u64,
    pub pitch: usize,
    pub layer: usize,
    pub on_device: bool,
}

/// A copy of `depth` layers of `height` rows of `width` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Copy {
    pub to: Side,
    pub from: Side,
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}

impl Copy {
    /// Of bytes in a row; `on_device` says it of destination and source.
    pub fn linear(to: u64, from: u64, bytes: usize, on_device: [bool; 2]) -> Copy {
        let side = |address, on_device| Side { address, pitch: bytes, layer: bytes, on_device };
        let (to, from) = (side(to, on_device[0]), side(from, on_device[1]));
        Copy { to, from, width: bytes, height: 1, depth: 1 }
    }

    /// The rows' first bytes: where to, and where from.
    pub fn rows(&self) -> impl Iterator<Item = (u64, u64)> {
        let rows = (0..self.depth).flat_map(|layer| (0..self.height).map(move |row| (layer, row)));
        let at = |side: Side, (layer, row)| side.address + (layer * side.layer + row * side.pitch) as u64;
        rows.map(move |place| (at(self.to, place), at(self.from, place)))
    }

    fn name(&self) -> &'static str {
        match [self.to.on_device, self.from.on_device] {
            [true, false] => "a copy to the device",
            [false, true] => "a copy to the host",
            [true, true] => "a copy on the device",
            [false, false] => "a copy on the host",
        }
    }

    /// Refuses rows that are not inside live allocations.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Outcome {
        for (to, from) in self.rows().filter(|_| self.width > 0) {
            if to == 0 || from == 0 {
                return Err(Status::InvalidValue);
            }
            if self.to.on_device {
                inside(to, self.width, "a copy to device memory")?;
            }
            if self.from.on_device {
                inside(from, self.width, "a copy from device memory")?;
            }
        }
        Ok(())
    }

    /// Copies row by row.
    ///
    /// # Errors
    /// A row outside every live allocation; what was queued when there was one, and races with others.
    pub fn run(&self, when: Option<&When>) -> Outcome {
        let mut touch = Touch::new(when, self.name());
        // What is the client's alone is only used while it waits, or has been staged.
        let is_common = |side: &Side| side.on_device || allocation::is_pinned(side.address);
        let [to_common, from_common] = [&self.to, &self.from].map(is_common);
        for (to, from) in self.rows() {
            if from_common {
                touch.range(from, self.width, false)?;
            }
            if to_common {
                touch.range(to, self.width, true)?;
            }
            let done = copy_row(to, from, self.width, [self.to.on_device, self.from.on_device]);
            done.map_err(|status| if when.is_some() { Status::IllegalAddress } else { status })?;
        }
        Ok(())
    }
}

impl Side {
    /// Bytes from a copy's first to its last on this side.
    pub fn extent(&self, copy: &Copy) -> usize {
        (copy.depth.max(1) - 1) * self.layer + (copy.height.max(1) - 1) * self.pitch + copy.width
    }

    /// Whether it is the host's memory, and has bytes in this range.
    pub fn overlaps(&self, copy: &Copy, start: u64, bytes: usize) -> bool {
        let end = self.address + self.extent(copy) as u64;
        !self.on_device && self.address < start + bytes as u64 && start < end
    }
}

/// `height` rows of `width` elements of 1, 2 or 4 bytes, all of one value.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub to: u64,
    pub pitch: usize,
    pub value: u32,
    pub element_bytes: u32,
    pub width: usize,
    pub height: usize,
}

impl Fill {
    fn rows(&self) -> impl Iterator<Item = u64> {
        (0..self.height).map(|row| self.to + (row * self.pitch) as u64)
    }

    fn row_bytes(&self) -> usize {
        self.width.saturating_mul(self.element_bytes as usize)
    }

    /// Refuses rows that are not inside live allocations, or not aligned to their elements.
    ///
    /// # Errors
    /// There is one.
    pub fn check(&self) -> Outcome {
        self.rows().filter(|_| self.width > 0).try_for_each(|to| {
            inside(to, self.row_bytes(), "a fill")?;
            aligned(to, self.element_bytes as usize)
        })
    }

    /// Fills row by row.
    ///
    /// # Errors
    /// A row outside every live allocation, or not aligned to its elements; what was queued when there was one, and
    /// races with others.
    pub fn run(&self, when: Option<&When>) -> Outcome {
        let mut touch = Touch::new(when, "a fill");
        for to in self.rows() {
            touch.range(to, self.row_bytes(), true)?;
            let done = match self.element_bytes {
                1 => fill_row(to, self.value as u8, self.width),
                2 => fill_row(to, self.value as u16, self.width),
                4 => fill_row(to, self.value, self.width),
                _ => return Err(Status::InvalidValue),
            };
            done.map_err(|status| if when.is_some() { Status::IllegalAddress } else { status })?;
        }
        Ok(())
    }
}
