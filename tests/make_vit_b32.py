#!/usr/bin/env python3
"""Makes tests/fixtures/vit_b32.expected.safetensors: what float64 PyTorch computes with a tower of ViT-B/32's size.

    pip install torch transformers safetensors numpy
    python3 tests/make_vit_b32.py

The tower's weights, the views and the image are random numbers that `vit_b32.rs` makes again, 350 MB of them; their
hash is kept. In the file:

    inputs (32,) uint8   SHA-256 of all vision parameters in the order of their names, the image, the views
    text (K,D)   unit features
    logits (K,)  of the image   entropy (1,)   of the average prediction of the views
    lr (2,)   adapted (2,K)   the image's logits after one step at each rate
"""
import copy
import hashlib
import pathlib

import numpy as np
import torch
from make_models import MEAN, STD, loss, vision, vision_parameters
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

OUT = pathlib.Path(__file__).parent / "fixtures" / "vit_b32.expected.safetensors"
VIEWS, CLASSES, RATES = 4, 10, [1e-5, 1e-4]


def random(count, spread, seed):
    """`memo::check::random`: float32 in [-spread, spread), SplitMix64."""
    step = 0x9E3779B97F4A7C15
    z = np.uint64((seed * step + 1) % 2**64) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(step)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    unit = ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    return (np.float32(2) * unit - np.float32(1)) * np.float32(spread)


def parameter(name, shape, seed):
    """Values as wide as those of make_models.py; those of every other layer, and of all norms, are float16's."""
    count = int(np.prod(shape))
    norm = "norm" in name or "layrnorm" in name
    if norm:
        spread = 0.35
    elif name.endswith("bias"):
        spread = 0.17
    elif len(shape) >= 2 and "position" not in name:
        spread = np.sqrt(np.float32(3) / np.float32(count // shape[0]))
    else:
        spread = 0.5
    values = random(count, spread, seed)
    if norm and name.endswith("weight"):
        values = values + np.float32(1)
    layer = int(name.split(".")[3]) if ".layers." in name else 0
    if norm or layer % 2 == 0:
        values = values.astype(np.float16).astype(np.float32)
    return values.reshape(shape)


def build():
    tower = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                 hidden_act="quick_gelu", layer_norm_eps=1e-5)
    config = CLIPConfig(
        projection_dim=512,
        vision_config=dict(tower, image_size=224, patch_size=32),
        text_config=dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8),
    )
    config._attn_implementation = "eager"
    return CLIPModel(config).double().eval()


def main():
    model, digest = build(), hashlib.sha256()
    with torch.no_grad():
        for seed, (name, p) in enumerate(sorted(vision_parameters(model).items())):
            values = parameter(name, tuple(p.shape), seed)
            digest.update(values.tobytes())
            p.copy_(torch.from_numpy(values))
    side = 224
    image = (random(3 * side * side, 128, 1000) + np.float32(128)).astype(np.uint8).reshape(side, side, 3)
    views = random(VIEWS * 3 * side * side, 1.7, 1001).reshape(VIEWS, 3, side, side)
    digest.update(image.tobytes() + views.tobytes())
    text = torch.from_numpy(random(CLASSES * 512, 1, 1002).reshape(CLASSES, 512)).double()
    text = (text / text.norm(dim=1, keepdim=True)).float()

    scaled = 100 * text.double()
    original = ((torch.from_numpy(image).float() / 255 - MEAN) / STD).permute(2, 0, 1)[None].double()
    logits = vision(model, torch.from_numpy(views).double())[2] @ scaled.T
    h, _ = loss(logits)
    h.backward()
    with torch.no_grad():
        after = lambda net: vision(net, original)[2] @ scaled.T
        before, adapted = after(model), []
        for rate in RATES:
            net = copy.deepcopy(model)
            for to, p in zip(vision_parameters(net).values(), vision_parameters(model).values()):
                to -= np.float32(rate).astype(np.float64) * p.grad
            adapted.append(after(net)[0])
            print(f"rate {rate}: effect of a step on the logits {(adapted[-1] - before[0]).norm().item():.5f}")
    print("entropy", h.item(), "logits", before[0].tolist())
    out = dict(text=text, logits=before[0], entropy=h[None], lr=torch.tensor(RATES), adapted=torch.stack(adapted))
    out = {name: values.detach().float().contiguous() for name, values in out.items()}
    out["inputs"] = torch.tensor(list(digest.digest()), dtype=torch.uint8)
    save_file(out, OUT)


if __name__ == "__main__":
    main()
