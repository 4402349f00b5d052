#!/bin/bash
# ptxas accepts instructions that the syntax of the PTX ISA does not have.
#
# Expected: by the PTX ISA 9.5, chapter 9.7, the syntax of each instruction says which parts its opcode has, and how often.
#   `.aligned` is mandatory for wgmma ("The mandatory .aligned qualifier indicates …"), `.approx` and `.sat` stand once, and
#   `testp` has one of six tests. A form that is not among these is an error, like `add.ftz.ftz.f32`.
# Seen: ptxas 12.9.86 and 13.5.37 assemble the ten forms below without a word. `add.ftz.ftz.f32` and `add.rn.rn.f32` they refuse.
# Matters: PTX written by hand or by a generator is not proven by ptxas. Another consumer of it (a checker, a translator, a
#   later ptxas) may rightly refuse what this one let pass, and a `testp` that lost its test tests something nobody asked for.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$dir/13" \
  nvidia-cuda-nvcc==13.5.37
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$dir/12" \
  nvidia-cuda-nvcc-cu12==12.9.86

# accepts PTXAS FORM
accepts() {
  cat >"$dir/k.ptx" <<PTX
.version 8.8
.target sm_90a
.address_size 64
.visible .entry k()
{
    .reg .b32 %r<9>; .reg .f32 %f<5>; .reg .f64 %g<3>; .reg .b64 %d<2>; .reg .pred %p<2>;
    .shared .align 128 .b8 buf[1024];
    $2
    ret;
}
PTX
  "$1" -arch sm_90a "$dir/k.ptx" -o "$dir/k.cubin" >/dev/null 2>&1
}

status=0
for ptxas in "$dir"/12/nvidia/cuda_nvcc/bin/ptxas "$dir"/13/nvidia/cu13/bin/ptxas; do
  "$ptxas" --version | grep release
  # What the ISA has is accepted, and what both agree on is refused.
  accepts "$ptxas" 'add.sat.s32 %r1, %r2, %r3;' || { echo "the plain form is refused" >&2; exit 1; }
  for form in 'add.ftz.ftz.f32 %f1, %f2, %f3;' 'add.rn.rn.f32 %f1, %f2, %f3;'; do
    accepts "$ptxas" "$form" && { echo "accepted now: $form"; status=1; }
  done
  while read -r form; do
    if accepts "$ptxas" "$form"; then echo "  accepted: $form"; else echo "  REFUSED:  $form"; status=1; fi
  done <<'FORMS'
add.sat.sat.s32 %r1, %r2, %r3;
ex2.approx.approx.f32 %f1, %f2;
tanh.approx.approx.f32 %f1, %f2;
rsqrt.approx.approx.f64 %g1, %g2;
redux.sync.sync.add.s32 %r1, %r2, %r3;
wgmma.fence.sync;
wgmma.mma_async.sync.m64n8k16.f32.f16.f16 {%f1, %f2, %f3, %f4}, {%r5, %r6, %r7, %r8}, %d1, 1, 1, 1, 0;
stmatrix.sync.aligned.m8n8.x1.row.shared.b16 [buf], {%r1};
movmatrix.sync.aligned.m8n8.row.trans.b16 %r1, %r2;
testp.f64 %p1, %g2;
FORMS
done
exit $status
