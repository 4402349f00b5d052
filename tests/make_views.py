"""Makes views and CLIP preprocesses by torchvision and Pillow, the truth for tests/augment.rs: tests/fixtures/views.safetensors
by a Pillow up to 12.1, views-13.safetensors by 13, which resizes some of them down before across.

    python3 tests/make_views.py        (torchvision 0.29, safetensors, pillow 12.1.1; and again with pillow 13.0.0)

For each case `WxH/S`:
  source      (H, W, 3) u8
  integers    (n, 10) i32   hflip, vflip, the jitter's order, the crop's top, left, height, width
  floats      (n, 5) f32    angle, brightness, contrast, saturation, hue
  views       (n, S, S, 3) u8
  original    (S, S, 3) u8; normalised: the same, (3, S, S) f32, where S is 16
`hsv` (2, 32) u8: SHA-256 of every RGB colour in order as HSV, and of every HSV colour in order as RGB.
"""
import hashlib
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from safetensors.numpy import save_file
from torchvision import transforms as T
from torchvision.transforms import functional as F

RELEASE = tuple(int(part) for part in PIL.__version__.split(".")[:2])
assert RELEASE <= (12, 1) or RELEASE == (13, 0), f"pillow {PIL.__version__} has an order of its own"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CASES = [(1, 1, 16, 20), (7, 300, 16, 100), (300, 7, 16, 100), (45, 61, 16, 100), (32, 32, 16, 200), (32, 32, 224, 2)]
if RELEASE == (13, 0): CASES = [(7, 300, 16, 40), (45, 61, 16, 40), (60, 140, 32, 20)]


def picture(w, h, rng):
    """Noise over two slopes, so that there are both smooth and abrupt places."""
    y, x = np.mgrid[0:h, 0:w]
    slopes = np.stack([x * 160 // w, y * 160 // h, (x + y) * 160 // (w + h)], -1)
    return (slopes + rng.integers(0, 96, (h, w, 3))).astype(np.uint8)


def draw(image, number):
    """The notebook's draw; every fourth is wider, and the first few are special angles and factors."""
    wide = number % 4 == 3
    angle = T.RandomRotation.get_params([-180, 180] if wide else [-30, 30])
    colour = [0.0, 2.5] if wide else [0.8, 1.2]
    order, *factors = T.ColorJitter.get_params(colour, colour, colour, [-0.5, 0.5] if wide else [-0.2, 0.2])
    crop = T.RandomResizedCrop.get_params(image, [0.08, 1.0], [0.2, 5.0] if wide else [3 / 4, 4 / 3])
    if number < 5: angle = [0.0, 90.0, 180.0, -90.0, -180.0][number]
    if number in (5, 6, 7): factors[:3] = [number - 5.0] * 3
    flips = torch.randint(0, 2, (2,)).tolist()
    return flips + order.tolist() + list(crop), [angle] + factors


def view(image, integers, floats, size):
    hflip, vflip, *order = integers[:6]
    if hflip: image = F.hflip(image)
    if vflip: image = F.vflip(image)
    image = F.rotate(image, floats[0])
    for step in order:
        adjust = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)[step]
        image = adjust(image, floats[1 + step])
    return F.resized_crop(image, *integers[6:], [size, size], T.InterpolationMode.BILINEAR)


def hsv():
    pair = [hashlib.sha256(), hashlib.sha256()]
    second, third = np.mgrid[0:256, 0:256].astype(np.uint8)
    for first in range(256):
        colours = np.stack([np.full_like(second, first), second, third], -1)
        pair[0].update(np.asarray(Image.fromarray(colours).convert("HSV")).tobytes())
        pair[1].update(np.asarray(Image.merge("HSV", [Image.fromarray(c) for c in np.moveaxis(colours, -1, 0)]).convert("RGB")).tobytes())
    return np.stack([np.frombuffer(digest.digest(), np.uint8) for digest in pair])


rng, tensors = np.random.default_rng(0), {} if RELEASE == (13, 0) else {"hsv": hsv()}
torch.manual_seed(0)
for w, h, size, n in CASES:
    source = picture(w, h, rng)
    image = Image.fromarray(source)
    draws = [draw(image, number) for number in range(n)]
    original = T.Compose([T.Resize(size, T.InterpolationMode.BICUBIC), T.CenterCrop(size)])(image)
    case = {
        "source": source,
        "integers": np.array([integers for integers, _ in draws], np.int32),
        "floats": np.array([floats for _, floats in draws], np.float32),
        "views": np.stack([np.asarray(view(image, *d, size)) for d in draws]),
        "original": np.asarray(original),
    }
    if size == 16: case["normalised"] = T.Compose([T.ToTensor(), T.Normalize(MEAN, STD)])(original).numpy()
    tensors |= {f"{w}x{h}/{size}.{name}": np.ascontiguousarray(tensor) for name, tensor in case.items()}
name = "views-13.safetensors" if RELEASE == (13, 0) else "views.safetensors"
save_file(tensors, Path(__file__).parent / "fixtures" / name)
