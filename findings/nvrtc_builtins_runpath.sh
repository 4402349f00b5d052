#!/usr/bin/env bash
# NVRTC 13.0 alone, of all its wheels, does not find its own builtins beside itself.
#
# Expected: a wheel's libnvrtc.so.N, opened by its path, compiles: libnvrtc-builtins.so lies in the same folder, and the library's
#   RUNPATH (12.0 to 12.9, 13.1) or RPATH (13.4, 13.5) is $ORIGIN.
# Seen: nvidia-cuda-nvrtc 13.0.48 and 13.0.88 have neither. nvrtcCompileProgram fails with NVRTC_ERROR_BUILTIN_OPERATION_FAILURE (7),
#   "failed to open libnvrtc-builtins.so.13.0", until the builtins are opened by their path first, or found by LD_LIBRARY_PATH.
# Matters: who tries another version gets a working compiler, and takes his own search path for right.
#
# Linux x86-64, 2026-11-29. Needs python3 with pip, 140 MB; no GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/compile.py" <<'PYTHON'
import ctypes as C, glob, sys
folder = glob.glob(sys.argv[1] + "/nvidia/*/lib")[0]
if len(sys.argv) > 2:
    builtins = C.CDLL(glob.glob(folder + "/libnvrtc-builtins.so*")[0])
nvrtc = C.CDLL(glob.glob(folder + "/libnvrtc.so*")[0])
program = C.c_void_p()
assert nvrtc.nvrtcCreateProgram(C.byref(program), b'extern "C" __global__ void f() {}', b"f.cu", 0, None, None) == 0
print(nvrtc.nvrtcCompileProgram(program, 0, None))
PYTHON
expect() { if [ "$1" != "$2" ]; then echo "changed: $1 instead of $2"; exit 1; fi; echo "seen: $3: $1"; }
for wheel in nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-nvrtc==13.0.88; do
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$work/$wheel" "$wheel"
done
expect "$(python3 "$work/compile.py" "$work/nvidia-cuda-nvrtc-cu12==12.4.127")" 0 "12.4.127 by its path"
expect "$(python3 "$work/compile.py" "$work/nvidia-cuda-nvrtc==13.0.88")" 7 "13.0.88 by its path"
expect "$(python3 "$work/compile.py" "$work/nvidia-cuda-nvrtc==13.0.88" first)" 0 "13.0.88 with its builtins first"
