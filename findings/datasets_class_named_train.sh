#!/usr/bin/env bash
# datasets 5.2.0: of an image folder that has a class named train, test or eval, only that class is read, and without labels.
#
# Expected: load_dataset("imagefolder", data_dir=...) of a folder with a subfolder for each class gives all images, with their classes.
# Seen: a class whose name is a split's word, or has one ("train", "steam train", "eval"), is taken for the split: its images alone are there,
#   the column `label` is not, and nothing is said. With data_files={"train": "FOLDER/*/*.png"} all are there.
# Matters: CIFAR-100 has a class `train`: of its 10,000 test images as class folders 100 are read. ImageNet's names have `bullet train`.
#
# Linux x86-64, 2026-11-30. Needs python3 with pip, 400 MB; no GPU.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0
cat >"$work/look.py" <<'PYTHON'
import pathlib, sys
import datasets
from PIL import Image

datasets.disable_progress_bars()
work = pathlib.Path(sys.argv[1])

def look(what, **where):
    for split, rows in datasets.load_dataset("imagefolder", cache_dir=str(work / "cache" / what), **where).items():
        labels = rows.features["label"].names if "label" in rows.features else "no labels"
        print(f"{what}: split {split}, {len(rows)} images, {labels}")

for name in "trout", "train", "eval", "steam train":
    folder = work / name
    for shade, of in enumerate(["apple", name, "worm"]):
        (folder / of).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (20 * shade, number, 0)).save(folder / of / f"{number}.png")
    look(name, data_dir=str(folder))
look("train by pattern", data_files={"train": str(work / "train" / "*" / "*.png")})
PYTHON
seen=$(HF_HUB_OFFLINE=1 HF_HOME=$work/home "$work/venv/bin/python" "$work/look.py" "$work")
echo "$seen"
expected="trout: split train, 6 images, ['apple', 'trout', 'worm']
train: split train, 2 images, no labels
eval: split test, 2 images, no labels
steam train: split train, 2 images, no labels
train by pattern: split train, 6 images, ['apple', 'train', 'worm']"
[ "$seen" = "$expected" ] || { echo "changed: expected $expected"; exit 1; }
