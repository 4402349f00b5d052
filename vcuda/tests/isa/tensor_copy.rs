//! Tensor copies, PTX ISA 9.7.9.27, against index formulas written out: which element of the tensor each
//! byte of shared memory holds, with its swizzle, and what is out of bounds.

use crate::device::{Checks, Map, Setup, Shape, fault, run_with};
use crate::files::{Expected, anything};
use crate::lanes::{HEADER, Random};

/// Elements by `CUtensorMapDataType`: bytes, and whether they are floats.
const TYPES: [(u32, usize, bool); 11] = [
    (0, 1, false),
    (1, 2, false),
    (2, 4, false),
    (3, 4, false),
    (4, 8, false),
    (5, 8, false),
    (6, 2, true),
    (7, 4, true),
    (8, 8, true),
    (9, 2, true),
    (10, 4, true),
];

/// At once, and with the adversary under two seeds.
pub fn setups(map: &Map) -> Vec<Setup> {
    let setup = Setup { cluster: 1, maps: vec![map.clone()], ..Setup::default() };
    let checks = Checks { asynchrony: true, ..Checks::default() };
    let late = |seed| Setup { checks, seed, ..setup.clone() };
    vec![late(1), late(2), setup]
}

/// A tensor with padded strides, and a box of it.
pub fn map(
    data_type: u32,
    size: usize,
    dims: &[u64],
    extents: &[u32],
    steps: &[u32],
    swizzle: u32,
    fill: u32,
) -> Map {
    let mut strides = Vec::new();
    let mut stride = (dims[0] * size as u64).next_multiple_of(16) + 16;
    for dim in &dims[1..] {
        strides.push(stride);
        stride *= dim + 1;
    }
    let (dims, extents, steps) = (dims.to_vec(), extents.to_vec(), steps.to_vec());
    Map { buffer: 1, data_type, dims, strides, extents, steps, swizzle, fill }
}

fn tensor_bytes(map: &Map, size: usize) -> usize {
    let last = map.dims.len() - 1;
    let most = if last == 0 { map.dims[0] * size as u64 } else { map.strides[last - 1] * map.dims[last] };
    most as usize
}

/// For each element that a box at `at` moves: its byte in shared memory, and in the tensor if it is inside.
fn elements(map: &Map, size: usize, at: &[i32]) -> Vec<(usize, Option<usize>)> {
    let rank = map.dims.len();
    let counts: Vec<usize> = (0..rank)
        .map(|i| if i == 0 { map.extents[0] } else { map.extents[i].div_ceil(map.steps[i]) } as usize)
        .collect();
    let span = [0, 32, 64, 128][map.swizzle as usize];
    let pitch = if span == 0 { counts[0] * size } else { span };
    let total: usize = counts.iter().product();
    let mut out = Vec::with_capacity(total);
    for number in 0..total {
        let (mut left, mut row, mut weight) = (number, 0, 1);
        let mut global = Some(0i64);
        let mut first = 0;
        for i in 0..rank {
            let index = left % counts[i];
            left /= counts[i];
            let place = i64::from(at[i]) + (index * if i == 0 { 1 } else { map.steps[i] as usize }) as i64;
            let stride = if i == 0 { size as i64 } else { map.strides[i - 1] as i64 };
            global =
                global.filter(|_| place >= 0 && place < map.dims[i] as i64).map(|sum| sum + place * stride);
            if i == 0 {
                first = index;
            } else {
                row += index * weight;
                weight *= counts[i];
            }
        }
        let plain = row * pitch + first * size;
        // XOR of the 16-byte chunk's number with bits 7 and up of the address.
        let swizzled = match map.swizzle {
            0 => plain,
            1 => plain ^ (plain >> 7 & 1) << 4,
            2 => plain ^ (plain >> 7 & 3) << 4,
            _ => plain ^ (plain >> 7 & 7) << 4,
        };
        out.push((swizzled, global.map(|at| at as usize)));
    }
    out
}

/// Shared bytes that hold any box, and what they hold before it.
const DUMP: usize = 16384;
const UNTOUCHED: u32 = 0x5a5a_5a5a;

/// Blocks that load the box at their own coordinates (8 words a block) and write out what they find.
fn load_kernel(rank: usize, dump: usize) -> String {
    let names = ["c0", "c1", "c2", "c3", "c4"][..rank].join(", ");
    format!(
        "{HEADER}.extern .shared .align 1024 .b8 tile[];
.visible .entry k(.param .u64 outs, .param .u64 tensor, .param .u64 list, .param .align 64 .b8 map[128])
{{
.reg .pred p, leader; .reg .b32 a, b, bytes, c0, c1, c2, c3, c4, t, fill, tid, block; .reg .b64 out, places, x, y;
.shared .align 8 .b64 bar;
ld.param.u64 out, [outs]; ld.param.u64 places, [list]; mov.u32 tid, %tid.x; mov.u32 block, %ctaid.x;
mad.wide.u32 places, block, 32, places; mad.wide.u32 out, block, {dump}, out;
ld.global.v4.u32 {{c0, c1, c2, c3}}, [places]; ld.global.v2.u32 {{c4, bytes}}, [places+16];
setp.eq.u32 leader, tid, 0; @leader mbarrier.init.shared.b64 [bar], 1; bar.sync 0;
mov.b64 x, map; cvta.param.u64 x, x; mov.u32 a, tile; mov.u32 fill, {UNTOUCHED}; shl.b32 t, tid, 4;
before: add.u32 b, a, t; st.shared.v4.u32 [b], {{fill, fill, fill, fill}}; add.u32 t, t, 2048;
setp.lt.u32 p, t, {dump}; @p bra before; fence.proxy.async; bar.sync 0;
@!leader bra wait;
prefetch.tensormap [x]; cp.async.bulk.prefetch.tensor.{rank}d.L2.global.tile [x, {{{names}}}];
mbarrier.arrive.expect_tx.shared.b64 _, [bar], bytes;
cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [a], [x, {{{names}}}], [bar];
wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;
shl.b32 tid, tid, 4;
dump: add.u32 b, a, tid; ld.shared.v4.u32 {{c0, c1, c2, c3}}, [b]; cvt.u64.u32 y, tid; add.u64 y, y, out;
st.global.v4.u32 [y], {{c0, c1, c2, c3}}; add.u32 tid, tid, 2048; setp.lt.u32 p, tid, {dump}; @p bra dump;
ret;
}}
"
    )
}

fn check_load(map: &Map, size: usize, is_float: bool, places: &[Vec<i32>], setups: &[Setup]) {
    let rank = map.dims.len();
    let mut random = Random::new(map.swizzle as u64 + 10 * rank as u64);
    let tensor: Vec<u8> = (0..tensor_bytes(map, size)).map(|_| random.next() as u8).collect();
    let all = elements(map, size, &vec![0; rank]);
    let bytes = all.len() * size;
    // Rounds of the loop that writes out what each block has found.
    let last = all.iter().map(|&(shared, _)| shared).max().unwrap_or(0);
    let dump = (last + 1).next_multiple_of(2048);
    let mut list = Vec::new();
    for place in places {
        for i in 0..8 {
            let value = if i == 5 { bytes as i32 } else { place.get(i).copied().unwrap_or(0) };
            list.extend(value.to_le_bytes());
        }
    }
    for setup in setups {
        let mut buffers = [vec![0; dump * places.len()], tensor.clone(), list.clone()];
        let shape = Shape { blocks: places.len() as u32, threads: 128, shared_bytes: DUMP as u32 };
        let ran = run_with(&load_kernel(rank, dump), "k", shape, setup, &mut buffers)
            .unwrap_or_else(|error| panic!("{map:?} {size}: {error}"));
        // What no element of a box is in may hold anything, past the box as before.
        let ty = match map.data_type {
            6 => "f16",
            9 => "bf16",
            7 | 10 => "f32",
            8 => "f64",
            _ => ["u8", "u16", "u32", "u64"][size.ilog2() as usize],
        };
        let mut accepted = vec![anything(ty); buffers[0].len() / size];
        for (block, (place, found)) in places.iter().zip(buffers[0].chunks_exact(dump)).enumerate() {
            for (shared, global) in elements(map, size, place) {
                let found = &found[shared..shared + size];
                let right = match global {
                    Some(at) => found == &tensor[at..at + size],
                    None if map.fill == 1 && is_float => {
                        found.chunks_exact(2).all(|part| part == [0xf7, 0x7f])
                    }
                    None => found.iter().all(|&byte| byte == 0),
                };
                assert!(right, "{:?} at {place:?}, byte {shared}: {found:x?}", (map.data_type, &map.extents));
                let bits = found.iter().rev().fold(0, |bits, &byte| bits << 8 | u64::from(byte));
                accepted[(block * dump + shared) / size] = (bits, bits);
            }
            // What of a row's span the box leaves free is nobody's.
            let end = (last + size).next_multiple_of([1, 32, 64, 128][map.swizzle as usize]);
            let touched = found[end..].iter().position(|&byte| byte != UNTOUCHED as u8);
            assert!(touched.is_none(), "{:?} at {place:?}: byte {touched:?} past the box", map.extents);
        }
        ran.keep(&[(0, Expected::between(ty, accepted.into_iter()))]);
    }
}

/// Places inside, across each border, and wholly outside.
fn places(map: &Map, count: usize) -> Vec<Vec<i32>> {
    let mut random = Random::new(5);
    let rank = map.dims.len();
    let mut out = vec![vec![0; rank]];
    for i in 0..rank {
        for value in [-1, map.dims[i] as i32 - 1, map.dims[i] as i32, -(map.extents[i] as i32)] {
            let mut place = vec![0; rank];
            place[i] = value;
            out.push(place);
        }
    }
    while out.len() < count {
        let any = |i: usize, random: &mut Random| {
            let span = map.dims[i] + u64::from(map.extents[i]) + 2;
            (random.next() % span) as i32 - map.extents[i] as i32
        };
        out.push((0..rank).map(|i| any(i, &mut random)).collect());
    }
    out
}

#[test]
fn boxes_of_every_rank_type_and_swizzle() {
    for (data_type, size, is_float) in TYPES {
        for rank in 1..=5usize {
            for swizzle in 0..4u32 {
                // An inner row of the swizzle's whole span, and of half of it.
                for share in [1, 2] {
                    let span = [64, 32, 64, 128][swizzle as usize] / share;
                    let dims = [span as u64 / size as u64 + 3, 7, 5, 3, 2];
                    let extents = [(span / size) as u32, 5, 3, 2, 2];
                    let map = map(
                        data_type,
                        size,
                        &dims[..rank],
                        &extents[..rank],
                        &[1; 5][..rank],
                        swizzle,
                        (rank % 2) as u32 & is_float as u32,
                    );
                    let setups = setups(&map);
                    let one = (data_type as usize + rank + share) % 3;
                    check_load(&map, size, is_float, &places(&map, 24), &setups[one..=one]);
                }
            }
        }
    }
}

#[test]
fn element_strides_skip_rows() {
    for (steps, extents) in [([1, 2, 1], [8, 6, 3]), ([1, 3, 2], [16, 7, 5]), ([4, 8, 1], [8, 16, 2])] {
        for swizzle in [0, 1] {
            let map = map(6, 2, &[19, 23, 7], &extents, &steps, swizzle, 1);
            check_load(&map, 2, true, &places(&map, 30), &setups(&map));
        }
    }
}

#[test]
fn large_boxes() {
    for (swizzle, inner) in [(0, 32), (3, 64)] {
        let map = map(6, 2, &[200, 300], &[inner, 128], &[1, 1], swizzle, 0);
        check_load(&map, 2, true, &places(&map, 40), &setups(&map));
    }
    let map = map(0, 1, &[256 * 5], &[256], &[1], 0, 0);
    check_load(&map, 1, false, &places(&map, 10), &setups(&map));
}

/// A block that stores, or reduces, the box at its coordinates from shared memory.
fn store_kernel(rank: usize, operation: &str) -> String {
    let names = ["c0", "c1", "c2", "c3", "c4"][..rank].join(", ");
    format!(
        "{HEADER}.extern .shared .align 1024 .b8 tile[];
.visible .entry k(.param .u64 ins, .param .u64 tensor, .param .u64 list, .param .align 64 .b8 map[128])
{{
.reg .pred p, leader; .reg .b32 a, b, c0, c1, c2, c3, c4, tid; .reg .b64 in, places, x, y;
ld.param.u64 in, [ins]; ld.param.u64 places, [list]; mov.u32 tid, %tid.x; mov.u32 a, tile;
setp.eq.u32 leader, tid, 0; shl.b32 tid, tid, 4;
fill: cvt.u64.u32 y, tid; add.u64 y, y, in; ld.global.v4.u32 {{c0, c1, c2, c3}}, [y]; add.u32 b, a, tid;
st.shared.v4.u32 [b], {{c0, c1, c2, c3}}; add.u32 tid, tid, 2048; setp.lt.u32 p, tid, {DUMP}; @p bra fill;
fence.proxy.async.shared::cta; bar.sync 0; @!leader ret;
ld.global.v4.u32 {{c0, c1, c2, c3}}, [places]; ld.global.u32 c4, [places+16];
mov.b64 x, map; cvta.param.u64 x, x;
{operation} [x, {{{names}}}], [a];
cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
ret;
}}
"
    )
}

/// Runs a store at each place in turn and compares the whole tensor with what `combine` makes of it.
fn check_store(map: &Map, size: usize, operation: &str, combine: impl Fn(&[u8], &[u8]) -> Vec<u8>) {
    let rank = map.dims.len();
    let mut random = Random::new(77);
    let mut tensor: Vec<u8> = (0..tensor_bytes(map, size)).map(|_| random.next() as u8).collect();
    let tile: Vec<u8> = (0..DUMP).map(|_| random.next() as u8).collect();
    let setups = setups(map);
    for (i, place) in places(map, 24).iter().enumerate() {
        let list: Vec<u8> = (0..8).flat_map(|i| place.get(i).copied().unwrap_or(0).to_le_bytes()).collect();
        let mut buffers = [tile.clone(), tensor.clone(), list];
        let shape = Shape { blocks: 1, threads: 128, shared_bytes: DUMP as u32 };
        let ran = run_with(&store_kernel(rank, operation), "k", shape, &setups[i % 3], &mut buffers)
            .unwrap_or_else(|error| panic!("{map:?}: {error}"));
        for (shared, global) in elements(map, size, place) {
            let Some(at) = global else { continue };
            let value = combine(&tensor[at..at + size], &tile[shared..shared + size]);
            tensor[at..at + size].copy_from_slice(&value);
        }
        let wrong = buffers[1].iter().zip(&tensor).position(|(found, wanted)| found != wanted);
        assert_eq!(wrong, None, "first wrong byte of {operation} at {place:?} of {map:?}");
        ran.keep_exactly(&[(1, &tensor)]);
    }
}

#[test]
fn stores_clip_their_boxes() {
    for rank in 1..=5usize {
        for swizzle in 0..4u32 {
            let span = [64, 32, 64, 128][swizzle as usize];
            let (dims, extents) = ([span as u64 / 2 + 3, 7, 5, 3, 2], [span / 2, 5, 3, 2, 2]);
            let map = map(6, 2, &dims[..rank], &extents[..rank], &[1; 5][..rank], swizzle, 0);
            let name = format!("cp.async.bulk.tensor.{rank}d.global.shared::cta.tile.bulk_group");
            check_store(&map, 2, &name, |_, new| new.to_vec());
        }
    }
    let map = map(2, 4, &[19, 23], &[8, 9], &[1, 2], 1, 0);
    check_store(&map, 4, "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group", |_, new| new.to_vec());
}

#[test]
fn reductions_into_tensors() {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let unsigned = map(2, 4, &[21, 9], &[8, 5], &[1, 1], 1, 0);
    type Combine = fn(u32, u32) -> u32;
    let cases: [(&str, Combine); 8] = [
        ("add", |a, b| a.wrapping_add(b)),
        ("min", |a, b| a.min(b)),
        ("max", |a, b| a.max(b)),
        ("inc", |a, b| if a >= b { 0 } else { a + 1 }),
        ("dec", |a, b| if a == 0 || a > b { b } else { a - 1 }),
        ("and", |a, b| a & b),
        ("or", |a, b| a | b),
        ("xor", |a, b| a ^ b),
    ];
    for (operation, combine) in cases {
        let name = format!("cp.reduce.async.bulk.tensor.2d.global.shared::cta.{operation}.tile.bulk_group");
        check_store(&unsigned, 4, &name, |old, new| combine(word(old), word(new)).to_le_bytes().to_vec());
    }
    let signed = map(3, 4, &[21, 9], &[8, 5], &[1, 1], 0, 0);
    let name = "cp.reduce.async.bulk.tensor.2d.global.shared::cta.min.bulk_group";
    check_store(&signed, 4, name, |old, new| (word(old) as i32).min(word(new) as i32).to_le_bytes().to_vec());
}

/// The tf32 types round to nearest even, which is the nearer of the two values of 10 bits of mantissa around; no type
/// flushes subnormals.
#[test]
fn floats_are_rounded_where_the_type_says() {
    let mut random = Random::new(9);
    let edges =
        [1e-40, -1e-45, 1.5, f32::MIN_POSITIVE, 0.0, -0.0, f32::MAX, f32::INFINITY, f32::NAN, -f32::NAN];
    let halves =
        [0x3f80_1000, 0x3f80_3000, 0xbf80_0fff, 0xbf80_1001, 0x0000_1000, 0x7f7f_f000].map(f32::from_bits);
    let tensor: Vec<f32> = edges
        .into_iter()
        .chain(halves)
        .chain((16..64).map(|_| f32::from_bits(random.next() as u32)))
        .collect();
    let rounded = |value: f32| {
        let magnitude = value.abs().to_bits() & !0x1fff;
        let [low, high] = [magnitude, magnitude + 0x2000].map(|bits| f64::from(f32::from_bits(bits)));
        // Past the largest finite value comes what would be 2^128.
        let high = if high.is_finite() { high } else { 2f64.powi(128) };
        let (below, above) = (f64::from(value.abs()) - low, high - f64::from(value.abs()));
        let is_even = magnitude >> 13 & 1 == 0;
        let bits = if below < above || below == above && is_even { magnitude } else { magnitude + 0x2000 };
        bits | value.to_bits() & 0x8000_0000
    };
    let bytes: Vec<u8> = tensor.iter().flat_map(|value| value.to_le_bytes()).collect();
    for data_type in [7, 10, 11, 12] {
        let map = Map { data_type, ..map(7, 4, &[64], &[64], &[1], 0, 0) };
        for setup in setups(&map) {
            let list: Vec<u8> = [0, 0, 0, 0, 0, 256, 0, 0].into_iter().flat_map(i32::to_le_bytes).collect();
            let mut buffers = [vec![0; 2048], bytes.clone(), list];
            let shape = Shape { blocks: 1, threads: 128, shared_bytes: DUMP as u32 };
            let ran = run_with(&load_kernel(1, 2048), "k", shape, &setup, &mut buffers).unwrap();
            for (i, &value) in tensor.iter().enumerate() {
                let found = u32::from_le_bytes(buffers[0][4 * i..4 * i + 4].try_into().unwrap());
                let wanted = match data_type {
                    7 | 10 => value.to_bits(),
                    _ if value.is_nan() => 0x7fff_e000,
                    _ if value.is_infinite() => value.to_bits(),
                    _ => rounded(value),
                };
                assert_eq!(found, wanted, "{value} as {data_type}: {found:#x}, {wanted:#x}");
            }
            ran.keep_exactly(&[(0, &buffers[0][..256])]);
        }
    }
}

#[test]
fn misuse_is_named() {
    let good = map(6, 2, &[64, 8], &[32, 4], &[1, 1], 2, 0);
    let store = store_kernel(2, "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group");
    let load = load_kernel(2, DUMP);
    let reduce = store_kernel(2, "cp.reduce.async.bulk.tensor.2d.global.shared::cta.inc.tile.bulk_group");
    let huge = Map { dims: vec![64, 4000], ..good.clone() };
    let cases = [
        (load.replace("[a], [x,", "[a+64], [x,"), &good, "misaligned"),
        (load.replace("cvta.param.u64 x, x", "add.u64 x, out, 0"), &good, "there is no tensor map"),
        (load_kernel(3, DUMP), &good, "3 coordinates for a tensor map of rank 2"),
        (load.replace("mov.u32 a, tile", "mov.u32 a, tile; add.u32 a, a, 16256"), &good, "is outside its"),
        (load, &huge, "a tensor copy at ["),
        (store.replace("fence.proxy.async.shared::cta;", ""), &good, "no fence.proxy.async comes between"),
        (reduce, &good, "a tensor reduction Inc of elements F16"),
    ];
    for (kernel, map, wanted) in cases {
        let late = &setups(map)[0];
        let list: Vec<u8> = [0, 3990 * (map.dims[1] > 8) as i32, 0, 0, 0, 256, 0, 0]
            .into_iter()
            .flat_map(i32::to_le_bytes)
            .collect();
        let mut buffers = [vec![0; DUMP], vec![0; tensor_bytes(&good, 2)], list];
        let shape = Shape { blocks: 1, threads: 128, shared_bytes: DUMP as u32 };
        let Some(found) = fault(&kernel, "k", shape, late, &mut buffers) else { return };
        assert!(found.contains(wanted) && found.contains("PTX line"), "{wanted}\n{found}");
    }
}
