//! Numbers drawn from a seed: the order of warps and CTAs.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Default)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Any 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u32) -> u32 {
        (((self.draw() >> 32) * u64::from(n)) >> 32) as u32
    }

    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

/// The numbers below `n` in an order drawn from a seed.
pub struct Permutation {
    n: usize,
    stride: usize,
    start: usize,
}

impl Permutation {
    /// `i` to `start + stride · i`, with a stride that has no divisor in common with `n`.
    pub fn new(n: usize, seed: u64) -> Permutation {
        let mut random = Random::new(seed);
        let limit = n.clamp(1, u32::MAX as usize) as u32;
        let (start, mut stride) = (random.below(limit) as usize, random.below(limit) as usize);
        while greatest_common_divisor(stride, n) > 1 {
            stride += 1;
        }
        Permutation { n, stride: stride.max(1), start }
    }

    pub fn at(&self, i: usize) -> usize {
        ((self.start as u128 + self.stride as u128 * i as u128) % self.n as u128) as usize
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_hold_every_number_once() {
        for n in [1, 2, 3, 4, 7, 12, 64, 1000] {
            for seed in 0..20 {
                let order = Permutation::new(n, seed);
                let mut all: Vec<usize> = (0..n).map(|i| order.at(i)).collect();
                all.sort();
                assert_eq!(all, (0..n).collect::<Vec<_>>(), "{n} numbers, seed {seed}");
            }
        }
    }
}
