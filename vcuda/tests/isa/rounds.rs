//! Rounds of a loop with a collective at its head. In its body lane 0 waits, for a flag, an mbarrier or a lock, while the
//! others come round to the head: that is at a lower pc, and they must wait there for lane 0.

/// Rounds of a loop.
const ROUNDS: u32 = 4;

/// Which leaves its result in `u`, from `x`: odd, and two more each round, in lane 0; twice the lane in the others.
pub struct Collective {
    text: &'static str,
    /// What lane `1` has of round `0`.
    result: fn(u32, u32) -> u32,
}

/// With the member mask in `m`.
pub const COLLECTIVES: [Collective; 9] = [
    Collective { text: "shfl.sync.idx.b32 u, x, 0, 31, m;", result: |round, _| 2 * round + 1 },
    Collective {
        text: "and.b32 u, x, 1; setp.ne.u32 p, u, 0; vote.sync.ballot.b32 u, p, m;",
        result: |_, _| 1,
    },
    Collective {
        text: "and.b32 u, x, 1; setp.ne.u32 p, u, 0; vote.sync.any.pred p, p, m; selp.u32 u, 1, 0, p;",
        result: |_, _| 1,
    },
    Collective {
        text: "and.b32 u, x, 1; match.any.sync.b32 u, u, m;",
        result: |_, lane| if lane == 0 { 1 } else { !1 },
    },
    Collective { text: "mov.u32 u, 7; match.all.sync.b32 u, u, m;", result: |_, _| !0 },
    Collective { text: "redux.sync.add.u32 u, x, m;", result: |round, _| 992 + 2 * round + 1 },
    Collective { text: "redux.sync.max.s32 u, x, m;", result: |_, _| 62 },
    Collective {
        text: "elect.sync u|p, m; selp.u32 v, 1, 0, p; add.u32 u, u, v;",
        result: |_, lane| u32::from(lane == 0),
    },
    Collective {
        text: "bar.warp.sync m; ld.shared.u32 u, [base+24]; bar.warp.sync m;",
        result: |round, _| 2 * round + 1,
    },
];

/// How lane 0 waits, and what the first lane of the next warp does about it.
pub struct Wait {
    body: &'static str,
    other: &'static str,
}

const CHANGE: &str = "add.u32 x, x, 2; st.shared.u32 [base+24], x;";

pub const WAITS: [Wait; 3] = [
    Wait {
        body: "@!is_first bra ON; and.b32 v, round, 1;
            WAIT: mbarrier.try_wait.parity.shared.b64 p, [base], v; @!p bra WAIT;
            CHANGE mbarrier.arrive.shared.b64 _, [base+8]; ON:",
        other: "and.b32 v, round, 1; mbarrier.arrive.shared.b64 _, [base];
            BACK: mbarrier.try_wait.parity.shared.b64 p, [base+8], v; @!p bra BACK;",
    },
    Wait {
        body: "@!is_first bra ON; WAIT: ld.volatile.shared.u32 v, [base+16]; setp.le.u32 p, v, round; @p bra WAIT;
            CHANGE add.u32 v, round, 1; st.volatile.shared.u32 [base+20], v; ON:",
        other: "add.u32 v, round, 1; st.volatile.shared.u32 [base+16], v;
            BACK: ld.volatile.shared.u32 u, [base+20]; setp.lt.u32 p, u, v; @p bra BACK;",
    },
    // All lanes, one after another.
    Wait {
        body: "WAIT: atom.shared.cas.b32 v, [base+28], 0, 1; setp.ne.u32 p, v, 0; @p bra WAIT;
            @!is_first bra ON; CHANGE ON: atom.shared.exch.b32 v, [base+28], 0;",
        other: "BACK: atom.shared.cas.b32 v, [base+28], 0, 1; setp.ne.u32 p, v, 0; @p bra BACK;
            atom.shared.exch.b32 v, [base+28], 0;",
    },
];

/// The loop in the even warps; lane 0 of the odd ones answers. Each pair has 32 bytes of `tile`: mbarriers at 0 and 8, flags at
/// 16 and 20, a word at 24, a lock at 28. `store` has what comes of `sum`. The mask is a constant, or in a register.
pub fn rounds(collective: &Collective, wait: &Wait, is_constant: bool, store: &str) -> String {
    let text = match is_constant {
        true => collective.text.replace(" m;", " 0xffffffff;"),
        false => collective.text.to_string(),
    };
    let (body, other) = (wait.body.replace("CHANGE", CHANGE), wait.other);
    format!(
        "{{ .reg .pred p, is_first; .reg .b32 thread, own, base, round, x, sum, u, v, m;
        mov.u32 thread, %tid.x; and.b32 own, thread, 31; setp.eq.u32 is_first, own, 0; mov.u32 m, -1;
        shr.u32 u, thread, 6; mov.u32 base, tile; mad.lo.u32 base, u, 32, base;
        and.b32 u, thread, 63; setp.ne.u32 p, u, 0; @p bra READY;
        mbarrier.init.shared.b64 [base], 1; mbarrier.init.shared.b64 [base+8], 1;
        st.shared.u32 [base+16], 0; st.shared.u32 [base+20], 0; st.shared.u32 [base+24], 1; st.shared.u32 [base+28], 0;
        READY: bar.sync 0; mov.u32 sum, 0; mov.u32 round, 0; shl.b32 x, own, 1; @is_first mov.u32 x, 1;
        and.b32 u, thread, 32; setp.ne.u32 p, u, 0; @p bra ANSWER;
        NEXT: {text} add.u32 sum, sum, u; {body}
        add.u32 round, round, 1; setp.lt.u32 p, round, {ROUNDS}; @p bra NEXT; bra.uni DONE;
        ANSWER: @!is_first bra DONE;
        AGAIN: {other} add.u32 round, round, 1; setp.lt.u32 p, round, {ROUNDS}; @p bra AGAIN;
        DONE: {store} }}"
    )
}

/// What a thread has in `sum`.
pub fn expected(collective: &Collective, thread: u32) -> u32 {
    let results = (0..ROUNDS).map(|round| (collective.result)(round, thread % 32));
    if (thread / 32).is_multiple_of(2) { results.fold(0, u32::wrapping_add) } else { 0 }
}
