#!/usr/bin/env python3
"""Makes tests/fixtures/models/NAME.steps.safetensors: what three steps of torch.optim make of the models of make_models.py.

    pip install torch transformers safetensors numpy
    python3 tests/make_steps.py      (after make_models.py)

In float64, softmax included, on the views, image and text of NAME.expected.safetensors, each step on the same views. Stored
as float32, for each of CASES by its name:

    NAME.settings (3,)   learning rate, momentum (of SGD), weight decay
    NAME.entropy (3,)    before each step
    NAME.adapted (K,)    the original's logits after the three
"""
import copy

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from make_models import MEAN, MODELS, OUT, STD, build, loss, vision, vision_parameters

# The strong decays are there to be seen in the logits; weak ones are what one would use.
CASES = {
    "sgd": (torch.optim.SGD, dict(lr=5e-5, momentum=0.9, weight_decay=0.01)),
    "sgd_decayed": (torch.optim.SGD, dict(lr=5e-5, momentum=0.9, weight_decay=5.0)),
    "adamw": (torch.optim.AdamW, dict(lr=1e-5, weight_decay=0.01)),
    "adamw_decayed": (torch.optim.AdamW, dict(lr=1e-5, weight_decay=20.0)),
}


def three_steps(model, views, original, text, optimizer, settings):
    """Entropies, and the original's logits."""
    net = copy.deepcopy(model)
    of_vision = vision_parameters(net)
    # As float32 has them.
    steps = optimizer(of_vision.values(), **{name: float(np.float32(value)) for name, value in settings.items()})
    entropies = []
    for _ in range(3):
        net.zero_grad()
        entropy, _ = loss(vision(net, views)[2] @ text.T)
        entropy.backward()
        keys = [p.grad.abs().max() for name, p in of_vision.items() if name.endswith("k_proj.bias")]
        assert max(keys) < 1e-12, "a key's bias has no gradient"
        entropies.append(entropy.detach())
        steps.step()
    return torch.stack(entropies), (vision(net, original)[2] @ text.T)[0].detach()


def main():
    for seed, (name, spec) in enumerate(MODELS.items()):
        model = build(spec, seed)
        # The plain implementation rounds its softmax to float32.
        model.set_attn_implementation("sdpa")
        given = load_file(OUT / f"{name}.expected.safetensors")
        views, text = given["views"].double(), 100 * given["text"].double()
        original = ((given["image"].float() / 255 - MEAN) / STD).permute(2, 0, 1)[None].double()
        before = (vision(model, original)[2] @ text.T)[0].detach()
        assert torch.allclose(before, given["logits"][-1].double(), rtol=0, atol=1e-5), "another model"
        out = {}
        for case, (optimizer, settings) in CASES.items():
            entropy, adapted = three_steps(model, views, original, text, optimizer, settings)
            _, undecayed = three_steps(model, views, original, text, optimizer, settings | dict(weight_decay=0))
            out[f"{case}.settings"] = torch.tensor([settings["lr"], settings.get("momentum", 0), settings["weight_decay"]])
            out |= {f"{case}.entropy": entropy.float(), f"{case}.adapted": adapted.float()}
            effect, decay = (adapted - before).norm(), (adapted - undecayed).norm()
            print(f"{name} {case}: effect {effect:.3f}, of that decay {decay / effect:.1%}")
        save_file(out, OUT / f"{name}.steps.safetensors")


if __name__ == "__main__":
    main()
