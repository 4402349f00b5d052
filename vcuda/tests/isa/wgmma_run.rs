//! Runs of `wgmma`, which may be computed as one product: each sum must be what the instructions one after another make of
//! it, to the bit. The registers are played through here one at a time.

use crate::device::{Checks, Setup, Shape, run_with};
use crate::lanes::Random;

/// Of each product.
const N: usize = 16;
const K: usize = 16;
/// Matrices in shared memory, which begin here: those of A, then those of B, without a swizzle.
const MATRICES: usize = 8;
const A_BYTES: usize = 64 * K * 2;
const B_BYTES: usize = N * K * 2;
const BYTES: usize = MATRICES * (A_BYTES + B_BYTES);
/// Threads of a warpgroup, and warpgroups, which have the same instructions.
const GROUP: usize = 128;
const GROUPS: usize = 2;
/// Registers of sums that a thread has, and those of a product.
const REGISTERS: usize = 40;
const SUMS: usize = N / 2;

/// The first register of D, the numbers of A and B for each warpgroup, and whether it adds to D.
#[derive(Clone, Copy, Debug)]
struct Wgmma {
    d: usize,
    a: [usize; GROUPS],
    b: [usize; GROUPS],
    accumulates: bool,
}

fn a_at(number: usize, row: usize, k: usize) -> usize {
    number * A_BYTES + row / 8 * 256 + k / 8 * 128 + row % 8 * 16 + k % 8 * 2
}

fn b_at(number: usize, column: usize, k: usize) -> usize {
    MATRICES * A_BYTES + number * B_BYTES + column / 8 * 256 + k / 8 * 128 + column % 8 * 16 + k % 8 * 2
}

fn element(image: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([image[at], image[at + 1]]).to_f32()
}

fn kernel(run: &[Wgmma]) -> String {
    let each = |form: &dyn Fn(usize) -> String| (0..REGISTERS).map(form).collect::<String>();
    let descriptor = |at: usize| (at as u64 >> 4) | 128 >> 4 << 16 | 256 >> 4 << 32;
    let products = run.iter().map(|&Wgmma { d, a, b, accumulates }| {
        let sums: Vec<String> = (d..d + SUMS).map(|i| format!("%r{i}")).collect();
        format!(
            "selp.b64 a, {}, {}, first; selp.b64 b, {}, {}, first;
            wgmma.mma_async.sync.aligned.m64n{N}k{K}.f32.f16.f16 {{{}}}, a, b, {}, 1, 1, 0, 0;\n",
            descriptor(a_at(a[0], 0, 0)),
            descriptor(a_at(a[1], 0, 0)),
            descriptor(b_at(b[0], 0, 0)),
            descriptor(b_at(b[1], 0, 0)),
            sums.join(", "),
            if accumulates { "yes" } else { "no" },
        )
    });
    format!(
        ".version 8.4\n.target sm_90a\n.address_size 64
        .visible .entry k(.param .u64 image, .param .u64 inp, .param .u64 outp) {{
        .reg .b32 %r<{REGISTERS}>; .reg .b32 t, to, v; .reg .b64 from, in, out, wide, a, b; .reg .pred yes, no, more, first;
        .shared .align 1024 .b8 tile[{BYTES}];
        ld.param.u64 from, [image]; ld.param.u64 in, [inp]; ld.param.u64 out, [outp];
        mov.u32 t, %tid.x; mov.u32 to, tile; mul.lo.u32 v, t, 4; add.u32 to, to, v; cvt.u64.u32 wide, v; add.u64 from, from, wide;
        mov.u32 t, {rounds};
        COPY: ld.global.b32 v, [from]; st.shared.b32 [to], v; add.u64 from, from, {stride}; add.u32 to, to, {stride};
        sub.u32 t, t, 1; setp.ne.u32 more, t, 0; @more bra COPY;
        fence.proxy.async; bar.sync 0; setp.eq.u32 yes, t, 0; setp.ne.u32 no, t, 0;
        mov.u32 t, %tid.x; setp.lt.u32 first, t, {GROUP}; mul.wide.u32 wide, t, {bytes}; add.u64 in, in, wide; add.u64 out, out, wide;
        {loads}
        wgmma.fence.sync.aligned;
        {products}
        wgmma.commit_group.sync.aligned;
        wgmma.wait_group.sync.aligned 0;
        {stores} ret; }}",
        stride = 4 * GROUP * GROUPS,
        rounds = BYTES / (4 * GROUP * GROUPS),
        bytes = 4 * REGISTERS,
        loads = each(&|i| format!("ld.global.b32 %r{i}, [in+{}]; ", 4 * i)),
        products = products.collect::<String>(),
        stores = each(&|i| format!("st.global.b32 [out+{}], %r{i}; ", 4 * i)),
    )
}

/// What the instructions leave, one after the other, in a thread's registers.
fn play(run: &[Wgmma], image: &[u8], thread: usize, registers: &mut [f32]) {
    let group = thread / GROUP;
    for &Wgmma { d, a, b, accumulates } in run {
        for i in 0..SUMS {
            let row = thread % GROUP / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8;
            let column = i / 4 * 8 + thread % 4 * 2 + i % 2;
            let sum = &mut registers[d + i];
            let before = if accumulates { *sum } else { 0.0 };
            let factors = (0..K)
                .map(|k| (element(image, a_at(a[group], row, k)), element(image, b_at(b[group], column, k))));
            *sum = factors.fold(before, |sum, (a, b)| a.mul_add(b, sum));
        }
    }
}

/// So many sums, each of so many products by the same B, some of one before those of another; and what may be wrong with it.
fn draw(random: &mut Random) -> Vec<Wgmma> {
    let mut below = |end: usize| random.next() as usize % end;
    let (siblings, steps, at_once) = (1 + below(REGISTERS / SUMS), 1 + below(10), 1 + below(4));
    let factors: Vec<usize> = (0..steps).map(|_| below(MATRICES)).collect();
    let begins = below(2) == 0;
    let mut run = Vec::new();
    for (part, factors) in factors.chunks(at_once).enumerate() {
        for sibling in 0..siblings {
            run.extend(factors.iter().enumerate().map(|(i, &b)| Wgmma {
                d: sibling * SUMS,
                a: [below(MATRICES), below(MATRICES)],
                b: [b; GROUPS],
                accumulates: !begins || part + i > 0,
            }));
        }
    }
    let odd = below(run.len());
    match below(7) {
        0 => run[odd].b = [below(MATRICES); GROUPS],
        4 => run[odd].b[1] = below(MATRICES),
        1 => run[odd].accumulates ^= true,
        2 => run[odd].d = below(REGISTERS - SUMS),
        3 => drop(run.remove(odd)),
        _ => {}
    }
    run
}

#[test]
fn each_sum_is_that_of_its_products_in_order() {
    for seed in 0..80 {
        let mut random = Random::new(seed);
        let run = draw(&mut random);
        let mut value = || (random.next() as i32 % 4096) as f32 / 1024.0;
        let image: Vec<u8> =
            (0..BYTES / 2).flat_map(|_| half::f16::from_f32(value()).to_le_bytes()).collect();
        let before: Vec<f32> = (0..GROUP * GROUPS * REGISTERS).map(|_| value()).collect();
        let mut want = before.clone();
        for (thread, registers) in want.chunks_exact_mut(REGISTERS).enumerate() {
            play(&run, &image, thread, registers);
        }
        let inp: Vec<u8> = before.iter().flat_map(|x| x.to_le_bytes()).collect();
        let shape = Shape { blocks: 1, threads: (GROUP * GROUPS) as u32, shared_bytes: 0 };
        for asynchrony in [false, true] {
            let checks = Checks { asynchrony, ..Checks::default() };
            let setup = Setup { cluster: 1, checks, ..Setup::default() };
            let mut buffers = [image.clone(), inp.clone(), vec![0; inp.len()]];
            run_with(&kernel(&run), "k", shape, &setup, &mut buffers)
                .unwrap_or_else(|error| panic!("{seed} {run:?}: {error}"));
            for (i, (got, want)) in buffers[2].chunks_exact(4).zip(&want).enumerate() {
                assert_eq!(got, want.to_le_bytes(), "{seed}, asynchrony {asynchrony}: word {i} of {run:?}");
            }
        }
    }
}
