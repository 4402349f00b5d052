#!/usr/bin/env python3
"""CIFAR's real test images in every format that `memo` reads, each written by the format's own library: whether the program has the
same pixels, labels and order of all of them, and the same records of some. Minutes; not a part of make test.

    pip install numpy==2.4.6 pillow==13.0.0 scipy==1.17.1 webdataset==1.0.2 datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
    pip install torchvision==0.29.2 safetensors==0.8.0
    cargo build --release && cargo build --release --example read_images
    python3 tests/real_formats.py --images CIFAR-10/test --into FOLDER

* `--images`: CIFAR-10's or CIFAR-100's test images as PNGs in class folders (losslessly in the public repositories
  cyizhuo/CIFAR-10-dataset and cyizhuo/CIFAR-100-dataset).
* `--into`: where the formats are written, 1 GB.

Prints a line a format, and ends with 1 if one differs.
"""
import argparse
import hashlib
import io
import json
import pathlib
import pickle
import subprocess
import sys
import tarfile
import zipfile

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
import torchvision
import webdataset
from datasets.table import embed_table_storage
from PIL import Image
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
DIGITS = "zero one two three four five six seven eight nine".split()
PYTHON_KEYS = {10: ("cifar-10-batches-py", "test_batch", "batches.meta", "labels", "label_names"),
               100: ("cifar-100-python", "test", "meta", "fine_labels", "fine_label_names")}


class Images:
    """All images in the order of class folders."""

    def __init__(self, folder):
        self.folder = folder
        self.names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.files = [(file, label) for label, name in enumerate(self.names) for file in sorted((folder / name).iterdir())]
        self.pngs = [file.read_bytes() for file, _ in self.files]
        self.labels = np.array([label for _, label in self.files])
        self.pixels = np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in self.pngs])
        self.cifar = f"--dataset cifar-{len(self.names)}"


def sum_of(pairs):
    """As examples/read_images.rs makes it, of (image, label)."""
    whole = hashlib.sha256()
    for image, label in pairs:
        height, width, _ = image.shape
        whole.update(hashlib.sha256(f"{label} {width} {height}\n".encode() + image.tobytes()).digest())
    return whole.hexdigest()


def encoded(image, **how):
    out = io.BytesIO()
    Image.fromarray(image).save(out, **how)
    return out.getvalue()


def arrays(top, a):
    """NumPy's files, and safetensors."""
    for name, version in ("npy", (1, 0)), ("npy2", (2, 0)), ("npy3", (3, 0)):
        (top / name).mkdir()
        for stem, array in ("images", a.pixels), ("labels", a.labels):
            with open(top / name / f"{stem}.npy", "wb") as file:
                np.lib.format.write_array(file, array, version)
        yield f"{name} {a.cifar}"
    np.savez(top / "stored.npz", images=a.pixels, labels=a.labels)
    yield f"stored.npz {a.cifar}"
    np.savez_compressed(top / "compressed.npz", x_train=a.pixels[:5], y_train=a.labels[:5], x_test=a.pixels, y_test=a.labels)
    yield f"compressed.npz --split test {a.cifar}"
    if len(a.names) == 10:
        (top / "CIFAR-10.1").mkdir()
        np.save(top / "CIFAR-10.1" / "cifar10.1_v6_data.npy", a.pixels)
        np.save(top / "CIFAR-10.1" / "cifar10.1_v6_labels.npy", a.labels.astype(np.int32))
        yield "CIFAR-10.1 --split v6"
    save_file({"test": a.pixels, "labels": a.labels.astype(np.uint8)}, top / "tensors-images.safetensors")
    (top / "tensors-labels.txt").write_text("\n".join(a.names) + "\n")
    yield "tensors-images.safetensors#test"


def cifars(top, a):
    """CIFAR's own files as its authors have them, pickles of Python 2 and of today, in folders and archives."""
    count = len(a.names)
    planes = a.pixels.transpose(0, 3, 1, 2).reshape(len(a.labels), -1)
    folder, records, names, label_key, name_key = PYTHON_KEYS[count]
    for top_name, protocol in ("python2", 2), ("python5", 5):
        place = top / top_name / folder
        place.mkdir(parents=True)
        coarse = {"coarse_labels": [0] * len(a.labels)} if count == 100 else {}
        (place / records).write_bytes(pickle.dumps({"data": planes, label_key: a.labels.tolist(), **coarse}, protocol))
        (place / names).write_bytes(pickle.dumps({name_key: a.names}, protocol))
        yield top_name
    own = torchvision.datasets.CIFAR10 if count == 10 else torchvision.datasets.CIFAR100
    own._check_integrity = lambda self: True
    own.test_list, own.meta = [[records, ""]], {"filename": names, "key": name_key, "md5": ""}
    torchvision.datasets.cifar.check_integrity = lambda *_: True
    read = own(top / "python2", train=False)
    assert np.array_equal(read.data, a.pixels) and read.targets == a.labels.tolist(), "torchvision reads other images"

    folder, records, names, labels = {
        10: ("cifar-10-batches-bin", "test_batch.bin", "batches.meta.txt", a.labels[:, None]),
        100: ("cifar-100-binary", "test.bin", "fine_label_names.txt", np.stack([0 * a.labels, a.labels], 1)),
    }[count]
    place = top / "binary" / folder
    place.mkdir(parents=True)
    np.concatenate([labels.astype(np.uint8), planes], 1).tofile(place / records)
    (place / names).write_text("\n".join(a.names) + "\n\n")
    yield "binary"
    for name, folder in ("binary", place), ("python2", top / "python2" / PYTHON_KEYS[count][0]):
        with tarfile.open(top / f"{name}.tar.gz", "w:gz", compresslevel=1) as archive:
            archive.add(folder, folder.name)
        yield f"{name}.tar.gz"


def archives(top, a):
    """ZIP and WebDataset."""
    for name, method in ("deflated.zip", zipfile.ZIP_DEFLATED), ("stored.zip", zipfile.ZIP_STORED):
        with zipfile.ZipFile(top / name, "w", method) as archive:
            for file, _ in reversed(a.files):
                archive.write(file, f"photos/test/{file.parent.name}/{file.name}")
        yield f"{name} --split test"
    for end, images in ("png", a.pngs), ("webp", (encoded(image, format="webp", lossless=True, method=0) for image in a.pixels)):
        place = top / f"wds-{end}" / "test"
        place.mkdir(parents=True)
        with webdataset.ShardWriter(str(place / "%d.tar"), maxcount=900, verbose=0) as writer:
            for i, image in enumerate(images):
                writer.write({"__key__": f"s{i:07d}", end: image, "cls": str(a.labels[i])})
        (place / "nshards.txt").write_text(str(len(list(place.glob("*.tar")))))
        (place.parent / "classnames.txt").write_text("\n".join(a.names))
        yield f"wds-{end} --split test"


def tables(top, a):
    """Parquet by `datasets` and by pyarrow, CSV by pandas."""
    label = "label" if len(a.names) == 10 else "fine_label"
    features = datasets.Features({"img": datasets.Image(), label: datasets.ClassLabel(names=a.names)})
    pictures = [{"bytes": png, "path": None} for png in a.pngs]
    whole = datasets.Dataset.from_dict({"img": pictures, label: a.labels.tolist()}, features=features)
    (top / "hub" / "data").mkdir(parents=True)
    for shard in range(3):
        whole.shard(3, shard, contiguous=True).to_parquet(str(top / "hub" / "data" / f"test-{shard:05d}-of-00003.parquet"))
    yield "hub --split test"
    # By a pattern: given the folder alone, it would take CIFAR-100's class `train` for all of a split.
    built = datasets.load_dataset("imagefolder", data_files=f"{a.folder}/*/*", split="train", cache_dir=str(top / "cache"))
    # Images that `datasets` found in folders are paths alone until they are embedded, as `push_to_hub` does.
    built = built.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    built.to_parquet(str(top / "imagefolder.parquet"))
    in_order = sum_of((np.asarray(row["image"].convert("RGB")), row["label"]) for row in built)
    yield "imagefolder.parquet", in_order
    names = [a.names[label] for label in a.labels]
    for codec in "none", "zstd", "gzip":
        table = pa.table({"image": pa.array(a.pngs), "label": names})
        pq.write_table(table, top / f"{codec}.parquet", compression=codec, row_group_size=1024)
        yield f"{codec}.parquet"
    paths = [str(file.resolve()) for file, _ in a.files]
    pd.DataFrame({"path": paths, "label": a.labels}).to_csv(top / "numbers.csv", index=False)
    yield f"numbers.csv {a.cifar}"
    pd.DataFrame({"filename": paths, "class_name": names}).to_csv(top / "names.tsv", index=False, sep="\t")
    yield "names.tsv"


def torchvisions(top, a):
    """torchvision's layouts of other data sets; what it reads there is the truth. They have ten classes or take any."""
    of, count = torchvision.datasets, len(a.names)
    of.STL10._check_integrity = of.SVHN._check_integrity = lambda self: True
    read = lambda data: sum_of((np.asarray(image.convert("RGB")), label) for image, label in data)
    if count == 10:
        stl = top / "stl10" / "stl10_binary"
        stl.mkdir(parents=True)
        big = np.stack([np.asarray(Image.fromarray(image).resize((96, 96))) for image in a.pixels])
        big.transpose(0, 3, 2, 1).tofile(stl / "test_X.bin")
        (a.labels.astype(np.uint8) + 1).tofile(stl / "test_y.bin")
        (stl / "class_names.txt").write_text("\n".join(a.names) + "\n")
        yield "stl10", read(of.STL10(top / "stl10", "test"))
        (top / "svhn").mkdir()
        digits = np.where(a.labels == 0, 10, a.labels).astype(np.uint8)[:, None]
        scipy.io.savemat(top / "svhn" / "test_32x32.mat", {"X": a.pixels.transpose(1, 2, 3, 0), "y": digits}, do_compression=True)
        yield "svhn", read(of.SVHN(top / "svhn", "test"))
    # Pillow and memo go by an image's bytes, not by its name.
    def put(file, i):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(a.pngs[i])

    stems = [f"{file.parent.name}/{file.parent.name}_{i:05d}" for i, (file, _) in enumerate(a.files)]
    food = top / "food-101"
    lists = {name: [stem for stem, label in zip(stems, a.labels) if a.names[label] == name] for name in a.names}
    for i, stem in enumerate(stems):
        put(food / "images" / f"{stem}.jpg", i)
    (food / "meta").mkdir()
    (food / "meta" / "test.json").write_text(json.dumps(lists))
    (food / "meta" / "test.txt").write_text("".join(f"{stem}\n" for stem in stems))
    (food / "meta" / "classes.txt").write_text("".join(f"{name}\n" for name in a.names))
    yield "food-101", read(of.Food101(top, "test"))
    pets = top / "oxford-iiit-pet"
    lines = []
    for i, stem in enumerate(stems):
        name = stem.split("/")[1]
        put(pets / "images" / f"{name}.jpg", i)
        lines.append(f"{name} {a.labels[i] + 1} 1 1\n")
    (pets / "annotations").mkdir()
    for split in "test", "trainval":
        (pets / "annotations" / f"{split}.txt").write_text("".join(lines))
    yield "oxford-iiit-pet", read(of.OxfordIIITPet(top, "test"))
    dtd = top / "dtd" / "dtd"
    for i, stem in enumerate(stems):
        put(dtd / "images" / f"{stem}.jpg", i)
    (dtd / "labels").mkdir()
    (dtd / "labels" / "test1.txt").write_text("".join(f"{stem}.jpg\n" for stem in stems))
    yield "dtd", read(of.DTD(top, "test"))


def records_of(memo, path, flags, out):
    """The records of some images, without where each was read."""
    command = [memo, "eval", "--model", HERE.parent / "assets" / "demo-model", "--data", path, *flags, "--views", "4", "--limit", "40",
               "--out", out]
    out.unlink(missing_ok=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("file", "digest")} for row in rows if "index" in row]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=pathlib.Path, required=True)
    parser.add_argument("--into", type=pathlib.Path, required=True)
    parser.add_argument("--programs", type=pathlib.Path, default=HERE.parent / "target" / "release")
    args = parser.parse_args()
    args.into.mkdir(parents=True)
    datasets.disable_progress_bars()
    a = Images(args.images)
    want = sum_of(zip(a.pixels, a.labels))
    memo, out = args.programs / "memo", args.into / "run.jsonl"
    # The model, which knows digits, has no words for CIFAR's classes.
    words = DIGITS if len(a.names) == 10 else [f"{tens} {ones}" for tens in DIGITS for ones in DIGITS]
    labels = args.into / "names.json"
    labels.write_text(json.dumps(dict(zip(a.names, words))))
    own = records_of(memo, args.images, ["--labels", labels], out)
    assert len({row["memo"]["confidence"] for row in own}) > 30, "records that tell nothing of pixels"
    differ = 0

    def check(case):
        nonlocal differ
        text, truth = case if isinstance(case, tuple) else (case, want)
        path, *flags = text.split(" ")
        read = [args.programs / "examples" / "read_images", args.into / path, *flags, "--sum"]
        done = subprocess.run(read, capture_output=True, text=True)
        same = done.stdout.split()[-1:] == [truth]
        said = "the same images" if same else f"OTHER IMAGES: {done.stderr.partition('Stack')[0].strip()}"
        if truth == want:
            try:
                named = [] if path == "svhn" else ["--labels", labels]
                equal = records_of(memo, args.into / path, [*flags, *named], out) == own
            except subprocess.CalledProcessError as error:
                equal, said = False, f"{said}; {error.stderr.decode().strip()}"
            same, said = same and equal, f"{said}, {'the same records' if equal else 'OTHER RECORDS'}"
        differ += not same
        print(f"{len(a.names):4} classes  {text:42} {said}", flush=True)

    check((str(args.images.resolve()), want))
    for make in arrays, cifars, archives, tables, torchvisions:
        for case in make(args.into, a):
            check(case)
    print(f"{differ} differ")
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
