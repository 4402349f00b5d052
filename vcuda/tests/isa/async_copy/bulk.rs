//! Bulk copies of one dimension, their reductions, and stores that tell an mbarrier.

use super::{check, check_on, random_bytes, refused};

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

/// The lesser or the greater, as the operation is called.
fn pick<T: PartialOrd>(op: &str, a: T, b: T) -> T {
    if (a < b) == (op == "min") { a } else { b }
}

/// One element of a reduction, in bits. The sum of two halves is exact in float64, and is rounded once.
fn reduced(op: &str, ty: &str, old: u64, new: u64) -> u64 {
    let float = |a: f64, b: f64| if op == "add" { a + b } else { pick(op, a, b) };
    match ty {
        "f16" => {
            let value = |bits: u64| half::f16::from_bits(bits as u16).to_f64();
            half::f16::from_f64(float(value(old), value(new))).to_bits().into()
        }
        "bf16" => {
            let value = |bits: u64| half::bf16::from_bits(bits as u16).to_f64();
            half::bf16::from_f64(float(value(old), value(new))).to_bits().into()
        }
        "f32" => (f32::from_bits(old as u32) + f32::from_bits(new as u32)).to_bits().into(),
        "f64" => (f64::from_bits(old) + f64::from_bits(new)).to_bits(),
        "s32" if op != "add" => pick(op, old as i32, new as i32) as u32 as u64,
        "s64" => pick(op, old as i64, new as i64) as u64,
        _ => {
            let mask = if ty.ends_with("32") { u32::MAX as u64 } else { u64::MAX };
            match op {
                "add" => old.wrapping_add(new) & mask,
                "min" | "max" => pick(op, old, new),
                "inc" if old >= new => 0,
                "inc" => old + 1,
                "dec" if old == 0 || old > new => new,
                "dec" => old - 1,
                "and" => old & new,
                "or" => old | new,
                _ => old ^ new,
            }
        }
    }
}

/// Every operation and type of `cp.reduce.async.bulk`, to global and to shared memory.
#[test]
fn bulk_reductions() {
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
        let op = op.trim_end_matches(".noftz");
        let size = if ty.contains("16") { 2 } else { ty[1..].parse::<usize>().unwrap() / 8 };
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
        check_on(inp, &body, 128, 512, |inp| {
            let value = |at: usize| {
                let mut bits = [0; 8];
                bits[..size].copy_from_slice(&inp[at..at + size]);
                u64::from_le_bytes(bits)
            };
            let element = |i: usize| reduced(op, ty, value(i * size), value(512 + i * size));
            (0..512 / size).flat_map(|i| element(i).to_le_bytes()[..size].to_vec()).collect()
        });
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
