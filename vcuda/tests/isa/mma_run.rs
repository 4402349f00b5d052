//! Runs of `mma`, which may be computed as one product, and put off past what is between them: each element must be what
//! the instructions one after another make of it, to the bit. The registers are played through here one at a time.

use crate::device::{Shape, run};
use crate::lanes::Random;

/// Registers of each lane: sums, then factors.
const SUMS: usize = 160;
const REGISTERS: usize = 256;

#[derive(Clone, Copy)]
struct Kind {
    ty: &'static str,
    k: usize,
}

const KINDS: [Kind; 5] = [
    Kind { ty: "f16", k: 16 },
    Kind { ty: "f16", k: 8 },
    Kind { ty: "bf16", k: 16 },
    Kind { ty: "tf32", k: 8 },
    Kind { ty: "tf32", k: 4 },
];

impl Kind {
    fn per_register(self) -> usize {
        if self.ty == "tf32" { 1 } else { 2 }
    }

    /// Registers of B; A has twice as many.
    fn of_b(self) -> usize {
        self.k / (4 * self.per_register())
    }

    fn element(self, register: u32, i: usize) -> f32 {
        match self.ty {
            "f16" => half::f16::from_bits((register >> (16 * i)) as u16).to_f32(),
            "bf16" => half::bf16::from_bits((register >> (16 * i)) as u16).to_f32(),
            _ => f32::from_bits(register & !0x1fff),
        }
    }

    fn factor(self, random: &mut Random) -> u32 {
        let mut value = || (random.next() as i32 % 4096) as f32 / 1024.0;
        match self.ty {
            "f16" => {
                let [low, high] = [value(), value()].map(|x| u32::from(half::f16::from_f32(x).to_bits()));
                low | high << 16
            }
            "bf16" => {
                let [low, high] = [value(), value()].map(|x| u32::from(half::bf16::from_f32(x).to_bits()));
                low | high << 16
            }
            _ => value().to_bits() | 0x1001,
        }
    }
}

/// First registers of D, A, B and C.
type Mma = [usize; 4];

#[derive(Clone, Copy)]
enum Step {
    Product(Mma),
    /// To a register, from another.
    Move(usize, usize),
    /// To a register, what another held at first.
    Load(usize, usize),
}

fn check(kind: Kind, products: &[Mma], random: &mut Random) {
    check_steps(kind, &products.iter().copied().map(Step::Product).collect::<Vec<_>>(), random);
}

fn check_steps(kind: Kind, sequence: &[Step], random: &mut Random) {
    let names = |first: usize, count: usize| {
        let all: Vec<String> = (first..first + count).map(|i| format!("%r{i}")).collect();
        format!("{{{}}}", all.join(", "))
    };
    let (Kind { ty, k }, of_b) = (kind, kind.of_b());
    let body: String = sequence
        .iter()
        .map(|&step| match step {
            Step::Product([d, a, b, c]) => {
                let b = names(b, of_b);
                let (d, a, c) = (names(d, 4), names(a, 2 * of_b), names(c, 4));
                format!("mma.sync.aligned.m16n8k{k}.row.col.f32.{ty}.{ty}.f32 {d}, {a}, {b}, {c};\n")
            }
            Step::Move(to, from) => format!("mov.b32 %r{to}, %r{from};\n"),
            Step::Load(to, from) => format!("ld.global.b32 %r{to}, [in+{}];\n", 4 * from),
        })
        .collect();
    let move_all = |what: &str| -> String {
        let one = |i: usize| what.replace("AT", &(4 * i).to_string()).replace("REG", &format!("%r{i}"));
        (0..REGISTERS).map(one).collect()
    };
    let text = format!(
        ".version 8.4\n.target sm_90a\n.address_size 64
        .visible .entry k(.param .u64 inp, .param .u64 outp) {{
        .reg .b32 %r<{REGISTERS}>; .reg .b32 t; .reg .b64 in, out, wide;
        ld.param.u64 in, [inp]; ld.param.u64 out, [outp]; mov.u32 t, %tid.x; mul.wide.u32 wide, t, {bytes};
        add.u64 in, in, wide; add.u64 out, out, wide;
        {loads}
        {body}
        {stores} ret; }}",
        bytes = 4 * REGISTERS,
        loads = move_all("ld.global.b32 REG, [in+AT];\n"),
        stores = move_all("st.global.b32 [out+AT], REG;\n"),
    );
    let mut registers: Vec<[u32; 32]> = (0..REGISTERS)
        .map(|i| {
            std::array::from_fn(|_| match i < SUMS {
                true => ((random.next() as i32 % 1000) as f32 / 64.0).to_bits(),
                false => kind.factor(random),
            })
        })
        .collect();
    let bytes = |registers: &[[u32; 32]]| -> Vec<u8> {
        (0..32).flat_map(|lane| registers.iter().flat_map(move |r| r[lane].to_le_bytes())).collect()
    };
    let inp = bytes(&registers);
    let first = registers.clone();
    for &step in sequence {
        let [d, a, b, c] = match step {
            Step::Product(registers) => registers,
            Step::Move(to, from) => {
                registers[to] = registers[from];
                continue;
            }
            Step::Load(to, from) => {
                registers[to] = first[from];
                continue;
            }
        };
        let per = kind.per_register();
        let mut sums = [[0f32; 8]; 16];
        for (row, sums) in sums.iter_mut().enumerate() {
            for (column, sum) in sums.iter_mut().enumerate() {
                *sum = f32::from_bits(registers[c + row / 8 * 2 + column % 2][row % 8 * 4 + column / 2]);
                for at in 0..k {
                    let (register, lane, part) = (at / (4 * per), at / per % 4, at % per);
                    let x = registers[a + 2 * register + row / 8][row % 8 * 4 + lane];
                    let y = registers[b + register][column * 4 + lane];
                    *sum = kind.element(x, part).mul_add(kind.element(y, part), *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            for (column, sum) in sums.iter().enumerate() {
                registers[d + row / 8 * 2 + column % 2][row % 8 * 4 + column / 2] = sum.to_bits();
            }
        }
    }
    let mut buffers = [inp.clone(), vec![0; inp.len()]];
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    let ran = run(&text, "k", shape, &mut buffers).unwrap_or_else(|error| panic!("{error}\n{body}"));
    let want = bytes(&registers);
    for (i, (got, want)) in buffers[1].chunks_exact(4).zip(want.chunks_exact(4)).enumerate() {
        let [got, want] = [got, want].map(|word| f32::from_le_bytes(word.try_into().unwrap()));
        let (register, lane) = (i % REGISTERS, i / REGISTERS);
        assert_eq!(
            got.to_bits(),
            want.to_bits(),
            "{ty} {k}: {got} for {want} in %r{register}, lane {lane}:\n{body}"
        );
    }
    // A GPU sums in its own order.
    drop(ran);
}

/// Sums of a grid, in an order that keeps that of each sum's steps.
fn grid(kind: Kind, [blocks, tiles, steps]: [usize; 3], random: &mut Random) -> Vec<Mma> {
    let (of_b, mut left) = (kind.of_b(), vec![0; blocks * tiles]);
    let mut all = Vec::new();
    while all.len() < blocks * tiles * steps {
        let tile = random.next() as usize % left.len();
        if left[tile] < steps {
            let (row, column, step) = (tile / tiles, tile % tiles, left[tile]);
            let a = SUMS + 2 * of_b * (step * blocks + row);
            let b = SUMS + 2 * of_b * steps * blocks + of_b * (step * tiles + column);
            all.push([4 * tile, a, b, 4 * tile]);
            left[tile] += 1;
        }
    }
    all
}

#[test]
fn grids() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let mut random = Random::new(77);
    for kind in KINDS {
        for shape in [[1, 1, 2], [1, 2, 1], [1, 5, 3], [2, 1, 2], [3, 3, 2], [4, 8, 1], [2, 7, 2], [5, 8, 1]]
        {
            let all = grid(kind, shape, &mut random);
            check(kind, &all, &mut random);
            // One that is missing, and one that is twice there: no grid.
            check(kind, &all[1..], &mut random);
            check(kind, &[&all[..], &all[..1]].concat(), &mut random);
        }
    }
}

/// One after the other, and in turn.
#[test]
fn two_grids() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let mut random = Random::new(80);
    for kind in KINDS {
        let first = grid(kind, [2, 3, 2], &mut random);
        let second: Vec<Mma> = grid(kind, [1, 4, 3], &mut random)
            .into_iter()
            .map(|[d, a, b, c]| [d + 64, a + 48, b + 48, c + 64])
            .collect();
        check(kind, &[&first[..], &second].concat(), &mut random);
        let in_turn: Vec<Mma> = first.iter().zip(&second).flat_map(|(&x, &y)| [x, y]).collect();
        assert_eq!(in_turn.len(), 24, "of as many products each");
        check(kind, &in_turn, &mut random);
    }
}

#[test]
fn runs_that_are_no_grids() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let mut random = Random::new(78);
    for round in 0..60 {
        let kind = KINDS[round % KINDS.len()];
        // Sums and factors that overlap in all ways, and sums that begin elsewhere.
        let mut any = |from: usize, count: usize| from + random.next() as usize % count;
        let mut all = Vec::new();
        for _ in 0..12 {
            let d = if round % 2 == 0 { 4 * any(0, 4) } else { any(0, 16) };
            let c = if any(0, 4) == 0 { any(0, 16) } else { d };
            all.push([d, any(SUMS, 24), any(SUMS, 24), c]);
        }
        check(kind, &all, &mut random);
    }
    // Factors that have just been summed.
    let kind = Kind { ty: "tf32", k: 8 };
    let all = [[0, 160, 170, 0], [4, 0, 170, 4], [8, 161, 2, 8], [0, 164, 172, 0], [12, 164, 172, 12]];
    check(kind, &all, &mut random);
}

#[test]
fn what_is_between() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let mut random = Random::new(79);
    for round in 0..60 {
        let kind = KINDS[round % KINDS.len()];
        let all = grid(kind, [2, 3, 2], &mut random);
        let mut any = |from: usize, count: usize| from + random.next() as usize % count;
        let mut steps = Vec::new();
        for product in all {
            steps.push(Step::Product(product));
            // Among sums and among factors, of registers that products use; in some rounds of those that none does.
            for _ in 0..any(0, 3) {
                let (first, count) = match any(0, 2) {
                    0 if round % 3 == 0 => (64, SUMS - 64),
                    0 => (0, SUMS),
                    _ if round % 3 == 0 => (SUMS + 64, REGISTERS - SUMS - 64),
                    _ => (SUMS, REGISTERS - SUMS),
                };
                let (to, from) = (any(first, count), any(first, count));
                steps.push(if any(0, 2) == 0 { Step::Move(to, from) } else { Step::Load(to, from) });
            }
        }
        check_steps(kind, &steps, &mut random);
    }
}
