"""Makes tests/fixtures/programs.json: drawn views as Pillow, torchvision and NumPy make them, the truth for tests/augment.rs.

    python3 tests/make_programs.py MEMO        (torchvision 0.29, numpy; with pillow 12.1.1 and 13.0.0, one after the other)

MEMO is the program, of which `augment` draws each view; what it drew is done here by the libraries, in the words of MEMO's
`third_party.py` (github.com/zhangmarvin/memo), TPT's `datautils.py` (github.com/azshue/TPT) and torchvision's `autoaugment.py`.
Each release adds its own to {release: {"W H SIZE POLICY": [digest of each view]}}: the first 16 hex digits of the SHA-256 of
the normalised view, (3, SIZE, SIZE) float32. View i of a case is that of seed 7, image 3, number i.
"""
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from torchvision import transforms as T
from torchvision.transforms import functional as F

from make_pillow import picture

OUT = Path(__file__).parent / "fixtures" / "programs.json"
BICUBIC, BILINEAR, NEAREST = T.InterpolationMode.BICUBIC, T.InterpolationMode.BILINEAR, T.InterpolationMode.NEAREST
NORMALISE = T.Compose([T.ToTensor(), T.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])
SIZES = [(1, 1, 16), (1, 40, 16), (60, 140, 32), (45, 61, 32), (32, 32, 32)]
POLICIES = {"tpt": 10, "augmix": 32, "augmix:severity=10,fill=0,originals=1": 16, "augmix-cifar": 24,
            "augmix-cifar:severity=10": 8, "randaugment": 24, "randaugment:ops=9,magnitude=21,bilinear=1": 8}
LARGE = [(50, 37, 224, "augmix", 4), (32, 32, 224, "augmix-cifar", 4), (50, 37, 224, "randaugment", 4)]


def memo_step(image, name, argument, fill):
    """An operation in the words of MEMO's third_party.py, its level drawn."""
    affine = lambda matrix: image.transform(image.size, Image.AFFINE, matrix, resample=Image.BILINEAR, **fill)
    if name == "autocontrast": return ImageOps.autocontrast(image)
    if name == "equalize": return ImageOps.equalize(image)
    if name == "rotate": return image.rotate(int(argument), resample=Image.BILINEAR, **fill)
    if name == "solarize": return ImageOps.solarize(image, int(argument))
    if name == "shear_x": return affine((1, argument, 0, 0, 1, 0))
    if name == "shear_y": return affine((1, 0, 0, argument, 1, 0))
    if name == "translate_x": return affine((1, 0, int(argument * image.width), 0, 1, 0))
    if name == "translate_y": return affine((1, 0, 0, 0, 1, int(argument * image.height)))
    if name == "posterize": return ImageOps.posterize(image, int(argument))
    raise ValueError(name)


def torchvision_step(image, name, argument, mode):
    """The same of torchvision's autoaugment.py."""
    degrees = lambda: float(np.degrees(np.arctan(argument)))
    sheared = lambda shear: F.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=shear, interpolation=mode, center=[0, 0])
    moved = lambda by: F.affine(image, angle=0.0, translate=by, scale=1.0, shear=[0.0, 0.0], interpolation=mode)
    if name == "identity": return image
    if name == "shear_x": return sheared([degrees(), 0.0])
    if name == "shear_y": return sheared([0.0, degrees()])
    if name == "translate_x": return moved([-int(argument * image.width), 0])
    if name == "translate_y": return moved([0, -int(argument * image.height)])
    if name == "rotate": return F.rotate(image, argument, interpolation=mode)
    if name == "brightness": return F.adjust_brightness(image, argument)
    if name == "color": return F.adjust_saturation(image, argument)
    if name == "contrast": return F.adjust_contrast(image, argument)
    if name == "sharpness": return F.adjust_sharpness(image, argument)
    if name == "posterize": return F.posterize(image, int(argument))
    if name == "solarize": return F.solarize(image, argument)
    if name == "autocontrast": return F.autocontrast(image)
    if name == "equalize": return F.equalize(image)
    raise ValueError(name)


def view(image, drawn, policy, size):
    preprocess = T.Compose([T.Resize(size, BICUBIC), T.CenterCrop(size), NORMALISE])
    if drawn.get("original"): return preprocess(image)
    top, left, height, width = drawn["crop"]
    if drawn.get("resized") == "last":
        image = image.crop((left, top, left + width, top + height))  # black past the edge, as of a padded image
    else:
        image, preprocess = F.resized_crop(image, top, left, height, width, [size, size], BILINEAR), NORMALISE
    if drawn["mirror"]: image = F.hflip(image)
    if "chains" not in drawn: return preprocess(image)
    ends = []
    for chain in drawn["chains"]:
        end = image.copy()
        for step in chain["steps"]:
            (name, argument), = step.items()
            if policy.startswith("augmix"):
                red = drawn["fill"][0]
                end = memo_step(end, name, argument, {"fillcolor": red} if red else {})
            else:
                end = torchvision_step(end, name, argument, BILINEAR if drawn["interpolation"] == "bilinear" else NEAREST)
        ends.append(end)
    if policy.startswith("randaugment"): return preprocess(ends[0])
    w, m = np.float32([chain["weight"] for chain in drawn["chains"]]), np.float32(drawn["unchanged"])
    x_processed = preprocess(image)
    mix = torch.zeros_like(x_processed)
    for i in range(3):
        mix += w[i] * preprocess(ends[i])
    return m * x_processed + (1 - m) * mix


def digests(memo, w, h, size, policy, count):
    with tempfile.TemporaryDirectory() as folder:
        picture(w, h).save(f"{folder}/picture.png")
        subprocess.run([memo, "augment", f"{folder}/picture.png", "--policy", policy, "--size", str(size), "--views", str(count),
                        "--seed", "7", "--index", "3", "--params-out", f"{folder}/views.json"], check=True, stdout=subprocess.DEVNULL)
        drawn = json.loads(Path(f"{folder}/views.json").read_text())
    views = [view(picture(w, h), each, policy, size).numpy() for each in drawn]
    return [hashlib.sha256(np.ascontiguousarray(each, "<f4").tobytes()).hexdigest()[:16] for each in views]


if __name__ == "__main__":
    cases = LARGE + [(*sides, policy, count // (2 if sides[0] == 1 else 1)) for policy, count in POLICIES.items() for sides in SIZES]
    print(sum(case[-1] for case in cases), "views")
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    known[PIL.__version__] = {" ".join(map(str, case[:-1])): digests(sys.argv[1], *case) for case in cases}
    OUT.write_text(json.dumps(dict(sorted(known.items())), indent=0) + "\n")
