//! Two things about shared memory, where [`Checks::asynchrony`](crate::exec::options::Checks) asks for them.
//!
//! What ordinary stores have left there that bulk copies may not see yet: they read through the async
//! proxy, and only a `fence.proxy.async` orders the two (PTX ISA 8.6). A fence covers the stores of its
//! own warp, and those that a barrier has ordered before it.
//!
//! And what copies under way have yet to write, which nobody else may touch, or copies and matrix products to read,
//! which nobody may write.

use std::ops::Range;

/// What a bulk copy reads is made of these, and what copies write of words.
const GRANULE_BYTES: usize = 16;
const WORD_BYTES: usize = 4;

/// The last store to a granule: by which warp of the cluster (0: none since the fence, else its number
/// and 1), after how many barriers, from which PTX line.
#[derive(Clone, Copy, Default)]
struct Mark {
    warp: u32,
    epoch: u32,
    line: u32,
}

#[derive(Default)]
pub struct Proxy {
    /// One a granule of the cluster's shared memory, as far as there have been stores.
    marks: Vec<Mark>,
    epoch: u32,
    /// One a word: the PTX line of the copy that will write it, or 0.
    expected: Vec<u32>,
    /// One a granule: who will read it.
    held: Vec<Readers>,
}

/// Copies and products that will read a granule: how many, and the PTX line of the last one, and what it is.
#[derive(Clone, Copy, Default)]
struct Readers {
    count: u32,
    line: u32,
    is_product: bool,
}

fn words(offset: usize, bytes: usize) -> Range<usize> {
    offset / WORD_BYTES..(offset + bytes).div_ceil(WORD_BYTES)
}

fn granules(offset: usize, bytes: usize) -> Range<usize> {
    offset / GRANULE_BYTES..(offset + bytes).div_ceil(GRANULE_BYTES)
}

fn put(lines: &mut Vec<u32>, words: Range<usize>, line: u32) {
    if lines.len() < words.end {
        lines.resize(words.end, 0);
    }
    lines[words].fill(line);
}

fn find(lines: &[u32], words: Range<usize>) -> Option<u32> {
    let end = words.end.min(lines.len());
    lines[words.start.min(end)..end].iter().copied().find(|&line| line != 0)
}

impl Proxy {
    /// Begins with nothing, in the room that it has.
    pub fn begin(&mut self) {
        self.marks.clear();
        self.expected.clear();
        self.held.clear();
        self.epoch = 0;
    }

    /// A barrier has let threads go on.
    pub fn order(&mut self) {
        self.epoch += 1;
    }

    /// A warp stores `bytes` at `offset` in the cluster's shared memory.
    pub fn store(&mut self, offset: usize, bytes: usize, warp: usize, line: u32) {
        let (first, last) = (offset / GRANULE_BYTES, (offset + bytes - 1) / GRANULE_BYTES);
        if self.marks.len() <= last {
            self.marks.resize(last + 1, Mark::default());
        }
        self.marks[first..=last].fill(Mark { warp: warp as u32 + 1, epoch: self.epoch, line });
    }

    /// A copy from `line` will write there, and makes what has been stored there before pointless.
    pub fn expect(&mut self, offset: usize, bytes: usize, line: u32) {
        put(&mut self.expected, words(offset, bytes), line);
        let end = (offset + bytes).div_ceil(GRANULE_BYTES).min(self.marks.len());
        let start = (offset / GRANULE_BYTES).min(end);
        self.marks[start..end].fill(Mark::default());
    }

    /// The copy has landed.
    pub fn land(&mut self, offset: usize, bytes: usize) {
        put(&mut self.expected, words(offset, bytes), 0);
    }

    /// A copy from `line` will read there.
    pub fn hold(&mut self, offset: usize, bytes: usize, line: u32) {
        self.add_reader(offset, bytes, line, false);
    }

    fn add_reader(&mut self, offset: usize, bytes: usize, line: u32, is_product: bool) {
        let granules = granules(offset, bytes);
        if self.held.len() < granules.end {
            self.held.resize(granules.end, Readers::default());
        }
        for readers in &mut self.held[granules] {
            *readers = Readers { count: readers.count + 1, line, is_product };
        }
    }

    /// A product from `line` will read there: what the async proxy has against it.
    pub fn begin_product(&mut self, offset: usize, bytes: usize, line: u32) -> Option<String> {
        let objection = self.objection(offset, bytes, false).or_else(|| self.unfenced(offset, bytes));
        self.add_reader(offset, bytes, line, true);
        objection
    }

    /// The copy, or product, has read.
    pub fn release(&mut self, offset: usize, bytes: usize) {
        self.held[granules(offset, bytes)].iter_mut().for_each(|readers| readers.count -= 1);
    }

    /// `fence.proxy.async` of a warp.
    pub fn fence(&mut self, warp: usize) {
        for mark in &mut self.marks {
            if mark.warp == warp as u32 + 1 || mark.epoch < self.epoch {
                mark.warp = 0;
            }
        }
    }

    /// A thread's own access: what a copy under way has against it. A store is remembered.
    pub fn access(
        &mut self,
        offset: usize,
        bytes: usize,
        writes: bool,
        warp: usize,
        line: u32,
    ) -> Option<String> {
        let objection = self.objection(offset, bytes, writes);
        if objection.is_none() && writes {
            self.store(offset, bytes, warp, line);
        }
        objection
    }

    /// What a copy under way has against bytes being read, or written.
    pub fn objection(&self, offset: usize, bytes: usize, writes: bool) -> Option<String> {
        let words = words(offset, bytes);
        if let Some(line) = find(&self.expected, words.clone()) {
            return Some(format!(
                "this touches shared memory that the copy of PTX line {line} has yet to write: nobody has waited for it"
            ));
        }
        let granules = granules(offset, bytes);
        let end = granules.end.min(self.held.len());
        let held = &self.held[granules.start.min(end)..end];
        let reader = held.iter().find(|readers| writes && readers.count > 0)?;
        let (line, what) = (reader.line, if reader.is_product { "wgmma" } else { "copy" });
        Some(format!(
            "this writes shared memory that the {what} of PTX line {line} has yet to read: nobody has waited for it"
        ))
    }

    /// What the async proxy has against reading bytes: a store that no fence has covered.
    pub fn unfenced(&self, offset: usize, bytes: usize) -> Option<String> {
        let end = (offset + bytes).div_ceil(GRANULE_BYTES).min(self.marks.len());
        let start = (offset / GRANULE_BYTES).min(end);
        let line = self.marks[start..end].iter().find(|mark| mark.warp != 0)?.line;
        Some(format!(
            "this reads shared memory through the async proxy that PTX line {line} has stored to, and no \
             fence.proxy.async comes between"
        ))
    }
}
