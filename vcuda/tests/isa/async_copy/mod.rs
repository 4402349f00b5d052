//! Asynchronous copies and what goes with them, PTX ISA 9.7.9.25: at once, and as late as the adversary lets them
//! land. Here `cp.async`; beside it bulk copies, what is done wrong with either, and every form.

mod bulk;
mod forms;
mod wrong;

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
    check_on(random_bytes(8192), body, threads, out_bytes, expected);
}

/// The same on this input.
fn check_on(inp: Vec<u8>, body: &str, threads: u32, out_bytes: usize, expected: impl Fn(&[u8]) -> Vec<u8>) {
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

/// In a loop, where the source is known from the round before: of some lanes, and of some nothing or a part.
#[test]
fn copies_again_and_again() {
    for bytes in [4, 8, 16] {
        // What a lane takes that copies, and one that does not.
        for (size, one, other) in [
            (format!("selp.u32 t, {bytes}, 0, p;"), bytes, 0),
            (format!("selp.u32 t, {bytes}, 3, p;"), bytes, 3),
            ("mov.u32 t, 0;".to_string(), 0, 0),
        ] {
            for (guard, some) in
                [("", u32::MAX), ("setp.ge.u32 q, tid, 5; @q", !31), ("setp.eq.u32 q, tid, 9; @q", 1 << 9)]
            {
                let body = format!(
                    "mov.u32 d, 0; again: add.u32 t, tid, d; rem.u32 t, t, 3; setp.eq.u32 p, t, 1; {size}
                     mad.lo.u32 b, d, 32, tid; mul.wide.u32 from, b, {bytes}; add.u64 from, from, in; mad.lo.u32 b, b, {bytes}, a;
                     {guard} cp.async.ca.shared.global [b], [from], {bytes}, t;
                     add.u32 d, d, 1; setp.lt.u32 p, d, 4; @p bra again; cp.async.wait_all; {DUMP}"
                );
                check(&body, 32, 8192, |inp| {
                    let byte = |i: usize| {
                        let (lane, round) = (i / bytes % 32, i / bytes / 32);
                        let taken = if (lane + round) % 3 == 1 { one } else { other };
                        match some >> lane & 1 {
                            0 => 0xff,
                            _ if i % bytes < taken => inp[i],
                            _ => 0,
                        }
                    };
                    (0..4 * 32 * bytes).map(byte).collect()
                });
            }
        }
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
