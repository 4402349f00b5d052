#!/bin/bash
# Triton 3.9 makes tensor maps of zeros, and leaves two of their fields to what zero happens to mean.
#
# Expected: PTX ISA 5.5.8 (tensor-map): a 128-byte object that is opaque; it is made with CUDA's API and may be changed by
#   tensormap.replace, which has a field for each of its parts, .interleave_layout and .fill_mode among them. Nothing says
#   what the bytes of a new one are, nor that zeros are a map. One that is made on the device says all its fields.
# Seen: the PTX of tl.make_tensor_descriptor on sm_90 by Triton 3.9.0 stores zeros, replaces address, rank, box, sizes, strides,
#   element type and swizzle, and never .interleave_layout nor .fill_mode.
# Matters: no interleaving and a fill of zeros are then a property of today's encoding, not of the program. Who writes such a map by
#   this example and gets something else out of bounds, on another GPU or in a simulator that wants every field, has no
#   document to hold it against.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check triton==3.9.0
cat >"$dir/copy_tile.py" <<'PYTHON'
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def copy_tile(a, b, M, N):
    a = tl.make_tensor_descriptor(a, [M, N], [N, 1], [64, 64])
    b = tl.make_tensor_descriptor(b, [M, N], [N, 1], [64, 64])
    b.store([0, 0], a.load([0, 0]))


source = ASTSource(copy_tile, {"a": "*fp16", "b": "*fp16", "M": "i32", "N": "i32"}, {}, {(i,): [["tt.divisibility", 16]] for i in range(4)})
print(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])
PYTHON
TRITON_CACHE_DIR="$dir/cache" "$dir/venv/bin/python" "$dir/copy_tile.py" >"$dir/k.ptx"

echo "triton 3.9.0, fields that are replaced, and how often:"
grep -o 'tensormap\.replace\.tile\.[a-z_]*' "$dir/k.ptx" | sort | uniq -c
for field in global_address rank box_dim global_dim global_stride element_stride elemtype; do
  grep -q "tensormap.replace.tile.$field" "$dir/k.ptx" || { echo "$field is not set any more" >&2; exit 1; }
done
for field in interleave_layout fill_mode; do
  ! grep -q "tensormap.replace.tile.$field" "$dir/k.ptx" || { echo "$field is set now" >&2; exit 1; }
done
echo "neither interleave_layout nor fill_mode"
