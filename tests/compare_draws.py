"""Compares what `memo augment` draws with what MEMO's, TPT's and torchvision's own code draws, 10,000 views of each.

    python3 tests/compare_draws.py MEMO THIRD_PARTY        (torchvision 0.29, numpy; not part of `make test`)

MEMO is the program; THIRD_PARTY is imagenet-exps/utils/third_party.py of github.com/zhangmarvin/memo, run with pictures that
write down what is done to them. Prints the two-sample Kolmogorov-Smirnov distance of each number with its p-value, and of each
choice the chi-square with its own; ends with an error where one is below 0.001 (of some fifty).
"""
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import autoaugment

N, W, H, SIDE = 10_000, 500, 375, 224
worst = []


def report(name, distance, p):
    worst.append(p)
    print(f"{name:44} {distance:9.4f}   p {p:.3f}")


def ks(name, ours, theirs):
    a, b = np.sort(ours), np.sort(theirs)
    both = np.concatenate([a, b])
    distance = np.abs(np.searchsorted(a, both, "right") / len(a) - np.searchsorted(b, both, "right") / len(b)).max()
    scaled = distance * math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    p = 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101)) if scaled > 0.2 else 1.0
    report(f"{name} ({len(a)}, {len(b)})", distance, min(max(p, 0.0), 1.0))


def chi_square(name, ours, theirs):
    """Of two lists of choices; p by Wilson and Hilferty."""
    ours, theirs = Counter(ours), Counter(theirs)
    assert ours.keys() == theirs.keys(), (name, ours, theirs)
    n, m = sum(ours.values()), sum(theirs.values())
    value = sum((ours[k] * math.sqrt(m / n) - theirs[k] * math.sqrt(n / m)) ** 2 / (ours[k] + theirs[k]) for k in ours)
    freedom = len(ours) - 1
    z = ((value / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    report(f"{name}, {len(ours)} kinds", value, 0.5 * math.erfc(z / math.sqrt(2)))


def drawn(memo, policy, count=N):
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (W, H)).save(f"{folder}/black.png")
        subprocess.run([memo, "augment", f"{folder}/black.png", "--policy", policy, "--views", str(count), "--seed", "1",
                        "--params-out", f"{folder}/views.json"], check=True, stdout=subprocess.DEVNULL)
        return json.loads(Path(f"{folder}/views.json").read_text())


class Written:
    """A picture that writes down what is done to it."""
    size = (SIDE, SIDE)
    done = ()

    def copy(self): return self.after()

    def after(self, *step):
        other = Written()
        other.done = self.done + ((step,) if step else ())
        return other

    def rotate(self, degrees, resample, fillcolor):
        assert resample == Image.BILINEAR and fillcolor == 128
        return self.after("rotate", degrees)

    def transform(self, size, method, matrix, resample, fillcolor):
        assert size == (SIDE, SIDE) and method == Image.AFFINE and resample == Image.BILINEAR and fillcolor == 128
        moved = {1: "shear_x", 2: "translate_x", 3: "shear_y", 5: "translate_y"}
        at = [i for i in moved if matrix[i] != 0] or [2]
        return self.after(moved[at[0]], matrix[at[0]])


class Ops:
    autocontrast = staticmethod(lambda image: image.after("autocontrast", 0))
    equalize = staticmethod(lambda image: image.after("equalize", 0))
    solarize = staticmethod(lambda image, threshold: image.after("solarize", threshold))
    posterize = staticmethod(lambda image, bits: image.after("posterize", bits))


def memos_own(path):
    """(w, m, [steps of each chain]) of each view."""
    text = Path(path).read_text().split("### Robust Vision Transformer")[0]
    scope = {}
    exec(compile(text, path, "exec"), scope)
    kept = {}
    dirichlet, beta = np.random.dirichlet, np.random.beta
    np.random.dirichlet = lambda alpha: kept.setdefault("w", dirichlet(alpha))
    np.random.beta = lambda a, b: kept.setdefault("m", beta(a, b))
    def preprocess(image):
        kept["chains"].append(image.done)
        return torch.zeros(1)
    scope.update(preaugment=lambda image: image, preprocess=preprocess, ImageOps=Ops)
    views = []
    for _ in range(N):
        kept.clear()
        kept["chains"] = []
        scope["_augmix_aug"](Written())
        views.append((kept["w"], kept["m"], kept["chains"][1:]))
    np.random.dirichlet, np.random.beta = dirichlet, beta
    return views


def compare_crops(name, ours):
    theirs = [T.RandomResizedCrop.get_params(Image.new("RGB", (W, H)), [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(N)]
    numbers = {"area": lambda t, l, h, w: h * w / (H * W), "ratio": lambda t, l, h, w: w / h,
               "top": lambda t, l, h, w: t / max(H - h, 1), "left": lambda t, l, h, w: l / max(W - w, 1)}
    for number, of in numbers.items():
        ks(f"{name}: crop's {number}", [of(*each) for each in ours], [of(*each) for each in theirs])


def compare_mirror(name, ours):
    theirs = [bool(torch.rand(1) < 0.5) for _ in range(N)]
    chi_square(f"{name}: flip", ours, theirs)


NAMES = {"Identity": "identity", "ShearX": "shear_x", "ShearY": "shear_y", "TranslateX": "translate_x", "TranslateY": "translate_y",
         "Rotate": "rotate", "Brightness": "brightness", "Color": "color", "Contrast": "contrast", "Sharpness": "sharpness",
         "Posterize": "posterize", "Solarize": "solarize", "AutoContrast": "autocontrast", "Equalize": "equalize"}


def as_ours(name, magnitude):
    if name in ("Brightness", "Color", "Contrast", "Sharpness"): magnitude = float(np.float32(1.0 + magnitude))
    if name.startswith("Translate"): magnitude = -int(magnitude)
    return NAMES[name], magnitude + 0


def pixels(name, share):
    return name, int(share * SIDE) if name.startswith("translate") else share + 0


if __name__ == "__main__":
    memo, third_party = sys.argv[1:]
    np.random.seed(0)
    torch.manual_seed(0)

    views = drawn(memo, "tpt:originals=0")
    compare_crops("tpt", [view["crop"] for view in views])
    compare_mirror("tpt", [view["mirror"] for view in views])

    views, own = drawn(memo, "augmix"), memos_own(third_party)
    compare_crops("augmix", [view["crop"] for view in views])
    compare_mirror("augmix", [view["mirror"] for view in views])
    ks("augmix: m", [view["unchanged"] for view in views], [m for _, m, _ in own])
    for i in range(3):
        ks(f"augmix: w[{i}]", [view["chains"][i]["weight"] for view in views], [w[i] for w, _, _ in own])
        chi_square(f"augmix: depth {i}", [len(view["chains"][i]["steps"]) for view in views], [len(chains[i]) for _, _, chains in own])
    ours = [(name, value or 0.0) for view in views for chain in view["chains"] for step in chain["steps"] for name, value in step.items()]
    theirs = [step for _, _, chains in own for chain in chains for step in chain]
    # By no pixel MEMO's code translates in either direction, which its matrix does not tell.
    ours = [pixels(*step) for step in ours]
    still = lambda name, value: "translate by 0" if name.startswith("translate") and value == 0 else name
    chi_square("augmix: operation", [still(*step) for step in ours], [still(*step) for step in theirs])
    for name in ("rotate", "solarize", "translate_x", "translate_y"):
        of = lambda steps: [value + 0 for own_name, value in steps if own_name == name and (value != 0 or name == "rotate")]
        chi_square(f"augmix: {name}", of(ours), of(theirs))
    for name in ("shear_x", "shear_y"):
        ks(f"augmix: {name}", *([value for own_name, value in steps if own_name == name] for steps in (ours, theirs)))
    assert {value for name, value in ours if name == "posterize"} == {value for name, value in theirs if name == "posterize"}

    views = drawn(memo, "augmix-cifar")
    own = [T.RandomCrop.get_params(Image.new("RGB", (W + 8, H + 8)), (H, W)) for _ in range(N)]
    for i, side in enumerate(("top", "left")):
        chi_square(f"augmix-cifar: {side}", [view["crop"][i] for view in views], [each[i] - 4 for each in own])

    views = drawn(memo, "randaugment")
    compare_crops("randaugment", [view["crop"] for view in views])
    compare_mirror("randaugment", [view["mirror"] for view in views])
    own = []
    autoaugment._apply_op = lambda image, name, magnitude, **_: own.append(as_ours(name, magnitude)) or image
    randaugment = T.RandAugment()
    for _ in range(N): randaugment(Image.new("RGB", (SIDE, SIDE)))
    steps = lambda views: [pixels(name, value or 0.0) for view in views for step in view["chains"][0]["steps"] for name, value in step.items()]
    chi_square("randaugment: operation with its argument", steps(views), own)
    for magnitude in range(31):
        space = T.RandAugment()._augmentation_space(31, (SIDE, SIDE))
        at = {name: float(values[magnitude]) if values.ndim else 0.0 for name, (values, _) in space.items()}
        theirs = {as_ours(name, sign * at[name]) for name, (_, signed) in space.items() for sign in ((1, -1) if signed else (1,))}
        assert set(steps(drawn(memo, f"randaugment:magnitude={magnitude}", 1000))) == theirs, magnitude
    print("randaugment: the same arguments at each of 31 magnitudes")

    print(f"{len(worst)} comparisons, the least p {min(worst):.4f}")
    assert min(worst) > 0.001
