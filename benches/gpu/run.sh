#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, without Rust or network: run.sh [LOG_FOLDER]
#
# What tells most comes first: doctor; the backends' proofs of themselves; results against float64; the same step on vcuda and here;
# memo bench; each product against cuBLAS and the step against libtorch, where torch is; then every test that opens a device,
# and compute-sanitizer where it is installed. A table last, and after each part in LOG_FOLDER/table.txt.
#
# It ends within SECONDS_IN_ALL (540), each part within its own limit; what there was no time for, or was cut off, a second run with
# the same folder does: first what has not been tried yet, then what has failed. A folder is of one bundle on one device.
# DEVICE=virtual tries the bundle itself, in little, where there is no GPU.
set -uo pipefail
device=${DEVICE:-gpu}
here=$(cd "$(dirname "$0")" && pwd)
logs=${1:-$here/logs}
whole=${SECONDS_IN_ALL:-540}
case $device in gpu | virtual) ;; *) echo "error: DEVICE=$device: expected gpu or virtual" >&2; exit 2 ;; esac
mkdir -p "$logs" || exit 1
logs=$(cd "$logs" && pwd)
timeout 20 nvidia-smi >"$logs/nvidia-smi.log" 2>&1
gpu=$(timeout 20 nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null)

# What an earlier bundle, or another device, has passed is passed by no other.
of="$device, $gpu, bundle $(sha256sum "$here/programs.tar.xz" | cut -c1-16)"
if [ ! -e "$logs/of" ]; then
  echo "$of" >"$logs/of"
elif [ "$(cat "$logs/of")" != "$of" ]; then
  echo "error: $logs is of $(cat "$logs/of"), this is $of: name another folder, or remove it" >&2
  exit 2
fi

# Marked when all of it is there, and again where a newer bundle was put over it.
if [ ! "$here/unpacked" -nt "$here/programs.tar.xz" ]; then
  # Small images have no xz.
  tar -C "$here" -xJf "$here/programs.tar.xz" 2>/dev/null ||
    python3 -I -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/programs.tar.xz" "$here" || exit 1
  touch "$here/unpacked"
fi
export MEMO_FIXTURES=$here/fixtures MEMO_PROGRAM=$here/memo MEMO_ASSETS=$here/assets MEMO_CACHE=$here/cache
export MEMO_TEST_DEVICE=$device MEMO_VCUDA=$here/libvcuda.so
export LD_LIBRARY_PATH=$here${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
model=$here/benches/vit-b32-fp16
memo=$here/memo
python=${MEMO_PYTHON:-python3}

# PyTorch's environment has NVRTC, which memo looks for where PATH's python is; its interpreter may know more places. -I, and full
# paths alone: what lies in the current folder is neither imported nor loaded.
if [ -z "${MEMO_NVRTC:-}" ]; then
  places=$(python3 -I - <<'PY' 2>/dev/null
import glob, os, site, sys
roots = site.getsitepackages() + [site.getusersitepackages()] + sys.path + os.environ.get("PYTHONPATH", "").split(os.pathsep)
files = [f for r in roots if os.path.isabs(r) for f in glob.glob(os.path.join(glob.escape(r), "nvidia", "*", "lib", "libnvrtc.so.*"))]
print(":".join(sorted({os.path.dirname(f) for f in files if ":" not in f})))
PY
  )
  wheel() { timeout 60 "$memo" doctor --device "$device" --wheel 2>/dev/null; }
  found() { timeout 90 "$memo" doctor --device "$device" --json 2>/dev/null | grep '"nvrtc":{"ok":true' >/dev/null; }
  # Where they fit the driver better than what memo finds by itself, or it finds nothing.
  if [ -n "$places" ] && [ -n "$(wheel)" ] && { [ -z "$(MEMO_NVRTC=$places wheel)" ] || ! found; }; then
    export MEMO_NVRTC=$places
  fi
fi

# Ctrl-C ends what is under way, too.
child=
trap '[ -n "$child" ] && kill "$child" 2>/dev/null; exit 130' INT TERM HUP

rows() { (cd "$logs" && ls -tr -- *.row 2>/dev/null); }

table() {
  date -u
  cat "$logs/of"
  rows | while read -r row; do cat "$logs/$row"; done
}

# Whether a row, its name and how it ended, is of a part that is done.
is_done='^[^ ]+ +(ok|skipped) '

# part NAME SECONDS COMMAND…: runs it if it is its turn, keeps its output in a log, and how it ended in a row of the table.
part() {
  local name=$1 limit=$2 start=$SECONDS code word left=$((whole - SECONDS))
  shift 2
  case $turn in
    untried) [ -e "$logs/$name.row" ] && return ;;
    # What this run has tried is not tried again.
    failed) [ -e "$logs/$name.row" ] && [ "$logs/$name.row" -ot "$logs/started" ] && ! grep -qE "$is_done" "$logs/$name.row" || return ;;
  esac
  if [ "$left" -lt 5 ]; then
    waiting+=("$name")
    return
  fi
  timeout --kill-after=5 $((limit < left ? limit : left)) "$@" >"$logs/$name.log" 2>&1 </dev/null &
  child=$!
  wait "$child"
  code=$?
  child=
  if [ $code -ge 124 ] && [ "$limit" -gt "$left" ] && [ $((SECONDS - start)) -ge "$left" ]; then
    waiting+=("$name") # for want of time, not by its own fault
    return
  fi
  case $code in 0) word=ok ;; 77) word=skipped ;; 124 | 137) word="over $limit s" ;; *) word="failed, $code" ;; esac
  printf '%-30s %-12s %4d s  %s\n' "$name" "$word" $((SECONDS - start)) \
    "$(grep -hE 'test result|images/s|worst|ERROR SUMMARY|equal|skipped:|^error' "$logs/$name.log" | tail -1 | cut -c1-150)" >"$logs/$name.row"
  cat "$logs/$name.row"
  table >"$logs/table.txt"
}

# bench NAME SECONDS FLAG…: memo bench on a checkpoint of ViT-B/32's size, of random weights, which the first one makes; a GPU's
# batches are graphs, but where stages are timed.
bench() {
  local name=$1 limit=$2
  shift 2
  part "bench-$name" "$limit" "$here/benches/memo-vit_b32" --device "$device" "$@"
}

shapes_and_cublas() {
  "$memo" bench --model "$model" --device "$device" --batch 9 --shapes --json >"$logs/shapes.json" && "$python" "$here/cublas.py" "$logs/shapes.json"
}

# libtorch VARIANT,…: in turn with memo, on the same job; one that hangs or fails leaves the others their rows.
libtorch() {
  "$python" -c 'import torch, torchvision, transformers, safetensors' 2>/dev/null || { echo "skipped: no torch, torchvision, transformers and safetensors here"; return 77; }
  MEMO_PYTHON=$python "$memo" bench --model "$model" --device "$device" --seconds 4 --answer-limit 75 --against "$1"
}

# The instruction cases are kept, each in a file of its own, and run from there by the GPU's own driver.
isa() {
  export VCUDA_ISA_OUT=$here/isa
  "$here/tests/vcuda-isa" || return
  unset VCUDA_ISA_OUT
  [ "$device" = gpu ] && export VCUDA_ISA_DRIVER=libcuda.so.1
  VCUDA_ISA_FILES=$here/isa "$here/tests/vcuda-isa" --nocapture files::a_folder_of_cases
}

sanitize() {
  local sanitizer
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -1)
  [ -n "$sanitizer" ] && [ "$device" = gpu ] || { echo "skipped: no compute-sanitizer, or no GPU"; return 77; }
  "$sanitizer" --tool "$1" --error-exitcode 9 "$here/tests/memo-lib" --test-threads=1 ops::
}
export -f shapes_and_cublas libtorch isa sanitize
export memo model device here logs python

parts() {
  local lib=$here/tests/memo-lib test tool
  part doctor 60 "$memo" doctor --device "$device"
  part proofs 60 "$lib" --test-threads=1 ops::linear::prove
  part truth 120 "$here/tests/memo-truth"
  part side-by-side-virtual 60 "$here/benches/memo-side_by_side" --device virtual --write "$logs/virtual.safetensors"
  part side-by-side 60 "$here/benches/memo-side_by_side" --device "$device" --compare "$logs/virtual.safetensors"
  if [ "$device" = gpu ]; then
    bench fp16-implicit 60 --views 50 --seconds 5
    bench fp16-implicit-stages 30 --views 50 --seconds 3 --stages
    bench fp16-in-place 40 --views 50 --update in-place --seconds 5
    bench fp32 60 --views 50 --precision fp32 --seconds 5
    for s in 1 2 4 9 18; do bench "S-$s" 30 --views 50 --batch $s --seconds 3; done
    part shapes 60 bash -c shapes_and_cublas
    part libtorch 180 bash -c 'libtorch libtorch:notebook,libtorch:tuned,libtorch:implicit'
    part libtorch-reduced 180 bash -c 'libtorch libtorch:tuned:tf32,libtorch:tuned:bf16,libtorch:implicit:bf16'
  else
    bench fp16-implicit 60 --views 8 --images 1 --no-warm-up --classes 10
    bench fp16-in-place 60 --views 8 --images 1 --no-warm-up --classes 10 --batch 1 --update in-place
    bench fp32 90 --views 8 --images 1 --no-warm-up --classes 10 --batch 1 --precision fp32
  fi
  if [ "$device" != gpu ]; then
    # What is tried here is the bundle; the tests themselves have passed where it was made.
    part operators 60 "$lib" --test-threads=1 ops::norm ops::entropy ops::segment
    part cli 60 "$here/tests/memo-cli" start::inspect
    part demo 120 "$memo" demo --device "$device" --out "$logs"
    return
  fi
  part operators 120 "$lib" --test-threads=1 ops::
  part hopper 90 "$here/tests/memo-hopper" --test-threads=1
  part planted 60 "$here/tests/memo-planted" every_right_kernel_runs_on_the_device_under_test
  for test in vit_b32 batch; do part "$test" 90 "$here/tests/memo-$test" --test-threads=1; done
  for test in "$here"/tests/memo-*; do
    test=$(basename "$test" | cut -c6-)
    case $test in lib | truth | hopper | planted | vit_b32 | batch | cli) continue ;; esac
    part "$test" 60 "$here/tests/memo-$test" --test-threads=1
  done
  part lib 60 "$lib" --test-threads=1 --skip ops::
  part isa 120 bash -c isa
  part demo 60 "$memo" demo --device "$device" --out "$logs"
  part cli 300 "$here/tests/memo-cli" --test-threads=4 # it starts the program some hundred times
  for tool in memcheck racecheck initcheck synccheck; do part "sanitizer-$tool" 120 bash -c "sanitize $tool"; done
}

waiting=()
touch "$logs/started"
sleep 1 # rows of this run are newer, also where times have whole seconds
turn=untried && parts
turn=failed && parts

echo
table | tee "$logs/table.txt"
failures=$(rows | while read -r row; do grep -qE "$is_done" "$logs/$row" || echo "$row"; done | wc -l)
echo "$failures of $(rows | wc -l) parts failed; ${#waiting[@]} have had no time yet${waiting:+: ${waiting[*]}; run it again with the same folder}" | tee -a "$logs/table.txt"
[ "$failures" -eq 0 ] && [ ${#waiting[@]} -eq 0 ]
