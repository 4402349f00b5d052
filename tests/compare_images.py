#!/usr/bin/env python3
"""usage: compare_images.py FOLDER|FILE...     (wants pillow==13.0.0, and cargo)

Holds the pixels of all these pictures, and of those in folders below, against Pillow's. ImageNet's, for one:

    git clone https://github.com/EliSchwartz/imagenet-sample-images ../imagenet
    python3 tests/compare_images.py ../imagenet

The exit code is 1 if a picture that both read differs, or if one is read that Pillow refuses.
"""

import hashlib
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import PIL
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
READ = ["cargo", "run", "--quiet", "--release", "--manifest-path", ROOT / "Cargo.toml", "--example", "compare_images", "--"]
AT_ONCE = 200


def pillows(path):
    try:
        # By an open file: given a path, Pillow 13.0.0 garbles uncompressed grey TIFFs that are turned on their side.
        with path.open("rb") as file:
            image = Image.open(file).convert("RGB")
        return f"{image.width}x{image.height} {hashlib.sha256(image.tobytes()).hexdigest()}"
    except Exception as error:
        return f"refused: {error}"


def main():
    assert PIL.__version__ == "13.0.0", f"Pillow is {PIL.__version__}; another one may give other pixels"
    warnings.simplefilter("ignore")
    given = [Path(argument) for argument in sys.argv[1:]]
    below = [sorted(path for path in one.rglob("*") if path.is_file() and ".git" not in path.parts) for one in given if one.is_dir()]
    files = [one for one in given if not one.is_dir()] + sum(below, [])
    counts = Counter()
    for first in range(0, len(files), AT_ONCE):
        batch = files[first : first + AT_ONCE]
        lines = subprocess.run([*READ, *batch], capture_output=True, text=True, check=True).stdout.splitlines()
        for path, ours in zip(batch, lines, strict=True):
            theirs = pillows(path)
            refused = ours.startswith("refused"), theirs.startswith("refused")
            kind = {(True, True): "refused by both", (True, False): "refused by memo alone", (False, True): "refused by Pillow alone"}
            kind = kind.get(refused, "equal" if ours == theirs else "different")
            counts[kind] += 1
            if kind not in ("equal", "refused by both"):
                print(f"{path}: {kind}: memo {ours}; Pillow {theirs}")
    print(f"{len(files)} files: " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common()))
    sys.exit(1 if counts["different"] or counts["refused by Pillow alone"] else 0)


if __name__ == "__main__":
    main()
