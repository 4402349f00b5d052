//! float16 and bfloat16, alone and in pairs, and pairs of 16-bit integers.

use super::moves::{emit_compare, emit_select};
use super::*;
use crate::exec::arithmetic::half::{self, Bf16, F16};

/// Emits `half::$name` of the format that `$ty` has.
macro_rules! by_format {
    ($to:expr, $ty:expr, $name:ident, $slots:expr) => {
        match $ty {
            Type::F16 => $to.emit::<half::$name<F16, false>>($slots, 0),
            Type::F16x2 => $to.emit::<half::$name<F16, true>>($slots, 0),
            Type::Bf16 => $to.emit::<half::$name<Bf16, false>>($slots, 0),
            _ => $to.emit::<half::$name<Bf16, true>>($slots, 0),
        }
    };
}

impl Entry<'_> {
    /// `add`, `sub`, `mul`, `fma`, `neg`, `abs`, `min`, `max`, `ex2`, `tanh`.
    pub(super) fn half(&self, to: &mut Lower, ty: Type) -> Decoded {
        if self.has("f32") {
            return Err("operands of two types are not supported".to_string()); // sm_100
        }
        let slots = self.slots(to, false)?;
        let d = slots[0];
        let [mut a, mut b, mut c] = [slots[1], slots[2], slots[3]];
        if matches!(self.parts[0], "ex2" | "tanh") {
            return self.half_function(to, ty, d, a);
        }
        if self.has("ftz") {
            for (i, slot) in [&mut a, &mut b, &mut c].into_iter().take(self.operands.len() - 1).enumerate() {
                by_format!(to, ty, Flush, [to.temp(i), *slot, 0, 0, 0]);
                *slot = to.temp(i);
            }
        }
        let slots = [d, a, b, c, 0];
        match self.parts[0] {
            "add" => by_format!(to, ty, Add, slots),
            "sub" => by_format!(to, ty, Sub, slots),
            "mul" => by_format!(to, ty, Mul, slots),
            "fma" if self.has("oob") => {
                // `d` may be where an operand is.
                by_format!(to, ty, Fma, [to.temp(3), a, b, c, 0]);
                by_format!(to, ty, OrZero, [d, to.temp(3), a, b, 0]);
            }
            "fma" => by_format!(to, ty, Fma, slots),
            "min" | "max" => self.half_extremum(to, ty, slots),
            "neg" => {
                let sign = to.constant(if is_pair(ty) { 0x8000_8000 } else { 0x8000 }, false);
                to.emit::<w32::Xor>([d, a, sign, 0, 0], 0);
            }
            _ => {
                let magnitude = to.constant(0x7fff_7fff, false);
                to.emit::<w32::And>([d, a, magnitude, 0, 0], 0);
            }
        }
        if self.has("ftz") {
            by_format!(to, ty, Flush, [d, d, 0, 0, 0]);
        }
        if self.has("sat") {
            by_format!(to, ty, Saturate, [d, d, 0, 0, 0]);
        }
        if self.has("relu") {
            by_format!(to, ty, Relu, [d, d, 0, 0, 0]);
        }
        Ok(())
    }

    /// `min` and `max`; `.xorsign.abs` takes them of the magnitudes, with the sign of the product.
    fn half_extremum(&self, to: &mut Lower, ty: Type, [d, a, b, ..]: [u16; 5]) {
        let mut slots = [d, a, b, 0, 0];
        if self.has("xorsign") {
            slots = [to.temp(3), to.temp(2), to.temp(3), 0, 0];
            let magnitude = to.constant(0x7fff_7fff, false);
            to.emit::<w32::And>([to.temp(2), a, magnitude, 0, 0], 0);
            to.emit::<w32::And>([to.temp(3), b, magnitude, 0, 0], 0);
        }
        match (self.parts[0], self.has("NaN")) {
            ("min", false) => by_format!(to, ty, Min, slots),
            ("min", true) => by_format!(to, ty, MinNan, slots),
            (_, false) => by_format!(to, ty, Max, slots),
            (_, true) => by_format!(to, ty, MaxNan, slots),
        }
        if self.has("xorsign") {
            by_format!(to, ty, XorSign, [d, to.temp(3), a, b, 0]);
        }
    }

    /// `ex2` and `tanh`: those of float32, rounded.
    fn half_function(&self, to: &mut Lower, ty: Type, d: u16, a: u16) -> Decoded {
        let halves = 1 + is_pair(ty) as usize;
        for i in 0..halves {
            let slots = [to.temp(i), to.temp(i), 0, 0, 0];
            widen(to, ty, i == 1, to.temp(i), a);
            if self.has("ftz") {
                to.emit::<Flush32>(slots, 0);
            }
            let is_f16 = matches!(ty, Type::F16 | Type::F16x2);
            let narrow = if halves == 1 { [d, to.temp(0), 0, 0, 0] } else { slots };
            if self.goes_astray(to) {
                match is_f16 {
                    true => self.emit_astray::<F16>(to, narrow),
                    false => self.emit_astray::<Bf16>(to, narrow),
                }
                if self.has("ftz") {
                    by_format!(to, ty, Flush, [narrow[0], narrow[0], 0, 0, 0]);
                }
                continue;
            }
            match self.parts[0] {
                "ex2" => to.emit::<Ex2<false>>(slots, 0),
                _ => to.emit::<Tanh>(slots, 0),
            }
            if self.has("ftz") {
                to.emit::<Flush32>(slots, 0);
            }
            match is_f16 {
                true => to.emit::<half::NarrowF16>(narrow, 0),
                false => to.emit::<half::NarrowBf16>(narrow, 0),
            }
        }
        if halves == 2 {
            to.emit::<Pack32>([d, to.temp(0), to.temp(1), 0, 0], 0);
        }
        Ok(())
    }

    /// The comparison of operands 1 and 2 in one half, combined with predicate operand 3, to predicates `d`
    /// and `e`: that of float32.
    pub(super) fn half_compare(&self, to: &mut Lower, ty: Type, upper: bool, d: u16, e: u16) -> Decoded {
        for i in 0..2 {
            let mut source = to.source(self.operand(i + 1)?, false)?;
            if self.has("ftz") {
                by_format!(to, ty, Flush, [to.temp(i), source, 0, 0, 0]);
                source = to.temp(i);
            }
            widen(to, ty, upper, to.temp(i), source);
        }
        let (c, imm) = self.combination(to)?;
        emit_compare(to, self.parts[1], Type::F32, [d, to.temp(0), to.temp(1), c, e], imm)
    }

    /// `setp` of halves; of pairs, the lower halves' result to `p` and the upper halves' to `q`.
    pub(super) fn half_setp(&self, to: &mut Lower, ty: Type, p: u16, q: u16) -> Decoded {
        if !is_pair(ty) {
            return self.half_compare(to, ty, false, p, q);
        }
        // `p` may be the predicate that both are combined with.
        let low = to.temp_pred();
        self.half_compare(to, ty, false, low, NO_PRED)?;
        self.half_compare(to, ty, true, q, NO_PRED)?;
        if p != NO_PRED {
            to.emit::<PredLogic>([p, low, 0, 0, 0], 4);
        }
        Ok(())
    }

    /// `set` of pairs: `holds` or zero in each half.
    pub(super) fn half_set_pair(&self, to: &mut Lower, ty: Type, holds: u64) -> Decoded {
        let d = to.destination(self.operand(0)?, false)?;
        let (p, zero) = (to.temp_pred(), to.constant(0, false));
        for upper in [false, true] {
            self.half_compare(to, ty, upper, p, NO_PRED)?;
            let holds = to.constant(holds << (16 * upper as u32), false);
            emit_select(to, false, [to.temp(2 + upper as usize), holds, zero, p, 0]);
        }
        done(to.emit::<w32::Or>([d, to.temp(2), to.temp(3), 0, 0], 0))
    }

    /// `add`, `min` and `max` of pairs of 16-bit integers.
    pub(super) fn integer_pair(&self, to: &mut Lower) -> Decoded {
        let slots = self.slots(to, false)?;
        match (self.parts[0], self.has("s16x2")) {
            ("add", _) => to.emit::<half::AddPair>(slots, 0),
            ("min", false) => to.emit::<half::MinPairU>(slots, 0),
            ("min", true) => to.emit::<half::MinPairS>(slots, 0),
            (_, false) => to.emit::<half::MaxPairU>(slots, 0),
            (_, true) => to.emit::<half::MaxPairS>(slots, 0),
        }
        if self.has("relu") {
            let zero = to.constant(0, false);
            to.emit::<half::MaxPairS>([slots[0], slots[0], zero, 0, 0], 0);
        }
        Ok(())
    }
}

/// A half of `a` as a float32 to `d`.
fn widen(to: &mut Lower, ty: Type, upper: bool, d: u16, a: u16) {
    let slots = [d, a, 0, 0, 0];
    match (ty, upper) {
        (Type::F16 | Type::F16x2, false) => to.emit::<half::WidenF16>(slots, 0),
        (Type::F16 | Type::F16x2, true) => to.emit::<half::WidenUpperF16>(slots, 0),
        (_, false) => to.emit::<half::WidenBf16>(slots, 0),
        (_, true) => to.emit::<half::WidenUpperBf16>(slots, 0),
    }
}
