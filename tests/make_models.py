#!/usr/bin/env python3
"""Makes tests/fixtures/models: random CLIP models and what float64 PyTorch computes with them.

    pip install torch transformers safetensors numpy
    python3 tests/make_models.py      (after make_tokens.py)

A model is a Hugging Face folder, or one file in OpenAI's naming. Its weights are rounded to the stored dtype
first; all expectations are computed with those, in float64, and stored as float32 in NAME.expected.safetensors:

    views (N,3,S,S)   image (S,S,3) uint8, the original   text (K,D) unit features
    embedded (N+1,T,C) after pre-norm, blocks (L,N+1,T,C), features (N+1,D), logits (N+1,K): views, then original
    entropy (3,)      before each of three steps on the same views
    dlogits (N,K)     grad.NAME for every vision parameter, at the first step
    lr (1,)           adapted1 (K,), adapted3 (K,): the original's logits after one and three steps
    ids (P,77) and ends (P,) int32, prompt_features (P,D): prompts, where their end of text is, unit features

The closed form of the loss and its gradient is checked against autograd here.
"""
import copy
import gzip
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

OUT = pathlib.Path(__file__).parent / "fixtures" / "models"
MEAN, STD = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
# For the model with CLIP's vocabulary; the others get random ids.
PROMPTS = [row[1] for row in json.loads(gzip.decompress((OUT.parent / "tokens.json.gz").read_bytes()))[:100:3]]

MODELS = {
    # name: image, patch, (width, layers, heads, mlp) of vision and text, features, vocabulary, activation, dtype, N, K, lr
    "tiny": dict(image=32, patch=8, vision=(64, 2, 4, 128), text=(8, 2, 2, 16), d=32, vocab=49408, act="quick_gelu",
                 dtype=torch.float16, n=8, k=10, lr=2e-4),
    "t50": dict(image=56, patch=8, vision=(48, 3, 3, 96), text=(16, 1, 2, 16), d=24, vocab=64, act="quick_gelu",
                dtype=torch.float32, n=5, k=100, lr=2e-4),
    "odd": dict(image=20, patch=5, vision=(35, 2, 5, 51), text=(9, 1, 3, 11), d=17, vocab=64, act="gelu",
                dtype=torch.bfloat16, n=7, k=13, lr=2e-4),
    "openai": dict(image=32, patch=16, vision=(64, 2, 1, 96), text=(64, 1, 1, 32), d=20, vocab=64, act="quick_gelu",
                   dtype=torch.float16, n=3, k=5, lr=2e-4),
    # Rows of patches as long as those of L/14.
    "p14": dict(image=28, patch=14, vision=(32, 2, 2, 64), text=(8, 1, 1, 8), d=24, vocab=64, act="quick_gelu",
                dtype=torch.float16, n=4, k=9, lr=2e-4),
}


def build(spec, seed):
    tower = lambda w: dict(hidden_size=w[0], num_hidden_layers=w[1], num_attention_heads=w[2], intermediate_size=w[3],
                           hidden_act=spec["act"], layer_norm_eps=1e-5, projection_dim=spec["d"])
    config = CLIPConfig(
        projection_dim=spec["d"],
        vision_config=dict(tower(spec["vision"]), image_size=spec["image"], patch_size=spec["patch"]),
        text_config=dict(tower(spec["text"]), vocab_size=spec["vocab"], max_position_embeddings=77),
    )
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = CLIPModel(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name or "layrnorm" in name:
                p.copy_(0.2 * torch.randn_like(p) + (1.0 if name.endswith("weight") else 0.0))
            elif name.endswith("bias"):
                p.copy_(0.1 * torch.randn_like(p))
            elif p.ndim >= 2 and "embedding" not in name:
                p.copy_(torch.randn_like(p) / np.sqrt(p[0].numel()))
            elif p.ndim >= 1:
                p.copy_(0.3 * torch.randn_like(p))
        if spec["vocab"] == 49408:  # tokens of no prompt here stay zero: the file is small either way
            used = torch.zeros(49408, 1)
            used[[0] + [i for ids in PROMPTS for i in ids]] = 1
            model.text_model.embeddings.token_embedding.weight.mul_(used)
        for p in model.parameters():
            p.copy_(p.to(spec["dtype"]).float())
    return model.double().eval()


def openai_names(state):
    """Hugging Face's tensors in OpenAI's naming: fused projections, transposed outputs."""
    out = {}
    for hf, oa in (("vision_model.encoder.layers", "visual.transformer.resblocks"), ("text_model.encoder.layers", "transformer.resblocks")):
        layers = 1 + max(int(k.split(".")[3]) for k in state if k.startswith(hf))
        for i in range(layers):
            a, b = f"{hf}.{i}.", f"{oa}.{i}."
            for kind in ("weight", "bias"):
                parts = [state[f"{a}self_attn.{p}_proj.{kind}"] for p in "qkv"]
                out[f"{b}attn.in_proj_{kind}"] = torch.cat(parts)
                for x, y in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                             ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                    out[f"{b}{y}.{kind}"] = state[f"{a}{x}.{kind}"]
    plain = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "logit_scale": "logit_scale",
    }
    for kind in ("weight", "bias"):
        plain |= {f"vision_model.pre_layrnorm.{kind}": f"visual.ln_pre.{kind}",
                  f"vision_model.post_layernorm.{kind}": f"visual.ln_post.{kind}",
                  f"text_model.final_layer_norm.{kind}": f"ln_final.{kind}"}
    out |= {new: state[old] for old, new in plain.items()}
    out["visual.proj"] = state["visual_projection.weight"].T
    out["text_projection"] = state["text_projection.weight"].T
    return {k: v.contiguous() for k, v in out.items()}


def vision(model, pixels):
    """Everything on the way: after pre-norm, after each block, unit features."""
    v = model.vision_model
    x = v.pre_layrnorm(v.embeddings(pixels))
    embedded, blocks = x, []
    for layer in v.encoder.layers:
        x = layer(x, None)
        x = x[0] if isinstance(x, tuple) else x
        blocks.append(x)
    features = model.visual_projection(v.post_layernorm(x[:, 0]))
    return embedded, blocks, features / features.norm(dim=-1, keepdim=True)


def loss(logits):
    """H of the average prediction, by log-sum-exp; also dH/dlogits in closed form."""
    n = len(logits)
    z = logits - logits.logsumexp(1, keepdim=True)
    logp = z.logsumexp(0) - np.log(n)
    p = z.exp()
    gradient = -p * (logp - (p * logp).sum(1, keepdim=True)) / n
    return -(logp.exp() * logp).sum(), gradient.detach()


def vision_parameters(model):
    return {k: p for k, p in model.named_parameters() if k.startswith(("vision_model", "visual_projection"))}


def expectations(model, spec, rng):
    n, k, s, d = spec["n"], spec["k"], spec["image"], spec["d"]
    image = torch.from_numpy(rng.integers(0, 256, (s, s, 3), dtype=np.uint8))
    original = ((image.float() / 255 - MEAN) / STD).permute(2, 0, 1)[None]
    views = torch.from_numpy(rng.standard_normal((n, 3, s, s)).astype(np.float32))
    pixels = torch.cat([views, original]).double()
    text = torch.from_numpy(rng.standard_normal((k, d))).float().double()
    text = (text / text.norm(dim=1, keepdim=True)).float()
    scaled = 100 * text.double()

    embedded, blocks, features = vision(model, pixels)
    out = dict(views=views, image=image, text=text, embedded=embedded, blocks=torch.stack(blocks), features=features,
               logits=features @ scaled.T, lr=torch.tensor([spec["lr"]]))
    net, entropies = copy.deepcopy(model), []
    for step in range(3):
        net.zero_grad()
        logits = vision(net, views.double())[2] @ scaled.T
        logits.retain_grad()
        h, closed = loss(logits)
        h.backward()
        assert torch.allclose(closed, logits.grad, rtol=1e-9, atol=1e-14), "the closed form is autograd's"
        entropies.append(h)
        if step == 0:
            out["dlogits"] = logits.grad
            out |= {f"grad.{name}": p.grad.clone() for name, p in vision_parameters(net).items()}
        with torch.no_grad():
            for p in vision_parameters(net).values():
                p -= np.float32(spec["lr"]).astype(np.float64) * p.grad
            if step in (0, 2):
                out[f"adapted{step + 1}"] = (vision(net, original.double())[2] @ scaled.T)[0]
    out["entropy"] = torch.stack(entropies)
    effect = (out["adapted1"] - out["logits"][-1]).norm()
    print(f"  entropy {[round(h.item(), 4) for h in entropies]}, effect of a step on the logits {effect.item():.4f}")
    return out


def prompts(model, spec, rng):
    rows = PROMPTS
    if spec["vocab"] != 49408:  # the highest id ends a prompt, as in CLIP's vocabulary
        end = spec["vocab"] - 1
        rows = [[*rng.integers(0, end, length), end] for length in (0, 1, 5, 9, 31, 76)]
    ids = torch.zeros(len(rows), 77, dtype=torch.int32)
    for row, tokens in zip(ids, rows):
        row[: len(tokens)] = torch.tensor(np.array(tokens))
    hidden = model.text_model(input_ids=ids.long(), attention_mask=None).last_hidden_state
    ends = torch.tensor([len(tokens) - 1 for tokens in rows])
    features = model.text_projection(hidden[torch.arange(len(ids)), ends])
    return dict(ids=ids, ends=ends.int(), prompt_features=features / features.norm(dim=1, keepdim=True))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for seed, (name, spec) in enumerate(MODELS.items()):
        print(name)
        model = build(spec, seed)
        rng = np.random.default_rng(seed)
        out = expectations(model, spec, rng) | prompts(model, spec, rng)
        keep = lambda t: t if t.dtype in (torch.uint8, torch.int32) else t.float()
        save_file({k: keep(v.detach()).contiguous() for k, v in out.items()}, OUT / f"{name}.expected.safetensors")
        state = {k: v.to(spec["dtype"]).contiguous() for k, v in model.state_dict().items() if "position_ids" not in k}
        if name == "openai":
            save_file(openai_names(state), OUT / "openai.safetensors")
            continue
        (OUT / name).mkdir(exist_ok=True)
        save_file(state, OUT / name / "model.safetensors")
        (OUT / name / "config.json").write_text(json.dumps(model.config.to_diff_dict(), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
