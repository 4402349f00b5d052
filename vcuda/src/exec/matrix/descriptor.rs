//! Matrices in shared memory as `wgmma` takes them: the 64-bit descriptor and the canonical layouts, PTX ISA
//! 9.7.15.5.1. A layout is a way of placing 16-byte chunks: of 8 (or 4) elements along k where k is the contiguous
//! dimension ("K-major"), along M or N otherwise ("MN-major").

/// What the descriptor says; strides in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub start: u32,
    pub lead: u32,
    pub stride: u32,
    /// In rows of 128 bytes.
    pub base: u32,
    /// log2 of the swizzle's span in chunks: 0 none, 1 to 3 for 32, 64 and 128 bytes.
    pub swizzle: u32,
}

/// Bytes of a chunk.
pub const CHUNK: u32 = 16;

impl Descriptor {
    /// Bits 0–13 start, 16–29 leading dimension, 32–45 stride, all in chunks; 49–51 base offset; 62–63 swizzle.
    pub fn decode(bits: u64) -> Descriptor {
        let field = |at: u32, width: u32| (bits >> at) as u32 & ((1 << width) - 1);
        Descriptor {
            start: field(0, 14) * CHUNK,
            lead: field(16, 14) * CHUNK,
            stride: field(32, 14) * CHUNK,
            base: field(49, 3),
            swizzle: [0, 3, 2, 1][field(62, 2) as usize],
        }
    }

    /// Where the chunk is that holds row `mn` and, K-major, chunk `k` along k.
    #[inline(always)]
    pub fn k_major(&self, mn: u32, k: u32) -> u32 {
        let (group, row) = (mn / 8, mn % 8);
        let at = match self.swizzle {
            0 => group * self.stride + row * CHUNK + k * self.lead,
            span => group * self.stride + row * (CHUNK << span) + k * CHUNK,
        };
        self.place(at)
    }

    /// Where the chunk is that holds, MN-major, elements `8 mn` and up of row `k` of the sum.
    #[inline(always)]
    pub fn mn_major(&self, mn: u32, k: u32) -> u32 {
        let (group, row) = (k / 8, k % 8);
        let at = match self.swizzle {
            0 => mn * self.stride + row * CHUNK + group * self.lead,
            span => {
                let (atom, chunk) = (mn >> span, mn & ((1 << span) - 1));
                atom * self.lead + group * self.stride + row * (CHUNK << span) + chunk * CHUNK
            }
        };
        self.place(at)
    }

    /// The swizzle: the chunk's number within the span is combined with that of its row of 128 bytes.
    #[inline(always)]
    fn place(&self, offset: u32) -> u32 {
        let at = self.start.wrapping_add(offset);
        let row = (at >> 7).wrapping_sub(self.base) & ((1 << self.swizzle) - 1);
        at ^ row << 4
    }

    /// Whether, K-major, the chunks of eight rows are where those of the first eight are, so many strides further.
    pub fn is_linear(&self) -> bool {
        self.swizzle == 0 || self.stride.is_multiple_of(8 * 128)
    }
}
