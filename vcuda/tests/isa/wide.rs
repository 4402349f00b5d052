//! Registers of 128 bits: `mov`, `ld`, `st`, `atom.exch` and `atom.cas`.

use crate::device::VALUE;
use crate::lanes::Table;

const REGISTERS: &str = ".reg .b128 wq, wr, ws; .reg .b64 low, high;";

#[test]
fn moves_loads_and_stores() {
    let mut t = Table::default();
    for body in [
        "ld.global.b128 wq, [in]; mov.b128 {low, high}, wq; mov.b128 wr, {high, low}; mov.b128 ws, wr; st.global.b128 [out], ws; ret;",
        "ld.b128 wq, [in]; mov.b128 {low, high}, wq; st.global.v2.u64 [out], {high, low}; ret;",
        "mov.b64 x, {c, d}; mov.b64 y, {a, b}; mov.b128 wq, {x, y}; st.b128 [out], wq; ret;",
        ".shared .align 16 .b128 tile[128]; mov.u64 at, tile; mad.wide.u32 at, tid, 16, at; ld.global.b128 wq, [in];
         mov.b128 {low, high}, wq; mov.b128 wq, {high, low}; st.shared.b128 [at], wq; ld.shared.b128 wr, [at];
         st.global.b128 [out], wr; ret;",
        ".local .align 16 .b128 own; ld.global.b128 wq, [in]; st.local.b128 [own], wq; ld.local.v2.u64 {low, high}, [own];
         mov.b128 wr, {high, low}; st.global.b128 [out], wr; ret;",
    ] {
        t.kernel("", &format!("{REGISTERS} {body}"), |i, inp| {
            let [a, b, c, d] = inp[i];
            [c, d, a, b]
        });
    }
    let body = format!("{REGISTERS} ld.param.b128 wq, [value]; st.global.b128 [out], wq; ret;");
    t.kernel("", &body, |_, _| {
        [0, 4, 8, 12].map(|at| u32::from_le_bytes(VALUE[at..at + 4].try_into().expect("four bytes")))
    });
}

#[test]
fn old_values_come_back() {
    let mut t = Table::default();
    // Each thread on 16 bytes of its own, in global and in shared memory; low and high half exchanged.
    let prepare =
        "mov.b64 x, {a, b}; mov.b64 y, {c, d}; mov.b128 wq, {x, y}; mov.b128 wr, {y, x}; mov.u64 at, tile;
        mad.wide.u32 at, tid, 16, at; st.shared.b128 [at], wq; st.global.b128 [out], wq;";
    let module = ".shared .align 16 .b8 tile[2048];";
    let swapped = |[a, b, c, d]: [u32; 4]| [c, d, a, b];
    for (place, space) in [("out", ".global"), ("out", ""), ("at", ".shared")] {
        let body = |update: &str, result: &str| {
            format!(
                "{REGISTERS} {prepare} {update} ld{space}.b128 wr, [{place}]; st.global.b128 [out], {result}; ret;"
            )
        };
        let exchange = format!("atom{space}.exch.b128 ws, [{place}], wr;");
        t.kernel(module, &body(&exchange, "ws"), |i, inp| inp[i]);
        t.kernel(module, &body(&exchange, "wr"), |i, inp| swapped(inp[i]));
        // What is there is the one value, and not the other.
        let equal = format!("atom.acq_rel.gpu{space}.cas.b128 ws, [{place}], wq, wr;");
        t.kernel(module, &body(&equal, "ws"), |i, inp| inp[i]);
        t.kernel(module, &body(&equal, "wr"), |i, inp| swapped(inp[i]));
        let differs = format!("atom{space}.cas.b128 ws, [{place}], wr, wr;");
        t.kernel(module, &body(&differs, "ws"), |i, inp| inp[i]);
        t.kernel(module, &body(&differs, "wr"), |i, inp| inp[i]);
    }
}

/// All threads of the grid add to a 128-bit counter by compare-and-swap: none is lost.
#[test]
fn a_counter_of_128_bits() {
    let mut t = Table::default();
    let module = ".global .align 16 .b8 sum[16]; .global .u32 arrived = 0;";
    let body = format!(
        "{REGISTERS} .reg .b64 l, h; ld.global.b128 wq, [sum];
         again: mov.b128 {{low, high}}, wq; add.cc.u64 l, low, 0xffffffffffffffff; addc.u64 h, high, 0;
         mov.b128 wr, {{l, h}}; atom.global.cas.b128 ws, [sum], wq, wr; mov.b128 {{l, h}}, ws;
         xor.b64 low, low, l; xor.b64 high, high, h; or.b64 low, low, high; setp.ne.u64 p, low, 0;
         mov.b128 wq, ws; @p bra again;
         membar.gl; atom.global.add.u32 t, [arrived], 1; setp.ne.u32 p, t, 255; @p ret;
         ld.param.u64 out, [outs]; ld.global.b128 wq, [sum]; st.global.b128 [out], wq; ret;"
    );
    let sum = 256 * u128::from(u64::MAX);
    let words = [0, 32, 64, 96].map(|shift| (sum >> shift) as u32);
    t.kernel(module, &body, |i, _| if i == 0 { words } else { [0; 4] });
}
