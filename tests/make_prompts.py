#!/usr/bin/env python3
"""Makes tests/fixtures/models/tiny.prompts.safetensors: what open_clip makes of several prompts a class.

    pip install open_clip_torch==3.3.0 transformers==5.24.0 safetensors
    python3 tests/make_prompts.py      (after make_models.py)

The model tiny of make_models.py, in open_clip's own CLIP class, in float64; classes and templates are those below. Stored as float32:

    one (K,D), simple (K,D), imagenet (K,D)   build_zero_shot_classifier by one template, by the simple set, by ImageNet's 80
"""
import open_clip
import torch
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES, build_zero_shot_classifier
from safetensors.torch import load_file, save_file

from make_models import MODELS, OUT, openai_names

CLASSES = ["apple", "bear", "bee", "aquarium_fish"]
ONE = ["a photo of a {}"]


def tiny():
    """open_clip has one width for features, and a multiple of the width for the MLP."""
    spec = MODELS["tiny"]
    (width, layers, heads, mlp), (t_width, t_layers, t_heads, t_mlp) = spec["vision"], spec["text"]
    assert mlp / width == 2 and t_mlp / t_width == 2
    model = open_clip.model.CLIP(
        spec["d"],
        dict(image_size=spec["image"], patch_size=spec["patch"], width=width, layers=layers, head_width=width // heads, mlp_ratio=2.0),
        dict(context_length=77, vocab_size=spec["vocab"], width=t_width, layers=t_layers, heads=t_heads, mlp_ratio=2.0),
        quick_gelu=True,
    )
    state = openai_names({k: v.double() for k, v in load_file(OUT / "tiny" / "model.safetensors").items()})
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"attn_mask"}, (missing, unexpected)
    return model.double().eval()


def main():
    model, tokenizer = tiny(), open_clip.get_tokenizer("ViT-B-32")
    given = load_file(OUT / "tiny.expected.safetensors")
    features = model.encode_text(given["ids"].long(), normalize=True).float()
    assert torch.allclose(features, given["prompt_features"], rtol=0, atol=1e-6), "another model"
    out = {}
    for name, templates in (("one", ONE), ("simple", SIMPLE_IMAGENET_TEMPLATES), ("imagenet", OPENAI_IMAGENET_TEMPLATES)):
        out[name] = build_zero_shot_classifier(model, tokenizer, CLASSES, templates).T.float().contiguous()
        cosines = (out[name] @ out[name].T).tolist()
        print(name, tuple(out[name].shape), [round(x, 4) for x in cosines[0]])
    save_file(out, OUT / "tiny.prompts.safetensors")


if __name__ == "__main__":
    main()
