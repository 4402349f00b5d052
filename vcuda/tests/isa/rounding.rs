//! Correct rounding in every direction, from float64 and an error term: the references' own arithmetic.

/// PTX rounding modifiers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Nearest,
    Zero,
    Down,
    Up,
}

/// Each mode with its floating-point and its integer modifier.
pub const MODES: [(Mode, &str, &str); 4] = [
    (Mode::Nearest, "rn", "rni"),
    (Mode::Zero, "rz", "rzi"),
    (Mode::Down, "rm", "rmi"),
    (Mode::Up, "rp", "rpi"),
];

/// A binary floating-point format: significand bits with the hidden one, and exponent range.
pub struct Format {
    pub precision: i32,
    /// Exponent of the smallest normal and of the largest value.
    pub low: i32,
    pub high: i32,
}

pub const F32: Format = Format { precision: 24, low: -126, high: 127 };
pub const F16: Format = Format { precision: 11, low: -14, high: 15 };
pub const BF16: Format = Format { precision: 8, low: -126, high: 127 };

/// The sum of `high` and a `low` too small to be added, as a float64 whose last bit says that something was
/// cut off ("round to odd"). Rounding that to a format with 51 or fewer bits is rounding the exact sum.
pub fn odd(high: f64, low: f64) -> f64 {
    if low == 0.0 || !high.is_finite() || high == 0.0 {
        return high;
    }
    // Towards zero first, then the last bit set.
    let bits = high.to_bits();
    let outward = (low > 0.0) == (high > 0.0);
    let bits = if outward { bits } else { bits - 1 };
    f64::from_bits(bits | 1)
}

/// `a + b` exactly, as a float64 and an error term (Knuth's TwoSum).
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let part = sum - a;
    (sum, (a - (sum - part)) + (b - part))
}

/// `value` as an integer times a power of two, rounded to an integer.
pub fn to_integer(value: f64, mode: Mode) -> f64 {
    match mode {
        Mode::Nearest => value.round_ties_even(),
        Mode::Zero => value.trunc(),
        Mode::Down => value.floor(),
        Mode::Up => value.ceil(),
    }
}

impl Format {
    /// The value of this format nearest to `value` in the mode's sense, as a float64.
    pub fn round(&self, value: f64, mode: Mode) -> f64 {
        if value == 0.0 || !value.is_finite() {
            return value;
        }
        let exponent = exponent(value).max(self.low);
        // Scaling by powers of two is exact: results stay far inside float64's range.
        let unit = power(exponent - self.precision + 1);
        let rounded = to_integer(value / unit, mode) * unit;
        let largest = (2.0 - power(1 - self.precision)) * power(self.high);
        if rounded.abs() <= largest {
            return if rounded == 0.0 { 0f64.copysign(value) } else { rounded };
        }
        let to_infinity = match mode {
            Mode::Nearest => true,
            Mode::Zero => false,
            Mode::Down => value < 0.0,
            Mode::Up => value > 0.0,
        };
        if to_infinity { f64::INFINITY.copysign(value) } else { largest.copysign(value) }
    }

    /// The bits of a value that the format holds exactly, in a format of `8 * bytes` bits.
    pub fn encode(&self, value: f64, total_bits: i32) -> u64 {
        let sign = (value.is_sign_negative() as u64) << (total_bits - 1);
        let fraction_bits = self.precision - 1;
        let special = (2 * self.high as u64 + 1) << fraction_bits;
        if value.is_nan() {
            // PTX's canonical NaN: all ones but the sign.
            return (1 << (total_bits - 1)) - 1;
        }
        if value.is_infinite() {
            return sign | special;
        }
        if value == 0.0 {
            return sign;
        }
        let exponent = exponent(value);
        if exponent < self.low {
            return sign | (value.abs() / power(self.low - fraction_bits)) as u64;
        }
        let significand = (value.abs() / power(exponent - fraction_bits)) as u64;
        // The significand's hidden bit adds the 1 that biased exponents of normal values start at.
        sign | ((((exponent - self.low) as u64) << fraction_bits) + significand)
    }
}

fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The exponent of a normal float64.
fn exponent(value: f64) -> i32 {
    (value.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

/// Subnormal float32 values become zeros of their sign.
pub fn flush(value: f32) -> f32 {
    if value.is_subnormal() { 0f32.copysign(value) } else { value }
}

#[test]
fn rounds_as_the_hardware_does() {
    for bits in (0..=u32::MAX).step_by(65_521) {
        let value = f32::from_bits(bits);
        if value.is_nan() {
            continue;
        }
        // Between two float32 values: Rust's own conversion is to nearest.
        let between = value as f64 * (1.0 + 0.3 * f32::EPSILON as f64);
        assert_eq!(F32.round(between, Mode::Nearest), between as f32 as f64, "{value:e}");
        assert_eq!(F32.encode(value as f64, 32), bits as u64);
    }
    assert_eq!(F16.round(65_519.9, Mode::Nearest), 65_504.0);
    assert_eq!(F16.round(65_520.0, Mode::Nearest), f64::INFINITY);
    assert_eq!(F16.round(1.0 + 1e-9, Mode::Up), 1.0 + 1.0 / 1024.0);
    assert_eq!(F16.encode(1.0, 16), 0x3c00);
    assert_eq!(BF16.encode(-1.5, 16), 0xbfc0);
}
