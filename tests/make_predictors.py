#!/usr/bin/env python3
"""Makes tests/fixtures/models/NAME.predictors.safetensors: what methods beside MEMO make of the models of make_models.py.

    pip install torch transformers safetensors numpy      (torch 2.15.0, transformers 5.24.0)
    python3 tests/make_predictors.py      (after make_models.py)

In float64 on the views, image and text of NAME.expected.safetensors, at a logit scale of SCALE (at 100 these models are sure of every
view, so that a step on the surest changes nothing), of whose N views int(N · SHARE) are confident. The selection
is that of TPT's code, `select_confident_samples` and `avg_entropy` of github.com/azshue/TPT, and the vote that of ZERO's,
`ttas/zero.py` and `greedy_break` of github.com/FarinaMatteo/zero, both restated; but that each step selects anew, since here each
has views of its own, and that a tie which no view behind the confident ones breaks goes to the first class. Stored as float32:

    selected (N,)   1 of a confident view, else 0
    view_average (K,), confident_average (K,)   logarithms of average predictions
    vote (1,)
    confident.logits (K,)   the original's, and
    confident.entropy (3,)   of the confident views' average, before each of three steps of SGD on it
    confident.adapted1 (K,), confident.adapted3 (K,)   the original's logits after one and three of them
    select.CASE.logits (N,K), .entropies (N,), .selected (N,), .vote (1,)   of random logits, in SHARES
"""
import copy

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from make_models import MEAN, MODELS, OUT, STD, build, vision, vision_parameters

SHARE, SCALE, RATE = 0.5, 16, 1e-3
# Of random logits: views, classes, share.
SHARES = {"one": (1, 7, 0.1), "two": (2, 5, 0.1), "fifty": (50, 10, 0.1), "tie": (30, 4, 0.2), "far tie": (33, 90, 0.1), "all": (6, 3, 1.0)}


def select_confident_samples(logits, top):
    """Indices, the surest view first; of equals the first, which argsort leaves open."""
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
    count = max(1, int(len(logits) * top))
    return torch.argsort(entropy, stable=True)[:count], entropy


def avg_entropy(logits):
    logp = logits - logits.logsumexp(1, keepdim=True)
    average = logp.logsumexp(0) - np.log(len(logp))
    return -(average * average.exp()).sum()


def log_average(logits):
    return logits.softmax(1).mean(0).log()


def vote(logits, share):
    """ZERO: the softmax at zero temperature is one for the largest logit."""
    selected, _ = select_confident_samples(logits, share)
    counts = torch.bincount(logits[selected].argmax(1), minlength=logits.shape[1])
    ties = set((counts == counts.max()).nonzero()[:, 0].tolist())
    later = [choice for choice in logits[len(selected):].argmax(1).tolist() if choice in ties]
    return min(ties) if len(ties) == 1 or not later else later[0]


def mask(selected, n):
    return torch.zeros(n).index_fill(0, selected, 1)


def steps(model, views, original, text):
    """Entropies before each of three steps, and the original's logits after one and after three."""
    net, entropies, adapted = copy.deepcopy(model), [], []
    sgd = torch.optim.SGD(vision_parameters(net).values(), lr=float(np.float32(RATE)))
    for _ in range(3):
        net.zero_grad()
        logits = vision(net, views)[2] @ text.T
        entropy = avg_entropy(logits[select_confident_samples(logits, SHARE)[0]])
        entropy.backward()
        sgd.step()
        entropies.append(entropy.detach())
        adapted.append((vision(net, original)[2] @ text.T)[0].detach())
    return torch.stack(entropies), adapted[0], adapted[2]


def main():
    for seed, (name, spec) in enumerate(MODELS.items()):
        model = build(spec, seed)
        model.set_attn_implementation("sdpa")  # the plain implementation rounds its softmax to float32
        given = load_file(OUT / f"{name}.expected.safetensors")
        views, text = given["views"].double(), SCALE * given["text"].double()
        original = ((given["image"].float() / 255 - MEAN) / STD).permute(2, 0, 1)[None].double()
        logits = (vision(model, views)[2] @ text.T).detach()
        assert torch.allclose(logits * 100 / SCALE, given["logits"][:-1].double(), rtol=0, atol=1e-5), "another model"
        selected, entropy = select_confident_samples(logits, SHARE)
        order = entropy.sort().values
        gap = order[len(selected)] - order[len(selected) - 1]
        entropies, adapted1, adapted3 = steps(model, views, original, text)
        out = {
            "confident.logits": (vision(model, original)[2] @ text.T)[0].detach(),
            "selected": mask(selected, len(views)),
            "view_average": log_average(logits),
            "confident_average": log_average(logits[selected]),
            "vote": torch.tensor([vote(logits, SHARE)]),
            "confident.entropy": entropies,
            "confident.adapted1": adapted1,
            "confident.adapted3": adapted3,
        }
        effect = (adapted1 - (vision(model, original)[2] @ text.T)[0].detach()).norm()
        print(f"{name}: {selected.tolist()} of {len(views)}, gap {gap:.3f}, effect {effect:.3f}, vote {out['vote'].item()}")
        if name == "odd":
            for case, (n, k, share) in SHARES.items():
                rng = np.random.default_rng(n)
                x = torch.from_numpy(rng.standard_normal((n, k)) * 3).float().double()
                chosen, entropy = select_confident_samples(x, share)
                of = {"logits": x, "entropies": entropy, "selected": mask(chosen, n), "vote": torch.tensor([vote(x, share)])}
                out |= {f"select.{case}.{what}": values for what, values in of.items()}
                out[f"select.{case}.count"] = torch.tensor([len(chosen)])
                print(f"  {case}: {len(chosen)} of {n}, vote {vote(x, share)} of {torch.bincount(x[chosen].argmax(1), minlength=k).tolist()}")
        save_file({what: values.float().contiguous() for what, values in out.items()}, OUT / f"{name}.predictors.safetensors")


if __name__ == "__main__":
    main()
