//! `cp.async`, and bulk copies of one dimension with their reductions, PTX ISA 9.7.9.25: at once, and as late
//! as the adversary lets them land.

use crate::device::{Checks, Setup, Shape, fault, run_with};
use crate::lanes::{HEADER, Random};

const START: &str = ".extern .shared .align 128 .b8 dynamic[];
.visible .entry k(.param .u64 outs, .param .u64 ins)
{
.reg .pred p, q, leader; .reg .b16 h; .reg .b32 a, b, c, d, e, t, tid, bar; .reg .b64 out, in, x, y, to, from, s;
.shared .align 128 .b8 tile[8192]; .shared .align 8 .b64 bars[4];
ld.param.u64 out, [outs]; ld.param.u64 in, [ins]; mov.u32 tid, %tid.x; mov.u32 a, tile; mov.u32 bar, bars;
setp.eq.u32 leader, tid, 0;
";

fn kernel(body: &str) -> String {
    format!("{HEADER}{START}{body}\nret;\n}}\n")
}

/// At once, and with the adversary under three seeds.
fn setups() -> Vec<Setup> {
    let late = |seed| Setup {
        cluster: 1,
        checks: Checks { asynchrony: true, ..Checks::default() },
        seed,
        ..Setup::default()
    };
    vec![Setup { cluster: 1, ..Setup::default() }, late(1), late(2), late(3)]
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut random = Random::new(7);
    (0..count).map(|_| random.next() as u8).collect()
}

/// Runs `body` on random input in every setup, and compares the output.
fn check(body: &str, threads: u32, out_bytes: usize, expected: impl Fn(&[u8]) -> Vec<u8>) {
    let inp = random_bytes(8192);
    let wanted = expected(&inp);
    for setup in setups() {
        let mut buffers = [vec![0xcc; out_bytes], inp.clone()];
        let shape = Shape { blocks: 1, threads, shared_bytes: 8192 };
        let ran = run_with(&kernel(body), "k", shape, &setup, &mut buffers)
            .unwrap_or_else(|error| panic!("{body}\n{error}"));
        let wrong = buffers[0].iter().zip(&wanted).position(|(found, wanted)| found != wanted);
        assert_eq!(wrong, None, "first wrong byte of {body} with seed {}", setup.seed);
        ran.keep_exactly(&[(0, &wanted)]);
    }
}

/// What each setup says of a kernel that must fail; only the late ones if the fault is one of timing.
fn refused(body: &str, threads: u32, only_late: bool, wanted: &str) {
    for setup in setups().into_iter().skip(only_late as usize) {
        let shape = Shape { blocks: 1, threads, shared_bytes: 8192 };
        let mut buffers = [vec![0; 8192], random_bytes(8192)];
        let Some(found) = fault(&kernel(body), "k", shape, &setup, &mut buffers) else { return };
        assert!(found.contains(wanted) && found.contains("PTX line"), "{body}\n{found}");
    }
}

const DUMP: &str = "bar.sync 0; dump: setp.ge.u32 q, tid, 2048; @q bra done; shl.b32 b, tid, 2;
    add.u32 c, a, b; ld.shared.u32 d, [c]; cvt.u64.u32 x, b; add.u64 x, x, out; st.global.u32 [x], d;
    mov.u32 c, %ntid.x; add.u32 tid, tid, c; bra dump; done:";

#[test]
fn small_copies_and_their_zeros() {
    for (form, bytes) in [("ca", 4), ("ca", 8), ("ca", 16), ("cg", 16)] {
        // A thread copies its own piece to the mirrored place.
        let address = format!(
            "mul.wide.u32 from, tid, {bytes}; add.u64 from, from, in; sub.u32 t, 31, tid; mad.lo.u32 b, t, {bytes}, a;"
        );
        let shared = ["shared", "shared::cta"];
        let tail = format!("cp.async.commit_group; cp.async.wait_group 0; {DUMP}");
        let mirrored = |taken: &dyn Fn(usize) -> usize, inp: &[u8]| {
            let mut out = vec![0xff; 32 * bytes];
            for thread in 0..32 {
                let at = (31 - thread) * bytes;
                let piece: Vec<u8> =
                    (0..bytes).map(|i| if i < taken(thread) { inp[thread * bytes + i] } else { 0 }).collect();
                out[at..at + bytes].copy_from_slice(&piece);
            }
            out
        };
        let name = format!("cp.async.{form}.{}.global", shared[bytes / 8 % 2]);
        let zero_hint = "createpolicy.fractional.L2::evict_last.b64 s, 1.0;";
        check(&format!("{address} {name} [b], [from], {bytes}; {tail}"), 32, 8192, |inp| {
            mirrored(&|_| bytes, inp)
        });
        check(
            &format!("{address} {zero_hint} {name}.L2::cache_hint [b], [from], {bytes}, s; {tail}"),
            32,
            8192,
            |inp| mirrored(&|_| bytes, inp),
        );
        let sized = format!("rem.u32 t, tid, {}; {name}.L2::128B [b], [from], {bytes}, t; {tail}", bytes + 1);
        check(&format!("{address} {sized}"), 32, 8192, |inp| mirrored(&|thread| thread % (bytes + 1), inp));
        let ignored = format!(
            "and.b32 t, tid, 4; setp.ne.u32 p, t, 0; {name} [b], [from], {bytes}, p; cp.async.wait_all; {DUMP}"
        );
        check(&format!("{address} {ignored}"), 32, 8192, |inp| {
            mirrored(&|thread| if thread & 4 != 0 { 0 } else { bytes }, inp)
        });
    }
}

/// A group is there when it is waited for; with the adversary, touching it a moment before is a fault.
#[test]
fn groups_land_when_they_are_waited_for() {
    let copies = "mul.wide.u32 from, tid, 16; add.u64 from, from, in; mad.lo.u32 b, tid, 16, a;
        cp.async.cg.shared.global [b], [from], 16; cp.async.commit_group;
        cp.async.cg.shared.global [b+512], [from+512], 16; cp.async.commit_group;
        cp.async.cg.shared.global [b+1024], [from+1024], 16; cp.async.commit_group;";
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    let inp = random_bytes(8192);
    for but in 0..4usize {
        for group in 0..3usize {
            let offset = 512 * group;
            let body = format!(
                "{copies} cp.async.wait_group {but}; ld.shared.u32 c, [b+{offset}]; mad.wide.u32 to, tid, 4, out;
                 st.global.u32 [to], c; cp.async.wait_all;"
            );
            for setup in setups() {
                let mut buffers = [vec![0; 4 * 32], inp.clone()];
                let is_early = group + but >= 3;
                if is_early && setup.checks.asynchrony {
                    let found = fault(&kernel(&body), "k", shape, &setup, &mut buffers);
                    let line = [12, 13, 14][group];
                    let wanted = format!("that the copy of PTX line {line} has yet to write");
                    assert!(
                        found.is_none_or(|found| found.contains(&wanted)),
                        "group {group}, all but {but}"
                    );
                } else if !is_early {
                    run_with(&kernel(&body), "k", shape, &setup, &mut buffers).unwrap();
                    for (thread, found) in buffers[0].chunks_exact(4).enumerate() {
                        let copied = &inp[thread * 16 + offset..][..4];
                        assert_eq!(found, copied, "group {group} of thread {thread}, all but {but}");
                    }
                }
            }
        }
    }
}

#[test]
fn copies_arrive_at_barriers() {
    for (form, count) in [("noinc", 128), ("", 128)] {
        let suffix = if form.is_empty() { String::new() } else { format!(".{form}") };
        let arrive = match form {
            "" => "mbarrier.arrive.shared.b64 _, [bar];",
            _ => "",
        };
        let body = format!(
            "@leader mbarrier.init.shared.b64 [bar], {count}; bar.sync 0;
             mul.wide.u32 from, tid, 8; add.u64 from, from, in; mad.lo.u32 b, tid, 8, a;
             cp.async.ca.shared.global [b], [from], 8; cp.async.mbarrier.arrive{suffix}.shared::cta.b64 [bar]; {arrive}
             wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;
             xor.b32 t, tid, 96; mad.lo.u32 b, t, 8, a; ld.shared.u64 x, [b];
             mad.wide.u32 to, tid, 8, out; st.global.u64 [to], x;"
        );
        check(&body, 128, 8 * 128, |inp| (0..128).flat_map(|t| inp[8 * (t ^ 96)..][..8].to_vec()).collect());
    }
}

#[test]
fn bulk_copies_there_and_back() {
    for bytes in [16, 48, 1024, 8192] {
        for hint in ["", ".L2::cache_hint"] {
            let policy = if hint.is_empty() { "" } else { ", s" };
            let body = format!(
                "mov.u64 s, 0; @leader mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @!leader bra wait;
                 cp.async.bulk.prefetch.L2.global [in], {bytes};
                 mbarrier.arrive.expect_tx.shared.b64 _, [bar], {bytes}; mov.u32 t, {bytes};
                 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes{hint} [a], [in], t, [bar]{policy};
                 wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;
                 @!leader bra end;
                 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [dynamic], [a], {bytes}, [bar+8];
                 end:"
            );
            let body = body.replace("[bar], 1;", "[bar], 1; @leader mbarrier.init.shared.b64 [bar+8], 1;")
                + &format!(
                    "@leader mbarrier.arrive.expect_tx.shared.b64 _, [bar+8], {bytes};
                     wait2: mbarrier.try_wait.parity.shared.b64 p, [bar+8], 0; @!p bra wait2; @!leader bra out_;
                     mov.u32 b, dynamic;
                     cp.async.bulk.global.shared::cta.bulk_group{hint} [out], [b], {bytes}{policy};
                     cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; out_:"
                );
            check(&body, 64, 8192, |inp| inp[..bytes].to_vec());
        }
    }
}

/// A store reads shared memory when it is waited for, and no earlier with the adversary.
#[test]
fn stores_read_at_the_wait() {
    let store =
        "shl.b32 t, tid, 2; add.u32 b, a, t; st.shared.u32 [b], 1; fence.proxy.async.shared::cta; bar.sync 0;
        @leader cp.async.bulk.global.shared::cta.bulk_group [out], [a], 128;
        @leader cp.async.bulk.commit_group;";
    let tail = "bar.sync 0; st.shared.u32 [b], 2; bar.sync 0;";
    let ones = |_: &[u8]| 1u32.to_le_bytes().repeat(32);
    check(&format!("{store} @leader cp.async.bulk.wait_group.read 0; {tail}"), 32, 128, ones);
    check(&format!("{store} @leader cp.async.bulk.wait_group 0; {tail}"), 32, 128, ones);
    for overwrite in
        ["st.shared.u32 [b], 2;", "@leader cp.async.ca.shared.global [a], [in], 4; cp.async.wait_all;"]
    {
        let body = format!("{store} bar.sync 0; {overwrite} bar.sync 0;");
        refused(&body, 32, true, "has yet to read");
    }
}

/// Every operation and type of `cp.reduce.async.bulk`, to global and to shared memory.
#[test]
fn bulk_reductions() {
    type Element = (usize, fn(&str, u64, u64) -> u64);
    fn unsigned(bits: u32) -> impl Fn(&str, u64, u64) -> u64 {
        move |op, old, new| {
            let mask = u64::MAX >> (64 - bits);
            match op {
                "add" => old.wrapping_add(new) & mask,
                "min" => old.min(new),
                "max" => old.max(new),
                "inc" => {
                    if old >= new {
                        0
                    } else {
                        old + 1
                    }
                }
                "dec" => {
                    if old == 0 || old > new {
                        new
                    } else {
                        old - 1
                    }
                }
                "and" => old & new,
                "or" => old | new,
                _ => old ^ new,
            }
        }
    }
    fn signed32(op: &str, old: u64, new: u64) -> u64 {
        let (a, b) = (old as u32 as i32, new as u32 as i32);
        (match op {
            "add" => a.wrapping_add(b),
            "min" => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a > b {
                    a
                } else {
                    b
                }
            }
        }) as u32 as u64
    }
    fn signed64(op: &str, old: u64, new: u64) -> u64 {
        let (a, b) = (old as i64, new as i64);
        (match op {
            "min" => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a > b {
                    a
                } else {
                    b
                }
            }
        }) as u64
    }
    fn f32_add(_: &str, old: u64, new: u64) -> u64 {
        u64::from((f32::from_bits(old as u32) + f32::from_bits(new as u32)).to_bits())
    }
    fn f64_add(_: &str, old: u64, new: u64) -> u64 {
        (f64::from_bits(old) + f64::from_bits(new)).to_bits()
    }
    // The sum of two halves is exact in float64, and is rounded once.
    fn f16(op: &str, old: u64, new: u64) -> u64 {
        let value = |bits: u64| half::f16::from_bits(bits as u16).to_f64();
        let (a, b) = (value(old), value(new));
        let out = match op {
            "add" => a + b,
            "min" => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a > b {
                    a
                } else {
                    b
                }
            }
        };
        u64::from(half::f16::from_f64(out).to_bits())
    }
    fn bf16(op: &str, old: u64, new: u64) -> u64 {
        let value = |bits: u64| half::bf16::from_bits(bits as u16).to_f64();
        let (a, b) = (value(old), value(new));
        let out = match op {
            "add" => a + b,
            "min" => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            _ => {
                if a > b {
                    a
                } else {
                    b
                }
            }
        };
        u64::from(half::bf16::from_f64(out).to_bits())
    }
    let element = |ty: &str| -> Element {
        match ty {
            "u32" | "b32" => (4, |op, a, b| unsigned(32)(op, a, b)),
            "u64" | "b64" => (8, |op, a, b| unsigned(64)(op, a, b)),
            "s32" => (4, signed32),
            "s64" => (8, signed64),
            "f32" => (4, f32_add),
            "f64" => (8, f64_add),
            "f16" => (2, f16),
            _ => (2, bf16),
        }
    };
    let both = [
        ("add", "u32"),
        ("add", "s32"),
        ("add", "u64"),
        ("min", "u32"),
        ("max", "u32"),
        ("min", "s32"),
        ("max", "s32"),
        ("inc", "u32"),
        ("dec", "u32"),
        ("and", "b32"),
        ("or", "b32"),
        ("xor", "b32"),
    ];
    let global = [
        ("add", "f32"),
        ("add", "f64"),
        ("add.noftz", "f16"),
        ("add.noftz", "bf16"),
        ("min", "u64"),
        ("max", "u64"),
        ("min", "s64"),
        ("max", "s64"),
        ("min", "f16"),
        ("max", "f16"),
        ("min", "bf16"),
        ("max", "bf16"),
        ("and", "b64"),
        ("or", "b64"),
        ("xor", "b64"),
    ];
    for (to_global, (op, ty)) in
        both.iter().chain(&global).map(|&case| (true, case)).chain(both.iter().map(|&case| (false, case)))
    {
        // 512 bytes each of old values, new values.
        let load = "shl.b32 t, tid, 2; add.u32 b, a, t; cvt.u64.u32 x, t; add.u64 from, in, x;
            ld.global.u32 c, [from]; st.shared.u32 [b], c; ld.global.u32 c, [from+512]; st.shared.u32 [b+512], c;
            add.u64 to, out, x; ld.global.u32 c, [from]; st.global.u32 [to], c; @leader mbarrier.init.shared.b64 [bar], 1;
            fence.proxy.async; bar.sync 0;";
        let body = if to_global {
            format!(
                "{load} add.u32 b, a, 512; @leader cp.reduce.async.bulk.global.shared::cta.bulk_group.{op}.{ty} [out], [b], 512;
                 cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;"
            )
        } else {
            format!(
                "{load} add.u32 c, a, 512; @leader mbarrier.arrive.expect_tx.shared.b64 _, [bar], 512;
                 @leader cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.{op}.{ty} [a], [c], 512, [bar];
                 wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait; ld.shared.u32 c, [b]; st.global.u32 [to], c;"
            )
        };
        let (size, reduce) = element(ty);
        let op = op.trim_end_matches(".noftz");
        // Finite values of the size: halves and floats with a middling exponent.
        let mut inp = random_bytes(1024);
        for element in inp.chunks_exact_mut(size) {
            match ty {
                "f16" => element[1] = element[1] & 0x8f | 0x30,
                "bf16" | "f32" => element[size - 1] = element[size - 1] & 0x80 | 0x40,
                "f64" => element[7] = element[7] & 0x80 | 0x40,
                _ => {}
            }
        }
        let value = |at: usize| {
            let mut bits = [0; 8];
            bits[..size].copy_from_slice(&inp[at..at + size]);
            u64::from_le_bytes(bits)
        };
        let wanted: Vec<u8> = (0..512 / size)
            .flat_map(|i| reduce(op, value(i * size), value(512 + i * size)).to_le_bytes()[..size].to_vec())
            .collect();
        for setup in setups() {
            let mut buffers = [vec![0; 512], inp.clone()];
            let shape = Shape { blocks: 1, threads: 128, shared_bytes: 0 };
            run_with(&kernel(&body), "k", shape, &setup, &mut buffers)
                .unwrap_or_else(|e| panic!("{body}\n{e}"));
            let wrong = buffers[0].iter().zip(&wanted).position(|(found, wanted)| found != wanted);
            assert_eq!(wrong, None, "{op}.{ty}, to global: {to_global}");
        }
    }
}

#[test]
fn stores_of_registers_complete_bytes() {
    let start = "@leader mbarrier.init.shared.b64 [bar], 1; bar.sync 0;
        @leader mbarrier.arrive.expect_tx.shared.b64 _, [bar], 1024; shl.b32 t, tid, 5; add.u32 b, a, t;
        mad.wide.u32 from, tid, 32, in; ld.global.v4.u32 {c, d, e, t}, [from]; ld.global.v2.u64 {x, y}, [from+16];
        st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [b], {c, d, e, t}, [bar];
        st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [b+16], x, [bar];
        st.async.shared::cluster.mbarrier::complete_tx::bytes.u64 [b+24], y, [bar];
        wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;";
    let read =
        "mad.wide.u32 to, tid, 32, out; ld.shared.v4.u32 {c, d, e, t}, [b]; ld.shared.v2.u64 {x, y}, [b+16];
        st.global.v4.u32 [to], {c, d, e, t}; st.global.v2.u64 [to+16], {x, y};";
    check(&format!("{start} {read}"), 32, 1024, |inp| inp[..1024].to_vec());
    let red = "@leader mbarrier.init.shared.b64 [bar], 1; @leader st.shared.u32 [a], 5; @leader st.shared.u32 [a+4], 0;
        bar.sync 0; @leader mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256;
        red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [a], tid, [bar];
        red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.max.u32 [a+4], tid, [bar];
        wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;
        ld.shared.v2.u32 {c, d}, [a]; @leader st.global.v2.u32 [out], {c, d};";
    check(red, 32, 8, |_| [5 + 496u32, 31].into_iter().flat_map(u32::to_le_bytes).collect());
}

#[test]
fn misuse_is_named() {
    let init = "@leader mbarrier.init.shared.b64 [bar], 1; bar.sync 0; @!leader ret;
        mbarrier.arrive.expect_tx.shared.b64 _, [bar], 64;";
    let load = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
    let wait = "wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;";
    let cases = [
        (
            false,
            "mov.u32 t, 5; cp.async.ca.shared.global [a], [in], 4, t;".to_string(),
            "cp.async of 4 bytes with 5",
        ),
        (false, "cp.async.cg.shared.global [a+8], [in], 16;".to_string(), "misaligned"),
        (false, "cp.async.ca.shared.global [a], [in+8192], 4;".to_string(), "outside every"),
        (false, format!("{init} {load} [a], [in], 40, [bar]; {wait}"), "it must be a multiple of 16"),
        (false, format!("{init} {load} [a+8], [in], 64, [bar]; {wait}"), "misaligned"),
        (false, format!("{init} {load} [a], [in+8160], 64, [bar]; {wait}"), "past the end"),
        (false, format!("{init} {load} [a], [in], 80, [bar]; {wait}"), "16 bytes more have come"),
        (false, format!("{init} {load} [a], [in], 48, [bar]; {wait}"), "tx-count 16"),
        (true, format!("{init} {load} [a], [in], 64, [bar];"), "exits before this copy"),
        (
            true,
            "@leader cp.async.ca.shared.global [a], [in], 4; cp.async.commit_group;".to_string(),
            "exits before this copy",
        ),
    ];
    for (only_late, body, wanted) in cases {
        refused(&body, 32, only_late, wanted);
    }
}

/// Every form of the instructions of this file, of mbarriers, tensor copies and clusters that the ISA lists
/// for sm_90a, as `ptxas` takes them; those that are refused name themselves.
const FORMS: &str = "
mbarrier.init.shared::cta.b64 [r1], 5;
mbarrier.init.b64 [d1], r2;
mbarrier.inval.shared.b64 [r1];
mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [r1], r2;
mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [r1], 4;
mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [r1], 4;
mbarrier.complete_tx.shared.b64 [r1], 4;
mbarrier.arrive.shared.b64 d4, [r1];
mbarrier.arrive.b64 d4, [d1], r2;
mbarrier.arrive.release.cluster.shared::cluster.b64 _, [r1], 3;
mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [r1], 3;
mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 d4, [r1], r2;
mbarrier.arrive.expect_tx.shared::cluster.b64 _, [r1], r2;
mbarrier.arrive.noComplete.release.cta.shared::cta.b64 d4, [r1], 2;
mbarrier.arrive_drop.shared::cta.b64 d4, [r1], 2;
mbarrier.arrive_drop.expect_tx.shared::cta.b64 d4, [r1], 2;
mbarrier.arrive_drop.noComplete.b64 d4, [d1], 2;
mbarrier.arrive_drop.release.cluster.shared::cluster.b64 _, [r1];
mbarrier.test_wait.shared.b64 p1, [r1], d4;
mbarrier.test_wait.parity.acquire.cta.shared.b64 p1, [r1], 1;
mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 p1, [r1], r2, 100;
mbarrier.try_wait.b64 p1, [d1], d4, r3;
mbarrier.pending_count.b64 r5, d4;
cp.async.ca.shared.global [r1], [d1], 4;
cp.async.ca.shared::cta.global.L2::128B [r1], [d1], 8, r2;
cp.async.cg.shared.global.L2::cache_hint [r1], [d1], 16, d5;
cp.async.cg.shared.global.L2::cache_hint [r1], [d1], 16, r2, d5;
cp.async.ca.shared.global [r1], [d1], 16, p1;
cp.async.commit_group;
cp.async.wait_group 3;
cp.async.wait_all;
cp.async.mbarrier.arrive.shared::cta.b64 [r1];
cp.async.mbarrier.arrive.noinc.b64 [d1];
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [r1], [d1], 32, [r2];
cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.L2::cache_hint [r1], [d1], r3, [r2], d5;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [r1], [d1], r3, [r2], h, d5;
cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [r1], [r4], r3, [r2];
cp.async.bulk.global.shared::cta.bulk_group [d1], [r1], r3;
cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [d1], [r1], r3, d5;
cp.async.bulk.prefetch.L2.global [d1], 64;
cp.async.bulk.prefetch.L2.global.L2::cache_hint [d1], 64, d5;
cp.async.bulk.commit_group;
cp.async.bulk.wait_group 2;
cp.async.bulk.wait_group.read 0;
cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u64 [r1], [r4], r3, [r2];
cp.reduce.async.bulk.global.shared::cta.bulk_group.add.noftz.f16 [d1], [r1], r3;
cp.reduce.async.bulk.global.shared::cta.bulk_group.max.bf16 [d1], [r1], r3;
cp.reduce.async.bulk.global.shared::cta.bulk_group.L2::cache_hint.add.f32 [d1], [r1], r3, d5;
cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes [r1], [d3, {r5}], [r2];
cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [r1], [d3, {r5, r6}], [r2], d5;
cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [r1], [d3, {r5, r6, r7, r8, r9}], [r2], h;
cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [d3, {r5, r6, r7}], [r1];
cp.async.bulk.tensor.3d.global.shared::cta.bulk_group.L2::cache_hint [d3, {r5, r6, r7}], [r1], d5;
cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [d3, {r5, r6}], [r1];
cp.reduce.async.bulk.tensor.2d.global.shared::cta.min.bulk_group.L2::cache_hint [d3, {r5, r6}], [r1], d5;
cp.async.bulk.prefetch.tensor.2d.L2.global.tile [d3, {r5, r6}];
cp.async.bulk.prefetch.tensor.2d.L2.global [d3, {r5, r6}];
prefetch.tensormap [d3];
prefetch.param.tensormap [d2];
tensormap.replace.tile.global_address.global.b1024.b64 [d1], d4;
tensormap.replace.tile.rank.shared::cta.b1024.b32 [r1], 2;
tensormap.replace.tile.box_dim.global.b1024.b32 [d1], 0, r2;
tensormap.replace.tile.global_stride.global.b1024.b64 [d1], 0, d4;
tensormap.replace.tile.element_stride.b1024.b32 [d1], 0, r2;
tensormap.replace.tile.elemtype.global.b1024.b32 [d1], 6;
tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [d1], [r1], 128;
fence.proxy.tensormap::generic.acquire.gpu [d1], 128;
fence.proxy.tensormap::generic.release.gpu;
fence.proxy.async;
fence.proxy.async.global;
fence.proxy.async.shared::cta;
fence.proxy.async.shared::cluster;
fence.proxy.alias;
fence.mbarrier_init.release.cluster;
fence.acq_rel.cluster;
fence.sc.cluster;
fence.acquire.sync_restrict::shared::cluster.cluster;
fence.proxy.async::generic.acquire.sync_restrict::shared::cluster.cluster;
griddepcontrol.wait;
griddepcontrol.launch_dependents;
setmaxnreg.inc.sync.aligned.u32 232;
setmaxnreg.dec.sync.aligned.u32 40;
createpolicy.fractional.L2::evict_last.b64 d6, 1.0;
createpolicy.range.global.L2::evict_last.L2::evict_first.b64 d6, [d1], r2, r3;
createpolicy.cvt.L2.b64 d6, d7;
st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [r1], {r2, r3, r4, r5}, [r6];
st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b64 [r1], {d4, d5}, [r6];
st.async.shared::cluster.mbarrier::complete_tx::bytes.f32 [r1], f, [r6];
red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.inc.u32 [r1], r2, [r6];
red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u64 [r1], d4, [r6];
mapa.shared::cluster.u32 r1, r2, r3;
mapa.u64 d1, d2, r3;
mapa.shared::cluster.u32 r1, sm, 1;
getctarank.shared::cluster.u32 r1, r2;
getctarank.u64 r1, d2;
barrier.cluster.arrive.release.aligned;
barrier.cluster.wait.acquire.aligned;
barrier.cluster.arrive.relaxed;
barrier.cluster.wait;
ld.shared::cluster.u32 r1, [r2];
st.shared::cluster.v2.u32 [d1], {r2, r3};
atom.shared::cluster.add.u32 r1, [r2], 1;
red.release.cluster.shared::cluster.add.u32 [r2], 1;
cvta.shared::cluster.u64 d1, d2;
isspacep.shared::cluster p1, d1;
isspacep.param p1, d1;
mov.u32 r1, %clusterid.z;
mov.pred p1, %is_explicit_cluster;
ld.param.u32 r3, [d2];
ld.u32 r3, [d3];
ld.param.u32 r3, [map+4];
";

const REFUSED: &str = "
cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [r1], [d3, {r5, r6, r7, r8}], [r2], {h, h};
cp.async.bulk.tensor.4d.global.shared::cta.im2col_no_offs.bulk_group [d3, {r5, r6, r7, r8}], [r1];
cp.async.cg.shared.global [r1], [d1], 8;
cp.reduce.async.bulk.global.shared::cta.bulk_group.min.f32 [d1], [r1], r3;
cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [d3, {r5, r6}], [r1];
cp;
mbarrier;
tensormap.replace.tile.b1024.b32 [d1], 6;
";

#[test]
fn every_form_loads() {
    let load = |line: &str| {
        let ptx = format!(
            "{HEADER}.extern .shared .align 128 .b8 sm[];
             .visible .entry k(.param .u64 p, .param .align 64 .b8 map[128])
             {{ .reg .pred p1; .reg .b16 h; .reg .b32 r<20>; .reg .b64 d<20>; .reg .f32 f;
             mov.u64 d1, 0; mov.u64 d2, map; ret;
             {line}
             ret; }}"
        );
        let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
        let setup = Setup { cluster: 1, checks: Checks::ALL, ..Setup::default() };
        run_with(&ptx, "k", shape, &setup, &mut [vec![0; 16]]).map(|_| ())
    };
    for line in FORMS.lines().filter(|line| !line.is_empty()) {
        assert_eq!(load(line), Ok(()), "{line}");
    }
    if std::env::var("VCUDA_ISA_DRIVER").is_ok() {
        return;
    }
    for line in REFUSED.lines().filter(|line| !line.is_empty()) {
        let opcode = line.split([' ', ';']).next().unwrap();
        assert!(load(line).is_err_and(|error| error.contains(opcode) && error.contains("line 8")), "{line}");
    }
}

/// Pipelines with one thing wrong, each found with the adversary's delays.
#[test]
fn missing_waits_are_found() {
    // Two stages of a load, each read by all threads, the sum of what they saw to `out`.
    let pipeline = "mov.u32 d, 0; @leader mbarrier.init.shared.b64 [bar], 1; @leader mbarrier.init.shared.b64 [bar+8], 1;
        @leader mbarrier.init.shared.b64 [bar+16], 64; bar.sync 0; @!leader bra consume;
        mbarrier.arrive.expect_tx.shared.b64 _, [bar], 256;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [in], 256, [bar];
        consume: mad.lo.u32 b, tid, 4, a;
        first: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra first;
        ld.shared.u32 d, [b]; mbarrier.arrive.shared.b64 _, [bar+16]; @!leader bra again;
        reuse: mbarrier.try_wait.parity.shared.b64 p, [bar+16], 0; @!p bra reuse;
        mbarrier.arrive.expect_tx.shared.b64 _, [bar+8], 256;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [in+256], 256, [bar+8];
        again: mbarrier.try_wait.parity.shared.b64 p, [bar+8], 0; @!p bra again;
        ld.shared.u32 c, [b]; add.u32 d, d, c; mul.wide.u32 x, tid, 4; add.u64 x, x, out; st.global.u32 [x], d;";
    let inp = random_bytes(512);
    let word = |i: usize| u32::from_le_bytes(inp[4 * i..4 * i + 4].try_into().unwrap());
    let wanted: Vec<u8> = (0..64).flat_map(|i| word(i).wrapping_add(word(64 + i)).to_le_bytes()).collect();
    let outcome = |body: &str, setup: &Setup| {
        let mut buffers = [vec![0; 256], inp.clone()];
        let shape = Shape { blocks: 1, threads: 64, shared_bytes: 0 };
        run_with(&kernel(body), "k", shape, setup, &mut buffers).map(|_| buffers[0] == wanted)
    };
    for setup in setups() {
        assert_eq!(outcome(pipeline, &setup), Ok(true));
    }
    if std::env::var("VCUDA_ISA_DRIVER").is_ok() {
        return;
    }
    let breaks = [
        ("first: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra first;", "", "has yet to write"),
        ("p, [bar], 0;", "p, [bar], 1;", "has yet to write"),
        ("p, [bar+8], 0;", "p, [bar+8], 1;", "has yet to write"),
        ("[bar], 256;", "[bar], 240;", "16 bytes more have come"),
        ("[bar+8], 256;", "[bar+8], 272;", "tx-count 16"),
        ("[bar+16], 64;", "[bar+16], 65;", "1 of 65 arrivals pending"),
        ("[in+256], 256, [bar+8];", "[in+256], 256, [bar];", "tx-count 256"),
        ("reuse: mbarrier.try_wait.parity.shared.b64 p, [bar+16], 0; @!p bra reuse;", "", "has yet to write"),
        ("[a], [in+256]", "[a+128], [in+256]", ""),
    ];
    for (right, wrong, wanted) in breaks {
        let body = pipeline.replacen(right, wrong, 1);
        assert_ne!(body, pipeline);
        // What is found may depend on which warp goes first, and so on the seed.
        let found: Vec<_> = setups().iter().skip(1).map(|setup| outcome(&body, setup)).collect();
        let is_found = |found: &Result<bool, String>| match wanted {
            "" => *found != Ok(true),
            _ => found.as_ref().is_err_and(|error| error.contains(wanted)),
        };
        assert!(found.iter().any(is_found), "{wrong}: {found:?}");
    }
}
