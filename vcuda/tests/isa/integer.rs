//! Integer arithmetic, bits and shifts, PTX ISA 9.7.1, 9.7.2 and 9.7.8.

use crate::lanes::Table;

/// Cases that have the same text for each integer type, in 128-bit arithmetic.
macro_rules! for_each_integer {
    ($table:ident, $(($ty:ty, $wide:ty, $name:literal)),*) => {$(
        let t = &mut $table;
        let bits = <$ty>::BITS;
        let instruction = |operation: &str, operands: &str| format!("{operation}.{} {operands};", $name);
        t.binary(&instruction("add", "d, a, b"), |a: $ty, b: $ty| (a as i128 + b as i128) as $ty);
        t.binary(&instruction("sub", "d, a, b"), |a: $ty, b: $ty| (a as i128 - b as i128) as $ty);
        t.binary(&instruction("mul.lo", "d, a, b"), |a: $ty, b: $ty| (a as i128).wrapping_mul(b as i128) as $ty);
        t.binary(&instruction("mul.hi", "d, a, b"), |a: $ty, b: $ty| ((a as $wide * b as $wide) >> bits) as $ty);
        t.ternary(&instruction("mad.lo", "d, a, b, c"), |a: $ty, b: $ty, c: $ty| {
            (a as i128).wrapping_mul(b as i128).wrapping_add(c as i128) as $ty
        });
        t.ternary(&instruction("mad.hi", "d, a, b, c"), |a: $ty, b: $ty, c: $ty| {
            (((a as $wide * b as $wide) >> bits) as i128 + c as i128) as $ty
        });
        t.binary(&instruction("min", "d, a, b"), |a: $ty, b: $ty| if (a as i128) < b as i128 { a } else { b });
        t.binary(&instruction("max", "d, a, b"), |a: $ty, b: $ty| if (a as i128) > b as i128 { a } else { b });
        // Division by zero is unspecified: the divisor here never is.
        let nonzero = format!("setp.eq.{0} p, b, 0; selp.b{1} b, 3, b, p;", $name, bits);
        let divisor = |b: $ty| if b == 0 { 3 } else { b as i128 };
        t.binary(&format!("{nonzero} div.{} d, a, b;", $name), |a: $ty, b: $ty| (a as i128 / divisor(b)) as $ty);
        t.binary(&format!("{nonzero} rem.{} d, a, b;", $name), |a: $ty, b: $ty| (a as i128 % divisor(b)) as $ty);
        // Shift amounts clamp at the width; a signed right shift fills with the sign.
        t.binary(&instruction("shr", "d, a, b"), |a: $ty, b: u32| {
            if b < bits { a >> b } else if (a as i128) < 0 { !0 } else { 0 }
        });
    )*};
}

#[test]
fn arithmetic_of_every_width() {
    let mut table = Table::default();
    for_each_integer!(
        table,
        (u16, u128, "u16"),
        (i16, i128, "s16"),
        (u32, u128, "u32"),
        (i32, i128, "s32"),
        (u64, u128, "u64"),
        (i64, i128, "s64")
    );
}

#[test]
fn wide_products() {
    let mut t = Table::default();
    t.binary("mul.wide.u16 d, a, b;", |a: u16, b: u16| a as u32 * b as u32);
    t.binary("mul.wide.s16 d, a, b;", |a: i16, b: i16| a as i32 * b as i32);
    t.binary("mul.wide.u32 d, a, b;", |a: u32, b: u32| a as u64 * b as u64);
    t.binary("mul.wide.s32 d, a, b;", |a: i32, b: i32| a as i64 * b as i64);
    t.ternary("mad.wide.u16 d, a, b, c;", |a: u16, b: u16, c: u32| (a as u64 * b as u64 + c as u64) as u32);
    t.ternary("mad.wide.u32 d, a, b, c;", |a: u32, b: u32, c: u64| {
        (a as u128 * b as u128 + c as u128) as u64
    });
    t.ternary("mad.wide.s32 d, a, b, c;", |a: i32, b: i32, c: i64| {
        (a as i128 * b as i128 + c as i128) as i64
    });
    t.ternary("mad24.lo.u32 d, a, b, c;", |a: u32, b: u32, c: u32| {
        let low = |v: u32| (v & 0xff_ffff) as u64;
        (low(a) * low(b) + c as u64) as u32
    });
    t.binary("mul24.lo.s32 d, a, b;", |a: i32, b: i32| {
        let low = |v: i32| (v << 8 >> 8) as i64;
        (low(a) * low(b)) as i32
    });
    t.binary("mul24.hi.u32 d, a, b;", |a: u32, b: u32| {
        let low = |v: u32| (v & 0xff_ffff) as u64;
        ((low(a) * low(b)) >> 16) as u32
    });
    let clamp = |value: i128| value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
    t.ternary("mad.hi.sat.s32 d, a, b, c;", |a: i32, b: i32, c: i32| {
        clamp((i128::from(a) * i128::from(b)).div_euclid(1 << 32) + i128::from(c))
    });
    t.ternary("mad24.hi.sat.s32 d, a, b, c;", |a: i32, b: i32, c: i32| {
        let low = |value: i32| (i128::from(value) + (1 << 23)).rem_euclid(1 << 24) - (1 << 23);
        clamp((low(a) * low(b)).div_euclid(1 << 16) + i128::from(c))
    });
    t.ternary("sad.u64 d, a, b, c;", |a: u64, b: u64, c: u64| {
        ((i128::from(a) - i128::from(b)).abs() + i128::from(c)) as u64
    });
    t.ternary("sad.s64 d, a, b, c;", |a: i64, b: i64, c: i64| {
        ((i128::from(a) - i128::from(b)).abs() + i128::from(c)) as i64
    });
    t.ternary("sad.u32 d, a, b, c;", |a: u32, b: u32, c: u32| {
        ((a as i64 - b as i64).abs() + c as i64) as u32
    });
    t.ternary("sad.s32 d, a, b, c;", |a: i32, b: i32, c: i32| {
        ((a as i64 - b as i64).abs() + c as i64) as i32
    });
}

#[test]
fn signs_and_saturation() {
    let mut t = Table::default();
    t.unary("abs.s16 d, a;", |a: i16| (a as i32).abs() as i16);
    t.unary("abs.s32 d, a;", |a: i32| (a as i64).abs() as i32);
    t.unary("abs.s64 d, a;", |a: i64| (a as i128).abs() as i64);
    t.unary("neg.s16 d, a;", |a: i16| (0 - a as i32) as i16);
    t.unary("neg.s32 d, a;", |a: i32| (0 - a as i64) as i32);
    t.unary("neg.s64 d, a;", |a: i64| (0 - a as i128) as i64);
    let clamp = |v: i64| v.clamp(i32::MIN as i64, i32::MAX as i64) as i32;
    t.binary("add.sat.s32 d, a, b;", |a: i32, b: i32| clamp(a as i64 + b as i64));
    t.binary("sub.sat.s32 d, a, b;", |a: i32, b: i32| clamp(a as i64 - b as i64));
}

#[test]
fn carry_chains() {
    let mut t = Table::default();
    let halves = "mov.b64 {t, u}, a; .reg .b32 v, w; mov.b64 {v, w}, b;";
    let join = "mov.b64 d, {t, u};";
    t.binary(&format!("{halves} add.cc.u32 t, t, v; addc.u32 u, u, w; {join}"), |a: u64, b: u64| {
        a.wrapping_add(b)
    });
    t.binary(&format!("{halves} sub.cc.u32 t, t, v; subc.u32 u, u, w; {join}"), |a: u64, b: u64| {
        a.wrapping_sub(b)
    });
    // The carry out of the middle of three additions, and of a 128-bit sum.
    t.binary(
        &format!("{halves} add.cc.u32 t, t, v; addc.cc.u32 u, u, w; addc.u32 t, 0, 0; cvt.u64.u32 d, t;"),
        |a: u64, b: u64| ((a as u128 + b as u128) >> 64) as u64,
    );
    t.binary("add.cc.u64 x, a, b; addc.u64 d, 0, 0;", |a: u64, b: u64| {
        ((a as u128 + b as u128) >> 64) as u64
    });
    t.binary("sub.cc.u64 x, a, b; subc.u64 d, 0, 0;", |a: u64, b: u64| if a < b { u64::MAX } else { 0 });
    t.ternary("mad.lo.cc.u32 t, a, b, c; madc.hi.u32 d, a, b, 0;", |a: u32, b: u32, c: u32| {
        ((a as u64 * b as u64 + c as u64) >> 32) as u32
    });
}

#[test]
fn logic() {
    let mut t = Table::default();
    t.binary("and.b16 d, a, b;", |a: u16, b: u16| a & b);
    t.binary("or.b16 d, a, b;", |a: u16, b: u16| a | b);
    t.binary("xor.b16 d, a, b;", |a: u16, b: u16| a ^ b);
    t.unary("not.b16 d, a;", |a: u16| !a);
    t.binary("and.b32 d, a, b;", |a: u32, b: u32| a & b);
    t.binary("or.b32 d, a, b;", |a: u32, b: u32| a | b);
    t.binary("xor.b32 d, a, b;", |a: u32, b: u32| a ^ b);
    t.unary("not.b32 d, a;", |a: u32| !a);
    t.unary("cnot.b32 d, a;", |a: u32| (a == 0) as u32);
    t.unary("cnot.b16 d, a;", |a: u16| (a == 0) as u16);
    t.unary("cnot.b64 d, a;", |a: u64| (a == 0) as u64);
    t.binary("and.b64 d, a, b;", |a: u64, b: u64| a & b);
    t.binary("or.b64 d, a, b;", |a: u64, b: u64| a | b);
    t.binary("xor.b64 d, a, b;", |a: u64, b: u64| a ^ b);
    t.unary("not.b64 d, a;", |a: u64| !a);
    // The table's bit at (a, b, c), for all 256 tables in turn and a few alone.
    for table in [0x00u32, 0x01, 0x1b, 0x80, 0x96, 0xca, 0xe8, 0xff] {
        t.ternary(&format!("lop3.b32 d, a, b, c, {table:#x};"), |a: u32, b: u32, c: u32| {
            (0..32).fold(0, |d, i| {
                let index = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1);
                d | (table >> index & 1) << i
            })
        });
    }
    let predicates = "setp.ne.u32 p, a, 0; setp.gt.u32 q, b, 2;";
    for (operation, expected) in [
        ("and.pred p, p, q;", (|p, q| p && q) as fn(bool, bool) -> bool),
        ("or.pred p, p, q;", |p, q| p || q),
        ("xor.pred p, p, q;", |p, q| p != q),
        ("not.pred p, p;", |p, _| !p),
        ("mov.pred p, q;", |_, q| q),
        ("and.pred p, p, !q;", |p, q| p && !q),
        // Constants are true unless they are 0, as ptxas takes them.
        ("xor.pred p, p, -1;", |p, _| !p),
        ("xor.pred p, 2, p;", |p, _| !p),
        ("@q xor.pred p, p, 1;", |p, q| p != q),
        ("and.pred p, p, 4;", |p, _| p),
        ("and.pred p, p, 0;", |_, _| false),
        ("or.pred p, p, 0x100000000;", |_, _| true),
        ("or.pred p, 0, q;", |_, q| q),
        ("not.pred p, 2;", |_, _| false),
        ("mov.pred p, -8;", |_, _| true),
        ("mov.pred p, !3;", |_, _| false),
        ("mov.pred p, !3 + 1;", |_, _| true),
        ("setp.ne.xor.u32 p, a, 0, 2;", |p, _| !p),
        ("setp.ne.and.u32 p, a, 0, !2;", |_, _| false),
        ("selp.u32 d, 5, 6, 2; setp.eq.u32 p, d, 5;", |_, _| true),
        ("vote.sync.all.pred p, 2, -1;", |_, _| true),
        ("vote.sync.any.pred p, 0, -1;", |_, _| false),
        ("bar.red.and.pred p, 0, 2;", |_, _| true),
        ("bar.red.or.pred p, 0, 0;", |_, _| false),
    ] {
        let code = format!("{predicates} {operation} selp.u32 d, 1, 0, p;");
        t.binary(&code, |a: u32, b: u32| expected(a != 0, b > 2) as u32);
    }
}

#[test]
fn shifts() {
    let mut t = Table::default();
    t.binary("shl.b16 d, a, b;", |a: u16, b: u32| if b < 16 { a << b } else { 0 });
    t.binary("shl.b32 d, a, b;", |a: u32, b: u32| if b < 32 { a << b } else { 0 });
    t.binary("shl.b64 d, a, b;", |a: u64, b: u32| if b < 64 { a << b } else { 0 });
    t.binary("shr.b32 d, a, b;", |a: u32, b: u32| if b < 32 { a >> b } else { 0 });
    // A funnel shift of b:a, by c modulo 32 or clamped to 32.
    let joined = |a: u32, b: u32| (b as u64) << 32 | a as u64;
    t.ternary("shf.l.wrap.b32 d, a, b, c;", |a: u32, b: u32, c: u32| {
        ((joined(a, b) << (c & 31)) >> 32) as u32
    });
    t.ternary("shf.l.clamp.b32 d, a, b, c;", |a: u32, b: u32, c: u32| {
        ((joined(a, b) << c.min(32)) >> 32) as u32
    });
    t.ternary("shf.r.wrap.b32 d, a, b, c;", |a: u32, b: u32, c: u32| (joined(a, b) >> (c & 31)) as u32);
    t.ternary("shf.r.clamp.b32 d, a, b, c;", |a: u32, b: u32, c: u32| (joined(a, b) >> c.min(32)) as u32);
}

#[test]
fn bit_counts() {
    let mut t = Table::default();
    let bits32 = |a: u32| (0..32).map(move |i| a >> i & 1);
    let bits64 = |a: u64| (0..64).map(move |i| (a >> i & 1) as u32);
    t.unary("popc.b32 d, a;", |a: u32| bits32(a).sum::<u32>());
    t.unary("popc.b64 d, a;", |a: u64| bits64(a).sum::<u32>());
    t.unary("clz.b32 d, a;", |a: u32| (0..32).rev().take_while(|i| a >> i & 1 == 0).count() as u32);
    t.unary("clz.b64 d, a;", |a: u64| (0..64).rev().take_while(|i| a >> i & 1 == 0).count() as u32);
    t.unary("brev.b32 d, a;", |a: u32| bits32(a).fold(0, |d, bit| d << 1 | bit));
    t.unary("brev.b64 d, a;", |a: u64| bits64(a).fold(0, |d: u64, bit| d << 1 | bit as u64));
    // The highest bit that differs from the sign; all ones when there is none.
    let highest = |a: u64| (0..64).rev().find(|i| a >> i & 1 == 1).map_or(u32::MAX, |i| i as u32);
    t.unary("bfind.u32 d, a;", |a: u32| highest(a as u64));
    t.unary("bfind.s32 d, a;", |a: i32| highest((if a < 0 { !a } else { a }) as u64));
    t.unary("bfind.u64 d, a;", highest);
    t.unary("bfind.shiftamt.u32 d, a;", |a: u32| if a == 0 { u32::MAX } else { 31 - highest(a as u64) });
}

#[test]
fn bit_fields() {
    let mut t = Table::default();
    // Bit i of the field is bit position + i of a while inside; a signed field repeats its last bit inside.
    fn extract(a: u64, width: u32, position: u32, length: u32, signed: bool) -> u64 {
        let (position, length) = (position & 0xff, length & 0xff);
        let bit = |i: u32| a >> i & 1;
        let last = (position + length.max(1) - 1).min(width - 1);
        let fill = if signed && length > 0 { bit(last) } else { 0 };
        (0..width).fold(0, |d, i| {
            let inside = i < length && position + i < width;
            d | (if inside { bit(position + i) } else { fill }) << i
        })
    }
    fn insert(a: u64, b: u64, width: u32, position: u32, length: u32) -> u64 {
        let (position, length) = (position & 0xff, length & 0xff);
        (0..width).fold(0, |d, i| {
            let inside = i >= position && i < position + length;
            d | (if inside { a >> (i - position) & 1 } else { b >> i & 1 }) << i
        })
    }
    t.ternary("bfe.u32 d, a, b, c;", |a: u32, b: u32, c: u32| extract(a as u64, 32, b, c, false) as u32);
    t.ternary("bfe.s32 d, a, b, c;", |a: i32, b: u32, c: u32| {
        extract(a as u32 as u64, 32, b, c, true) as i32
    });
    t.ternary("bfe.u64 d, a, b, c;", |a: u64, b: u32, c: u32| extract(a, 64, b, c, false));
    t.ternary("bfe.s64 d, a, b, c;", |a: i64, b: u32, c: u32| extract(a as u64, 64, b, c, true) as i64);
    for (position, length) in
        [(0, 8), (8, 8), (3, 40), (30, 5), (31, 1), (32, 4), (0, 0), (0, 32), (255, 255)]
    {
        t.binary(&format!("bfi.b32 d, a, b, {position}, {length};"), |a: u32, b: u32| {
            insert(a as u64, b as u64, 32, position, length) as u32
        });
        t.binary(&format!("bfi.b64 d, a, b, {position}, {length};"), |a: u64, b: u64| {
            insert(a, b, 64, position, length)
        });
    }
    t.ternary("bfi.b32 d, a, 0x5a5a5a5a, b, c;", |a: u32, b: u32, c: u32| {
        insert(a as u64, 0x5a5a_5a5a, 32, b, c) as u32
    });
}

#[test]
fn byte_permutation() {
    let mut t = Table::default();
    t.ternary("prmt.b32 d, a, b, c;", |a: u32, b: u32, c: u32| {
        let bytes: Vec<u8> = a.to_le_bytes().into_iter().chain(b.to_le_bytes()).collect();
        let pick = |i: u32| {
            let selector = c >> (4 * i) & 15;
            let byte = bytes[(selector & 7) as usize];
            if selector & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
        };
        u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)])
    });
    // The special modes read the two low bits of c.
    let bytes = |a: u32, b: u32| ((b as u64) << 32 | a as u64).to_le_bytes().map(u32::from);
    let modes: [(&str, [[usize; 4]; 4]); 6] = [
        ("f4e", [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]),
        ("b4e", [[5, 6, 7, 0], [6, 7, 0, 1], [7, 0, 1, 2], [0, 1, 2, 3]]),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        ("ecl", [[3, 2, 1, 0], [3, 2, 1, 1], [3, 2, 2, 2], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [1, 1, 1, 0], [2, 2, 1, 0], [3, 2, 1, 0]]),
        ("rc16", [[1, 0, 1, 0], [3, 2, 3, 2], [1, 0, 1, 0], [3, 2, 3, 2]]),
    ];
    for (mode, rows) in modes {
        t.ternary(&format!("prmt.b32.{mode} d, a, b, c;"), |a: u32, b: u32, c: u32| {
            rows[(c & 3) as usize].iter().fold(0, |d, &byte| d << 8 | bytes(a, b)[byte])
        });
    }
}

#[test]
fn dot_products_of_bytes() {
    let mut t = Table::default();
    t.ternary("dp4a.u32.u32 d, a, b, c;", |a: u32, b: u32, c: u32| {
        (0..4).fold(c, |sum, i| sum.wrapping_add((a >> (8 * i) & 255) * (b >> (8 * i) & 255)))
    });
    t.ternary("dp4a.s32.s32 d, a, b, c;", |a: i32, b: i32, c: i32| {
        let byte = |v: i32, i: usize| v.to_le_bytes()[i] as i8 as i32;
        (0..4).fold(c, |sum, i| sum.wrapping_add(byte(a, i) * byte(b, i)))
    });
}

#[test]
fn masks_and_narrow_numbers() {
    let mut t = Table::default();
    // Bits of a mask one by one: those from `position` on, `width` of them.
    let mask = |position: u64, width: u64| {
        (0..32).filter(|&i| i >= position && i < position + width).fold(0, |mask, i| mask | 1u32 << i)
    };
    t.binary("bmsk.clamp.b32 d, a, b;", |a: u32, b: u32| mask(a.into(), b.into()));
    t.binary("bmsk.wrap.b32 d, a, b;", |a: u32, b: u32| mask((a % 32).into(), (b % 32).into()));
    // The low `bits` of a number, from its place among the numbers of that size.
    let low = |a: u32, bits: u32| (a as u64 % (1 << bits)) as u32;
    let signed = |a: u32, bits: u32| {
        let value = low(a, bits) as i64;
        (if bits > 0 && value >= 1 << (bits - 1) { value - (1 << bits) } else { value }) as i32
    };
    t.binary("szext.clamp.u32 d, a, b;", |a: u32, b: u32| low(a, b.min(32)));
    t.binary("szext.clamp.s32 d, a, b;", |a: u32, b: u32| signed(a, b.min(32)));
    t.binary("szext.wrap.u32 d, a, b;", |a: u32, b: u32| low(a, b % 32));
    t.binary("szext.wrap.s32 d, a, b;", |a: u32, b: u32| signed(a, b % 32));
    t.binary("min.relu.s32 d, a, b;", |a: i32, b: i32| a.min(b).max(0));
    t.binary("max.relu.s32 d, a, b;", |a: i32, b: i32| a.max(b).max(0));
}

#[test]
fn the_nth_set_bit() {
    let mut t = Table::default();
    t.ternary("and.b32 b, b, 31; fns.b32 d, a, b, c;", |a: u32, b: u32, c: i32| {
        let (base, set) = (b & 31, |&i: &u32| a >> i & 1 == 1);
        let nth = |n: u32| (n - 1) as usize;
        match c {
            0 => Some(base).filter(set),
            1.. => (base..32).filter(set).nth(nth(c as u32)),
            _ => (0..=base).rev().filter(set).nth(nth(c.unsigned_abs())),
        }
        .unwrap_or(u32::MAX)
    });
    for n in [-3i32, -2, 2, 3, 5] {
        t.binary(&format!("and.b32 b, b, 31; fns.b32 d, a, b, {n};"), |a: u32, b: u32| {
            let base = b & 31;
            let places: Vec<u32> = if n > 0 { (base..32).collect() } else { (0..=base).rev().collect() };
            let nth = places.into_iter().filter(|&i| a >> i & 1 == 1).nth(n.unsigned_abs() as usize - 1);
            nth.unwrap_or(u32::MAX)
        });
    }
}
