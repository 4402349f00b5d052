#!/usr/bin/env python3
"""Makes assets/templates/NAME.txt: prompt templates by data set, one a line, {} where the class's name goes.

    pip install open_clip_torch==3.3.0 clip-benchmark==1.6.2
    python3 assets/make_templates.py

ImageNet's 80 and the 7 of the simple set are open_clip's, after OpenAI's notebook Prompt_Engineering_for_ImageNet; the others are
CLIP_benchmark's, after OpenAI's data/prompts.md.
"""
import importlib.util
import json
import pathlib

from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

OUT = pathlib.Path(__file__).parent / "templates"
# Ours: CLIP_benchmark's.
OTHERS = {
    "cifar": "cifar10", "food101": "food101", "sun397": "sun397", "cars": "cars", "aircraft": "fgvc_aircraft", "dtd": "dtd",
    "pets": "pets", "caltech101": "caltech101", "flowers": "flowers", "mnist": "mnist", "stl10": "stl10", "eurosat": "eurosat",
    "gtsrb": "gtsrb", "country211": "country211", "fer2013": "fer2013", "svhn": "svhn", "resisc45": "resisc45",
}


def main():
    package = pathlib.Path(importlib.util.find_spec("clip_benchmark").submodule_search_locations[0])
    theirs = json.loads((package / "datasets" / "en_zeroshot_classification_templates.json").read_text())
    assert theirs["cifar10"] == theirs["cifar100"]
    lists = {
        "openai-imagenet": [template("{}") for template in OPENAI_IMAGENET_TEMPLATES],
        "openai-imagenet-simple": [template("{}") for template in SIMPLE_IMAGENET_TEMPLATES],
    } | {name: [template.replace("{c}", "{}") for template in theirs[other]] for name, other in OTHERS.items()}
    OUT.mkdir(exist_ok=True)
    for name, templates in lists.items():
        assert all(template.count("{}") == 1 and template == template.strip() for template in templates), name
        assert len(set(templates)) == len(templates), name
        (OUT / f"{name}.txt").write_text("".join(f"{template}\n" for template in templates))
        print(f"{name}: {len(templates)}")


if __name__ == "__main__":
    main()
