#!/bin/sh
# How fast sources open and are read, beside Pillow; minutes, so not a part of make test. On a machine that does nothing else:
#
#     cargo build --release --example read_images
#     tests/sources_speed.sh FOLDER [PHOTOS]          with a Python that has numpy 2.4, pillow 13, pyarrow 26 as $PYTHON
#
# FOLDER is for 1 GB of made data; PHOTOS is a folder of JPEGs. Wanted: 2,000 CIFAR images a second from .npy and parquet; a million
# images open in seconds; JPEGs by two threads at least as fast as by two processes of Pillow.
set -eu
folder=$1
photos=${2:-}
python=${PYTHON:-python3}
read_images=${READ_IMAGES:-target/release/examples/read_images}
mkdir -p "$folder"

"$python" - "$folder" <<'PYTHON'
import io, pathlib, sys, tarfile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

top = pathlib.Path(sys.argv[1])
random = np.random.default_rng(0)
if not (top / "done").exists():
    small = random.integers(0, 256, (10_000, 8, 8, 3), dtype=np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((32, 32))) for image in small])
    labels = np.arange(10_000) % 10
    (top / "npy").mkdir(parents=True, exist_ok=True)
    np.save(top / "npy" / "images.npy", images)
    np.save(top / "npy" / "labels.npy", labels)

    def png(image):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "png")
        return out.getvalue()

    pngs = [png(image) for image in images]
    column = pa.array([{"bytes": image, "path": None} for image in pngs])
    pq.write_table(pa.table({"img": column, "label": labels}), top / "cifar.parquet", row_group_size=1000)

    # A million images: an array without pixels that differ, a tar of small members, a table of paths.
    (top / "million").mkdir(exist_ok=True)
    million = np.lib.format.open_memmap(top / "million" / "images.npy", "w+", np.uint8, (1_000_000, 8, 8, 3))
    million.flush()
    np.save(top / "million" / "labels.npy", np.zeros(1_000_000, np.int64))
    with tarfile.open(top / "million.tar", "w") as archive:
        for i in range(1_000_000):
            for end, data in ("png", pngs[0][:64]), ("cls", b"0"):
                member = tarfile.TarInfo(f"s{i:07d}.{end}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    column = pa.array([pngs[0][:64]] * 1_000_000)
    pq.write_table(pa.table({"image": column, "label": np.zeros(1_000_000, np.int64)}), top / "million.parquet")
    with open(top / "million.csv", "w") as table:
        table.write("path,label\n")
        table.writelines(f"{i}.png,{i % 10}\n" for i in range(1_000_000))
    (top / "done").touch()
PYTHON

for source in npy cifar.parquet; do
    "$read_images" "$folder/$source"
done
for source in million million.tar million.parquet million.csv; do
    "$read_images" "$folder/$source" --images 0
done
[ -n "$photos" ] || exit 0
# In turn, so that what else the machine does meets both; processor time too, which other work leaves nearly alone.
"$python" - "$photos" "$read_images" <<'PYTHON'
import multiprocessing, os, pathlib, statistics, subprocess, sys, time
from PIL import Image


def read(files):
    for file in files:
        Image.open(file).convert("RGB")


def timed(work):
    """Seconds of the clock and of processors."""
    wall, before = time.time(), os.times()
    work()
    after = os.times()
    return time.time() - wall, sum(after[:4]) - sum(before[:4])


def pillow():
    with multiprocessing.Pool(2) as pool:
        pool.map(read, [files[::2], files[1::2]], chunksize=1)


if __name__ == "__main__":
    photos, program = sys.argv[1:]
    files = sorted(file for file in pathlib.Path(photos).rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    ours = lambda: subprocess.run([program, photos], check=True, stdout=subprocess.DEVNULL)
    pillow(), ours()
    pairs = [(timed(pillow), timed(ours)) for _ in range(7)]
    for which, name in enumerate(["clock", "processors"]):
        ratios = sorted(theirs[which] / own[which] for theirs, own in pairs)
        rates = [len(files) / statistics.median(pair[side][which] for pair in pairs) for side in (0, 1)]
        print(f"{len(files)} JPEGs by the {name}: Pillow, two processes, {rates[0]:.0f} a second; memo, two threads, {rates[1]:.0f}; "
              f"memo is {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})")
PYTHON
