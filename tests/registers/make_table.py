#!/usr/bin/env python3
"""Writes table.txt: the registers that ptxas gives each kernel, of what NVRTC makes of the sources.

usage: make_table.py NVRTC_FOLDER PTXAS      (libnvrtc.so.13 of 13.0, as `make nvrtc` has it; ptxas of 13.5, from nvidia-cuda-nvcc)
"""
import ctypes as C
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Stem, file, lines before it, architectures.
SOURCES = [(path.stem, path, "", ["80", "90a"]) for path in sorted((ROOT / "kernels").glob("*.cu"))] + [
    ("hopper_gemm", ROOT / "tests/hopper/gemm.cu", "#define TA 0\n#define TB 0\n", ["90a"]),
    ("hopper_attention", ROOT / "tests/hopper/attention.cu", "#define TOKENS 50\n", ["80", "90a"]),
    ("benches_gemm", ROOT / "vcuda/benches/gemm.cu", "", ["90a"]),
    ("registers", HERE / "kernels.cu", "", ["80", "90a"]),
]


def inlined(path, seen):
    """The text with the project's own headers in it, each once, as build.rs pastes them."""
    lines = []
    for line in path.read_text().splitlines(keepends=True):
        included = re.match(r'#include "(.*)"', line)
        if not included:
            lines.append(line)
        elif included[1] not in seen:
            seen.add(included[1])
            lines.append(inlined(path.with_name(included[1]), seen))
    return "".join(lines)


def compiled(nvrtc, source, architecture):
    program, size = C.c_void_p(), C.c_size_t()
    own = [word for line in source.splitlines() if line.startswith("// nvrtc:") for word in line[9:].split()]
    options = [f"--gpu-architecture=compute_{architecture}", "--std=c++17", "--generate-line-info", *own]
    assert nvrtc.nvrtcCreateProgram(C.byref(program), source.encode(), b"k.cu", 0, None, None) == 0
    status = nvrtc.nvrtcCompileProgram(program, len(options), (C.c_char_p * len(options))(*[o.encode() for o in options]))
    assert status == 0, f"NVRTC fails with {status}"
    nvrtc.nvrtcGetPTXSize(program, C.byref(size))
    text = C.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, text)
    nvrtc.nvrtcDestroyProgram(C.byref(program))
    return text.value


def main():
    folder, ptxas = Path(sys.argv[1]), sys.argv[2]
    for builtins in folder.glob("libnvrtc-builtins.so*"):
        C.CDLL(str(builtins), C.RTLD_GLOBAL)
    nvrtc = C.CDLL(str(sorted(folder.glob("libnvrtc.so*"))[0]))
    rows = []
    for stem, path, before, architectures in SOURCES:
        for architecture in architectures:
            with tempfile.NamedTemporaryFile(suffix=".ptx") as ptx:
                ptx.write(compiled(nvrtc, before + inlined(path, set()), architecture))
                ptx.flush()
                command = [ptxas, "-v", f"-arch=sm_{architecture}", ptx.name, "-o", "/dev/null"]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
            found = re.findall(r"Compiling entry function '(\w+)'.*?Used (\d+) registers", said, re.S)
            rows += [f"{stem} {kernel} {architecture} {registers}\n" for kernel, registers in sorted(found)]
    (HERE / "table.txt").write_text("".join(rows))


main()
