#!/bin/bash
# NVRTC takes --maxrregcount for a virtual architecture, and its PTX holds nothing of it.
#
# Expected: NVRTC's documentation, "Supported Compile Options", has --maxrregcount={N} as "the maximum amount of registers that GPU
#   functions can use", without a word on architectures. A limit on a kernel can be said in PTX: .maxnreg (PTX ISA 11.4), which is
#   what __maxnreg__(24) becomes.
# Seen: NVRTC 12.0.140, 12.9.86 and 13.5.37 with --gpu-architecture=compute_90a succeed with an empty log and give the PTX that they
#   give without the option, byte for byte. With sm_90a the machine code is another, so the option does count there.
# Matters: who compiles to PTX and leaves the rest to the driver, as most do who use NVRTC, tunes occupancy with an option that
#   changes nothing. The driver must be told (CU_JIT_MAX_REGISTERS), or the source (__maxnreg__, __launch_bounds__).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cat >"$dir/compare.py" <<'PYTHON'
import ctypes
import sys

SOURCE = b"""extern "C" __global__ void k(float* p) {
    float a[40];
    for (int i = 0; i < 40; i++) a[i] = p[32 * i + threadIdx.x];
    for (int i = 0; i < 40; i++) p[32 * i + threadIdx.x] = a[39 - i] * a[7 * i % 40];
}"""
nvrtc = ctypes.CDLL(sys.argv[1])


def compiled(what, *options):
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE, b"k.cu", 0, None, None) == 0
    assert nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) == 0
    texts = []
    for name in (what, "ProgramLog"):
        assert getattr(nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert getattr(nvrtc, f"nvrtcGet{name}")(program, text) == 0
        texts.append(text.raw)
    return texts[0], texts[1].strip(b"\0")


ptx, capped, log = compiled("PTX", b"-arch=compute_90a")[0], *compiled("PTX", b"-arch=compute_90a", b"--maxrregcount=24")
print("  compute_90a: the same PTX:", ptx == capped, " .maxnreg in it:", b".maxnreg" in capped, " log:", log)
code = [compiled("CUBIN", b"-arch=sm_90a", *more)[0] for more in ((), (b"--maxrregcount=24",))]
print("  sm_90a: the same code:", code[0] == code[1])
sys.exit(not (ptx == capped and not log and code[0] != code[1]))
PYTHON
status=0
for wheel in nvidia-cuda-nvrtc-cu12==12.0.140 nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-cuda-nvrtc==13.5.37; do
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$dir/$wheel" "$wheel"
  echo "$wheel"
  library=$(ls "$dir/$wheel"/nvidia/*/lib/libnvrtc.so.1*)
  LD_LIBRARY_PATH=$(dirname "$library") python3 "$dir/compare.py" "$library" || status=1
done
exit $status
