#!/bin/bash
# ptxas drops setmaxnreg from a kernel whose number of threads is known, and says so in an "info" alone.
#
# Expected: PTX ISA, 9.7 (setmaxnreg): the kernel needs "a valid value of maximum number of per-thread registers specified via the
#   appropriate compile-time option or the appropriate performance tuning directive", else it "may have no effect". Such
#   directives (PTX ISA 11.4) are .maxnreg, .maxntid, .reqntid and .minnctapersm; which of these is appropriate is not said. With
#   .reqntid 384 one multiprocessor of 65,536 registers has at most 168 for each thread, so that one would do.
# Seen: ptxas 12.9.86 and 13.5.37 ignore it with .maxntid and with .reqntid, and exit with 0; only .minnctapersm beside either, or
#   .maxnreg, gives it its effect. What they print is no warning, so that it is seen where there is a terminal alone: not through
#   the driver's JIT, and not by -Werror.
# Matters: CUDA C++'s __launch_bounds__(384) is .maxntid: a warp-specialised kernel keeps equal registers in all its warpgroups,
#   and its consumers spill. __launch_bounds__(384, 1) is what is meant.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$dir/13" \
  nvidia-cuda-nvcc==13.5.37
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$dir/12" \
  nvidia-cuda-nvcc-cu12==12.9.86

status=0
# holds PTXAS ignored|kept DIRECTIVES
holds() {
  cat >"$dir/k.ptx" <<PTX
.version 8.8
.target sm_90a
.address_size 64
.visible .entry k(.param .u64 out) $3
{
    .reg .b32 %r; .reg .b64 %d;
    ld.param.u64 %d, [out];
    setmaxnreg.dec.sync.aligned.u32 40;
    mov.u32 %r, %tid.x;
    st.global.u32 [%d], %r;
    ret;
}
PTX
  text=$("$1" -Werror -arch sm_90a "$dir/k.ptx" -o "$dir/k.cubin" 2>&1)
  case $text in
    *"info"*"'setmaxnreg' ignored; unable to determine register count at entry"*) found=ignored ;;
    '') found=kept ;;
    *) found="something else: $text" ;;
  esac
  echo "  $3: $found"
  [ "$found" = "$2" ] || status=1
}
for ptxas in "$dir"/12/nvidia/cuda_nvcc/bin/ptxas "$dir"/13/nvidia/cu13/bin/ptxas; do
  "$ptxas" --version | grep release
  holds "$ptxas" ignored '.maxntid 384'
  holds "$ptxas" ignored '.reqntid 384'
  holds "$ptxas" kept '.maxntid 384 .minnctapersm 1'
  holds "$ptxas" kept '.reqntid 384 .minnctapersm 1'
  holds "$ptxas" kept '.maxnreg 168'
done
exit $status
