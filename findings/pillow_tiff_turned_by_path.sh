#!/usr/bin/env bash
# Pillow 13.0.0 gives other pixels for a turned grey TIFF when it is opened by path than when the open file is given.
#
# Expected: Image.open(path) and Image.open(file) of the same bytes give the same picture: its documentation allows either.
# Seen: of an uncompressed grey TIFF in one strip whose Orientation is 5 to 8 (turned on its side, 9 by 6 stored), the open file
#   gives 6 by 9 with the pixels in their places; the path gives 9 by 6 with most pixels elsewhere. Orientations 1 to 4, and the same
#   file compressed, are the same either way: only the path lets Pillow map the file into memory.
# Matters: scripts that open by path and datasets that open by file (torchvision's loader) see different images, without an error.
#
# Linux x86-64, 2026-11-30. Needs python3 with pip, 20 MB; no GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$work" pillow==13.0.0
cat >"$work/look.py" <<'PYTHON'
import os, sys
from PIL import Image, ImageOps

w, h = 9, 6
stored = Image.frombytes("L", (w, h), bytes(range(w * h)))
turns = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # by Image.Transpose
forms = {"one strip": {}, "packed": {"compression": "packbits"}}
for name, options in forms.items():
    seen = []
    for orientation, turn in turns.items():
        path = os.path.join(sys.argv[1], "x.tif")
        stored.save(path, tiffinfo={274: orientation}, **options)
        want = stored if turn is None else stored.transpose(Image.Transpose(turn))
        with open(path, "rb") as file:
            by_file = Image.open(file)
            by_file.load()
        by_path = Image.open(path)
        by_path.load()
        is_right = [image.size == want.size and image.tobytes() == want.tobytes() for image in (by_file, by_path)]
        seen.append({(True, True): "same", (True, False): "path wrong"}.get(tuple(is_right), "other"))
    print(name, ", ".join(seen), sep=": ")
PYTHON
seen=$(PYTHONPATH=$work python3 "$work/look.py" "$work")
echo "orientations 1 to 8:"
echo "$seen"
same="same, same, same, same"
wrong="path wrong, path wrong, path wrong, path wrong"
expected="one strip: $same, $wrong
packed: $same, $same"
[ "$seen" = "$expected" ] || { echo "changed: expected $expected"; exit 1; }
