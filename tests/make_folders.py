"""Makes tests/fixtures/folders.json: model folders as the libraries save them, and the libraries' own logits, the truth for
tests/folders.rs.

    python3 tests/make_folders.py        (with open_clip 3.3.0, transformers 5.24.0, torch, safetensors, pillow 13.0.0;
                                          then again with transformers 4.57.1)

The model is assets/demo-model with another logit scale. Folders of transformers 5 are saved by CLIPModel and CLIPProcessor, of
transformers 4 by CLIPModel and CLIPImageProcessor(Fast), of open_clip by its save_for_hf; each is opened again by the library that
saved it. Pictures are resized by Pillow: transformers' CLIPImageProcessorPil (5), CLIPImageProcessor (4), open_clip's own transform.
(What transformers 5 takes by default, torchvision on tensors, rounds otherwise: up to 2 levels, and 0.2 of these logits.)

    {"prompts": [...], "pictures": [[w, h], ...],     made by make_pillow.picture
     "folders": {name: {"files": {name: JSON}, "log_scale": x, "logits": [[K] a picture]}}}
"""
import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from make_pillow import picture

HERE = Path(__file__).parent
OUT, MODEL = HERE / "fixtures" / "folders.json", HERE.parent / "assets" / "demo-model"
LABELS = ["zero", "one", "two", "three", "aquarium_fish"]
# No resize here leaves 3 mod 4 pixels to crop, where transformers' centre is another pixel than torchvision's; the second picture
# is scaled down before across by Pillow 13.
PICTURES = [(60, 40), (40, 90), (32, 32), (20, 30)]
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
CROP = {"crop_size": {"height": 32, "width": 32}}
LOG_100 = 4.6015625  # log(99.64): a little below the largest that CLIP trains to

TRANSFORMERS_5 = {
    "hf5-default": dict(size=32, **CROP),
    "hf5-half": dict(size=32, **CROP, **HALF),
    "hf5-larger": dict(size=48, **CROP),
    "hf5-squash": dict(size={"height": 32, "width": 32}, do_center_crop=False),
    "hf5-stretch-and-crop": dict(size={"height": 40, "width": 48}, **CROP),
    "hf5-bilinear": dict(size=32, resample=2, **CROP),
    "hf5-no-normalize": dict(size=32, do_normalize=False, **CROP),
    "hf5-rescale": dict(size=32, rescale_factor=2 / 255, **CROP),
    "hf5-no-rescale": dict(size=32, do_rescale=False, image_mean=[120.0, 110.0, 100.0], image_std=[60.0, 70.0, 80.0], **CROP),
    "hf5-mixed": dict(size=36, resample=2, crop_size=32, image_mean=[0.0, 0.25, 1.0], image_std=[1.0, 0.5, 2.0]),
}
TRANSFORMERS_4 = {
    "hf4-default": dict(size=32, crop_size=32),
    "hf4-larger": dict(size={"shortest_edge": 52}, **CROP),
    "hf4-squash": dict(size=[32, 32], do_center_crop=False, **HALF),
    "hf4-bilinear": dict(size=32, resample=2, **CROP, **HALF),
    "hf4-fast": dict(size={"shortest_edge": 32}, **CROP),
    "hf4-and-5": dict(size={"shortest_edge": 40}, **CROP),
}
OPEN_CLIP = {
    "open-clip-default": {},
    "open-clip-squash": dict(image_resize_mode="squash"),
    "open-clip-half": dict(image_mean=[0.5] * 3, image_std=[0.5] * 3),
    "open-clip-bilinear-squash": dict(image_resize_mode="squash", image_interpolation="bilinear", image_mean=[0.0, 0.1, 0.2]),
}


def state(log_scale):
    tensors = {name: tensor.float() for name, tensor in load_file(MODEL / "model.safetensors").items()}
    return tensors | {"logit_scale": torch.tensor(log_scale)}


def saved(folder, names):
    return {name: json.loads((folder / name).read_text()) for name in names if (folder / name).exists()}


@torch.no_grad()
def hugging_face(folder, processor, ids):
    """CLIPModel's logits of the pictures, by the folder as it was saved."""
    model, processor = CLIPModel.from_pretrained(folder).eval(), processor.from_pretrained(folder)
    ids = torch.tensor(ids)
    rows = []
    for size in PICTURES:
        pixels = processor(images=picture(*size), return_tensors="pt")["pixel_values"]
        rows.append(model(input_ids=ids, pixel_values=pixels).logits_per_image[0].tolist())
    return rows


def transformers_folder(kwargs, log_scale, ids, image_processors, save):
    with tempfile.TemporaryDirectory() as folder:
        model = CLIPModel(CLIPConfig.from_pretrained(MODEL))
        model.load_state_dict(state(log_scale))
        model.save_pretrained(folder)
        for processor in image_processors:
            save(processor(**kwargs), folder)
        files = saved(Path(folder), ["config.json", "preprocessor_config.json", "processor_config.json"])
        return {"files": files, "log_scale": log_scale, "logits": hugging_face(folder, PIL_PROCESSOR, ids)}


@torch.no_grad()
def open_clip_folder(kwargs, log_scale, ids):
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    from make_models import openai_names

    vision = CLIPConfig.from_pretrained(MODEL).vision_config
    tower = {"layers": vision.num_hidden_layers, "width": vision.hidden_size, "head_width": vision.hidden_size // vision.num_attention_heads}
    config = {
        "embed_dim": 64, "quick_gelu": True, "vision_cfg": {"image_size": 32, "patch_size": 8, **tower},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as configs:
        (Path(configs) / "demo.json").write_text(json.dumps(config))
        open_clip.add_model_config(Path(configs) / "demo.json")
        model, _, _ = open_clip.create_model_and_transforms("demo", **kwargs)
        tensors = openai_names({name: tensor for name, tensor in state(log_scale).items() if "position_ids" not in name})
        model.load_state_dict(tensors)
        tokenizer = type("None", (), {"save_pretrained": lambda self, folder: None})()
        save_for_hf(model, tokenizer, config, folder, safe_serialization=True)
        opened, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        text = torch.zeros(len(ids), 77, dtype=torch.long)
        for row, tokens in zip(text, ids):
            row[: len(tokens)] = torch.tensor(tokens)
        features = opened.eval().encode_text(text, normalize=True)
        rows = []
        for size in PICTURES:
            image = opened.encode_image(preprocess(picture(*size))[None], normalize=True)
            rows.append((opened.logit_scale.exp() * image @ features.T)[0].tolist())
        return {"files": saved(Path(folder), ["open_clip_config.json"]), "log_scale": log_scale, "logits": rows}


def scale_of(name):
    """Most folders are at CLIP's scale, some at what a model begins with."""
    return 2.66015625 if name.endswith(("half", "bilinear")) else LOG_100


known = json.loads(OUT.read_text()) if OUT.exists() else {"folders": {}}
if transformers.__version__.startswith("5."):
    from transformers import CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil as PIL_PROCESSOR

    from make_tokens import tokenizer

    prompts = [f"a photo of a {label}" for label in LABELS]
    tokens = tokenizer()
    ids = [tokens(prompt)["input_ids"] for prompt in prompts]
    length = max(map(len, ids))
    ids = [row + [49407] * (length - len(row)) for row in ids]  # causal: what follows the end does not matter
    made = {}
    for name, kwargs in TRANSFORMERS_5.items():
        save = lambda processor, folder: CLIPProcessor(processor, tokens).save_pretrained(folder)
        made[name] = transformers_folder(kwargs, scale_of(name), ids, [CLIPImageProcessor], save)
    for name, kwargs in OPEN_CLIP.items():
        made[name] = open_clip_folder(kwargs, scale_of(name), ids)
else:
    from transformers import CLIPImageProcessorFast

    PIL_PROCESSOR, ids = CLIPImageProcessor, known["ids"]
    made = {}
    for name, kwargs in TRANSFORMERS_4.items():
        processors = [CLIPImageProcessorFast if name == "hf4-fast" else CLIPImageProcessor]
        save = lambda processor, folder: processor.save_pretrained(folder)
        made[name] = transformers_folder(kwargs, scale_of(name), ids, processors, save)
    # As a folder is that was saved by 4, and by 5 once more.
    both = made["hf4-and-5"]["files"]
    both["processor_config.json"] = {"image_processor": both["preprocessor_config.json"], "processor_class": "CLIPProcessor"}
known["labels"], known["ids"], known["pictures"] = LABELS, ids, PICTURES
known["folders"] = dict(sorted((known["folders"] | made).items()))
OUT.write_text(json.dumps(known, indent=1) + "\n")
print(f"{len(known['folders'])} folders, {OUT.stat().st_size} bytes", file=sys.stderr)
