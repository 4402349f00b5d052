"""memo report over a million records: at most 10 s and 500 MB. Not part of the tests.

    python3 benches/report.py target/release/memo [RECORDS]

Writes such a run into a temporary folder (ImageNet-C's size: 1000 classes, 75 groups; all predictors of one learning rate),
reports on it as a page, JSON, CSV and Markdown, and says how long it took and how much memory.
"""

import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time

SECONDS, MEGABYTES = 10, 500
CLASSES = 1000
CORRUPTIONS = (
    "gaussian_noise shot_noise impulse_noise defocus_blur glass_blur motion_blur zoom_blur snow frost fog "
    "brightness contrast elastic_transform pixelate jpeg_compression"
).split()
# Distinct answers, which lines take in turn.
ANSWERS = 4000


def number(x):
    return float(f"{max(x, 0.001):.15f}")


def choice(rng, label, chance):
    right = rng.random() < chance
    pred = label if right else (label + 1 + rng.randrange(CLASSES - 1)) % CLASSES
    confidence = number(rng.uniform(0.05, 1))
    own = confidence if right else number((1 - confidence) * rng.random())
    brier = (1 - own) ** 2 + (0 if right else confidence**2)
    rank = 0 if right else 1 + rng.randrange(20)
    return {"pred": pred, "confidence": confidence, "nll": number(-math.log(own)), "rank": rank, "brier": number(brier)}


def write(path, records):
    rng = random.Random(0)
    answers = []
    for place in range(ANSWERS):
        label = place % CLASSES
        names = ["zero_shot", *PREDICTORS]
        answers.append((label, {name: choice(rng, label, 0.6) for name in names}, number(rng.uniform(0.1, 6))))
    with open(path, "w") as lines:
        for index in range(records):
            label, predictors, entropy = answers[index % ANSWERS]
            cell = index * 75 // records
            record = {
                "index": index,
                "file": f"n{label:08}/ILSVRC2012_val_{index:08}.JPEG",
                "group": f"{CORRUPTIONS[cell // 5]}/{cell % 5 + 1}",
                "digest": f"{rng.getrandbits(64):016x}",
                "label": label,
                **predictors,
                "entropy": [float(f"{entropy:.4f}")],
            }
            lines.write(json.dumps(record, separators=(",", ":")) + "\n")
    settings = {"selection": {"images": records}, "labels": [f"class {i}" for i in range(CLASSES)], "lr": [1e-5], "seed": 0}
    with open(f"{path}.run.json", "w") as file:
        json.dump(settings, file)


# Those of a record, in its order, but for zero-shot.
PREDICTORS = ["view_average", "confident_average", "vote", "memo"]


def main():
    memo, records = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.jsonl")
        write(path, records)
        print(f"{records} records, {os.path.getsize(path) / 1e6:.0f} MB")
        outs = [word for form in ("html", "json", "csv", "md") for word in ("--out", os.path.join(folder, f"report.{form}"))]
        start = time.monotonic()
        subprocess.run([memo, "report", path, *outs], check=True)
        seconds = time.monotonic() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        megabytes = used.ru_maxrss / 1024
        print(f"{seconds:.1f} s, {used.ru_utime + used.ru_stime:.1f} s of processors, {megabytes:.0f} MB")
        assert seconds < SECONDS and megabytes < MEGABYTES, f"more than {SECONDS} s or {MEGABYTES} MB"


main()
