//! `VCUDA_SUMS`: tensor-core sums with a GPU's bits, against the studies' algorithm done in another way,
//! [`reference`].

mod reference;

use crate::device::{Setup, Shape, TensorCore, run_with};
use crate::lanes::Random;
use crate::mma::{BF16, F16, F32, Kind, TF32, forms, kernel, offset, pack};
use reference::{Unit, reference, unit};

/// What the operands are like.
#[derive(Clone, Copy, Debug)]
enum Fill {
    /// About one, of both signs.
    Ones,
    /// About one, positive.
    Positive,
    /// Any bits at all.
    Any,
    /// Subnormals and zeros, and the least normal values.
    Tiny,
    /// Exponents far apart, so that most terms are cut.
    Spread,
    /// Each product has its negative beside it, but for the last places.
    Cancelling,
    /// The largest values.
    Huge,
}

const FILLS: [Fill; 7] =
    [Fill::Ones, Fill::Positive, Fill::Any, Fill::Tiny, Fill::Spread, Fill::Cancelling, Fill::Huge];

/// Element `i` along k of a row or column.
fn draw(kind: Kind, fill: Fill, random: &mut Random, i: usize, is_factor: bool) -> u64 {
    let Kind::Float { bits: width, exponent: e, mantissa: m } = kind else { unreachable!() };
    let r = random.next();
    let (bias, unused) = ((1u64 << (e - 1)) - 1, width - 1 - e - m);
    let (mut sign, mut fraction) = (r & 1, r >> 40 & ((1 << m) - 1));
    let field = match fill {
        Fill::Ones => bias - (r >> 1 & 3),
        Fill::Positive => {
            sign = 0;
            bias - (r >> 1 & 1)
        }
        Fill::Any => return (r >> 8) & ((1 << width) - 1),
        Fill::Tiny => [0, 0, 0, 1, bias / 2][(r >> 1) as usize % 5],
        Fill::Spread => bias / 2 + (r >> 1) % bias,
        Fill::Cancelling => {
            (sign, fraction) = (i as u64 & 1, if is_factor { fraction & 3 } else { fraction });
            bias
        }
        Fill::Huge => 2 * bias - (r >> 1) % 3,
    };
    if r >> 32 & 15 == 0 && matches!(fill, Fill::Tiny | Fill::Spread) {
        fraction = 0; // now and then a zero, or a power of two
    }
    // What the format does not use must not count.
    let noise = if unused > 0 { random.next() & ((1 << unused) - 1) } else { 0 };
    sign << (width - 1) | field << (width - 1 - e) | fraction << unused | noise
}

fn matrix(
    kind: Kind,
    fill: Fill,
    random: &mut Random,
    rows: usize,
    columns: usize,
    k_first: bool,
) -> Vec<u64> {
    (0..rows * columns)
        .map(|at| draw(kind, fill, random, if k_first { at / columns } else { at % columns }, kind != F32))
        .collect()
}

fn setup(sums: TensorCore) -> Setup {
    Setup { cluster: 1, sums: Some(sums), ..Setup::default() }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

fn row(a: &[u64], k: usize, row: usize) -> &[u64] {
    &a[row * k..][..k]
}

fn column(b: &[u64], columns: usize, column: usize) -> Vec<u64> {
    b.iter().skip(column).step_by(columns).copied().collect()
}

#[test]
fn of_mma() {
    for form in forms().into_iter().filter(|form| [F16, BF16, TF32].contains(&form.a.0)) {
        let ptx = kernel(&form);
        let (m, k, kinds) = (form.m, form.k, (form.a.0, form.c.0));
        for (core, fill) in
            [TensorCore::A100, TensorCore::H100].into_iter().flat_map(|core| FILLS.map(|fill| (core, fill)))
        {
            let mut random = Random::new(7);
            for _ in 0..4 {
                let a = matrix(kinds.0, fill, &mut random, m, k, false);
                let b = matrix(kinds.0, fill, &mut random, k, 8, true);
                let c = matrix(kinds.1, fill, &mut random, m, 8, false);
                let bytes = pack(form.c, 8, &c);
                let inp = [pack(form.a, k, &a), pack(form.b, 8, &b), bytes.clone()].concat();
                let mut buffers = [vec![0; bytes.len()], inp];
                let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
                run_with(&ptx, "k", shape, &setup(core), &mut buffers).unwrap();
                let each = kinds.1.bits() as usize / 8;
                for (lane, i) in (0..32).flat_map(|lane| (0..m * 8 / 32).map(move |i| (lane, i))) {
                    let (x, y) = form.c.1(i, lane / 4, lane % 4);
                    let found = word(&buffers[0][offset(kinds.1, lane, i)..][..each]);
                    let wanted = reference(
                        unit(core, kinds.0, kinds.1),
                        kinds,
                        row(&a, k, x),
                        &column(&b, 8, y),
                        c[x * 8 + y],
                    );
                    assert_eq!(
                        found, wanted,
                        "{} {} {core:?} {fill:?} ({x}, {y}): {found:#x}, not {wanted:#x}",
                        form.shape, form.types
                    );
                }
            }
        }
    }
}

/// 64 x 8 sums, A in registers, B by columns of 16-byte chunks.
#[test]
fn of_wgmma() {
    for (factor, name, sum) in
        [(F16, "f16", F32), (F16, "f16", F16), (BF16, "bf16", F32), (TF32, "tf32", F32)]
    {
        let (size, each) = (factor.bits() as usize / 8, sum.bits() as usize / 8);
        let (k, sums) = (32 / size, if sum == F16 { "f16" } else { "f32" });
        let d: Vec<String> = (0..each).map(|i| format!("d{i}")).collect();
        let load = |i: usize| format!("ld.global.b32 d{i}, [in+{}];", 4 * i);
        let store = |i: usize| format!("st.global.b32 [out+{}], d{i};", 4 * i);
        let (loads, stores): (String, String) =
            ((0..each).map(load).collect(), (0..each).map(store).collect());
        let major = if factor == TF32 { "" } else { ", 0" };
        let ptx = format!(
            ".version 8.4\n.target sm_90a\n.address_size 64
            .visible .entry k(.param .u64 image, .param .u64 inp, .param .u64 frag, .param .u64 outp) {{
            .reg .b32 d<4>, a<4>, t, to, v; .reg .b64 from, in, out, wide; .reg .pred p;
            .shared .align 1024 .b8 tile[512];
            ld.param.u64 from, [image]; ld.param.u64 in, [inp]; ld.param.u64 out, [outp];
            mov.u32 t, %tid.x; mov.u32 to, tile; mul.lo.u32 v, t, 4; add.u32 to, to, v; cvt.u64.u32 wide, v;
            add.u64 from, from, wide; ld.global.b32 v, [from]; st.shared.b32 [to], v; fence.proxy.async; bar.sync 0;
            mul.wide.u32 wide, t, {fragment}; add.u64 in, in, wide; add.u64 out, out, wide;
            ld.param.u64 from, [frag]; mul.wide.u32 wide, t, 16; add.u64 from, from, wide;
            ld.global.v4.b32 {{a0, a1, a2, a3}}, [from]; {loads} setp.eq.u32 p, 0, 0; mov.u64 wide, {descriptor};
            wgmma.fence.sync.aligned;
            wgmma.mma_async.sync.aligned.m64n8k{k}.{sums}.{name}.{name} {{{}}}, {{a0, a1, a2, a3}}, wide, p, 1, 1{major};
            wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
            {stores} ret; }}",
            d.join(", "),
            fragment = 4 * each,
            descriptor = (128u64 >> 4) << 16 | (256u64 >> 4) << 32,
        );
        let unit = Unit { zero: -133, ..unit(TensorCore::H100, factor, sum) };
        for fill in FILLS {
            let mut random = Random::new(8);
            let a = matrix(factor, fill, &mut random, 64, k, false);
            let b = matrix(factor, fill, &mut random, k, 8, true);
            let c = matrix(sum, fill, &mut random, 64, 8, false);
            let mut image = vec![0; 512];
            for (at, bits) in b.iter().enumerate() {
                let (x, y) = (at / 8, at % 8);
                let place = x / (16 / size) * 128 + y * 16 + x % (16 / size) * size;
                image[place..place + size].copy_from_slice(&bits.to_le_bytes()[..size]);
            }
            let place = |thread: usize, i: usize| {
                (thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8, thread % 4 * 2 + i % 2)
            };
            let (mut sums, mut fragments) = (Vec::new(), Vec::new());
            for thread in 0..128 {
                for i in 0..4 {
                    let (x, y) = place(thread, i);
                    sums.extend(&c[x * 8 + y].to_le_bytes()[..each]);
                    let (x, per) = (thread / 32 * 16 + thread % 32 / 4 + i % 2 * 8, 4 / size);
                    for part in 0..per {
                        let y = per * (thread % 4) + 4 * per * (i / 2) + part;
                        fragments.extend(&a[x * k + y].to_le_bytes()[..size]);
                    }
                }
            }
            let mut buffers = [image, sums.clone(), fragments, vec![0; sums.len()]];
            let shape = Shape { blocks: 1, threads: 128, shared_bytes: 0 };
            run_with(&ptx, "k", shape, &setup(TensorCore::H100), &mut buffers).unwrap();
            for (thread, i) in (0..128).flat_map(|thread| (0..4).map(move |i| (thread, i))) {
                let (x, y) = place(thread, i);
                let found = word(&buffers[3][(4 * thread + i) * each..][..each]);
                let wanted = reference(unit, (factor, sum), row(&a, k, x), &column(&b, 8, y), c[x * 8 + y]);
                assert_eq!(found, wanted, "{name} {fill:?} ({x}, {y}): {found:#x}, not {wanted:#x}");
            }
            let refused = run_with(&ptx, "k", shape, &setup(TensorCore::A100), &mut buffers).unwrap_err();
            assert!(refused.contains("an A100, whose sums are asked for, has no wgmma"), "{refused}");
        }
    }
}

#[test]
fn of_wmma() {
    for (factor, name, sum) in
        [(F16, "f16", F32), (F16, "f16", F16), (BF16, "bf16", F32), (TF32, "tf32", F32)]
    {
        let (size, each) = (factor.bits() as usize / 8, sum.bits() as usize / 8);
        let (k, sums) = (32 / size, if sum == F16 { "f16" } else { "f32" });
        let list = |name: &str, count: usize| {
            (0..count).map(|i| format!("{name}{i}")).collect::<Vec<_>>().join(", ")
        };
        let (factors, results) = (if factor == F16 { 8 } else { 4 }, if sum == F16 { 4 } else { 8 });
        let (a, b, c) = (list("a", factors), list("b", factors), list("c", results));
        let types = if factor == F16 { format!("{sums}.{sums}") } else { format!("f32.{name}.{name}.f32") };
        let ptx = |types: &str| {
            format!(
                ".version 8.4\n.target sm_80\n.address_size 64
                .visible .entry k(.param .u64 ap, .param .u64 bp, .param .u64 cp, .param .u64 dp) {{
                .reg .b32 a<8>, b<8>, c<8>; .reg .b64 at;
                ld.param.u64 at, [ap]; wmma.load.a.sync.aligned.row.m16n16k{k}.{name} {{{a}}}, [at];
                ld.param.u64 at, [bp]; wmma.load.b.sync.aligned.row.m16n16k{k}.{name} {{{b}}}, [at];
                ld.param.u64 at, [cp]; wmma.load.c.sync.aligned.row.m16n16k{k}.{sums} {{{c}}}, [at];
                wmma.mma.sync.aligned.row.row.m16n16k{k}.{types} {{{c}}}, {{{a}}}, {{{b}}}, {{{c}}};
                ld.param.u64 at, [dp]; wmma.store.d.sync.aligned.row.m16n16k{k}.{sums} [at], {{{c}}};
                ret; }}"
            )
        };
        let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
        for (core, fill) in
            [TensorCore::A100, TensorCore::H100].into_iter().flat_map(|core| FILLS.map(|fill| (core, fill)))
        {
            let mut random = Random::new(9);
            let a = matrix(factor, fill, &mut random, 16, k, false);
            let b = matrix(factor, fill, &mut random, k, 16, true);
            let c = matrix(sum, fill, &mut random, 16, 16, false);
            let bytes = |bits: &[u64], size: usize| {
                bits.iter().flat_map(|bits| bits.to_le_bytes()[..size].to_vec()).collect()
            };
            let mut buffers = [bytes(&a, size), bytes(&b, size), bytes(&c, each), vec![0; 256 * each]];
            run_with(&ptx(&types), "k", shape, &setup(core), &mut buffers).unwrap();
            for (x, y) in (0..16).flat_map(|x| (0..16).map(move |y| (x, y))) {
                let found = word(&buffers[3][(16 * x + y) * each..][..each]);
                let wanted = reference(
                    unit(core, factor, sum),
                    (factor, sum),
                    row(&a, k, x),
                    &column(&b, 16, y),
                    c[x * 16 + y],
                );
                assert_eq!(found, wanted, "{name} {core:?} {fill:?} ({x}, {y}): {found:#x}, not {wanted:#x}");
            }
        }
    }
}

/// What no study has looked at.
#[test]
fn of_two_types_are_refused() {
    let ptx = ".version 8.4\n.target sm_80\n.address_size 64
        .visible .entry k(.param .u64 out) { .reg .b32 a<8>, c<8>;
        wmma.mma.sync.aligned.row.row.m16n16k16.f32.f16
        {c0, c1, c2, c3, c4, c5, c6, c7}, {a0, a1, a2, a3, a4, a5, a6, a7}, {a0, a1, a2, a3, a4, a5, a6, a7}, {a0, a1, a2, a3};
        ret; }";
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    let refused = run_with(ptx, "k", shape, &setup(TensorCore::H100), &mut [vec![0; 16]]).unwrap_err();
    assert!(refused.contains("nothing is known of sums whose C and D are of two types"), "{refused}");
}

/// A sum of 3072 positive products, cut 192 times, or 384 times: it is 2e-5 too small on an H100 and 3e-5 on an A100, where
/// float32 that is rounded to nearest is off by less than a tenth of that.
#[test]
fn of_positive_numbers_shrink() {
    const K: usize = 3072;
    let form = forms().into_iter().find(|form| form.types == "f32.f16.f16.f32" && form.k == 16).unwrap();
    let ptx = kernel(&form);
    let shrunk = |sums: Option<TensorCore>| {
        let mut random = Random::new(11);
        let mut truth = vec![0.0; 128];
        let mut sums_bytes = vec![0; 512];
        for _ in 0..K / 16 {
            let a = matrix(F16, Fill::Positive, &mut random, 16, 16, false);
            let b = matrix(F16, Fill::Positive, &mut random, 16, 8, true);
            let value = |bits: u64| half::f16::from_bits(bits as u16).to_f64();
            for (x, y) in (0..16).flat_map(|x| (0..8).map(move |y| (x, y))) {
                truth[x * 8 + y] += (0..16).map(|i| value(a[x * 16 + i]) * value(b[i * 8 + y])).sum::<f64>();
            }
            let inp = [pack(form.a, 16, &a), pack(form.b, 8, &b), sums_bytes].concat();
            let mut buffers = [vec![0; 512], inp];
            let setup = Setup { cluster: 1, sums, ..Setup::default() };
            let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
            run_with(&ptx, "k", shape, &setup, &mut buffers).unwrap();
            sums_bytes = std::mem::take(&mut buffers[0]);
        }
        let mut errors = 0.0;
        for (lane, i) in (0..32).flat_map(|lane| (0..4).map(move |i| (lane, i))) {
            let (x, y) = form.c.1(i, lane / 4, lane % 4);
            let found = f32::from_bits(word(&sums_bytes[offset(F32, lane, i)..][..4]) as u32);
            errors += (f64::from(found) / truth[x * 8 + y] - 1.0) / 128.0;
        }
        errors
    };
    let [ieee, a100, h100] = [None, Some(TensorCore::A100), Some(TensorCore::H100)].map(shrunk);
    assert!(ieee.abs() < 1e-6, "{ieee:e}");
    assert!((-2.5e-5..-1.2e-5).contains(&h100), "{h100:e}");
    assert!((-4.5e-5..-2.5e-5).contains(&a100), "{a100:e}, {h100:e}");
}
