#!/bin/bash
# ptxas refuses an integer constant in the place of a predicate in `set` and `setp` of bfloat16 alone.
#
# Expected: PTX ISA 9.1, section "Predicate Constants": integer constants may stand for predicates as operands of instructions, zero for
#   false and anything else for true. What `.and`, `.or` and `.xor` of set and setp combine with is such an operand, whatever the type
#   that is compared.
# Seen: ptxas 12.9.86 and 13.5.37 take a constant there for f16, f32 and s32, as for `xor.pred p, q, -1`, which NVRTC 13.0 writes.
#   For bf16 and bf16x2 they say "Arguments mismatch for instruction 'setp'" (or 'set'). A register does.
# Matters: a generator that folds a known predicate into a constant makes PTX that assembles for one type and not for the next.
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
.target sm_90
.address_size 64
.visible .entry k()
{
    .reg .b16 %h<4>; .reg .b32 %r<4>; .reg .f32 %f<4>; .reg .pred %p<4>;
    $2
    ret;
}
PTX
  "$1" -arch sm_90 "$dir/k.ptx" -o "$dir/k.cubin" >"$dir/said" 2>&1
}

status=0
for ptxas in "$dir"/12/nvidia/cuda_nvcc/bin/ptxas "$dir"/13/nvidia/cu13/bin/ptxas; do
  "$ptxas" --version | grep release
  while read -r form; do
    if accepts "$ptxas" "$form"; then echo "  accepted: $form"; else echo "  REFUSED:  $form"; cat "$dir/said"; status=1; fi
  done <<'FORMS'
xor.pred %p1, %p2, -1;
setp.eq.and.f16 %p1, %h1, %h2, 1;
setp.eq.and.f32 %p1, %f1, %f2, 1;
setp.eq.and.s32 %p1, %r1, %r2, 1;
setp.eq.and.bf16 %p1, %h1, %h2, %p2;
set.eq.and.bf16.bf16 %h3, %h1, %h2, %p2;
FORMS
  while read -r form; do
    if accepts "$ptxas" "$form"; then
      echo "  ACCEPTED: $form"; status=1
    else
      grep -q 'Arguments mismatch' "$dir/said" || { cat "$dir/said"; status=1; }
      echo "  refused:  $form"
    fi
  done <<'FORMS'
setp.eq.and.bf16 %p1, %h1, %h2, 1;
setp.eq.or.bf16x2 %p1|%p3, %r1, %r2, 0;
set.eq.and.bf16.bf16 %h3, %h1, %h2, 1;
FORMS
done
exit $status
