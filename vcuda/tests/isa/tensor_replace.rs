//! Tensor maps that a kernel changes, or builds from zeros, by `tensormap.replace` (PTX ISA 9.7.9.28), and the copies that they
//! describe.

use crate::device::{Checks, Setup, Shape, fault, run_with};
use crate::lanes::HEADER;
use crate::tensor_copy::{map, setups};

/// The map at shared `a` is copied to `maps`, and a box of 12 words at (`column`, 1) loaded by it, then written to `out`.
fn publish_and_load(column: u32) -> String {
    format!(
        "mbarrier.init.shared.b64 [bar], 1;
publish: bar.warp.sync -1;
tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [maps], [a], 128;
fence.proxy.tensormap::generic.acquire.gpu [maps], 128;
@!leader bra end; mov.u32 a, tile; mov.u32 b, {column}; mov.u32 c, 1;
mbarrier.arrive.expect_tx.shared.b64 _, [bar], 48;
cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [a], [maps, {{b, c}}], [bar];
wait: mbarrier.try_wait.parity.shared.b64 p, [bar], 0; @!p bra wait;
end: bar.sync 0; setp.ge.u32 p, tid, 12; @p ret;
mov.u32 a, tile; mad.lo.u32 a, tid, 4, a; ld.shared.u32 b, [a]; mad.wide.u32 y, tid, 4, out; st.global.u32 [y], b;
ret;
}}
"
    )
}

/// A map is copied to shared memory, changed there, copied to global memory, and used from there.
#[test]
fn maps_are_replaced_on_the_device() {
    let kernel = format!(
        "{HEADER}.visible .entry k(.param .u64 outs, .param .u64 base, .param .u64 list, .param .align 64 .b8 map[128])
{{
.reg .pred p, leader; .reg .b32 a, b, c, tid; .reg .b64 out, maps, tensor, x, y;
.shared .align 128 .b8 tile[1024]; .shared .align 128 .b8 copy[128]; .shared .align 8 .b64 bar;
ld.param.u64 out, [outs]; ld.param.u64 maps, [list]; ld.param.u64 tensor, [base]; mov.u32 tid, %tid.x;
setp.eq.u32 leader, tid, 0; mov.b64 x, map; cvta.param.u64 x, x; mov.u32 a, copy;
mad.wide.u32 y, tid, 4, x; ld.u32 b, [y]; mad.lo.u32 c, tid, 4, a; st.shared.u32 [c], b; bar.sync 0;
@!leader bra publish;
add.u64 tensor, tensor, 16;
tensormap.replace.tile.global_address.shared::cta.b1024.b64 [a], tensor;
tensormap.replace.tile.rank.shared::cta.b1024.b32 [a], 1;
tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [a], 0, 4; mov.u32 b, 3;
tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [a], 1, b;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [a], 0, 6;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [a], 1, b; mov.u64 y, 32;
tensormap.replace.tile.global_stride.shared::cta.b1024.b64 [a], 0, y;
tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [a], 1, 1;
tensormap.replace.tile.elemtype.shared::cta.b1024.b32 [a], 7;
tensormap.replace.tile.interleave_layout.shared::cta.b1024.b32 [a], 0;
tensormap.replace.tile.swizzle_mode.shared::cta.b1024.b32 [a], 0;
tensormap.replace.tile.fill_mode.shared::cta.b1024.b32 [a], 1;
{load}",
        load = publish_and_load(4)
    );
    let first = map(2, 4, &[4], &[4], &[1], 0, 0);
    let tensor: Vec<u8> = (0..28u32).flat_map(u32::to_le_bytes).collect();
    for setup in setups(&first) {
        let mut buffers = [vec![0; 48], tensor.clone(), vec![0; 128]];
        let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
        run_with(&kernel, "k", shape, &setup, &mut buffers).unwrap();
        // Rows of 6 floats, 8 apart, from the fifth word on; the box begins at column 4 of row 1.
        let found: Vec<u32> =
            buffers[0].chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        let row = |r: u32| [4 + 8 * r + 4, 4 + 8 * r + 5];
        assert_eq!([found[0], found[1], found[4], found[5]], [row(1), row(2)].concat()[..]);
        for nan in [2, 3, 6, 7, 8, 9, 10, 11] {
            assert!(f32::from_bits(found[nan]).is_nan(), "word {nan}: {:x?}", found);
        }
    }
}

/// Every field of a map of two dimensions of words, rows of 6 in 32 bytes and a box of 4 by 3, `tensor` its address.
const FIELDS: [&str; 12] = [
    "global_address.shared::cta.b1024.b64 [a], tensor;",
    "rank.shared::cta.b1024.b32 [a], 1;",
    "box_dim.shared::cta.b1024.b32 [a], 0, 4;",
    "box_dim.shared::cta.b1024.b32 [a], 1, 3;",
    "global_dim.shared::cta.b1024.b32 [a], 0, 6;",
    "global_dim.shared::cta.b1024.b32 [a], 1, 4;",
    "global_stride.shared::cta.b1024.b64 [a], 0, 32;",
    "element_stride.shared::cta.b1024.b32 [a], 0, 1; tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [a], 1, 1;",
    "elemtype.shared::cta.b1024.b32 [a], 2;",
    "interleave_layout.shared::cta.b1024.b32 [a], 0;",
    "swizzle_mode.shared::cta.b1024.b32 [a], 0;",
    "fill_mode.shared::cta.b1024.b32 [a], 0;",
];

/// The first of those whose zeros mean something: none.
const MODES: usize = 9;

/// Builds a map from zeros with these fields, and loads its box at (1, 1).
fn build_kernel(fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("tensormap.replace.tile.{field}\n")).collect();
    format!(
        "{HEADER}.visible .entry k(.param .u64 outs, .param .u64 base, .param .u64 list)
{{
.reg .pred p, leader; .reg .b32 a, b, c, tid; .reg .b64 out, maps, tensor, y;
.shared .align 128 .b8 tile[1024]; .shared .align 128 .b8 map[128]; .shared .align 8 .b64 bar;
ld.param.u64 out, [outs]; ld.param.u64 maps, [list]; ld.param.u64 tensor, [base]; mov.u32 tid, %tid.x;
setp.eq.u32 leader, tid, 0; mov.u32 a, map; mad.lo.u32 c, tid, 4, a; st.shared.u32 [c], 0; bar.warp.sync -1;
@!leader bra publish;
{fields}
{load}",
        load = publish_and_load(1)
    )
}

/// Maps that are built from zeros, their fields set in any order, and what they lack or contradict.
#[test]
fn maps_are_built_on_the_device() {
    let tensor: Vec<u8> = (0..32u32).flat_map(u32::to_le_bytes).collect();
    let buffers = || [vec![0; 48], tensor.clone(), vec![0; 128]];
    let shape = Shape { blocks: 1, threads: 32, shared_bytes: 0 };
    let all = |asynchrony| Checks { asynchrony, init: asynchrony, race: asynchrony, ..Checks::default() };
    let setups = [false, true].map(|on| Setup { cluster: 1, checks: all(on), seed: 3, ..Setup::default() });
    let mut backward = FIELDS;
    backward.reverse();
    let orders = [&FIELDS[..], &backward, &FIELDS[..MODES]];
    for (setup, fields) in setups.iter().flat_map(|setup| orders.map(|fields| (setup, fields))) {
        let mut buffers = buffers();
        let ran = run_with(&build_kernel(fields), "k", shape, setup, &mut buffers).unwrap();
        let wanted: Vec<u8> = (1..4)
            .flat_map(|row| (1..5).map(move |column| 8 * row + column))
            .flat_map(u32::to_le_bytes)
            .collect();
        assert_eq!(buffers[0], wanted);
        ran.keep_exactly(&[(0, &wanted)]);
    }
    let refused = |fields: &[&str], wanted: &str| {
        let Some(found) = fault(&build_kernel(fields), "k", shape, &setups[0], &mut buffers()) else {
            return;
        };
        assert!(found.contains(wanted) && found.contains("PTX line"), "{wanted}\n{found}");
    };
    for left_out in 0..MODES {
        let field = FIELDS[left_out];
        let name = field.split('.').next().unwrap_or(field);
        let fields: Vec<&str> = (0..FIELDS.len()).filter(|&i| i != left_out).map(|i| FIELDS[i]).collect();
        refused(&fields, &format!("never set: {name}"));
    }
    refused(&[], "there is no tensor map at");
    let contradictions = [
        (2, "box_dim.shared::cta.b1024.b32 [a], 0, 3;", "the box's inner 12 bytes are no multiple of 16"),
        (6, "global_stride.shared::cta.b1024.b64 [a], 0, 24;", "stride 0 is 24 bytes"),
        (1, "rank.shared::cta.b1024.b32 [a], 0;", "2 coordinates for a tensor map of rank 1"),
        (11, "fill_mode.shared::cta.b1024.b32 [a], 1;", "a NaN fill of integers"),
        (4, "global_dim.shared::cta.b1024.b32 [a], 0, 2147483649;", "dimension 0 is 2147483649: 1 to 2^31"),
    ];
    for (number, field, wanted) in contradictions {
        let mut fields = FIELDS;
        fields[number] = field;
        refused(&fields, wanted);
    }
}
