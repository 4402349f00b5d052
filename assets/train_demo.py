#!/usr/bin/env python3
"""Trains the demo's CLIP on real handwritten digits and writes the demo's images.

    pip install torch transformers scikit-learn safetensors pillow numpy
    python3 assets/train_demo.py

Writes, beside itself: demo-model/ (Hugging Face layout, float16), demo-images.safetensors (held-out digits,
clean and under four corruptions), demo-labels.txt. Two minutes on two cores; everything is seeded.

The data is scikit-learn's load_digits: 1,797 images of 8x8, here enlarged to 32x32 RGB. A third is held out,
never trained on. The text tower is a real one with CLIP's 49,408 tokens, 16 wide to stay small; features of
"a photo of a {digit}" are its own. Logits are 100 times the cosine, as memo computes them.
"""
import json
import pathlib

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from transformers import CLIPConfig, CLIPModel

HERE = pathlib.Path(__file__).parent
LABELS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# "a photo of a {label}" by CLIP's byte-pair encoding.
WORDS = [5848, 637, 1237, 2097, 2721, 3127, 4093, 5757, 7910, 7330]
MEAN, STD = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
HELD_OUT, SHOWN, EPOCHS, SEED = 600, 100, 60, 0


def model():
    tower = dict(hidden_act="quick_gelu", layer_norm_eps=1e-5, attention_dropout=0.0)
    config = CLIPConfig(
        projection_dim=64,
        vision_config=dict(tower, hidden_size=64, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
                           image_size=32, patch_size=8, projection_dim=64),
        text_config=dict(tower, hidden_size=16, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                         vocab_size=49408, max_position_embeddings=77, projection_dim=64, eos_token_id=49407,
                         bos_token_id=49406, pad_token_id=0),
    )
    config._attn_implementation = "eager"
    torch.manual_seed(SEED)
    net = CLIPModel(config)
    # Tokens that no prompt of the demo has stay zero.
    used = torch.zeros(49408, 1)
    used[[0, 49406, 49407, 320, 1125, 539] + WORDS] = 1
    net.text_model.embeddings.token_embedding.weight.data.mul_(used)
    net.text_model.embeddings.token_embedding.weight.register_hook(lambda g: g * used)
    return net


def tokens():
    ids = torch.zeros(10, 77, dtype=torch.long)
    for row, word in zip(ids, WORDS):
        row[:7] = torch.tensor([49406, 320, 1125, 539, 320, word, 49407])
    return ids


def logits(net, pixels):
    """100 cos, text features at the end-of-text token (position 6 of every prompt)."""
    hidden = net.text_model(input_ids=tokens(), attention_mask=None).last_hidden_state[:, 6]
    text = torch.nn.functional.normalize(net.text_projection(hidden), dim=-1)
    pooled = net.vision_model(pixel_values=pixels).pooler_output
    image = torch.nn.functional.normalize(net.visual_projection(pooled), dim=-1)
    return 100 * image @ text.T


def digits():
    data = load_digits()
    images = [Image.fromarray((15.9 * d).astype(np.uint8)).resize((32, 32), Image.BICUBIC).convert("RGB") for d in data.images]
    order = np.random.default_rng(SEED).permutation(len(images))
    return [images[i] for i in order], data.target[order]


def tensor(images):
    x = torch.from_numpy(np.stack([np.asarray(i) for i in images])).float() / 255
    return ((x - MEAN) / STD).permute(0, 3, 1, 2).contiguous()


def mild(image, rng):
    """memo's `mild` policy, in PIL."""
    image = image.rotate(rng.uniform(-15, 15))
    for enhance in rng.permutation([ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]):
        image = enhance(image).enhance(rng.uniform(0.8, 1.2))
    side = np.sqrt(rng.uniform(0.6, 1.0)) * 32
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)) / 2)
    w, h = (int(min(round(v), 32)) for v in (side * ratio, side / ratio))
    left, top = rng.integers(0, 33 - w), rng.integers(0, 33 - h)
    return image.crop((left, top, left + w, top + h)).resize((32, 32), Image.BILINEAR)


def train(net, images, labels):
    rng = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    labels = torch.from_numpy(labels)
    for epoch in range(EPOCHS):
        pixels = tensor([mild(i, rng) for i in images])
        total = 0.0
        for batch in torch.from_numpy(rng.permutation(len(images))).split(64):
            loss = torch.nn.functional.cross_entropy(logits(net, pixels[batch]), labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / len(images):.4f}", flush=True)


def corrupt(images):
    rng = np.random.default_rng(SEED + 1)
    noisy = lambda i: Image.fromarray(np.clip(np.asarray(i) + rng.normal(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8))
    return {
        "clean": list(images),
        "noise": [noisy(i) for i in images],
        "blur": [i.filter(ImageFilter.GaussianBlur(2.5)) for i in images],
        "rotation": [i.rotate(rng.choice([-1, 1]) * rng.uniform(25, 40), Image.BILINEAR) for i in images],
        "contrast": [ImageEnhance.Contrast(i).enhance(0.25) for i in images],
    }


def main():
    torch.set_num_threads(2)
    images, labels = digits()
    net = model()
    train(net, images[HELD_OUT:], labels[HELD_OUT:])

    folder = HERE / "demo-model"
    folder.mkdir(exist_ok=True)
    net.half()
    state = {k: v.contiguous() for k, v in net.state_dict().items() if "position_ids" not in k}
    state["logit_scale"] = torch.tensor(np.log(100.0), dtype=torch.float16)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(net.config.to_diff_dict(), indent=2, sort_keys=True) + "\n")
    net.float()

    shifted = corrupt(images[:HELD_OUT])
    with torch.no_grad():
        for name, set_ in shifted.items():
            right = (logits(net, tensor(set_)).argmax(1).numpy() == labels[:HELD_OUT]).mean()
            print(f"{name}: zero-shot {100 * right:.2f} % of {HELD_OUT}")
    arrays = {name: torch.from_numpy(np.stack([np.asarray(i) for i in set_[:SHOWN]])) for name, set_ in shifted.items()}
    arrays["labels"] = torch.from_numpy(labels[:SHOWN].astype(np.uint8))
    save_file(arrays, HERE / "demo-images.safetensors")
    (HERE / "demo-labels.txt").write_text("\n".join(LABELS) + "\n")


if __name__ == "__main__":
    main()
