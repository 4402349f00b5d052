//! `wgmma`, PTX ISA 9.7.15: shared memory is laid out here element by element after the ISA's canonical layouts, and
//! sums of small integers are exact in every order. Every case runs at once and with the adversary.

use crate::device::{Checks, Setup, Shape, fault, run_with};
use crate::lanes::Random;

/// A matrix operand in shared memory.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// The span in bytes: 0 none, 32, 64, 128.
    swizzle: usize,
    /// The contiguous dimension is M or N, not K.
    transposed: bool,
    /// Of the start, from a multiple of 1,024 bytes.
    start: usize,
    lead: usize,
    stride: usize,
}

impl Layout {
    /// Dense, for `mn` rows (or columns) and `k_bytes` along K, elements of `size` bytes.
    fn dense(swizzle: usize, transposed: bool, mn: usize, start: usize) -> Layout {
        let (lead, stride) = match (swizzle, transposed) {
            // 8 x 16-byte cores: along K side by side, then along M or N.
            (0, false) => (128, 256),
            // The same, along M or N first.
            (0, true) => (128 * (mn / 8), 128),
            // Eight rows of the span, one group after another; the lead is not used.
            (span, false) => (16, 8 * span),
            // Atoms of the span along M or N, each of eight rows of K; then the next eight.
            (span, true) => (8 * span, 8 * span * mn.div_ceil(span / 2)),
        };
        Layout { swizzle, transposed, start, lead, stride }
    }

    /// The byte that element `(mn, k)` of `size` bytes begins at.
    fn at(&self, mn: usize, k: usize, size: usize) -> usize {
        let per_chunk = 16 / size;
        let offset = match (self.swizzle, self.transposed) {
            (0, false) => {
                mn / 8 * self.stride + k / per_chunk * self.lead + mn % 8 * 16 + k % per_chunk * size
            }
            (0, true) => mn / 8 * self.stride + k / 8 * self.lead + k % 8 * 16 + mn % 8 * size,
            (span, false) => mn / 8 * self.stride + mn % 8 * span + k * size,
            (span, true) => {
                let wide = span / size;
                mn / wide * self.lead + k / 8 * self.stride + k % 8 * span + mn % wide * size
            }
        };
        // Swizzle<log2(span / 16), 4, 3>: address bits 4 and up are combined with those from 7 on.
        let address = self.start + offset;
        let mask = match self.swizzle {
            0 => 0,
            span => span / 16 - 1,
        };
        address ^ (address >> 7 & mask) << 4
    }

    fn descriptor(&self) -> u64 {
        let mode = match self.swizzle {
            0 => 0u64,
            32 => 3,
            64 => 2,
            _ => 1,
        };
        (self.start as u64 >> 4)
            | (self.lead as u64 >> 4) << 16
            | (self.stride as u64 >> 4) << 32
            | mode << 62
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    /// Type of A and B, and of D.
    ty: &'static str,
    sums: &'static str,
    /// `None`: in registers.
    a: Option<(usize, bool)>,
    b: (usize, bool),
    negated: [bool; 2],
    accumulate: bool,
}

/// Shared memory: A, then B.
const A_BYTES: usize = 8 * 1024;
const BYTES: usize = 48 * 1024;

impl Case {
    fn size(&self) -> usize {
        if self.ty == "tf32" { 4 } else { 2 }
    }

    fn k(&self) -> usize {
        32 / self.size()
    }

    fn encode(&self, value: i64) -> u32 {
        match self.ty {
            "f16" => half::f16::from_f64(value as f64).to_bits().into(),
            "bf16" => half::bf16::from_f64(value as f64).to_bits().into(),
            _ => (value as f32).to_bits() | 0x155,
        }
    }

    fn kernel(&self, descriptors: [u64; 2]) -> String {
        let (n, half) = (self.n, self.sums == "f16");
        let registers = if half { n / 4 } else { n / 2 };
        let d: Vec<String> = (0..registers).map(|i| format!("%r{i}")).collect();
        let a = match self.a {
            Some(_) => "a".to_string(),
            None => "{%a0, %a1, %a2, %a3}".to_string(),
        };
        let sign = |negated: bool| if negated { -1 } else { 1 };
        let mut last = format!("p, {}, {}", sign(self.negated[0]), sign(self.negated[1]));
        if self.ty != "tf32" {
            if let Some((_, transposed)) = self.a {
                last += &format!(", {}", transposed as i32);
            }
            last += &format!(", {}", self.b.1 as i32);
        }
        let loads: String =
            d.iter().enumerate().map(|(i, d)| format!("ld.global.b32 {d}, [in+{}];", 4 * i)).collect();
        let stores: String =
            d.iter().enumerate().map(|(i, d)| format!("st.global.b32 [out+{}], {d};", 4 * i)).collect();
        format!(
            ".version 8.4\n.target sm_90a\n.address_size 64
            .visible .entry k(.param .u64 image, .param .u64 inp, .param .u64 frag, .param .u64 outp) {{
            .reg .b32 %r<128>; .reg .b32 %a<4>; .reg .b32 t, to, v; .reg .b64 from, in, out, wide, a, b; .reg .pred p, more;
            .shared .align 1024 .b8 tile[{bytes}];
            ld.param.u64 from, [image]; ld.param.u64 in, [inp]; ld.param.u64 out, [outp];
            mov.u32 t, %tid.x; mov.u32 to, tile; mul.lo.u32 v, t, 4; add.u32 to, to, v; cvt.u64.u32 wide, v; add.u64 from, from, wide;
            mov.u32 t, {rounds};
            COPY: ld.global.b32 v, [from]; st.shared.b32 [to], v; add.u64 from, from, 512; add.u32 to, to, 512;
            sub.u32 t, t, 1; setp.ne.u32 more, t, 0; @more bra COPY;
            fence.proxy.async; bar.sync 0;
            mov.u32 t, %tid.x; mul.wide.u32 wide, t, {fragment}; add.u64 in, in, wide; add.u64 out, out, wide;
            ld.param.u64 from, [frag]; mul.wide.u32 wide, t, 16; add.u64 from, from, wide; ld.global.v4.b32 {{%a0, %a1, %a2, %a3}}, [from];
            {loads}
            mov.u32 v, {accumulate}; setp.ne.u32 p, v, 0; mov.u64 a, {a_bits}; mov.u64 b, {b_bits};
            wgmma.fence.sync.aligned;
            wgmma.mma_async.sync.aligned.m64n{n}k{k}.{sums}.{ty}.{ty} {{{d}}}, {a}, b, {last};
            wgmma.commit_group.sync.aligned;
            wgmma.wait_group.sync.aligned 0;
            {stores} ret; }}",
            bytes = BYTES,
            rounds = BYTES / 512,
            fragment = 4 * registers,
            accumulate = self.accumulate as u32,
            a_bits = descriptors[0],
            b_bits = descriptors[1],
            k = self.k(),
            sums = self.sums,
            ty = self.ty,
            d = d.join(", "),
        )
    }

    fn check(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut small = || random.next() as i64 % 6;
        let (n, k, size) = (self.n, self.k(), self.size());
        let a: Vec<i64> = (0..64 * k).map(|_| small()).collect();
        let b: Vec<i64> = (0..n * k).map(|_| small()).collect();
        let c: Vec<i64> = (0..64 * n).map(|_| small()).collect();
        let (a_swizzle, a_transposed) = self.a.unwrap_or((0, false));
        let a_layout = Layout::dense(a_swizzle, a_transposed, 64, 0);
        let b_layout = Layout::dense(self.b.0, self.b.1, n, A_BYTES);

        let mut image = vec![0xffu8; BYTES]; // NaNs wherever nothing should be read
        let mut put = |layout: Layout, mn: usize, at: usize, value: i64| {
            let at = layout.at(mn, at, size);
            image[at..at + size].copy_from_slice(&self.encode(value).to_le_bytes()[..size]);
        };
        (0..64 * k).for_each(|i| put(a_layout, i / k, i % k, a[i]));
        (0..n * k).for_each(|i| put(b_layout, i / k, i % k, b[i]));

        // Fragments: row and column of element `i` of a thread's sums, and of its part of A.
        let sum_at = |thread: usize, i: usize| {
            let row = thread / 32 * 16 + thread % 32 / 4 + i % 4 / 2 * 8;
            (row, i / 4 * 8 + thread % 4 * 2 + i % 2)
        };
        let half = self.sums == "f16";
        let mut sums = Vec::new();
        let mut fragments = Vec::new();
        for thread in 0..128 {
            for i in 0..n / 2 {
                let (row, column) = sum_at(thread, i);
                let value = c[row * n + column];
                match half {
                    true => sums.extend(half::f16::from_f64(value as f64).to_le_bytes()),
                    false => sums.extend((value as f32).to_le_bytes()),
                }
            }
            for register in 0..4 {
                let row = thread / 32 * 16 + thread % 32 / 4 + register % 2 * 8;
                let per_register = 4 / size;
                let word = (0..per_register).map(|i| {
                    let column = per_register * (thread % 4) + 4 * per_register * (register / 2) + i;
                    self.encode(a[row * k + column]) << (8 * size * i % 32)
                });
                fragments.extend(word.fold(0, |word, part| word | part).to_le_bytes());
            }
        }
        let text = self.kernel([a_layout.descriptor(), b_layout.descriptor()]);
        let shape = Shape { blocks: 1, threads: 128, shared_bytes: 0 };
        for asynchrony in [false, true] {
            let setup =
                Setup { cluster: 1, checks: Checks { asynchrony, ..Checks::default() }, ..Setup::default() };
            let mut buffers = [image.clone(), sums.clone(), fragments.clone(), vec![0; sums.len()]];
            let ran = run_with(&text, "k", shape, &setup, &mut buffers)
                .unwrap_or_else(|error| panic!("{self:?}: {error}"));
            let sign = |negated: bool| if negated { -1 } else { 1 };
            let sign = sign(self.negated[0]) * sign(self.negated[1]);
            for (thread, i) in (0..128).flat_map(|thread| (0..n / 2).map(move |i| (thread, i))) {
                let (row, column) = sum_at(thread, i);
                let sum: i64 = (0..k).map(|j| a[row * k + j] * b[column * k + j]).sum();
                let want = sign * sum + if self.accumulate { c[row * n + column] } else { 0 };
                let element = thread * n / 2 + i;
                let out = &buffers[3];
                let got = match half {
                    true => half::f16::from_le_bytes([out[2 * element], out[2 * element + 1]]).to_f64(),
                    false => f32::from_le_bytes(out[4 * element..][..4].try_into().unwrap()).into(),
                };
                assert_eq!(got, want as f64, "{self:?}, asynchrony {asynchrony}: row {row}, column {column}");
            }
            ran.keep_exactly(&[(3, &buffers[3])]);
        }
    }
}

const SIMPLE: Case = Case {
    n: 64,
    ty: "f16",
    sums: "f32",
    a: Some((128, false)),
    b: (128, false),
    negated: [false; 2],
    accumulate: true,
};

#[test]
fn every_width() {
    for n in (8..=256).step_by(8) {
        Case { n, ..SIMPLE }.check(n as u64);
    }
}

#[test]
fn every_layout_and_type() {
    let layouts = [0, 32, 64, 128].into_iter().flat_map(|swizzle| [(swizzle, false), (swizzle, true)]);
    for (i, layout) in layouts.enumerate() {
        for ty in ["f16", "bf16"] {
            let case = Case { ty, n: 128, ..SIMPLE };
            Case { a: Some(layout), ..case }.check(300 + i as u64);
            Case { b: layout, accumulate: false, ..case }.check(400 + i as u64);
            Case { a: None, b: layout, ..case }.check(500 + i as u64);
        }
        if !layout.1 {
            let case = Case { ty: "tf32", n: 40, ..SIMPLE };
            Case { a: Some(layout), b: layout, ..case }.check(600 + i as u64);
            Case { a: None, b: layout, ..case }.check(700 + i as u64);
        }
    }
}

#[test]
fn signs_sums_and_accumulation() {
    for i in 0..16u64 {
        let bit = |at: u64| i >> at & 1 != 0;
        let sums = if bit(3) { "f16" } else { "f32" };
        Case { n: 24, sums, negated: [bit(0), bit(1)], accumulate: bit(2), ..SIMPLE }.check(800 + i);
    }
}

#[test]
fn what_must_not_be_is_found() {
    let setup =
        Setup { cluster: 1, checks: Checks { asynchrony: true, ..Checks::default() }, ..Setup::default() };
    let shape = Shape { blocks: 1, threads: 128, shared_bytes: 0 };
    let layout = |at| Layout::dense(128, false, 64, at).descriptor();
    let good = Case { n: 8, ..SIMPLE }.kernel([layout(0), layout(A_BYTES)]);
    let wait = "wgmma.wait_group.sync.aligned 0;";
    let cases = [
        (good.replacen("wgmma.fence.sync.aligned;", "", 1), "no wgmma.fence"),
        (good.replacen(wait, "", 1), "has yet to write"),
        (good.replacen("wgmma.commit_group.sync.aligned;", "", 1), "has yet to write"),
        (good.replacen(wait, &format!("add.f32 %r1, %r1, %r1; {wait}"), 1), "has yet to write"),
        (good.replacen("fence.proxy.async;", "", 1), "fence.proxy.async"),
        (
            good.replacen(wait, &format!("mov.u32 to, tile; st.shared.b32 [to], v; {wait}"), 1),
            "fence.proxy.async",
        ),
        (Case { n: 8, ..SIMPLE }.kernel([layout(0), layout(BYTES)]), "past the"),
    ];
    for (text, want) in cases {
        let mut buffers = [vec![0; BYTES], vec![0; 2048], vec![0; 2048], vec![0; 2048]];
        let Some(found) = fault(&text, "k", shape, &setup, &mut buffers) else { return };
        assert!(found.contains(want), "{want}: {found}");
    }
}

/// What a kernel of one warpgroup leaves in its output, or what is said of it; sums begin with ones, factors are twos.
fn run_twos(text: &str, threads: u32, asynchrony: bool, seed: u64) -> Result<Vec<f32>, String> {
    let checks = Checks { asynchrony, ..Checks::default() };
    let setup = Setup { cluster: 1, checks, seed, ..Setup::default() };
    let twos: Vec<u8> = 0x4000u16.to_le_bytes().repeat(BYTES / 2);
    let ones: Vec<u8> = 1f32.to_le_bytes().repeat(4 * threads as usize);
    let mut buffers = [twos, ones.clone(), vec![0; 16 * threads as usize], vec![0; ones.len()]];
    run_with(text, "k", Shape { blocks: 1, threads, shared_bytes: 0 }, &setup, &mut buffers)?;
    Ok(buffers[3].chunks_exact(4).map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect())
}

fn twos() -> String {
    let layout = |at| Layout::dense(128, false, 64, at).descriptor();
    Case { n: 8, ..SIMPLE }.kernel([layout(0), layout(A_BYTES)])
}

const WAIT: &str = "wgmma.wait_group.sync.aligned 0;";

#[test]
fn sums_are_what_they_were_until_the_wait() {
    for seed in [0, 1, 5] {
        assert_eq!(run_twos(&twos(), 128, false, seed).unwrap(), [65.0; 512]);
        // No wait, and a wait for too little. Only the adversary says so.
        for instead in ["", "wgmma.wait_group.sync.aligned 1;"] {
            let text = twos().replacen(WAIT, instead, 1);
            assert_eq!(run_twos(&text, 128, false, seed).unwrap(), [1.0; 512]);
            assert!(run_twos(&text, 128, true, seed).unwrap_err().contains("has yet to write"));
        }
        // One group is waited for, the other is not, and may have come as well: the sums are not to be read.
        let product = twos();
        let product = product.lines().find(|line| line.contains("mma_async")).unwrap();
        let one_more = format!("{product} wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1;");
        let text = twos().replacen(WAIT, &one_more, 1);
        assert_eq!(run_twos(&text, 128, false, seed).unwrap(), [129.0; 512]);
        assert!(run_twos(&text, 128, true, seed).unwrap_err().contains("has yet to write"));
        let both = twos().replacen(WAIT, &format!("{one_more} {WAIT}"), 1);
        for asynchrony in [false, true] {
            assert_eq!(run_twos(&both, 128, asynchrony, seed).unwrap(), [129.0; 512]);
        }
    }
}

#[test]
fn sums_that_nobody_reads_or_waits_for() {
    // Eight registers in place of the sums after the product: whatever has their place is not overwritten.
    let moves: String = (8..16).map(|i| format!("add.u32 %r{i}, t, {i};")).collect();
    let stores: String = (0..4).map(|i| format!("st.global.b32 [out+{}], %r{};", 4 * i, 8 + i)).collect();
    let (head, tail) = twos().split_once("st.global").map(|(head, _)| (head.to_string(), "ret; }")).unwrap();
    for wait in [WAIT, ""] {
        let text = format!("{}{stores}{tail}", head.replacen(WAIT, &format!("{moves} {wait}"), 1));
        for (seed, asynchrony) in [(0, false), (3, false), (0, true), (3, true)] {
            let out = run_twos(&text, 128, asynchrony, seed).unwrap();
            let want = |i: usize| f32::from_bits((i / 4 + 8 + i % 4) as u32);
            assert!(out.iter().enumerate().all(|(i, &word)| word == want(i)), "{out:?}");
        }
    }
}

#[test]
fn a_warpgroup_has_four_warps() {
    if std::env::var_os("VCUDA_ISA_DRIVER").is_some() {
        return;
    }
    let found = run_twos(&twos(), 96, false, 0).unwrap_err();
    assert!(found.contains("a product of a warpgroup of 3 warps, which has 4"), "{found}");
    // One warp goes, and another is at a product of its own.
    let fence = "wgmma.fence.sync.aligned;";
    let text = twos().replacen(fence, &format!("setp.ge.u32 more, t, 96; @more exit; {fence}"), 1);
    for (seed, asynchrony) in [(0, false), (4, false), (0, true)] {
        let found = run_twos(&text, 128, asynchrony, seed).unwrap_err();
        assert!(found.contains("deadlock"), "{found}");
        for warp in 0..3 {
            let text = format!("warp {warp} lanes 0xffffffff wait for the wgmma of PTX line");
            assert!(found.contains(&text), "{found}");
        }
        assert!(found.contains("which warp 3 of its warpgroup has not issued"), "{found}");
    }
    let whole = twos();
    let product = whole.lines().find(|line| line.contains("mma_async")).unwrap();
    let text = whole.replacen(
        product,
        &format!("setp.ge.u32 more, t, 64; @more bra OTHER;\n{product}\nbra DONE; OTHER:\n{product}\nDONE:"),
        1,
    );
    let found = run_twos(&text, 128, false, 0).unwrap_err();
    assert!(found.contains("have different products") && found.contains("another is at PTX line"), "{found}");
}
