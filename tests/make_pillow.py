"""Makes tests/fixtures/pillow.json: what releases of Pillow resize to, the truth for tests/augment.rs.

    python3 tests/make_pillow.py        (torchvision 0.29, numpy; with pillow 12.1.1, 12.3.0 and 13.0.0, one after the other)

Each release adds its own to {release: {case: digest}}: the first 16 hex digits of the SHA-256 of the 8-bit RGB result. A case is
    W H preprocess shortest S filter SIZE            torchvision's Resize(S) and CenterCrop(SIZE) of picture(W, H)
    W H preprocess exact WIDTH HEIGHT filter SIZE    Resize((HEIGHT, WIDTH)) and CenterCrop(SIZE)
    W H view TOP LEFT HEIGHT WIDTH SIZE              resized_crop, bilinear
"""
import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import functional as F

OUT = Path(__file__).parent / "fixtures" / "pillow.json"
PICTURES = [(1, 1), (2, 300), (7, 300), (300, 7), (45, 61), (90, 100), (40, 100), (60, 90), (90, 60), (33, 35), (224, 250), (150, 400)]
RESIZES = ["shortest 24", "shortest 37", "exact 24 24", "exact 80 30", "exact 30 80"]
CROPS = [(90, 100, 5, 10, 80, 40, 24), (150, 400, 20, 30, 300, 100, 32), (150, 400, 0, 0, 400, 150, 224), (2, 300, 0, 0, 300, 2, 24),
         (300, 7, 0, 100, 7, 50, 24), (60, 90, 1, 2, 48, 37, 24), (60, 90, 1, 2, 49, 36, 24), (60, 90, 1, 2, 50, 37, 24)]
FILTERS = {"bicubic": T.InterpolationMode.BICUBIC, "bilinear": T.InterpolationMode.BILINEAR}


def picture(w, h):
    """Noise over a slope, by a formula that Rust has too."""
    y, x, c = np.mgrid[0:h, 0:w, 0:3].astype(np.uint32)
    noise = (x * np.uint32(7919) + y * np.uint32(104729) + c * np.uint32(15485863) + np.uint32(13)) * np.uint32(2654435761)
    return Image.fromarray(((noise >> 25) + 255 * x // (2 * w)).astype(np.uint8))


def digest(image):
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


def cases():
    for w, h in PICTURES:
        for resize in RESIZES:
            kind, *sides = resize.split()
            size = int(sides[0]) if kind == "shortest" else (int(sides[1]), int(sides[0]))
            for name, mode in FILTERS.items():
                whole = T.Compose([T.Resize(size, mode), T.CenterCrop(24)])
                yield f"{w} {h} preprocess {resize} {name} 24", whole(picture(w, h))
    for w, h, *crop, size in CROPS:
        view = F.resized_crop(picture(w, h), *crop, [size, size], T.InterpolationMode.BILINEAR)
        yield " ".join(map(str, (w, h, "view", *crop, size))), view


if __name__ == "__main__":
    known = json.loads(OUT.read_text()) if OUT.exists() else {}
    known[PIL.__version__] = {case: digest(image) for case, image in cases()}
    OUT.write_text(json.dumps(dict(sorted(known.items())), indent=0) + "\n")
