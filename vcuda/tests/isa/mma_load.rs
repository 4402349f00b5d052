//! Runs of `mma` on what `ldmatrix` loads, which may take it from where it is in shared memory: each element must be what the
//! instructions one after another make of it, to the bit, whatever comes between. They are played through here one at a time.

use crate::device::{Setup, Shape, TensorCore, fault, run_with};
use crate::lanes::Random;

/// Registers of each lane: sums, factors, and one that keeps what it had at first.
const SUMS: usize = 32;
const KEPT: usize = 96;
const REGISTERS: usize = KEPT + 1;
/// Bytes of shared memory, and of one `ldmatrix`.
const TILE: usize = 4096;
const LOADED: usize = 512;
/// What is taken from every address and added again.
const ASIDE: usize = 8192;
const WARP: Shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };

#[derive(Clone, Copy)]
enum Step {
    /// Four matrices to registers from this one on, from bytes of the tile.
    Load(usize, usize, bool),
    /// First registers of sums, A and B.
    Product(usize, usize, usize),
    /// A register to bytes of the tile.
    Store(usize, usize),
    /// To bytes of the tile, from bytes of the input.
    Copy(usize, usize),
    /// To a register, from another.
    Move(usize, usize),
}

/// Type of the factors, k, and elements of a register.
type Kind = (&'static str, usize, usize);
const KINDS: [Kind; 3] = [("f16", 16, 2), ("bf16", 16, 2), ("tf32", 8, 1)];

fn element((ty, ..): Kind, register: u32, i: usize) -> f32 {
    match ty {
        "f16" => half::f16::from_bits((register >> (16 * i)) as u16).to_f32(),
        "bf16" => half::bf16::from_bits((register >> (16 * i)) as u16).to_f32(),
        _ => f32::from_bits(register & !0x1fff),
    }
}

fn text((ty, k, _): Kind, steps: &[Step]) -> String {
    let names = |first: usize, count: usize| {
        let all: Vec<String> = (first..first + count).map(|i| format!("%r{i}")).collect();
        format!("{{{}}}", all.join(", "))
    };
    let mut number = 0;
    let body: String = steps
        .iter()
        .map(|&step| {
            number += 1;
            let at = format!("%at{number}");
            match step {
                // Of every second one the sum is read again, when what it is made of has long been gone.
                Step::Load(first, from, transposed) => format!(
                    "sub.u32 %base{number}, row, {}; add.s32 {at}, %base{number}, {};
                    ldmatrix.sync.aligned.m8n8.x4{}.shared.b16 {}, [{at}]; {}\n",
                    from,
                    2 * from + ASIDE,
                    if transposed { ".trans" } else { "" },
                    names(first, 4),
                    if number % 2 == 0 { format!("xor.b32 aside, aside, {at};") } else { String::new() }
                ),
                Step::Product(d, a, b) => {
                    let (d, a, b) = (names(d, 4), names(a, 4), names(b, 2));
                    format!("mma.sync.aligned.m16n8k{k}.row.col.f32.{ty}.{ty}.f32 {d}, {a}, {b}, {d};\n")
                }
                Step::Store(register, to) => {
                    format!("st.shared.b32 [word+{to}], %r{register}; bar.warp.sync -1;\n")
                }
                Step::Copy(to, from) => format!(
                    "add.s32 {at}, row, {}; add.s64 %from{number}, input, {from};
                    cp.async.cg.shared.global [{at}], [%from{number}], 16; cp.async.wait_all; bar.warp.sync -1;\n",
                    to + ASIDE
                ),
                Step::Move(to, from) => format!("mov.b32 %r{to}, %r{from};\n"),
            }
        })
        .collect();
    let each = |what: &str| -> String {
        let one = |i: usize| what.replace("AT", &(4 * i).to_string()).replace("REG", &format!("%r{i}"));
        (0..REGISTERS).map(one).collect()
    };
    let numbers = steps.len() + 1;
    format!(
        ".version 8.4\n.target sm_80\n.address_size 64
        .visible .entry k(.param .u64 inp, .param .u64 tilep, .param .u64 outp) {{
        .reg .b32 %r<{REGISTERS}>; .reg .b32 %at<{numbers}>; .reg .b64 %from<{numbers}>;
        .reg .b32 %base<{numbers}>; .reg .b32 t, row, word, aside; .reg .b64 in, out, wide, input; .shared .align 16 .b8 tile[{TILE}];
        ld.param.u64 in, [inp]; ld.param.u64 input, [tilep]; ld.param.u64 out, [outp];
        mov.u32 t, %tid.x; mul.wide.u32 wide, t, {bytes}; add.u64 in, in, wide; add.u64 out, out, wide;
        mul.wide.u32 wide, t, 16; add.u64 input, input, wide;
        mov.u32 word, tile; mad.lo.u32 row, t, 16, word; sub.u32 row, row, {ASIDE}; mad.lo.u32 word, t, 4, word;
        mov.u32 aside, 0; {fill} {loads} {body} {stores} st.global.b32 [out+{end}], aside; ret; }}",
        end = 4 * KEPT,
        bytes = 4 * REGISTERS,
        fill = (0..TILE / LOADED)
            .map(|i| format!(
                "ld.global.v4.b32 {{%r0, %r1, %r2, %r3}}, [input+{at}]; add.u32 %at0, row, {to};
                st.shared.v4.b32 [%at0], {{%r0, %r1, %r2, %r3}}; bar.warp.sync -1;\n",
                at = LOADED * i,
                to = LOADED * i + ASIDE
            ))
            .collect::<String>(),
        loads = each("ld.global.b32 REG, [in+AT];\n"),
        stores = each("st.global.b32 [out+AT], REG;\n"),
    )
}

/// What the registers hold in the end.
fn played(kind: Kind, steps: &[Step], registers: &mut [[u32; 32]], input: &[u8]) {
    let ((_, k, per), mut tile) = (kind, input.to_vec());
    let half = |tile: &[u8], at: usize| u32::from(u16::from_le_bytes([tile[at], tile[at + 1]]));
    for &step in steps {
        match step {
            Step::Load(first, from, transposed) => {
                for (j, lane) in (0..4).flat_map(|j| (0..32).map(move |lane| (j, lane))) {
                    let place = |i: usize| match (lane / 4, lane % 4 * 2 + i) {
                        (row, column) if transposed => (column, row),
                        place => place,
                    };
                    let [low, high] = [0, 1].map(|i| {
                        let (row, column) = place(i);
                        half(&tile, from + (8 * j + row) * 16 + 2 * column)
                    });
                    registers[first + j][lane] = low | high << 16;
                }
            }
            Step::Product(d, a, b) => {
                for (row, column) in (0..16).flat_map(|row| (0..8).map(move |column| (row, column))) {
                    let place = (d + row / 8 * 2 + column % 2, row % 8 * 4 + column / 2);
                    let mut sum = f32::from_bits(registers[place.0][place.1]);
                    for at in 0..k {
                        let (register, lane, part) = (at / (4 * per), at / per % 4, at % per);
                        let x = registers[a + 2 * register + row / 8][row % 8 * 4 + lane];
                        let y = registers[b + register][column * 4 + lane];
                        sum = element(kind, x, part).mul_add(element(kind, y, part), sum);
                    }
                    registers[place.0][place.1] = sum.to_bits();
                }
            }
            Step::Store(register, to) => {
                let words = registers[register].iter().flat_map(|word| word.to_le_bytes());
                tile[to..to + 128].iter_mut().zip(words).for_each(|(to, byte)| *to = byte);
            }
            Step::Copy(to, from) => tile[to..to + LOADED].copy_from_slice(&input[from..from + LOADED]),
            Step::Move(to, from) => registers[to] = registers[from],
        }
    }
}

fn bytes(registers: &[[u32; 32]]) -> Vec<u8> {
    (0..32).flat_map(|lane| registers.iter().flat_map(move |r| r[lane].to_le_bytes())).collect()
}

/// Registers as they begin, and the tile's input: numbers that are finite as halves of each kind.
fn inputs(random: &mut Random) -> (Vec<[u32; 32]>, Vec<u8>) {
    let half = |random: &mut Random| 0x3000 | random.next() as u32 & 0x8fff;
    let factor = |random: &mut Random| half(random) | half(random) << 16;
    let registers = (0..REGISTERS)
        .map(|i| {
            std::array::from_fn(|_| match i < SUMS {
                true => ((random.next() as i32 % 1000) as f32 / 64.0).to_bits(),
                false => factor(random),
            })
        })
        .collect();
    (registers, (0..TILE / 4).flat_map(|_| factor(random).to_le_bytes()).collect())
}

fn check(kind: Kind, steps: &[Step], random: &mut Random) {
    let (mut registers, input) = inputs(random);
    let mut buffers = [bytes(&registers), input.clone(), vec![0; 4 * REGISTERS * 32]];
    let text = text(kind, steps);
    let setup = Setup { cluster: 1, ..Setup::default() };
    let ran =
        run_with(&text, "k", WARP, &setup, &mut buffers).unwrap_or_else(|error| panic!("{error}\n{text}"));
    played(kind, steps, &mut registers, &input);
    let want = bytes(&registers);
    for (i, (got, want)) in buffers[2].chunks_exact(4).zip(want.chunks_exact(4)).enumerate() {
        if i % REGISTERS == KEPT {
            continue; // where the addresses have been written
        }
        assert_eq!(got, want, "{}: %r{} of lane {}:\n{text}", kind.0, i % REGISTERS, i / REGISTERS);
    }
    // A GPU sums in its own order.
    drop(ran);
}

/// Two blocks of rows by four tiles, in two steps of k: A's blocks and B's pairs of tiles are each loaded by one instruction.
fn products(is_transposed: &mut dyn FnMut() -> bool) -> Vec<Step> {
    let mut steps = Vec::new();
    for (i, first) in (SUMS..SUMS + 32).step_by(4).enumerate() {
        steps.push(Step::Load(first, i * LOADED / 2, is_transposed()));
    }
    for (k, block, tile) in (0..2).flat_map(|k| (0..8).map(move |i| (k, i / 4, i % 4))) {
        let (a, b) = (SUMS + 8 * k + 4 * block, SUMS + 16 + 8 * k + 2 * tile);
        steps.push(Step::Product(16 * block + 4 * tile, a, b));
    }
    steps
}

/// After which nobody can see what the factors' registers held.
fn covered(mut steps: Vec<Step>) -> Vec<Step> {
    steps.extend((SUMS..KEPT).map(|register| Step::Move(register, KEPT)));
    steps
}

#[test]
fn products_of_what_is_loaded() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let mut random = Random::new(91);
    for kind in KINDS {
        for transposed in [0, 1, 2] {
            let mut number = 0;
            let steps = products(&mut || {
                number += 1;
                transposed == 1 || transposed == 2 && number % 2 == 0
            });
            check(kind, &covered(steps.clone()), &mut random);
            // All registers are read in the end, and one.
            check(kind, &steps, &mut random);
            check(kind, &covered([&steps[..], &[Step::Move(0, SUMS + 17)]].concat()), &mut random);
        }
    }
}

#[test]
fn what_is_between() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let mut random = Random::new(92);
    for round in 0..90 {
        let kind = KINDS[round % KINDS.len()];
        let mut steps = products(&mut || round % 2 == 1);
        for _ in 0..=round % 4 {
            let mut any = |count: usize| random.next() as usize % count;
            let (register, to, place) = (SUMS + any(40), 16 * any(200), any(steps.len() + 1));
            let step = match any(4) {
                0 => Step::Store(register, to),
                1 => Step::Copy(to, 16 * any(200)),
                2 => Step::Move(register, SUMS + any(40)),
                _ => Step::Load(register / 4 * 4, to, any(2) == 0),
            };
            steps.insert(place, step);
        }
        check(kind, &covered(steps), &mut random);
    }
}

/// Sums of a GPU are made of registers: the same, whether these can be seen in the end or not.
#[test]
fn sums_of_a_gpu() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let mut random = Random::new(93);
    for sums in [TensorCore::A100, TensorCore::H100] {
        let (registers, input) = inputs(&mut random);
        let steps = products(&mut || false);
        let [seen, unseen] = [steps.clone(), covered(steps)].map(|steps| {
            let mut buffers = [bytes(&registers), input.clone(), vec![0; 4 * REGISTERS * 32]];
            let setup = Setup { cluster: 1, sums: Some(sums), ..Setup::default() };
            run_with(&text(KINDS[0], &steps), "k", WARP, &setup, &mut buffers).unwrap();
            buffers[2]
                .chunks_exact(4 * REGISTERS)
                .flat_map(|lane| lane[..4 * SUMS].to_vec())
                .collect::<Vec<u8>>()
        });
        assert_eq!(seen, unseen, "{sums:?}");
    }
}

/// Places that are not the tile's, or no multiple of a row's bytes.
#[test]
fn wrong_places_are_named() {
    for (at, message) in [
        (TILE - LOADED + 16, "outside its 4096 bytes"),
        (2 * TILE, "outside its 4096 bytes"),
        (8, "misaligned"),
    ] {
        let mut steps = products(&mut || false);
        steps[3] = Step::Load(SUMS + 12, at, false);
        let text = text(KINDS[0], &covered(steps));
        let (registers, input) = inputs(&mut Random::new(94));
        let mut buffers = [bytes(&registers), input, vec![0; 4 * REGISTERS * 32]];
        let setup = Setup { cluster: 1, ..Setup::default() };
        if let Some(found) = fault(&text, "k", WARP, &setup, &mut buffers) {
            assert!(found.contains(message), "{at}: {found}");
        }
    }
}
