#!/usr/bin/env python3
"""Makes tests/fixtures/sources.tar.gz: the same few images in each format that datasets come in, written by the library of the format;
and what torchvision reads of its own data sets, the truth for tests/sources.

    pip install numpy==2.4.6 pillow==13.0.0 scipy==1.17.1 webdataset==1.0.2 datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
    pip install torchvision==0.29.2
    python3 tests/make_sources.py

The images are assets/demo-images.safetensors', 32 by 32, of CIFAR-10's classes as far as names go, in the order of class folders:

    folder/CLASS/N.png, folder.zip (deflated), stored.zip, around.zip (in a folder), splits.zip (val/, train/); zip64.zip, streamed.zip
    (sizes behind the members); encrypted.zip, twice.zip
    arrays/images.npy and labels.npy; versions 2 and 3 of the format (second/, third/); grey/; big-endian labels
    (wide/); images.npz, compressed.npz, splits.npz
    CIFAR-10-C/: two corruptions, five severities; CIFAR-10.1/: v4 and v6
    webdataset/test/: two shards; parquet/data/: two tables; plain.parquet: no metadata, names for labels; zstd.parquet,
    gzip.parquet, pages2.parquet (zstd, pages of version 2), brotli.parquet
    table/images.csv, table/named.csv
    torchvision/: STL-10, SVHN, Food-101, Pets, DTD, EuroSAT, tiny; torchvision.json: {set: [[class name, SHA-256 of the pixels]]}
"""
import hashlib
import io
import json
import pathlib
import shutil
import tarfile
import tempfile
import warnings
import zipfile

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
import torchvision
import webdataset
from PIL import Image
from safetensors.numpy import load_file

HERE = pathlib.Path(__file__).parent
OUT = HERE / "fixtures" / "sources.tar.gz"
CIFAR_10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
# One of a class twice, so that order within a class is seen.
LABELS = [0, 3, 3, 5, 9]
TENSORS = load_file(HERE.parent / "assets" / "demo-images.safetensors")
IMAGES = [TENSORS["clean"][i * 20] for i in range(len(LABELS))]


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "png")
    return out.getvalue()


def folders(top):
    for i, (image, label) in enumerate(zip(IMAGES, LABELS)):
        file = top / "folder" / CIFAR_10[label] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image))
    files = sorted((top / "folder").rglob("*.png"))
    for name, method, around in (
        ("folder.zip", zipfile.ZIP_DEFLATED, [""]),
        ("stored.zip", zipfile.ZIP_STORED, [""]),
        ("around.zip", zipfile.ZIP_DEFLATED, ["photos/"]),
        ("splits.zip", zipfile.ZIP_DEFLATED, ["photos/train/", "photos/val/"]),
        ("bzip2.zip", zipfile.ZIP_BZIP2, [""]),
    ):
        with zipfile.ZipFile(top / name, "w", method) as archive:
            for folder in around:
                archive.mkdir(folder) if folder else None
                for file in reversed(files):  # the order of the archive is not the images'
                    archive.write(file, folder + str(file.relative_to(top / "folder")))
    odd_archives(top, files)


class Stream(io.BytesIO):
    def seekable(self):
        return False

    def tell(self):
        raise OSError("a stream")


def odd_archives(top, files):
    def archive_of(into, files):
        with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, str(file.relative_to(top / "folder")))

    stream = Stream()
    archive_of(stream, files)
    (top / "streamed.zip").write_bytes(stream.getvalue())
    limits = zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = 100, 2  # as though these were large
    archive_of(top / "zip64.zip", files)
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = limits
    with warnings.catch_warnings(action="ignore"):
        archive_of(top / "twice.zip", files + files[-1:])
    # The flag alone, in the archive's directory: Python writes no encrypted members.
    whole = bytearray((top / "folder.zip").read_bytes())
    whole[whole.index(b"PK\x01\x02") + 8] |= 1
    (top / "encrypted.zip").write_bytes(whole)


def arrays(top):
    images, labels = np.stack(IMAGES), np.array(LABELS)
    for name, pixels, classes in (
        ("arrays", images, labels.astype(np.uint8)),
        ("wide", images, labels.astype(">i8")),
        ("grey", images[..., 0], labels.astype(np.int32)[:, None]),
        ("fortran", np.asfortranarray(images), labels),
        ("float", images / 255, labels),
        ("planes", np.moveaxis(images, 3, 1), labels),
        ("few", images, labels[:3]),
    ):
        (top / name).mkdir()
        np.save(top / name / "images.npy", pixels)
        np.save(top / name / "labels.npy", classes)
    for name, version in ("second", (2, 0)), ("third", (3, 0)):
        (top / name).mkdir()
        for stem, array in ("images", images), ("labels", labels):
            with open(top / name / f"{stem}.npy", "wb") as file:
                np.lib.format.write_array(file, array, version)
    np.savez(top / "cifar10.npz", images=images, labels=labels)
    np.savez_compressed(top / "cifar10-compressed.npz", x_test=images, y_test=labels)
    np.savez_compressed(top / "cifar10-splits.npz", x_train=images[:2], y_train=labels[:2], x_test=images, y_test=labels)
    (top / "CIFAR-10-C").mkdir()
    for corruption, tensor in ("fog", "blur"), ("gaussian_noise", "noise"):
        # Severity s is the images s further, so that each row is known.
        rows = [TENSORS[tensor][i * 20 + s] for s in range(5) for i in range(len(LABELS))]
        np.save(top / "CIFAR-10-C" / f"{corruption}.npy", np.stack(rows))
    np.save(top / "CIFAR-10-C" / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    (top / "CIFAR-10.1").mkdir()
    for version, count in ("v4", 3), ("v6", 5):
        np.save(top / "CIFAR-10.1" / f"cifar10.1_{version}_data.npy", images[:count])
        np.save(top / "CIFAR-10.1" / f"cifar10.1_{version}_labels.npy", labels[:count].astype(np.int32))


def shards(top):
    folder = top / "webdataset" / "test"
    folder.mkdir(parents=True)
    parts = [range(0, 3), range(3, 5)]
    for shard, part in enumerate(parts):
        with webdataset.TarWriter(str(folder / f"{shard}.tar"), mtime=0) as writer:
            for i in part:
                writer.write({"__key__": f"s{i:07d}", "png": png(IMAGES[i]), "cls": str(LABELS[i])})
    (folder / "nshards.txt").write_text(str(len(parts)))
    (top / "webdataset" / "classnames.txt").write_text("\n".join(CIFAR_10))
    (top / "webdataset" / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na blurry photo of a {c}.")


def tables(top):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=CIFAR_10)})
    pictures = [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(IMAGES)]
    whole = datasets.Dataset.from_dict({"img": pictures, "label": LABELS}, features=features)
    (top / "parquet" / "data").mkdir(parents=True)
    for shard in range(2):
        part = whole.select([[0, 1, 2], [3, 4]][shard])
        part.to_parquet(str(top / "parquet" / "data" / f"test-{shard:05d}-of-00002.parquet"), batch_size=2)
    whole.select([4]).to_parquet(str(top / "parquet" / "data" / "train-00000-of-00001.parquet"))
    names = [CIFAR_10[label] for label in LABELS]
    plain = pa.table({"image": pa.array([png(image) for image in IMAGES]), "label": names, "size": [32] * len(LABELS)})
    pq.write_table(plain, top / "plain.parquet", compression="none", row_group_size=2)
    for codec in "zstd", "gzip", "brotli":
        pq.write_table(plain, top / f"{codec}.parquet", compression=codec)
    pq.write_table(plain, top / "pages2.parquet", compression="zstd", data_page_version="2.0", data_page_size=2000)
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    paths = pa.array([{"bytes": None, "path": f"{i}.png"} for i in range(len(LABELS))], struct)
    pq.write_table(plain.set_column(0, "image", paths), top / "paths.parquet")
    pq.write_table(plain.drop(["image"]), top / "imageless.parquet")
    pq.write_table(plain.set_column(1, "label", pa.array([0, 3, None, 5, 9])), top / "labelless.parquet")


def csvs(top):
    paths = [f"folder/{CIFAR_10[label]}/{i}.png" for i, label in enumerate(LABELS)]
    pd.DataFrame({"path": paths, "label": LABELS}).to_csv(top / "cifar10.csv", index=False)
    names = [CIFAR_10[label] for label in LABELS]
    frame = pd.DataFrame({"filename": paths, "class_name": names, "split": ["test"] * 5, "domain": list("aabba"), "size": 32})
    frame.to_csv(top / "named.tsv", index=False, sep="\t")


def torchvisions(top):
    root = top / "torchvision"
    stl = root / "stl10" / "stl10_binary"
    stl.mkdir(parents=True)
    big = np.stack([np.asarray(Image.fromarray(image).resize((96, 96))) for image in IMAGES])
    big.transpose(0, 3, 2, 1).tofile(stl / "test_X.bin")
    (np.array(LABELS, dtype=np.uint8) + 1).tofile(stl / "test_y.bin")
    (stl / "class_names.txt").write_text("airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n")
    svhn = root / "svhn"
    svhn.mkdir()
    digits = np.array([[label or 10] for label in LABELS], dtype=np.uint8)
    pixels = np.stack(IMAGES).transpose(1, 2, 3, 0)
    scipy.io.savemat(svhn / "test_32x32.mat", {"X": pixels, "y": digits}, do_compression=True)
    scipy.io.savemat(svhn / "train_32x32.mat", {"X": pixels, "y": digits.astype(float)})

    def jpeg(file, image):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file, quality=90)

    food = root / "food" / "food-101"
    kinds = ["apple_pie", "ice_cream", "waffles"]
    (food / "meta").mkdir(parents=True)
    lists = {kind: [f"{kind}/{1000 + i}" for i in range(2)] for kind in kinds}
    for kind in kinds:
        for i in range(2):
            jpeg(food / "images" / kind / f"{1000 + i}.jpg", IMAGES[(i + len(kind)) % 5])
    for split, which in ("test", slice(1, 2)), ("train", slice(0, 1)):
        (food / "meta" / f"{split}.json").write_text(json.dumps({kind: files[which] for kind, files in lists.items()}))
        (food / "meta" / f"{split}.txt").write_text("".join(f"{file}\n" for files in lists.values() for file in files[which]))
    (food / "meta" / "classes.txt").write_text("\n".join(kinds) + "\n")

    pets = root / "pets" / "oxford-iiit-pet"
    (pets / "annotations").mkdir(parents=True)
    breeds = [("Abyssinian", 1), ("american_bulldog", 2), ("Egyptian_Mau", 3)]
    for split, number in ("test", 7), ("trainval", 8):
        lines = []
        for breed, label in reversed(breeds):
            jpeg(pets / "images" / f"{breed}_{number}.jpg", IMAGES[label])
            lines.append(f"{breed}_{number} {label} {1 + breed[0].islower()} 1\n")
        (pets / "annotations" / f"{split}.txt").write_text("".join(lines))

    dtd = root / "dtd" / "dtd" / "dtd"
    (dtd / "labels").mkdir(parents=True)
    textures = ["banded", "polka-dotted", "zigzagged"]
    for at, texture in enumerate(textures):
        for i in range(2):
            jpeg(dtd / "images" / texture / f"{texture}_{i:04d}.jpg", IMAGES[at + i])
    for split in "train", "val", "test":
        for partition in 1, 2:
            files = [f"{t}/{t}_{(partition + (split == 'test')) % 2:04d}.jpg\n" for t in textures]
            (dtd / "labels" / f"{split}{partition}.txt").write_text("".join(files))

    sat = root / "sat" / "eurosat" / "2750"
    lands = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake".split()
    for at, land in enumerate(lands):
        jpeg(sat / land / f"{land}_1.jpg", IMAGES[at % 5])

    # Sums of the whole data sets are no matter here.
    torchvision.datasets.STL10._check_integrity = torchvision.datasets.SVHN._check_integrity = lambda self: True
    of = torchvision.datasets
    sets = {
        "stl10": of.STL10(root / "stl10", "test"),
        "svhn": of.SVHN(root / "svhn", "test"),
        "svhn --split train": of.SVHN(root / "svhn", "train"),
        "food": of.Food101(root / "food", "test"),
        "food --split train": of.Food101(root / "food", "train"),
        "pets": of.OxfordIIITPet(root / "pets", "test"),
        "pets --split trainval": of.OxfordIIITPet(root / "pets", "trainval"),
        "dtd": of.DTD(root / "dtd", "test"),
        "dtd --split test2": of.DTD(root / "dtd", "test", partition=2),
        "sat": of.EuroSAT(root / "sat"),
    }
    digits = "zero one two three four five six seven eight nine".split()
    truth = {}
    for name, data in sets.items():
        names = getattr(data, "classes", digits)
        samples = [data[i] for i in range(len(data))]
        truth[name] = [[names[label], hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()] for image, label in samples]
    (top / "torchvision.json").write_text(json.dumps(truth))


def anonymous(member):
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main():
    with tempfile.TemporaryDirectory() as top:
        top = pathlib.Path(top)
        for make in folders, arrays, shards, tables, csvs, torchvisions:
            make(top)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=9) as archive:
            for path in sorted(top.iterdir()):
                archive.add(path, path.name, filter=anonymous)
        shutil.rmtree(top / "torchvision")
    OUT.write_bytes(buffer.getvalue())
    print(f"{OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
