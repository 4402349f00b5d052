#!/usr/bin/env python3
"""How long PyTorch takes for the same step: MEMO on a ViT-B/32-sized CLIP with random weights, float32, one image at a time.

    pip install torch transformers
    python3 benches/pytorch.py [--views 8] [--classes 10] [--repeats 5] [--threads N] [--device cpu]

Beside `memo bench --batch 1` with as many views and classes. A step is what memo does: the original before, forward of all
views, marginal entropy, backward, SGD, the original after, and the weights copied back (no deep copy). Making the views is
not in it. Prints the median and all times, in seconds, as a JSON object.
"""
import argparse
import json
import math
import statistics
import time

import torch
import transformers

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("--views", type=int, default=8)
options.add_argument("--classes", type=int, default=10)
options.add_argument("--repeats", type=int, default=5)
options.add_argument("--threads", type=int, default=torch.get_num_threads())
options.add_argument("--device", default="cpu")
options = options.parse_args()

torch.set_num_threads(options.threads)
torch.manual_seed(0)
config = transformers.CLIPVisionConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, image_size=224,
    patch_size=32, projection_dim=512, hidden_act="quick_gelu")
model = transformers.CLIPVisionModelWithProjection(config).eval().to(options.device)
text = 100 * torch.nn.functional.normalize(torch.randn(options.classes, 512), dim=1).to(options.device)
views, original = (torch.randn(n, 3, 224, 224).to(options.device) for n in (options.views, 1))
snapshot = [p.detach().clone() for p in model.parameters()]
sgd = torch.optim.SGD(model.parameters(), lr=1e-5)


def logits(pixels):
    return torch.nn.functional.normalize(model(pixel_values=pixels).image_embeds, dim=1) @ text.T


def step():
    with torch.no_grad():
        before = logits(original)
    z = logits(views).log_softmax(1)
    average = z.logsumexp(0) - math.log(options.views)
    entropy = -(average.exp() * average).sum()
    sgd.zero_grad(set_to_none=True)
    entropy.backward()
    sgd.step()
    with torch.no_grad():
        after = logits(original)
        for p, saved in zip(model.parameters(), snapshot):
            p.copy_(saved)
    return before.cpu(), after.cpu()  # waits for a GPU


step()
times = []
for _ in range(options.repeats):
    start = time.perf_counter()
    step()
    times.append(time.perf_counter() - start)
print(json.dumps({
    "torch": torch.__version__, "transformers": transformers.__version__, "device": options.device,
    "threads": options.threads, "views": options.views, "classes": options.classes,
    "median_s": statistics.median(times), "times_s": times}))
