//! `wmma`: products of matrices in memory, in every layout, against sums in 64-bit integers and float64, PTX ISA
//! 9.7.14.4. Nothing is supposed of which lane has which element.

use crate::device::{Setup, Shape, fault, run};
use crate::files::{Expected, bounds};
use crate::lanes::{HEADER, Random};

/// A product's types, and the registers of A, B, C and D.
#[derive(Clone, Copy, Debug)]
struct Form {
    shape: [usize; 3],
    factor: &'static str,
    c: &'static str,
    d: &'static str,
    registers: [usize; 4],
}

const SHAPES: [[usize; 3]; 3] = [[16, 16, 16], [8, 32, 16], [32, 8, 16]];

fn forms() -> Vec<Form> {
    let mut all = Vec::new();
    for shape in SHAPES {
        for (c, d) in [("f32", "f32"), ("f32", "f16"), ("f16", "f32"), ("f16", "f16")] {
            let sums = |ty| if ty == "f32" { 8 } else { 4 };
            all.push(Form { shape, factor: "f16", c, d, registers: [8, 8, sums(c), sums(d)] });
        }
        let [m, n, _] = shape;
        all.push(Form { shape, factor: "bf16", c: "f32", d: "f32", registers: [m / 4, n / 4, 8, 8] });
    }
    all.push(Form { shape: [16, 16, 8], factor: "tf32", c: "f32", d: "f32", registers: [4, 4, 8, 8] });
    all
}

fn size(ty: &str) -> usize {
    if matches!(ty, "f16" | "bf16") { 2 } else { 4 }
}

/// The bits of a value that every type here has.
fn encode(ty: &str, value: f64) -> u32 {
    match ty {
        "f16" => half::f16::from_f64(value).to_bits().into(),
        "bf16" => half::bf16::from_f64(value).to_bits().into(),
        _ => (value as f32).to_bits(),
    }
}

fn decode(ty: &str, bits: u32) -> f64 {
    match ty {
        "f16" => half::f16::from_bits(bits as u16).to_f64(),
        _ => f32::from_bits(bits).into(),
    }
}

/// Where element (row, column) is in memory of this layout and stride.
fn at(layout: &str, stride: usize, row: usize, column: usize) -> usize {
    if layout == "row" { row * stride + column } else { column * stride + row }
}

/// Loads A, B and C of `space`, multiplies, and stores D to global memory; strides as given, or none.
fn kernel(form: &Form, layouts: [&str; 4], strides: [Option<usize>; 4], space: &str) -> String {
    let Form { shape: [m, n, k], factor, c, d, registers } = form;
    let shape = format!("m{m}n{n}k{k}");
    let list = |name: &str, count: usize| {
        format!("{{{}}}", (0..count).map(|i| format!("%{name}{i}")).collect::<Vec<_>>().join(", "))
    };
    let stride = |i: usize| strides[i].map_or(String::new(), |stride| format!(", {stride}"));
    let types = if *factor == "f16" { format!("{d}.{c}") } else { format!("{d}.{factor}.{factor}.{c}") };
    let [la, lb, lc, ld] = layouts;
    let [ra, rb, rc, rd] = *registers;
    let (a, b, cs, ds) = (list("a", ra), list("b", rb), list("c", rc), list("d", rd));
    let dot = if space.is_empty() { String::new() } else { format!(".{space}") };
    // Shared memory gets a copy of A, B and C, of 16 KiB each.
    let copy = match space {
        "shared" => "mov.u32 %t, %tid.x; mul.wide.u32 %x, %t, 4; mov.u64 %y, tile; add.u64 %y, %y, %x;
            add.u64 %x, %x, %in0; copy: ld.global.u32 %v, [%x]; st.shared.u32 [%y], %v; add.u64 %x, %x, 128;
            add.u64 %y, %y, 128; add.u32 %t, %t, 32; setp.lt.u32 %p, %t, 3072; @%p bra copy; bar.sync 0; mov.u64 %in0, tile;",
        _ => "",
    };
    format!(
        "{HEADER}.visible .entry k(.param .u64 out, .param .u64 inp) {{
.reg .b32 %a<8>, %b<8>, %c<8>, %d<8>, %t, %v; .reg .b64 %in0, %in1, %in2, %out, %x, %y; .reg .pred %p;
.shared .align 128 .b8 tile[12288];
ld.param.u64 %in0, [inp]; ld.param.u64 %out, [out]; {copy}
add.u64 %in1, %in0, 4096; add.u64 %in2, %in0, 8192;
wmma.load.a.sync.aligned.{la}.{shape}{dot}.{factor} {a}, [%in0]{};
wmma.load.b.sync.aligned.{lb}.{shape}{dot}.{factor} {b}, [%in1]{};
wmma.load.c.sync.aligned.{lc}.{shape}{dot}.{c} {cs}, [%in2]{};
wmma.mma.sync.aligned.{la}.{lb}.{shape}.{types} {ds}, {a}, {b}, {cs};
wmma.store.d.sync.aligned.{ld}.{shape}.global.{d} [%out], {ds}{};
ret; }}
",
        stride(0),
        stride(1),
        stride(2),
        stride(3)
    )
}

fn check(form: &Form, layouts: [&str; 4], padding: Option<usize>, space: &str, exact: bool, seed: u64) {
    let [m, n, k] = form.shape;
    let mut random = Random::new(seed);
    // Small integers whose sums every type holds, or values of about one with as many bits as tf32 and bf16 have.
    let mut draw = || match exact {
        true => (random.next() % 7) as f64 - 3.0,
        false => (random.next() % 255) as f64 / 128.0 - 1.0,
    };
    let dims = [(m, k), (k, n), (m, n), (m, n)];
    let types = [form.factor, form.factor, form.c, form.d];
    let strides: [usize; 4] = std::array::from_fn(|i| {
        let (rows, columns) = dims[i];
        (if layouts[i] == "row" { columns } else { rows }) + padding.unwrap_or(0)
    });
    let mut inp = vec![0xffu8; 12288]; // NaNs wherever nothing should be read
    let mut values: [Vec<f64>; 3] = Default::default();
    for i in 0..3 {
        let (rows, columns) = dims[i];
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            let value = draw();
            let bytes = encode(types[i], value).to_le_bytes();
            let place = 4096 * i + at(layouts[i], strides[i], row, column) * size(types[i]);
            inp[place..place + size(types[i])].copy_from_slice(&bytes[..size(types[i])]);
            values[i].push(value);
        }
    }
    let bytes = size(form.d);
    let mut buffers = [vec![0; 4096], inp];
    let given = strides.map(|stride| padding.map(|_| stride));
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    let ran = run(&kernel(form, layouts, given, space), "k", shape, &mut buffers)
        .unwrap_or_else(|error| panic!("{form:?} {layouts:?}: {error}"));
    let mut accepted: Vec<(u64, u64)> = vec![(0, 0); 4096 / bytes];
    let mut is_written = vec![false; 4096 / bytes];
    for (row, column) in (0..m).flat_map(|row| (0..n).map(move |column| (row, column))) {
        let place = at(layouts[3], strides[3], row, column);
        let mut word = [0; 4];
        word[..bytes].copy_from_slice(&buffers[0][place * bytes..][..bytes]);
        let bits = u32::from_le_bytes(word);
        let terms = (0..k).map(|i| values[0][row * k + i] * values[1][i * n + column]);
        let c = values[2][row * n + column];
        let (wanted, size) = terms.fold((c, c.abs()), |(sum, size), x| (sum + x, size + x.abs()));
        // Each addition rounds once, in float32 at least, and the result once more to its type.
        let sums = (k + 1) as f64 * 2f64.powi(-24) * size;
        let last = if form.d == "f16" { 2f64.powi(-11) * (wanted.abs() + sums) } else { 0.0 };
        let bound = if exact { 0.0 } else { sums + last };
        let is_near = |bits: u64| (decode(form.d, bits as u32) - wanted).abs() <= bound;
        assert!(is_near(bits.into()), "{form:?} {layouts:?} ({row}, {column}): {bits:#x} for {wanted}");
        is_written[place] = true;
        accepted[place] = bounds(form.d, bits.into(), is_near);
    }
    for (place, _) in is_written.iter().enumerate().filter(|(_, written)| !**written) {
        assert!(buffers[0][place * bytes..][..bytes].iter().all(|&byte| byte == 0), "{form:?}: padding");
    }
    ran.keep(&[(0, Expected::between(form.d, accepted.into_iter()))]);
}

#[test]
fn products_in_every_layout() {
    for (i, form) in forms().iter().enumerate() {
        for bits in 0..16 {
            let layout = |bit: usize| if bits >> bit & 1 == 0 { "row" } else { "col" };
            let layouts = std::array::from_fn(layout);
            // The leading dimension is a multiple of 16 bytes.
            let padding = [None, Some(0), Some(8), Some(16)][(i + bits) % 4];
            let space = ["global", "shared", ""][(i + bits) % 3];
            check(form, layouts, padding, space, true, (16 * i + bits) as u64 + 1);
        }
        check(form, ["row", "col", "row", "row"], Some(8), "shared", false, 1000 + i as u64);
    }
}

/// Every lane's registers are elements of the matrix, each as often as any other: what is done to all of them is done
/// to the matrix.
#[test]
fn elements_can_be_worked_on_in_registers() {
    let text = format!(
        "{HEADER}.visible .entry k(.param .u64 out, .param .u64 inp) {{
.reg .b32 %a<8>; .reg .f32 %c<8>; .reg .b64 %in0, %out;
ld.param.u64 %in0, [inp]; ld.param.u64 %out, [out];
wmma.load.c.sync.aligned.row.m16n16k16.global.f32 {{%c0, %c1, %c2, %c3, %c4, %c5, %c6, %c7}}, [%in0];
{}
wmma.store.d.sync.aligned.col.m16n16k16.global.f32 [%out], {{%c0, %c1, %c2, %c3, %c4, %c5, %c6, %c7}};
ret; }}
",
        (0..8).map(|i| format!("fma.rn.f32 %c{i}, %c{i}, 0f40000000, 0f3F800000;")).collect::<String>()
    );
    let inp = (0..256).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let mut buffers = [vec![0; 1024], inp];
    let ran = run(&text, "k", Shape { blocks: 1, threads: 32, shared_bytes: 0 }, &mut buffers).unwrap();
    for (i, word) in buffers[0].chunks_exact(4).enumerate() {
        let found = f32::from_le_bytes(word.try_into().unwrap());
        assert_eq!(found, (2 * (i % 16 * 16 + i / 16) + 1) as f32, "element {i}");
    }
    ran.keep_exactly(&[(0, &buffers[0])]);
}

#[test]
fn what_cannot_be_is_refused() {
    let load = "wmma.load.a.sync.aligned.row";
    for (instruction, wanted) in [
        (format!("{load}.m16n16k8.f16 {{%a0, %a1, %a2, %a3}}, [%in0];"), "no such form"),
        (format!("{load}.m16n16k16.bf16 {{%a0, %a1}}, [%in0];"), "2 registers; 4 are expected"),
        (format!("{load}.m16n8k16.f16 {{%a0, %a1, %a2, %a3}}, [%in0];"), "no such form"),
        (format!("{load}.m16n16k16.f64 {{%a0}}, [%in0];"), "not supported here"),
        (format!("{load}.m16n16k16.bf16 {{%a0, %a1, %a2, %a3}}, [%in0+1];"), "misaligned"),
        (format!("{load}.m16n16k16.bf16 {{%a0, %a1, %a2, %a3}}, [%in0], 4096;"), "a global access of 2 bytes"),
        ("setp.eq.u32 %p, %t, 3; @%p wmma.load.a.sync.aligned.row.m16n16k16.bf16 {%a0, %a1, %a2, %a3}, [%in0];".to_string(),
         "of the whole warp"),
    ] {
        let text = format!(
            "{HEADER}.visible .entry k(.param .u64 out) {{ .reg .b32 %a<8>, %t; .reg .b64 %in0; .reg .pred %p;
             ld.param.u64 %in0, [out]; mov.u32 %t, %tid.x;\n{instruction}\nret; }}"
        );
        let (setup, shape) =
            (Setup { cluster: 1, ..Setup::default() }, Shape { blocks: 1, threads: 32, shared_bytes: 0 });
        let Some(found) = fault(&text, "k", shape, &setup, &mut [vec![0; 1024]]) else { return };
        assert!(found.contains(wanted) && found.contains("line 6"), "{instruction}: {found}");
    }
}
