#!/usr/bin/env bash
# What NVRTC returns with --generate-line-info depends on the folder that the program runs in.
#
# NVRTC compiles a string; its name is an argument, and no file is read. With --generate-line-info it nevertheless puts the
# current folder before that name, and before the one of a #line that is relative. So the same source with the same options
# gives other PTX in another folder, and a cache of compiled kernels whose key is source, options and version returns one
# folder's paths in another; a build that must be the same everywhere is not. A #line with a path from the root is left alone.
#
# Seen with nvidia-cuda-nvrtc 13.0.88 on Linux x86-64, 2026-11-29. Needs python3 with pip; no GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$work/packages" \
  'nvidia-cuda-nvrtc==13.0.88'
mkdir "$work/one" "$work/two"
cat > "$work/compile.py" <<'PYTHON'
import ctypes as C, glob, os, sys
folder = glob.glob(sys.argv[1] + "/nvidia/*/lib")[0]
C.CDLL(glob.glob(folder + "/libnvrtc-builtins.so*")[0], C.RTLD_GLOBAL)
nvrtc = C.CDLL(glob.glob(folder + "/libnvrtc.so*")[0])
source = sys.argv[2] + 'extern "C" __global__ void f(int* p) { *p = 1; }\n'
program, size = C.c_void_p(), C.c_size_t()
assert nvrtc.nvrtcCreateProgram(C.byref(program), source.encode(), b"f.cu", 0, None, None) == 0
options = [b"--gpu-architecture=compute_90", b"--generate-line-info"]
assert nvrtc.nvrtcCompileProgram(program, len(options), (C.c_char_p * len(options))(*options)) == 0
nvrtc.nvrtcGetPTXSize(program, C.byref(size))
ptx = C.create_string_buffer(size.value)
nvrtc.nvrtcGetPTX(program, ptx)
print(ptx.value.decode())
PYTHON
file_line() { (cd "$work/$1" && python3 "$work/compile.py" "$work/packages" "$2" | grep '\.file' | sed "s|$work|WORK|"); }
expect() { if [ "$1" != "$2" ]; then echo "changed: $1 instead of $2"; exit 1; fi; echo "seen: $1"; }
relative=$'#line 1 "kernels/f.cu"\n' absolute=$'#line 1 "/kernels/f.cu"\n'
expect "$(file_line one '')" $'\t.file\t1 "WORK/one/f.cu"'
expect "$(file_line two '')" $'\t.file\t1 "WORK/two/f.cu"'
expect "$(file_line one "$relative")" $'\t.file\t1 "WORK/one/kernels/f.cu"'
expect "$(file_line one "$absolute")" $'\t.file\t1 "/kernels/f.cu"'
expect "$(file_line two "$absolute")" $'\t.file\t1 "/kernels/f.cu"'
