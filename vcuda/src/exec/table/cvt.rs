//! `cvt`: which forms have an operation of their own.

use super::*;
use crate::exec::arithmetic::convert::Conversion;
use crate::exec::arithmetic::half::{self, Bf16, F16};

impl Entry<'_> {
    pub(super) fn cvt(&self, to: &mut Lower) -> Decoded {
        if self.has("pack") {
            return self.cvt_pack(to);
        }
        if self.has("rs") {
            return Err("stochastic rounding is not supported".to_string()); // sm_100
        }
        let named =
            |name: &&&str| Type::from_name(name).is_some() || matches!(**name, "tf32" | "e4m3x2" | "e5m2x2");
        let mut names = self.parts[1..].iter().filter(named);
        let (Some(&dt), Some(&st)) = (names.next(), names.next()) else {
            return Err("no types".to_string());
        };
        let integral = ["rni", "rzi", "rmi", "rpi"].iter().position(|mode| self.has(mode));
        let directed = ["rn", "rz", "rm", "rp", "rna"].iter().position(|mode| self.has(mode));
        let rounding = match integral.or(directed) {
            None | Some(0) => Rounding::Nearest,
            Some(1) => Rounding::Zero,
            Some(2) => Rounding::Down,
            Some(3) => Rounding::Up,
            Some(_) => Rounding::Away,
        };
        let how = Conversion {
            to: dt,
            from: st,
            rounding,
            integral: integral.is_some(),
            saturate: self.has("sat"),
            flush: self.has("ftz"),
            relu: self.has("relu"),
            finite: self.has("satfinite"),
        };
        match dt {
            _ if dt.ends_with("x2") => self.cvt_pair(to, how),
            "tf32" => {
                let (d, a) = (to.destination(self.operand(0)?, false)?, to.source(self.operand(1)?, false)?);
                let slots = [d, a, 0, 0, 0];
                if rounding == Rounding::Away && !how.finite {
                    return done(to.emit::<convert::Tf32Away>(slots, 0));
                }
                emit_convert(to, how, slots)
            }
            _ => self.cvt_scalar(to, how, integral),
        }
    }

    /// Two results in one register: the first source, or half of the source, to the upper one.
    fn cvt_pair(&self, to: &mut Lower, how: Conversion) -> Decoded {
        let d = to.destination(self.operand(0)?, false)?;
        let a = to.source(self.operand(1)?, false)?;
        let (dt, st) = (how.to.trim_end_matches("x2"), how.from.trim_end_matches("x2"));
        let nearest = how.rounding == Rounding::Nearest && !how.finite;
        let temps = [to.temp(0), to.temp(1)];
        match (how.to, how.from) {
            ("f16x2" | "bf16x2", "f32") if nearest => {
                let slots = [d, a, to.source(self.operand(2)?, false)?, 0, 0];
                match dt {
                    "f16" => to.emit::<convert::PairF16>(slots, 0),
                    _ => to.emit::<convert::PairBf16>(slots, 0),
                }
                match dt {
                    _ if !how.relu => {}
                    "f16" => to.emit::<half::Relu<F16, true>>([d, d, 0, 0, 0], 0),
                    _ => to.emit::<half::Relu<Bf16, true>>([d, d, 0, 0, 0], 0),
                }
                return Ok(());
            }
            (_, "f32") => {
                let upper = to.source(self.operand(1)?, false)?;
                let lower = to.source(self.operand(2)?, false)?;
                for (temp, a) in temps.into_iter().zip([lower, upper]) {
                    emit_convert(to, Conversion { to: dt, ..how }, [temp, a, 0, 0, 0])?;
                }
            }
            ("e4m3x2" | "e5m2x2", "f16x2") => {
                to.emit::<convert::U16>([temps[0], a, 0, 0, 0], 0);
                to.emit::<convert::UpperHalf>([temps[1], a, 0, 0, 0], 0);
                for temp in temps {
                    emit_convert(to, Conversion { to: dt, from: st, ..how }, [temp, temp, 0, 0, 0])?;
                }
            }
            ("f16x2", "e4m3x2" | "e5m2x2") => {
                to.emit::<convert::U8>([temps[0], a, 0, 0, 0], 0);
                to.emit::<convert::SecondByte>([temps[1], a, 0, 0, 0], 0);
                for temp in temps {
                    emit_convert(to, Conversion { to: dt, from: st, ..how }, [temp, temp, 0, 0, 0])?;
                }
            }
            _ => return Err(String::new()),
        }
        let slots = [d, temps[0], temps[1], 0, 0];
        done(match dt {
            "f16" | "bf16" => to.emit::<Pack32>(slots, 0),
            _ => to.emit::<convert::PackBytes>(slots, 0),
        })
    }

    fn cvt_scalar(&self, to: &mut Lower, how: Conversion, integral: Option<usize>) -> Decoded {
        let (Some(dt), Some(st)) = (Type::from_name(how.to), Type::from_name(how.from)) else {
            return Err(String::new());
        };
        let (d_wide, a_wide) = (
            to.is_wide(self.operand(0)?),
            match self.operand(1)? {
                operand @ Operand::Reg(_) => to.is_wide(operand),
                _ => st.size_bytes() == 8,
            },
        );
        if dt.size_bytes() == 8 && !d_wide || st.size_bytes() == 8 && !a_wide {
            return Err("a register narrower than its type".to_string());
        }
        let d = to.destination(self.operand(0)?, d_wide)?;
        let a = to.source(self.operand(1)?, a_wide)?;
        let slots = [d, a, 0, 0, 0];
        let plain = !how.saturate && !how.flush && !how.relu && !how.finite;
        let truncate = how.rounding == Rounding::Zero;
        let nearest = how.rounding == Rounding::Nearest;
        match (st, dt) {
            (Type::U32 | Type::B32, Type::U64 | Type::S64 | Type::B64) if plain && d_wide && !a_wide => {
                to.emit::<convert::WidenU32>(slots, 0)
            }
            (Type::S32, Type::U64 | Type::S64) if plain && d_wide && !a_wide => {
                to.emit::<convert::WidenS32>(slots, 0)
            }
            (Type::U64 | Type::S64 | Type::B64, Type::U32 | Type::S32) if plain && !d_wide && a_wide => {
                to.emit::<convert::Narrow>(slots, 0)
            }
            (Type::U8 | Type::B8, Type::U16 | Type::U32 | Type::S32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U8>(slots, 0)
            }
            (Type::U16 | Type::B16, Type::U32 | Type::S32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U16>(slots, 0)
            }
            (Type::S8, Type::S32 | Type::U32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::S8>(slots, 0)
            }
            (Type::S16, Type::S32 | Type::U32) if plain && !d_wide && !a_wide => {
                to.emit::<convert::S16>(slots, 0)
            }
            (Type::U32 | Type::S32 | Type::U16 | Type::S16, Type::U8) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U8>(slots, 0)
            }
            (Type::U32 | Type::S32, Type::U16) if plain && !d_wide && !a_wide => {
                to.emit::<convert::U16>(slots, 0)
            }
            (Type::S32, Type::F32) if plain && nearest && !a_wide => to.emit::<convert::S32ToF32>(slots, 0),
            (Type::U32, Type::F32) if plain && nearest && !a_wide => to.emit::<convert::U32ToF32>(slots, 0),
            (Type::S32, Type::F64) if plain && !a_wide => to.emit::<convert::S32ToF64>(slots, 0),
            (Type::U32, Type::F64) if plain && !a_wide => to.emit::<convert::U32ToF64>(slots, 0),
            (Type::F32, Type::F64) if plain => to.emit::<convert::F32ToF64>(slots, 0),
            (Type::F64, Type::F32) if plain && nearest => to.emit::<convert::F64ToF32>(slots, 0),
            (Type::F32, Type::S32) if plain && truncate && !d_wide => {
                to.emit::<convert::F32ToS32Rz>(slots, 0)
            }
            (Type::F32, Type::U32) if plain && truncate && !d_wide => {
                to.emit::<convert::F32ToU32Rz>(slots, 0)
            }
            (Type::F64, Type::S32) if plain && truncate && !d_wide => {
                to.emit::<convert::F64ToS32Rz>(slots, 0)
            }
            (Type::F32, Type::F32) if plain && integral.is_some() => match integral {
                Some(0) => to.emit::<convert::RoundEven32>(slots, 0),
                Some(1) => to.emit::<convert::Truncate32>(slots, 0),
                Some(2) => to.emit::<convert::Floor32>(slots, 0),
                _ => to.emit::<convert::Ceiling32>(slots, 0),
            },
            (Type::F64, Type::F64) if plain && integral.is_some() => match integral {
                Some(0) => to.emit::<convert::RoundEven64>(slots, 0),
                Some(1) => to.emit::<convert::Truncate64>(slots, 0),
                Some(2) => to.emit::<convert::Floor64>(slots, 0),
                _ => to.emit::<convert::Ceiling64>(slots, 0),
            },
            (Type::F32, Type::F32) if how.saturate && !how.flush && !how.relu && integral.is_none() => {
                to.emit::<Saturate32>(slots, 0)
            }
            // A half has no value that is subnormal in float32, nor gets one but zero.
            (Type::F16, Type::F32) if !how.saturate && !d_wide && !a_wide => {
                to.emit::<half::WidenF16>(slots, 0)
            }
            (Type::F32, Type::F16) if nearest && !how.saturate && !how.finite && !d_wide && !a_wide => {
                to.emit::<half::NarrowF16>(slots, 0);
                if how.relu {
                    to.emit::<half::Relu<F16, false>>([d, d, 0, 0, 0], 0);
                }
            }
            (Type::Bf16, Type::F32) if plain && !d_wide && !a_wide => to.emit::<half::WidenBf16>(slots, 0),
            (Type::F32, Type::Bf16) if nearest && !how.saturate && !how.flush && !how.finite => {
                to.emit::<half::NarrowBf16>(slots, 0);
                if how.relu {
                    to.emit::<half::Relu<Bf16, false>>([d, d, 0, 0, 0], 0);
                }
            }
            _ => {
                let widths = a_wide as u16 | (d_wide as u16) << 1;
                return emit_convert(to, how, [d, a, 0, 0, widths]);
            }
        }
        Ok(())
    }

    /// `cvt.pack.sat`: two integers, narrowed, below the low bits of a third.
    fn cvt_pack(&self, to: &mut Lower) -> Decoded {
        let [d, a, b, c, _] = self.slots(to, false)?;
        let c = if self.operands.len() > 3 { c } else { to.constant(0, false) };
        let (bits, signed) = match self.parts.get(3) {
            Some(&"u16") => (16, 0),
            Some(&"s16") => (16, 1),
            Some(&"u8") => (8, 0),
            Some(&"s8") => (8, 1),
            Some(&"u4") => (4, 0),
            Some(&"s4") => (4, 1),
            Some(&"u2") => (2, 0),
            Some(&"s2") => (2, 1),
            _ => return Err(String::new()),
        };
        done(to.emit::<convert::PackSaturated>([d, a, b, c, 0], bits | signed << 8))
    }
}

fn emit_convert(to: &mut Lower, how: Conversion, slots: [u16; 5]) -> Decoded {
    let code = how.code().ok_or_else(|| format!("from {} to {} is not supported", how.from, how.to))?;
    done(to.emit::<Convert>(slots, code))
}
