//! Faults of copies: misuse, and waits that are missing.

use super::{kernel, random_bytes, refused, setups};
use crate::device::{Setup, Shape, run_with};

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
        (false, "cp.async.ca.shared.global [a], [in+8192], 4;".to_string(), "past the end of the allocation"),
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
