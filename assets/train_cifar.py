#!/usr/bin/env python3
"""Trains a small CLIP on CIFAR-10's training images, for evaluations whose outcome is known in minutes.

    pip install torch transformers open_clip_torch safetensors pillow numpy
    python3 assets/train_cifar.py --data cifar10 --state cifar.pt

* `--data`: CIFAR-10 as one folder of 32x32 images for each class, below `train/` and `test/`.
* `--state`: where the end of each quarter of an epoch is kept; the same command goes on from there.

Writes `cifar-model/` beside itself: Hugging Face's layout, float16. The vision tower is ViT-S-like: 192 wide, 6 layers, patches
of 4x4, 2.7 million parameters; the text tower has CLIP's 49,408 tokens, 16 wide to stay small. Images are learned
against the ten classes' texts, each time in another of OpenAI's 18 templates for CIFAR; no test image is looked at but
for the accuracy that is printed, of every tenth. Most patches are dropped until the last epochs, as in FLIP (arXiv
2212.00794): a quarter is kept, then a half, in the end all. Matrices learn by Muon (arXiv 2502.16982), the rest by AdamW.
Seeded. 12 epochs took 1 h 45 min of two cores of an AMD EPYC, beside other work.
"""
import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from open_clip import tokenize
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

HERE = pathlib.Path(__file__).parent
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
KINDS = ["", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ", "small ", "big "]
TEMPLATES = [f"a {kind}photo of {article} {{}}." for kind in KINDS for article in ("a", "the")]
MEAN, STD = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
BATCH, SEED = 250, 0
# An epoch is trained in so many parts, and kept after each.
PARTS = 4


def model():
    tower = dict(hidden_act="quick_gelu", layer_norm_eps=1e-5, attention_dropout=0.0)
    config = CLIPConfig(
        projection_dim=128,
        vision_config=dict(tower, hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6,
                           image_size=32, patch_size=4, projection_dim=128),
        text_config=dict(tower, hidden_size=16, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                         vocab_size=49408, max_position_embeddings=77, projection_dim=128, eos_token_id=49407,
                         bos_token_id=49406, pad_token_id=0),
    )
    torch.manual_seed(SEED)
    return CLIPModel(config)


def images_of(folder):
    """(N, 3, 32, 32) uint8 and (N,) labels, classes in the order of their names."""
    pixels, labels = [], []
    for label, name in enumerate(CLASSES):
        for path in sorted((folder / name).iterdir()):
            pixels.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def normalised(pixels):
    return (pixels.float() / 255 - MEAN[:, None, None]) / STD[:, None, None]


def varied(pixels, rng):
    """A random resized crop, a flip, and brightness and contrast, each image's own."""
    n = len(pixels)
    uniform = lambda low, high: torch.empty(n).uniform_(low, high, generator=rng)
    area, ratio = uniform(0.35, 1.0), torch.exp(uniform(-0.28, 0.28))
    w, h = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = (torch.rand(n, generator=rng) < 0.5).float() * -2 + 1
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = w * flip, uniform(-1, 1) * (1 - w)
    theta[:, 1, 1], theta[:, 1, 2] = h, uniform(-1, 1) * (1 - h)
    grid = F.affine_grid(theta, (n, 3, 32, 32), align_corners=False)
    x = F.grid_sample(pixels.float() / 255, grid, padding_mode="reflection", align_corners=False)
    gain = uniform(0.7, 1.3)[:, None, None, None]
    mean = x.mean((1, 2, 3), keepdim=True)
    x = ((x - mean) * uniform(0.7, 1.3)[:, None, None, None] + mean * gain).clamp(0, 1)
    return (x - MEAN[:, None, None]) / STD[:, None, None]


def image_features(net, pixels, kept, rng=None):
    vision = net.vision_model
    x = vision.embeddings(pixels)
    if kept < 1:
        patches = x.shape[1] - 1
        order = torch.rand(len(x), patches, generator=rng).argsort(1)[:, :int(kept * patches)]
        own = x[:, 1:].gather(1, order[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([x[:, :1], own], 1)
    x = vision.encoder(inputs_embeds=vision.pre_layrnorm(x)).last_hidden_state
    return F.normalize(net.visual_projection(vision.post_layernorm(x[:, 0])), dim=-1)


def text_features(net, template):
    ids = tokenize([template.format(name) for name in CLASSES])
    hidden = net.text_model(input_ids=ids, attention_mask=None).last_hidden_state
    ends = hidden[torch.arange(len(ids)), ids.argmax(1)]
    return F.normalize(net.text_projection(ends), dim=-1)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made nearly orthogonal, by five steps of Newton and Schulz in float32."""

    def __init__(self, params, lr, weight_decay, momentum=0.95):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                m = state.setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                x = p.grad.lerp(m, group["momentum"])
                tall = x.shape[0] > x.shape[1]
                x = (x.T if tall else x) / (x.norm() + 1e-7)
                for _ in range(5):
                    a = x @ x.T
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(x.T if tall else x, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))


def kept_at(done):
    """The share of an image's patches that is seen, by the share of the training that is done."""
    return 0.25 if done < 0.75 else 0.5 if done < 0.9 else 1.0


def train(net, pixels, labels, test, state, epochs):
    matrices = [p for n, p in net.vision_model.encoder.named_parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in net.parameters() if id(p) not in chosen]
    optimizers = [Muon(matrices, lr=2e-3, weight_decay=0.1),
                  torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.98), weight_decay=0.02)]
    rates = [2e-3, 2e-3]
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        first = saved["parts"]
        net.load_state_dict(saved["net"])
        for optimizer, own in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(own)
    parts = epochs * PARTS
    for part in range(first, parts):
        order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(SEED + part // PARTS))
        batches = order.chunk(PARTS)[part % PARTS].split(BATCH)
        rng = torch.Generator().manual_seed(SEED + 1_000_000 + part)
        kept, start, total = kept_at(part / parts), time.time(), 0.0
        for step, batch in enumerate(batches):
            done = part + step / len(batches)
            for optimizer, rate in zip(optimizers, rates):
                optimizer.param_groups[0]["lr"] = rate * min(1, (done + 0.02) / PARTS) * (1 - done / parts)
            x = varied(pixels[batch], rng)
            text = text_features(net, TEMPLATES[int(torch.randint(len(TEMPLATES), (), generator=rng))])
            logits = net.logit_scale.exp().clamp(max=100) * image_features(net, x, kept, rng) @ text.T
            loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            total += loss.item()
        trained = time.time() - start
        right = accuracy(net, test[0][::10], test[1][::10])
        print(f"epoch {(part + 1) / PARTS:.2f} of {epochs}: {kept:.0%} of patches, loss {total / len(batches):.4f}, "
              f"test {100 * right:.1f} %, scale {net.logit_scale.exp():.1f}, {trained:.0f} s", flush=True)
        kept_state = dict(parts=part + 1, net=net.state_dict(), optimizers=[o.state_dict() for o in optimizers])
        torch.save(kept_state, state.with_suffix(".new"))
        state.with_suffix(".new").replace(state)
    print(f"all test images: {100 * accuracy(net, *test):.2f} %", flush=True)


@torch.no_grad()
def accuracy(net, pixels, labels):
    text = text_features(net, "a photo of a {}.")
    right = 0
    for batch, own in zip(pixels.split(1000), labels.split(1000)):
        right += (image_features(net, normalised(batch), 1.0) @ text.T).argmax(1).eq(own).sum().item()
    return right / len(labels)


def save(net, folder):
    folder.mkdir(exist_ok=True)
    net.logit_scale.data.clamp_(max=math.log(100))
    # Tokens that no prompt had have learned nothing; zeros make a small archive.
    used = torch.cat([tokenize([t.format(name) for name in CLASSES]) for t in TEMPLATES]).unique()
    table = net.text_model.embeddings.token_embedding.weight.data
    blank = torch.ones(len(table), dtype=torch.bool)
    blank[used] = False
    table[blank] = 0
    state = {k: v.half().contiguous() for k, v in net.state_dict().items() if "position_ids" not in k}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(net.config.to_diff_dict(), indent=2, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--state", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net = model()
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters", flush=True)
    train(net, *images_of(args.data / "train"), images_of(args.data / "test"), args.state, args.epochs)
    save(net, HERE / "cifar-model")


if __name__ == "__main__":
    main()
