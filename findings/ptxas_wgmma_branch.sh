#!/usr/bin/env bash
# Zeros on a branch without products make ptxas serialize the wgmma of the other branch; the same zeros before both do not.
#
# A loop over tiles computes a tile's sums by wgmma, or has zeros where the tile lies outside. The branch with the products ends
# with wgmma.wait_group 0: nothing is under way where both branches meet. With the zeros on the other branch ptxas reports C7515,
# "non wgmma instructions defining accumulator registers", and no two products of the loop overlap. With the same zeros moved
# before the branch, or with nothing on the other branch, it reports nothing. What follows the wait on the products' own branch
# (here each sum times two) makes no difference. So a kernel that passes over tiles zeroes its sums before it decides to.
#
# Seen with ptxas 13.5.37 (nvidia-cuda-nvcc) and 12.9.86 (nvidia-cuda-nvcc-cu12) on Linux x86-64, 2026-11-29. Needs python3 with
# pip; no GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$@"; }
install "$work/13.5" 'nvidia-cuda-nvcc==13.5.37'
install "$work/12.9" 'nvidia-cuda-nvcc-cu12==12.9.86'
cat > "$work/kernel.py" <<'PYTHON'
import sys
each = lambda line: "\n".join(line.format(i=i, at=512 * i) for i in range(8))
zeros, twice = each("mov.f32 %f{i}, 0f00000000;"), each("mul.f32 %f{i}, %f{i}, 0f40000000;")
before, behind, other = {
    "zeros-on-the-branch": ("", "", zeros),
    "zeros-before-it": (zeros, "", ""),
    "nothing-on-the-branch": ("", "", ""),
    "twice-behind-the-products": (zeros, twice, ""),
}[sys.argv[1]]
print(f""".version 8.0
.target sm_90a
.address_size 64
.visible .entry f(.param .u64 out, .param .u64 a, .param .u64 b, .param .u32 steps, .param .u32 tiles, .param .u32 inside)
.reqntid 128, 1, 1
{{
    .reg .f32 %f<8>; .reg .b64 %rd<5>; .reg .b32 %r<7>; .reg .pred %p<5>;
    ld.param.u64 %rd1, [out]; ld.param.u64 %rd2, [a]; ld.param.u64 %rd3, [b];
    ld.param.u32 %r2, [steps]; ld.param.u32 %r3, [tiles]; ld.param.u32 %r4, [inside];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r1, %tid.x; mul.wide.u32 %rd4, %r1, 4; add.s64 %rd1, %rd1, %rd4;
    mov.u32 %r5, %ctaid.x;
TILE:
    setp.ge.u32 %p1, %r5, %r3;
    @%p1 bra END;
    {before}
    setp.ge.u32 %p2, %r5, %r4;
    @%p2 bra OUTSIDE;
    mov.u32 %r6, 0;
STEP:
    wgmma.fence.sync.aligned;
    setp.ne.u32 %p3, %r6, 0;
    wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {{{", ".join(f"%f{i}" for i in range(8))}}}, %rd2, %rd3, %p3, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 1;
    add.u32 %r6, %r6, 1;
    setp.lt.u32 %p4, %r6, %r2;
    @%p4 bra STEP;
    wgmma.wait_group.sync.aligned 0;
    {behind}
    bra STORE;
OUTSIDE:
    {other}
STORE:
    {each("st.global.f32 [%rd1+{at}], %f{i};")}
    add.s64 %rd1, %rd1, 4096;
    add.u32 %r5, %r5, 1;
    bra TILE;
END:
    ret;
}}""")
PYTHON
expect() {
  local seen ptxas said
  ptxas=$(echo "$work/$1"/nvidia/*/bin/ptxas)
  python3 "$work/kernel.py" "$2" > "$work/f.ptx"
  said=$("$ptxas" -v -arch=sm_90a "$work/f.ptx" -o "$work/f.cubin" 2>&1)
  case $said in *C7515*) seen=serialized ;; *) seen=overlap ;; esac
  if [ "$seen" != "$3" ]; then echo "changed: ptxas $1, $2: $seen instead of $3"; exit 1; fi
  echo "seen: ptxas $1, $2: $seen"
}
for release in 12.9 13.5; do
  expect $release zeros-on-the-branch serialized
  expect $release zeros-before-it overlap
  expect $release nothing-on-the-branch overlap
  expect $release twice-behind-the-products overlap
done
