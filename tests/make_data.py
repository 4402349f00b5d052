#!/usr/bin/env python3
"""Makes tests/fixtures/data.tar.gz: datasets as people have them, and what other libraries see in them.

    pip install torchvision==0.29.2 numpy==2.4.6 pillow==13.0.0
    python3 tests/make_data.py

* folders/: images that are as wide as their place in FILES says, and images.json: the samples of torchvision's ImageFolder over them, as
  widths and class numbers;
* cifar-P/cifar-100-python/ for P = 0 to 5: two images in pickles of that protocol, arrays row by row; cifar-columns/: columns first, labels
  as an array, keys as bytes.
"""
import io
import json
import os
import pathlib
import pickle
import tarfile
import tempfile

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

OUT = pathlib.Path(__file__).parent / "fixtures" / "data.tar.gz"

FILES = """zebra/b.png zebra/a.PNG zebra/a/b/c.jpeg zebra/a-b/d.JPG zebra/a.b/e.webp zebra/10.png zebra/9.png zebra/ä.png zebra/Z.bmp zebra/notes.txt
zebra/movie.gif zebra/x.pnm zebra/x.tiff zebra/x.tif zebra/x.ppm zebra/x.pgm zebra/x.jfif zebra/x.png.bak Ant/x.png ant/y.png 10/a.png 9/a.png
a-b/1.png a/1.png a_b/1.png élan/1.png dotted.name/1.2.png loose.png""".split()


def images(folder):
    for width, file in enumerate(FILES, 1):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, 1)).save(path, "png")
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    Image.new("RGB", (90, 1)).save(elsewhere / "linked.png", "png")
    os.symlink("../../elsewhere", folder / "zebra" / "link")
    os.symlink("../elsewhere", folder / "linked class")
    samples = [[Image.open(path).width, label] for path, label in ImageFolder(folder).samples]
    (folder.parent / "images.json").write_text(json.dumps(samples))


def cifar(folder, protocol, columns=False):
    folder = folder / "cifar-100-python"
    folder.mkdir(parents=True)
    data = (np.arange(2 * 3072) * 7 % 251).astype(np.uint8).reshape(2, 3072)
    key = (lambda name: name.encode()) if columns else str
    test = {key("data"): np.asfortranarray(data) if columns else data, key("fine_labels"): np.array([3, 99]) if columns else [3, 99]}
    meta = {key("fine_label_names"): [key(f"class_{i}") for i in range(100)]}
    for name, value in ("test", test), ("meta", meta):
        (folder / name).write_bytes(pickle.dumps(value, protocol))


def anonymous(member):
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main():
    with tempfile.TemporaryDirectory() as top:
        top = pathlib.Path(top)
        (top / "folders").mkdir()
        images(top / "folders")
        for protocol in range(6):
            cifar(top / f"cifar-{protocol}", protocol)
        cifar(top / "cifar-columns", 5, columns=True)
        cifar(top / "cifar-columns-2", 2, columns=True)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=9) as archive:
            for path in sorted(top.iterdir()):
                archive.add(path, path.name, filter=anonymous)
    OUT.write_bytes(buffer.getvalue())
    print(f"{OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
