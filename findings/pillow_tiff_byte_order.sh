#!/usr/bin/env bash
# Pillow 13.0.0 swaps the bytes of samples in compressed big-endian TIFF files.
#
# Expected: a file's pixels do not depend on its byte order or on its compression (TIFF 6.0, section 2: the header's "MM" says that
#   samples of several bytes are big-endian; after decompression they still are).
# Seen: float32, int16 and int32 grey, written by tifffile 2026.3.3 with byteorder=">", come back right uncompressed, and with every
#   sample's bytes reversed where the strip is compressed (zlib, packbits): 88.5 is read as 6.4e-41. Little-endian
#   files are right either way. uint16 is right: libtiff gives it in the machine's order, and Pillow takes it so.
# Matters: microscopy and remote sensing write such files; no error, no warning, other pixels.
#
# Linux x86-64, 2026-11-30. Needs python3 with pip, 60 MB; no GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$work" \
  pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6 imagecodecs==2026.3.6
cat >"$work/look.py" <<'PYTHON'
import os, sys
import numpy, tifffile
from PIL import Image

values = {"float32": 88.5, "int16": 300, "int32": 70000, "uint16": 300}
for dtype, value in values.items():
    read = []
    for order in "<>":
        for compression in (None, "zlib", "packbits"):
            path = os.path.join(sys.argv[1], "x.tif")
            tifffile.imwrite(path, numpy.full((4, 4), value, dtype), byteorder=order, compression=compression)
            assert (tifffile.imread(path) == value).all()
            with Image.open(path) as image:
                read.append("right" if image.getpixel((1, 1)) == value else "swapped" if
                            numpy.array(image)[1, 1].astype(dtype).byteswap() == numpy.array(value, dtype) else "other")
    print(dtype, *read)
PYTHON
seen=$(PYTHONPATH=$work python3 "$work/look.py" "$work")
echo "read of little-endian files uncompressed, zlib, packbits; of big-endian ones:"
echo "$seen"
expected="float32 right right right right swapped swapped
int16 right right right right swapped swapped
int32 right right right right swapped swapped
uint16 right right right right right right"
[ "$seen" = "$expected" ] || { echo "changed: expected $expected"; exit 1; }
