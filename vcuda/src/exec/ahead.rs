//! Boxes of tensors that the kernel may want next ([`super::asynchronous`]). Their rows lie far apart, where the host does
//! not look for them by itself, and it drops most of what it is asked for at once. So it is asked for a few lines at a time
//! while it computes a product over panels ([`super::matrix`]), for which it has all that it needs.

use std::cell::Cell;

use super::host::{LINE, prefetch_far};

/// Boxes that are known, at most. A power of two.
const MOST: usize = 16;

/// Rows of so many bytes, equally far apart. They need not be there.
#[derive(Clone, Copy, Default)]
pub struct Stretch {
    pub start: u64,
    pub stride: u64,
    pub bytes: usize,
    pub rows: usize,
}

impl Stretch {
    /// Asks for the next row, if there is one more; how many lines it has.
    #[inline(always)]
    pub fn ask(&mut self) -> usize {
        if self.rows == 0 {
            return 0;
        }
        prefetch_far(self.start as *const u8, self.bytes);
        self.start = self.start.wrapping_add(self.stride);
        self.rows -= 1;
        self.bytes.div_ceil(LINE)
    }
}

/// Of a host thread's CTAs in one launch. What was expected first is asked for first, and forgotten if there is no room.
#[derive(Default)]
pub struct Ahead {
    stretches: [Cell<Stretch>; MOST],
    /// How many have come and gone, of all times.
    come: Cell<usize>,
    gone: Cell<usize>,
}

impl Ahead {
    /// These rows, one or more, may soon be wanted.
    pub fn expect(&self, stretch: Stretch) {
        let come = self.come.get();
        self.stretches[come % MOST].set(stretch);
        self.come.set(come + 1);
    }

    /// Asks for the next rows, of so many lines or a few more. Not in place, where it would cost the product registers.
    #[inline(never)]
    pub fn ask(&self, lines: usize) {
        let come = self.come.get();
        let mut gone = self.gone.get().max(come.saturating_sub(MOST));
        let mut asked = 0;
        while gone < come && asked < lines {
            let place = &self.stretches[gone % MOST];
            let mut stretch = place.get();
            asked += stretch.ask();
            place.set(stretch);
            gone += usize::from(stretch.rows == 0);
        }
        self.gone.set(gone);
    }
}
