#!/usr/bin/env python3
"""CIFAR-10-C's noise, contrast, pixelate and JPEG from CIFAR-10's real test images, by the functions of `imagecorruptions` with the
constants that CIFAR-10-C's authors published (hendrycks/robustness, make_cifar_c.py): as their .npy files, and as ImageNet-C's tree of
PNGs of the same pixels. Whether `memo eval --corruptions all` has the same records of both. Minutes; not a part of make test.

    pip install numpy==2.4.6 pillow==13.0.0 imagecorruptions==1.1.2 scikit-image==0.26.0 opencv-python-headless==5.0.0.93
    cargo build --release
    python3 tests/real_corruptions.py --images CIFAR-10/test --into FOLDER [--each 100] [--limit 600] [--model FOLDER]

* `--images`: as tests/real_formats.py takes them. `--each`: of each class so many, the first.
* `--into`: where CIFAR-10-C and ImageNet-C are written.

Prints the table, and ends with 1 if records differ.
"""
import argparse
import inspect
import io
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
from imagecorruptions import corruptions
from PIL import Image

HERE = pathlib.Path(__file__).parent
CONSTANTS = {
    "gaussian_noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot_noise": [500, 250, 100, 75, 50],
    "impulse_noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
    "jpeg_compression": [80, 65, 58, 50, 40],
}


def of_cifar(name):
    """The function by this name, with CIFAR's constants; pixels are made large again by Pillow's box filter, as there."""
    source = inspect.getsource(getattr(corruptions, name))
    source, count = re.subn(r"c = \[[^\]]*\]", f"c = {CONSTANTS[name]}", source)
    assert count == 1, name
    scope = dict(vars(corruptions))
    exec(source.replace("Image.NEAREST", "Image.BOX"), scope)
    return scope[name]


def records(memo, model, data, flags, out):
    command = [memo, "eval", "--model", model, "--data", data, "--corruptions", "all", *flags, "--out", out]
    out.unlink(missing_ok=True)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return done.stdout, [{k: v for k, v in row.items() if k not in ("file", "digest")} for row in rows if "index" in row]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=pathlib.Path, required=True)
    parser.add_argument("--into", type=pathlib.Path, required=True)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--views", default="4")
    parser.add_argument("--model", type=pathlib.Path, default=HERE.parent / "assets" / "demo-model")
    parser.add_argument("--memo", type=pathlib.Path, default=HERE.parent / "target" / "release" / "memo")
    args = parser.parse_args()
    arrays, tree = args.into / "CIFAR-10-C", args.into / "ImageNet-C"
    arrays.mkdir(parents=True)
    classes = sorted(path.name for path in args.images.iterdir() if path.is_dir())
    files = [(file, label) for label, name in enumerate(classes) for file in sorted((args.images / name).iterdir())[: args.each]]
    images = [Image.open(file).convert("RGB") for file, _ in files]
    np.random.seed(0)
    for name in CONSTANTS:
        function = of_cifar(name)
        rows = []
        for severity in range(1, 6):
            for (file, label), image in zip(files, images):
                rows.append(np.uint8(function(image, severity)))
                place = tree / name / str(severity) / classes[label]
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rows[-1]).save(place / file.name, compress_level=1)
        np.save(arrays / f"{name}.npy", np.stack(rows))
    np.save(arrays / "labels.npy", np.tile([label for _, label in files], 5).astype(np.uint8))

    flags = ["--views", args.views, "--limit", str(args.limit)]
    if args.model == parser.get_default("model"):  # it knows digits, and has no words for CIFAR's classes
        labels = args.into / "names.json"
        labels.write_text(json.dumps(dict(zip(classes, "zero one two three four five six seven eight nine".split()))))
        flags += ["--labels", labels]
    table, by_arrays = records(args.memo, args.model, arrays, flags, args.into / "arrays.jsonl")
    _, by_tree = records(args.memo, args.model, tree, flags, args.into / "tree.jsonl")
    assert len({row["memo"]["confidence"] for row in by_arrays}) > len(by_arrays) / 2, "records that tell nothing of pixels"
    print(table, subprocess.run([args.memo, "report", args.into / "arrays.jsonl"], check=True, capture_output=True, text=True).stdout)
    same = by_arrays == by_tree and len(by_arrays) == min(args.limit, len(images) * 30)
    print(f"{len(by_arrays)} records, {'the same' if same else 'OTHERS'} of .npy files and of PNGs")
    sys.exit(not same)


if __name__ == "__main__":
    main()
