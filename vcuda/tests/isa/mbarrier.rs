//! Barriers in shared memory, PTX ISA 9.7.13.15, against a model in plain integers.

use crate::device::{Setup, Shape, fault, run, run_with};
use crate::lanes::{HEADER, Random};

const START: &str = ".visible .entry k(.param .u64 outs)
{
.reg .pred p, q, leader; .reg .b32 a, b, c, t, tid, warp; .reg .b64 out, x, y, s, s0, s1, s2, s3;
.shared .align 8 .b64 bar; .shared .align 8 .b64 other; .shared .align 16 .b8 tile[4096];
ld.param.u64 out, [outs]; mov.u32 tid, %tid.x; mov.u64 x, bar; cvta.shared.u64 y, x; mov.u32 a, bar;
shr.u32 warp, tid, 5; setp.eq.u32 leader, tid, 0;
";

fn kernel(body: &str) -> String {
    format!("{HEADER}{START}{body}\nret;\n}}\n")
}

const ONE: Shape = Shape { blocks: 1, threads: 1, shared_bytes: 0 };

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect()
}

/// What a barrier is by the ISA: a phase ends when no arrival and no byte is pending.
#[derive(Clone, Copy)]
struct Model {
    phase: u32,
    expected: i64,
    pending: i64,
    tx: i64,
}

impl Model {
    fn settle(&mut self) {
        if self.pending == 0 && self.tx == 0 {
            self.phase += 1;
            self.pending = self.expected;
        }
    }
}

/// 400 random legal instructions, after each of which both parities, the pending count and an older token
/// are asked for.
#[test]
fn phases_count_arrivals_and_bytes() {
    for seed in 0..6 {
        let mut random = Random::new(100 + seed);
        let mut pick = |n: u64| random.next() % n;
        let count = 1 + pick(5) as i64;
        let mut model = Model { phase: 0, expected: count, pending: count, tx: 0 };
        let mut body = format!("mbarrier.init.shared::cta.b64 [a], {count};");
        let (mut wanted, mut at) = (Vec::new(), 0);
        for _ in 0..400 {
            let before = model;
            let amount = 1 + pick(3) as i64;
            let forms = ["[a]", "[bar]", "[y]"];
            let (form, spaces) = (pick(3) as usize, [".shared::cta", ".shared", ""]);
            let (place, space) = (forms[form], spaces[form]);
            let token = match pick(6) {
                0 | 1 if amount <= model.pending && (amount < model.pending || model.tx >= 0) => {
                    model.pending -= amount;
                    model.settle();
                    format!("mbarrier.arrive{space}.b64 s, {place}, {amount};")
                }
                2 if model.pending >= 1 && (model.pending > 1 || model.tx + 16 * amount >= 0) => {
                    model.tx += 16 * amount;
                    model.pending -= 1;
                    model.settle();
                    format!("mbarrier.arrive.expect_tx.release.cta{space}.b64 s, {place}, {};", 16 * amount)
                }
                3 => {
                    model.tx += 16 * amount;
                    model.settle();
                    format!(
                        "mbarrier.expect_tx.relaxed.cta{space}.b64 {place}, {};
                         mov.b64 s, 0;",
                        16 * amount
                    )
                }
                4 if model.pending > 0 || model.tx >= 16 * amount => {
                    model.tx -= 16 * amount;
                    model.settle();
                    format!("mbarrier.complete_tx{space}.b64 {place}, {}; mov.b64 s, 0;", 16 * amount)
                }
                5 if amount < model.pending => {
                    model.pending -= amount;
                    format!("mbarrier.arrive.noComplete{space}.b64 s, {place}, {amount};")
                }
                _ => continue,
            };
            let has_token = token.starts_with("mbarrier.arrive");
            body += &token;
            // The token's phase is over if this very arrival ended it; its count is from before.
            if has_token {
                body += &format!(
                    "mbarrier.test_wait{space}.b64 p, {place}, s; selp.u32 b, 1, 0, p;
                     mbarrier.pending_count.b64 c, s; shl.b32 c, c, 1; or.b32 b, b, c;"
                );
                wanted.push((model.phase > before.phase) as u32 | (before.pending as u32) << 1);
            } else {
                body += "mov.u32 b, 0;";
                wanted.push(0);
            }
            for parity in 0..2 {
                body += &format!(
                    "mbarrier.try_wait.parity.acquire.cta{space}.b64 p, {place}, {parity}, 20;
                     selp.u32 c, 0x80000000, 0, p; shr.u32 c, c, {parity}; or.b32 b, b, c;"
                );
                let over = model.phase & 1 != parity;
                *wanted.last_mut().expect("pushed above") |= (over as u32) << (31 - parity);
            }
            body += &format!("st.global.u32 [out+{at}], b;\n");
            at += 4;
        }
        let mut buffers = [vec![0; at]];
        let ran = run(&kernel(&body), "k", ONE, &mut buffers)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = words(&buffers[0]);
        for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert_eq!(found, wanted, "seed {seed}, step {i}");
        }
        ran.keep_exactly(&[(0, &buffers[0])]);
    }
}

#[test]
fn dropped_arrivals_are_missing_from_the_next_phase() {
    let body = "mbarrier.init.b64 [y], 3;
        mbarrier.arrive_drop.shared.b64 s, [a]; mbarrier.arrive.shared.b64 s, [a], 2;
        mbarrier.arrive.shared.b64 s, [a]; mbarrier.pending_count.b64 b, s; st.global.u32 [out], b;
        mbarrier.arrive_drop.noComplete.shared.b64 s0, [a], 0;
        mbarrier.arrive_drop.expect_tx.shared.b64 s1, [a], 32;
        mbarrier.test_wait.shared.b64 p, [a], s; selp.u32 b, 1, 0, p; st.global.u32 [out+4], b;
        mbarrier.complete_tx.shared.b64 [a], 32;
        mbarrier.test_wait.shared.b64 p, [a], s; selp.u32 b, 1, 0, p; st.global.u32 [out+8], b;
        mbarrier.arrive.shared.b64 s, [a]; mbarrier.pending_count.b64 b, s; st.global.u32 [out+12], b;
        mbarrier.inval.shared.b64 [a]; mbarrier.init.shared.b64 [a], 7; mbarrier.arrive.shared.b64 s, [a];
        mbarrier.pending_count.b64 b, s; st.global.u32 [out+16], b;";
    let body = body.replace("mbarrier.arrive_drop.noComplete.shared.b64 s0, [a], 0;\n", "");
    let mut buffers = [vec![0; 20]];
    let ran = run(&kernel(&body), "k", ONE, &mut buffers).unwrap();
    assert_eq!(words(&buffers[0]), [2, 0, 1, 1, 7]);
    ran.keep_exactly(&[(0, &buffers[0])]);
}

/// A ring of two stages between a producing warp and three consuming ones: waits in loops, two barriers a
/// stage, both parities.
#[test]
fn a_ring_of_stages() {
    let body = ".reg .b32 i, stage, full, empty, phase, v; .reg .b64 at;
        .shared .align 8 .b64 bars[4]; .shared .align 4 .b32 ring[64];
        mov.u32 full, bars; add.u32 empty, full, 16;
        @leader mbarrier.init.shared.b64 [full], 32; @leader mbarrier.init.shared.b64 [full+8], 32;
        @leader mbarrier.init.shared.b64 [empty], 96; @leader mbarrier.init.shared.b64 [empty+8], 96;
        fence.mbarrier_init.release.cluster; bar.sync 0; and.b32 t, tid, 31; mov.u32 i, 0; mov.u32 v, 0;
        loop: and.b32 stage, i, 1; shr.u32 phase, i, 1; and.b32 phase, phase, 1;
        shl.b32 b, stage, 3; add.u32 full, full, b; add.u32 empty, empty, b;
        shl.b32 c, stage, 7; mov.u32 a, ring; add.u32 a, a, c; mad.lo.u32 a, t, 4, a;
        setp.ne.u32 p, warp, 0; @p bra consume;
        xor.b32 phase, phase, 1;
        full_wait: mbarrier.try_wait.parity.shared::cta.b64 q, [empty], phase; @!q bra full_wait;
        mad.lo.u32 c, i, 1000, t; st.shared.u32 [a], c; mbarrier.arrive.shared.b64 _, [full]; bra next;
        consume: mbarrier.try_wait.parity.shared::cta.b64 q, [full], phase; @!q bra consume;
        ld.shared.u32 c, [a]; mad.lo.u32 v, v, 3, c; mbarrier.arrive.shared.b64 _, [empty];
        next: sub.u32 full, full, b; sub.u32 empty, empty, b;
        add.u32 i, i, 1; setp.lt.u32 p, i, 41; @p bra loop;
        mad.wide.u32 at, tid, 4, out; st.global.u32 [at], v;";
    let mut buffers = [vec![0; 4 * 128]];
    let shape = Shape { blocks: 1, threads: 128, shared_bytes: 0 };
    let ran = run(&kernel(body), "k", shape, &mut buffers).unwrap();
    for (tid, &found) in words(&buffers[0]).iter().enumerate() {
        let sum = (0..41u32).fold(0u32, |v, i| v.wrapping_mul(3).wrapping_add(i * 1000 + tid as u32 % 32));
        assert_eq!(found, if tid < 32 { 0 } else { sum }, "thread {tid}");
    }
    ran.keep_exactly(&[(0, &buffers[0])]);
}

/// Lanes of one warp wait for other lanes of it.
#[test]
fn lanes_of_one_warp_wait_for_each_other() {
    let body = ".reg .b64 at; @leader mbarrier.init.shared.b64 [a], 16; bar.sync 0; mov.u32 b, 0;
        and.b32 t, tid, 1; setp.eq.u32 p, t, 0; @!p bra rest;
        wait: mbarrier.test_wait.parity.shared.b64 q, [a], 0; add.u32 b, b, 1; @!q bra wait; bra end;
        rest: mbarrier.arrive.shared.b64 _, [a]; mov.u32 b, 0;
        end: setp.gt.u32 p, b, 0; selp.u32 b, 1, 0, p; mad.wide.u32 at, tid, 4, out; st.global.u32 [at], b;";
    let mut buffers = [vec![0; 4 * 32]];
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    let ran = run(&kernel(body), "k", shape, &mut buffers).unwrap();
    assert_eq!(words(&buffers[0]), [1, 0].repeat(16));
    ran.keep_exactly(&[(0, &buffers[0])]);
}

#[test]
fn misuse_is_named() {
    let init = "mbarrier.init.shared.b64 [a], 2;";
    let cases = [
        ("mbarrier.arrive.shared.b64 s, [a];".to_string(), "no mbarrier has been initialised at shared 0x0"),
        ("mbarrier.init.shared.b64 [a], 0;".to_string(), "an mbarrier for 0 arrivals"),
        ("mbarrier.init.shared.b64 [a], 1048576;".to_string(), "an mbarrier for 1048576 arrivals"),
        (format!("{init} mbarrier.init.shared.b64 [a], 2;"), "is in use; mbarrier.inval comes first"),
        (format!("{init} mbarrier.inval.shared.b64 [a]; mbarrier.arrive.shared.b64 s, [a];"), "no mbarrier"),
        (format!("{init} mbarrier.arrive.shared.b64 s, [a], 3;"), "3 arrivals at an mbarrier of which 2"),
        (
            format!("{init} mbarrier.arrive.noComplete.shared.b64 s, [a], 2;"),
            "noComplete would end the phase",
        ),
        (format!("{init} st.shared.u32 [a], 5; mbarrier.arrive.shared.b64 s, [a];"), "has been overwritten"),
        (
            format!("{init} mbarrier.complete_tx.shared.b64 [a], 16; mbarrier.arrive.shared.b64 s, [a], 2;"),
            "every arrival is in, and 16 bytes more have come",
        ),
        (
            format!(
                "{init} mbarrier.expect_tx.shared.b64 [a], 1048575; mbarrier.expect_tx.shared.b64 [a], 1;"
            ),
            "a tx-count of 1048576",
        ),
        (
            format!(
                "{init} mbarrier.arrive.shared.b64 s, [a], 2; mbarrier.arrive.shared.b64 s0, [a], 2;
                 mbarrier.test_wait.shared.b64 p, [a], s;"
            ),
            "a wait for a phase before the last one",
        ),
        ("mbarrier.init.shared.b64 [a+4], 1;".to_string(), "misaligned"),
        ("mbarrier.init.b64 [out], 1;".to_string(), "which is not in shared memory"),
    ];
    for (body, wanted) in cases {
        let Some(found) =
            fault(&kernel(&body), "k", ONE, &Setup { cluster: 1, ..Setup::default() }, &mut [vec![0; 8]])
        else {
            return;
        };
        assert!(found.contains(wanted) && found.contains("PTX line"), "{body}\n{found}");
    }
}

#[test]
fn a_deadlock_names_the_barriers() {
    let body =
        "@leader mbarrier.init.shared.b64 [a], 5; @leader mbarrier.init.shared.b64 [other], 1; bar.sync 0;
        @leader mbarrier.arrive.expect_tx.shared.b64 _, [a], 96;
        setp.lt.u32 p, tid, 32; @p bra first;
        wait: mbarrier.try_wait.parity.shared.b64 q, [a], 0; @!q bra wait; bra end;
        first: bar.sync 1, 64;
        end:";
    let shape = Shape { blocks: 1, threads: 64, shared_bytes: 0 };
    let setup = Setup { cluster: 1, ..Setup::default() };
    let Some(found) = fault(&kernel(body), "k", shape, &setup, &mut [vec![0; 8]]) else { return };
    for wanted in [
        "deadlock in CTA [0, 0, 0]",
        "warp 0 lanes 0xffffffff wait at barrier 1, PTX line 14",
        "warp 1 lanes 0xffffffff wait for the mbarrier at shared 0x0",
        "4 of 5 arrivals pending, tx-count 96",
        "PTX line 13",
    ] {
        assert!(found.contains(wanted), "{wanted}: {found}");
    }
    assert!(run_with(&kernel("ret;"), "k", shape, &setup, &mut [vec![0; 8]]).is_ok());
}
