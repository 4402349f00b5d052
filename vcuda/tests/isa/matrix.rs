//! `ldmatrix`, `stmatrix`, `movmatrix` and `mma.sync`, PTX ISA 9.7.14.5, against the ISA's index tables, element by
//! element, and sums of small integers, which are exact in every order.

use crate::device::{Shape, run};
use crate::lanes::{HEADER, Random};

const WARP: Shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn list(prefix: &str, count: usize) -> String {
    (0..count).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(", ")
}

/// A warp's kernel of two buffers, `in` and `out`, with `lane` and registers `r0`, `r1`, … of 32 bits.
fn kernel(body: &str) -> String {
    format!(
        "{HEADER} .visible .entry k(.param .u64 inp, .param .u64 outp) {{
            .reg .b32 %r<64>; .reg .b32 lane, at; .reg .b64 in, out, wide; .reg .b64 %w<32>;
            .shared .align 16 .b8 tile[512];
            ld.param.u64 in, [inp]; ld.param.u64 out, [outp]; mov.u32 lane, %laneid;
            {body}
            ret; }}"
    )
}

/// Copies 512 bytes between global memory and the tile, 16 a lane.
const FILL: &str = "mul.wide.u32 wide, lane, 16; add.u64 wide, in, wide; ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [wide];
    mov.u32 at, tile; mad.lo.u32 at, lane, 16, at; st.shared.v4.u32 [at], {%r0, %r1, %r2, %r3}; bar.warp.sync -1;";
const EMPTY: &str = "bar.warp.sync -1; mov.u32 at, tile; mad.lo.u32 at, lane, 16, at; ld.shared.v4.u32 {%r0, %r1, %r2, %r3}, [at];
    mul.wide.u32 wide, lane, 16; add.u64 wide, out, wide; st.global.v4.u32 [wide], {%r0, %r1, %r2, %r3};";
/// The address of row `7 lane mod 32`: neighbours in registers are not neighbours in memory.
const ROW: &str = "mul.lo.u32 at, lane, 7; and.b32 at, at, 31; mul.lo.u32 at, at, 16; mov.u32 %r9, tile; add.u32 at, at, %r9;";

/// Half `(row, column)` of matrix `j` in a tile whose rows are permuted as [`ROW`] has them.
fn tile_half(tile: &[u8], j: usize, row: usize, column: usize) -> u16 {
    let at = (8 * j + row) * 7 % 32 * 16 + 2 * column;
    u16::from_le_bytes([tile[at], tile[at + 1]])
}

/// Which half of a matrix is `i` of lane `lane`'s two: row, column.
fn place(lane: usize, i: usize, transposed: bool) -> (usize, usize) {
    let (major, minor) = (lane / 4, lane % 4 * 2 + i);
    if transposed { (minor, major) } else { (major, minor) }
}

#[test]
fn matrices_are_loaded() {
    let mut random = Random::new(1);
    let tile: Vec<u8> = (0..512).map(|_| random.next() as u8).collect();
    for (count, transposed) in [1, 2, 4].into_iter().flat_map(|count| [(count, false), (count, true)]) {
        let trans = if transposed { ".trans" } else { "" };
        let body = format!(
            "{FILL} {ROW} ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{}}}, [at];
            mul.wide.u32 wide, lane, 16; add.u64 wide, out, wide; st.global.v4.u32 [wide], {{%r10, %r11, %r12, %r13}};",
            list("%r1", count)
        );
        let zero = (count..4).map(|i| format!("mov.u32 %r1{i}, 0;")).collect::<String>();
        let mut buffers = [tile.clone(), vec![0; 512]];
        let ran = run(&kernel(&format!("{zero} {body}")), "k", WARP, &mut buffers).unwrap();
        for (lane, got) in words(&buffers[1]).chunks(4).enumerate() {
            for (j, got) in got.iter().enumerate() {
                let half = |i: usize| {
                    let (row, column) = place(lane, i, transposed);
                    u32::from(tile_half(&tile, j, row, column))
                };
                let want = if j < count { half(0) | half(1) << 16 } else { 0 };
                assert_eq!(*got, want, "x{count}{trans}, lane {lane}, matrix {j}");
            }
        }
        ran.keep_exactly(&[(1, &buffers[1])]);
    }
}

#[test]
fn matrices_are_stored() {
    let mut random = Random::new(2);
    let registers: Vec<u32> = (0..128).map(|_| random.next() as u32).collect();
    for (count, transposed) in [1, 2, 4].into_iter().flat_map(|count| [(count, false), (count, true)]) {
        let trans = if transposed { ".trans" } else { "" };
        let body = format!(
            "mov.u32 %r0, 0; mov.u32 at, tile; mad.lo.u32 at, lane, 16, at; st.shared.v4.u32 [at], {{%r0, %r0, %r0, %r0}};
            bar.warp.sync -1; mul.wide.u32 wide, lane, 16; add.u64 wide, in, wide;
            ld.global.v4.u32 {{%r10, %r11, %r12, %r13}}, [wide];
            {ROW} stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [at], {{{}}}; {EMPTY}",
            list("%r1", count)
        );
        let mut buffers = [bytes(&registers), vec![0; 512]];
        let ran = run(&kernel(&body), "k", WARP, &mut buffers).unwrap();
        let mut want = vec![0u8; 512];
        for (lane, i, j) in
            (0..32).flat_map(|lane| (0..2).flat_map(move |i| (0..count).map(move |j| (lane, i, j))))
        {
            let (row, column) = place(lane, i, transposed);
            let half = (registers[4 * lane + j] >> (16 * i)) as u16;
            want[(8 * j + row) * 7 % 32 * 16 + 2 * column..][..2].copy_from_slice(&half.to_le_bytes());
        }
        assert_eq!(buffers[1], want, "x{count}{trans}");
        ran.keep_exactly(&[(1, &want)]);
    }
}

#[test]
fn a_matrix_is_transposed_in_registers() {
    let mut random = Random::new(3);
    let registers: Vec<u32> = (0..32).map(|_| random.next() as u32).collect();
    let body =
        "mul.wide.u32 wide, lane, 4; add.u64 in, in, wide; add.u64 out, out, wide; ld.global.u32 %r0, [in];
        movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0; st.global.u32 [out], %r1;";
    let mut buffers = [bytes(&registers), vec![0; 128]];
    let ran = run(&kernel(body), "k", WARP, &mut buffers).unwrap();
    let half = |row: usize, column: usize| registers[row * 4 + column / 2] >> (16 * (column % 2)) & 0xffff;
    for (lane, got) in words(&buffers[1]).into_iter().enumerate() {
        let want = half(lane % 4 * 2, lane / 4) | half(lane % 4 * 2 + 1, lane / 4) << 16;
        assert_eq!(got, want, "lane {lane}");
    }
    ran.keep_exactly(&[(1, &buffers[1])]);
}

/// An element type of A and B: its name, its bits, and a small integer as it.
#[derive(Clone, Copy)]
struct Factor {
    name: &'static str,
    bits: usize,
    encode: fn(i64) -> u64,
    signed: bool,
}

const F16: Factor = Factor {
    name: "f16",
    bits: 16,
    encode: |x| half::f16::from_f64(x as f64).to_bits().into(),
    signed: true,
};
const BF16: Factor = Factor {
    name: "bf16",
    bits: 16,
    encode: |x| half::bf16::from_f64(x as f64).to_bits().into(),
    signed: true,
};
// The low bits of a tf32 are not looked at.
const TF32: Factor = Factor {
    name: "tf32",
    bits: 32,
    encode: |x| u64::from((x as f32).to_bits() | 0x1234 & 0x1fff),
    signed: true,
};
const F64: Factor = Factor { name: "f64", bits: 64, encode: |x| (x as f64).to_bits(), signed: true };
const S8: Factor = Factor { name: "s8", bits: 8, encode: |x| x as u8 as u64, signed: true };
const U8: Factor = Factor { name: "u8", bits: 8, encode: |x| x as u8 as u64, signed: false };

/// Row and column of element `i` of lane `lane`'s part of A, after the ISA's tables for `m x k` of as many bits.
fn a_place(lane: usize, i: usize, m: usize, bits: usize) -> (usize, usize) {
    let (group, thread) = (lane / 4, lane % 4);
    let per_register = (32 / bits).max(1);
    let (register, within) = (i / per_register, i % per_register);
    match (m, register) {
        (8, r) => (group, thread * per_register + within + 4 * per_register * r),
        (_, r) => (group + 8 * (r % 2), thread * per_register + within + 4 * per_register * (r / 2)),
    }
}

fn b_place(lane: usize, i: usize, bits: usize) -> (usize, usize) {
    let per_register = (32 / bits).max(1);
    let (register, within) = (i / per_register, i % per_register);
    (lane % 4 * per_register + within + 4 * per_register * register, lane / 4)
}

fn c_place(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2)
}

/// Runs one `mma` on random small integers; D as integers, and what it must be.
fn mma(m: usize, k: usize, a: Factor, b: Factor, sums: &str, modifier: &str, seed: u64) {
    let mut random = Random::new(seed);
    let mut small =
        |signed: bool| if signed { random.next() as i64 % 8 } else { (random.next() % 16) as i64 };
    let matrix =
        |rows: usize, columns: usize, factor: Factor, small: &mut dyn FnMut(bool) -> i64| -> Vec<i64> {
            (0..rows * columns).map(|_| small(factor.signed)).collect()
        };
    let (av, bv) = (matrix(m, k, a, &mut small), matrix(k, 8, b, &mut small));
    let cv: Vec<i64> = (0..m * 8).map(|_| small(true)).collect();

    // Registers are 64 bits wide in memory, whatever they hold.
    let per_register = (32 / a.bits).max(1);
    let (a_registers, b_registers) = (m * k / 32 / per_register, k * 8 / 32 / per_register);
    let (sum_registers, halves) = if sums == "f16" { (m * 8 / 64, true) } else { (m * 8 / 32, false) };
    let mut inp = Vec::new();
    for lane in 0..32 {
        let mut put = |value: u64| inp.extend(value.to_le_bytes());
        for r in 0..a_registers {
            let element = |w: usize| {
                let (row, column) = a_place(lane, r * per_register + w, m, a.bits);
                (a.encode)(av[row * k + column]) << (a.bits * w % 64)
            };
            put((0..per_register).map(element).fold(0, |word, part| word | part));
        }
        for r in 0..b_registers {
            let element = |w: usize| {
                let (row, column) = b_place(lane, r * per_register + w, b.bits);
                (b.encode)(bv[row * 8 + column]) << (b.bits * w % 64)
            };
            put((0..per_register).map(element).fold(0, |word, part| word | part));
        }
        for r in 0..sum_registers {
            let value = |i: usize| {
                let (row, column) = c_place(lane, i);
                cv[row * 8 + column]
            };
            put(match sums {
                "f32" => u64::from((value(r) as f32).to_bits()),
                "f64" => (value(r) as f64).to_bits(),
                "s32" => u64::from(value(r) as u32),
                _ => (F16.encode)(value(2 * r)) | (F16.encode)(value(2 * r + 1)) << 16,
            });
        }
    }
    let total = a_registers + b_registers + sum_registers;
    let wide = a.bits == 64;
    let name = |i: usize| if wide { format!("%w{i}") } else { format!("%r{i}") };
    let group = |from: usize, count: usize| {
        format!("{{{}}}", (from..from + count).map(name).collect::<Vec<_>>().join(", "))
    };
    let word = if wide { "b64" } else { "b32" };
    let loads: String =
        (0..total).map(|i| format!("ld.global.{word} {}, [in+{}];", name(i), 8 * i)).collect();
    let c = group(a_registers + b_registers, sum_registers);
    let stores: String = (0..sum_registers)
        .map(|i| format!("st.global.{word} [out+{}], {};", 8 * i, name(a_registers + b_registers + i)))
        .collect();
    let instruction =
        format!("mma.sync.aligned.m{m}n8k{k}.row.col{modifier}.{sums}.{}.{}.{sums}", a.name, b.name);
    let body = format!(
        "mul.wide.u32 wide, lane, {}; add.u64 in, in, wide; mul.wide.u32 wide, lane, {}; add.u64 out, out, wide;
        {loads} {instruction} {c}, {}, {}, {c}; {stores}",
        8 * total,
        8 * sum_registers,
        group(0, a_registers),
        group(a_registers, b_registers)
    );
    let mut buffers = [inp, vec![0; 32 * 8 * sum_registers]];
    let ran =
        run(&kernel(&body), "k", WARP, &mut buffers).unwrap_or_else(|error| panic!("{instruction}: {error}"));
    for lane in 0..32 {
        for i in 0..sum_registers * if halves { 2 } else { 1 } {
            let (row, column) = c_place(lane, i);
            let want: i64 =
                cv[row * 8 + column] + (0..k).map(|j| av[row * k + j] * bv[j * 8 + column]).sum::<i64>();
            let r = if halves { i / 2 } else { i };
            let at = 8 * (lane * sum_registers + r);
            let word = u64::from_le_bytes(buffers[1][at..at + 8].try_into().unwrap());
            let got = match sums {
                "f32" => f32::from_bits(word as u32) as i64,
                "f64" => f64::from_bits(word) as i64,
                "s32" => i64::from(word as u32 as i32),
                _ => half::f16::from_bits((word >> (16 * (i % 2))) as u16).to_f64() as i64,
            };
            assert_eq!(got, want, "{instruction}: row {row}, column {column}");
        }
    }
    ran.keep_exactly(&[(1, &buffers[1])]);
}

#[test]
fn products_of_every_shape() {
    let mut seed = 10;
    let mut next = |m, k, a, b, sums, modifier| {
        seed += 1;
        mma(m, k, a, b, sums, modifier, seed);
    };
    for k in [8, 16] {
        next(16, k, F16, F16, "f32", "");
        next(16, k, F16, F16, "f16", "");
        next(16, k, BF16, BF16, "f32", "");
    }
    for k in [4, 8] {
        next(16, k, TF32, TF32, "f32", "");
    }
    next(8, 4, F64, F64, "f64", "");
    for k in [4, 8, 16] {
        next(16, k, F64, F64, "f64", "");
    }
    for (a, b) in [(S8, S8), (S8, U8), (U8, S8), (U8, U8)] {
        for (m, k) in [(8, 16), (16, 16), (16, 32)] {
            next(m, k, a, b, "s32", "");
            next(m, k, a, b, "s32", ".satfinite");
        }
    }
}

#[test]
fn what_the_hardware_has_not_is_refused() {
    for instruction in [
        "mma.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%r0, %r1, %r2, %r3}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r0, %r1, %r2, %r3};",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%r0, %r1, %r2}, {%r4, %r5, %r6, %r7}, {%r8, %r9}, {%r0, %r1, %r2, %r3};",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0, %r1}, [at];",
    ] {
        if std::env::var("VCUDA_ISA_DRIVER").is_ok() {
            return; // a GPU's own compiler says so in its own words
        }
        let mut buffers = [vec![0; 512], vec![0; 512]];
        let error = run(&kernel(instruction), "k", WARP, &mut buffers).unwrap_err();
        assert!(error.contains("line"), "{instruction}: {error}");
    }
}
