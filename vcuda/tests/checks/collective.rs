//! Collectives that lanes come to one after another, never, or against the rules.

use crate::device::Kernel;
use crate::rounds::{COLLECTIVES, WAITS, expected, rounds};

const ONE: Kernel = Kernel { blocks: 1, threads: 128, written: 1024, body: "" };

#[test]
fn others_come_round_while_a_lane_waits() {
    for collective in &COLLECTIVES {
        for wait in &WAITS {
            let body = rounds(collective, wait, true, "st.global.u32 [to], sum;");
            let kernel = Kernel { body: Box::leak(body.into_boxed_str()), ..ONE };
            kernel.is_fine(|i| expected(collective, i));
        }
    }
}

#[test]
fn a_lane_that_never_comes() {
    // It waits for an mbarrier whose phase nobody ends.
    let body = "setp.eq.u32 p, t, 0; @p mbarrier.init.shared.b64 [bar], 1; bar.sync 0; setp.ne.u32 p, lane, 0; @p bra meet;
        wait: mbarrier.try_wait.parity.shared.b64 q, [bar], 0; @!q bra wait;
        meet: bar.warp.sync 0xffffffff; st.global.u32 [to], t;";
    Kernel { body, threads: 32, ..ONE }.is_caught(&[
        "deadlock in CTA [0, 0, 0]",
        "warp 0 lanes 0xfffffffe wait at bar.warp.sync for lanes 0x00000001 of its member mask 0xffffffff, PTX line 16",
        "warp 0 lanes 0x00000001 wait for the mbarrier at shared",
        "PTX line 15",
    ]);
    // It is at another collective, or has another mask.
    for (other, waits) in [
        ("vote.sync.any.pred q, p, -1;", "at vote.sync for lanes 0x0000ffff of its member mask 0xffffffff"),
        ("redux.sync.max.u32 b, t, -1;", "at redux.sync for lanes 0x0000ffff of its member mask 0xffffffff"),
        (
            "redux.sync.add.u32 b, t, 0xffff8000;",
            "at redux.sync for lanes 0x00008000 of its member mask 0xffff8000",
        ),
        ("barrier.sync 1, 64;", "at barrier 1"),
    ] {
        let body = format!(
            "setp.gt.u32 p, lane, 15; @p bra other; redux.sync.add.u32 b, t, -1; bra done;
            other: {other} done: st.global.u32 [to], t;"
        );
        Kernel { body: Box::leak(body.into_boxed_str()), threads: 32, ..ONE }.is_caught(&[
            "deadlock",
            "lanes 0x0000ffff wait at redux.sync for lanes 0xffff0000 of its member mask 0xffffffff, PTX line 14",
            &format!("lanes 0xffff0000 wait {waits}"),
        ]);
    }
}

#[test]
fn masks_against_the_rules() {
    let one = Kernel { threads: 32, ..ONE };
    // Lanes that exit before the others come, and after.
    for body in [
        "setp.gt.u32 p, lane, 3; @!p exit; bar.warp.sync -1; st.global.u32 [to], t;",
        "setp.gt.u32 p, lane, 3; @!p bra away; bar.warp.sync -1; st.global.u32 [to], t; away:",
    ] {
        Kernel { body, ..one }
            .is_caught(&["its member mask 0xffffffff names lanes that have exited: 0x0000000f", "line 14"]);
    }
    let body = "setp.gt.u32 p, lane, 3; @!p exit; bar.warp.sync 0xfffffff0; st.global.u32 [to], t;";
    Kernel { body, ..one }.is_fine(|i| if i > 3 { i } else { 0 });
    let body = "vote.sync.any.pred q, p, 0xffff; st.global.u32 [to], t;";
    Kernel { body, ..one }
        .is_caught(&["executed by a lane that its member mask 0x0000ffff leaves out", "line 14"]);
}

#[test]
fn a_part_of_a_warp_at_an_instruction_of_the_whole() {
    let one = Kernel { threads: 32, ..ONE };
    let body = "movmatrix.sync.aligned.m8n8.trans.b16 c, t; st.global.u32 [to], t;";
    Kernel { body, ..one }.is_fine(|i| i);
    let body =
        "setp.gt.u32 p, lane, 3; @p movmatrix.sync.aligned.m8n8.trans.b16 c, t; st.global.u32 [to], t;";
    Kernel { body, ..one }
        .is_caught(&["an instruction of the whole warp, executed by lanes 0xfffffff0 of it", "line 14"]);
    let body = "setp.gt.u32 p, lane, 3; @!p bra away; movmatrix.sync.aligned.m8n8.trans.b16 c, t;
        st.global.u32 [to], t; away:";
    Kernel { body, ..one }.is_caught(&[
        "an instruction of the whole warp, of which lanes 0x0000000f have exited before it",
        "line 14",
    ]);
    let body =
        "setp.gt.u32 p, lane, 3; @!p bra other; movmatrix.sync.aligned.m8n8.trans.b16 c, t; bra.uni done;
        other: movmatrix.sync.aligned.m8n8.trans.b16 d, t; done: st.global.u32 [to], t;";
    Kernel { body, ..one }.is_caught(&[
        "deadlock",
        "lanes 0xfffffff0 wait at an instruction of the whole warp for lanes 0x0000000f, PTX line 14",
        "lanes 0x0000000f wait at an instruction of the whole warp for lanes 0xfffffff0, PTX line 15",
    ]);
}
