#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, without Rust or network: run.sh [LOG_FOLDER]
#
#   doctor; every test that opens a device, on the real one; the same step on vcuda and on the GPU side by side;
#   compute-sanitizer over the small tests where it is installed; the benches. A short table last.
#   DEVICE=virtual tries the bundle itself where there is no GPU.
set -uo pipefail
device=${DEVICE:-gpu}
here=$(cd "$(dirname "$0")" && pwd)
logs=${1:-$here/logs}
mkdir -p "$logs"
tar -C "$here" -xzf "$here/programs.tar.gz"
export MEMO_FIXTURES=$here/fixtures MEMO_PROGRAM=$here/memo MEMO_ASSETS=$here/assets MEMO_CACHE=$here/cache
export LD_LIBRARY_PATH=$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

# PyTorch's environment has NVRTC: ask the interpreter where, if PATH alone does not tell.
if [ -z "${MEMO_NVRTC:-}" ]; then
  nvrtc=$(python3 - <<'PY' 2>/dev/null
import glob, os, site, sys
roots = site.getsitepackages() + [site.getusersitepackages()] + sys.path
found = [f for r in roots for f in glob.glob(os.path.join(r, "nvidia", "*", "lib", "libnvrtc.so.*"))]
print(os.path.dirname(sorted(found)[-1]) if found else "")
PY
  )
  [ -n "$nvrtc" ] && export MEMO_NVRTC=$nvrtc
fi

rows=()
failures=0
# step NAME SECONDS COMMAND…: runs it, keeps its output in a log, remembers how it ended.
step() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  timeout "$limit" "$@" >"$logs/$name.log" 2>&1
  code=$?
  [ $code -eq 0 ] || failures=$((failures + 1))
  rows+=("$(printf '%-34s %-6s %5d s   %s' "$name" "$([ $code -eq 0 ] && echo ok || echo "rc $code")" \
    $((SECONDS - start)) "$(grep -E 'test result|images/s|worst|ERROR SUMMARY|equal' "$logs/$name.log" | tail -1)")")
}

nvidia-smi >"$logs/nvidia-smi.log" 2>&1 || true
step doctor 120 "$here/memo" doctor --device "$device"

export MEMO_TEST_DEVICE=$device
for test in "$here"/tests/memo-*; do
  step "$(basename "$test")" 240 "$test" --test-threads=1
done
# The instruction cases are kept, each in a file of its own, and run from there by the GPU's own driver.
step vcuda-isa 240 env VCUDA_ISA_OUT="$here/isa" "$here/tests/vcuda-isa"
[ "$device" = gpu ] && export VCUDA_ISA_DRIVER=libcuda.so.1
step isa-on-the-$device 300 env VCUDA_ISA_FILES="$here/isa" "$here/tests/vcuda-isa" --nocapture files::a_folder_of_cases
unset VCUDA_ISA_DRIVER
rm -rf "$here/isa"

step side-by-side-virtual 240 "$here/benches/memo-side_by_side" --device virtual --write "$logs/virtual.safetensors"
step side-by-side-$device 120 "$here/benches/memo-side_by_side" --device "$device" --compare "$logs/virtual.safetensors"
rm -f "$logs/virtual.safetensors"

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1)
if [ -n "$sanitizer" ] && [ "$device" = gpu ]; then
  export MEMO_TEST_DEVICE=gpu
  for tool in memcheck racecheck initcheck synccheck; do
    step "sanitizer-$tool" 240 "$sanitizer" --tool "$tool" --error-exitcode 9 \
      "$here/tests/memo-lib" --test-threads=1 ops::
  done
fi

step demo 120 "$here/memo" demo --device "$device" --out "$logs"
# Whole batches, as many as a GPU needs to be timed.
images=2
[ "$device" = gpu ] && images=180
bench() {
  local name=$1
  shift
  step "bench-vit-b32-$name" 300 "$here/benches/memo-vit_b32" --device "$device" --images $images --classes 100 "$@"
}
bench 8-views --views 8
bench 50-views --views 50 --stages
bench 50-views-in-place --views 50 --update in-place
bench 50-views-fp32 --views 50 --precision fp32

{
  date -u
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null
  printf '%s\n' "${rows[@]}"
  echo "$failures of ${#rows[@]} steps failed"
} | tee "$logs/table.txt"
[ "$failures" -eq 0 ]
