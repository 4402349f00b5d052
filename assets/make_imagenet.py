#!/usr/bin/env python3
"""Makes assets/imagenet_classes.tsv: ImageNet's 1,000 classes in their order, each a WordNet id, a name and WordNet's synonyms.

    pip install open_clip_torch==3.3.0 timm==1.0.31
    python3 assets/make_imagenet.py

The ids and synonyms are timm's (timm/data/_info: imagenet_synsets.txt, imagenet_synset_to_lemma.txt, Apache-2.0), the names
OpenAI's for CLIP's prompts as open_clip has them (open_clip.IMAGENET_CLASSNAMES, MIT). "missile" and "sunglasses" stand twice there, and so here.
"""
import importlib.metadata
import importlib.resources
import pathlib

from open_clip import IMAGENET_CLASSNAMES

for package, version in (("open_clip_torch", "3.3.0"), ("timm", "1.0.31")):
    assert importlib.metadata.version(package) == version, package
info = importlib.resources.files("timm") / "data/_info"
ids = (info / "imagenet_synsets.txt").read_text().split()
synonyms = dict(line.split("\t") for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines())
assert len(ids) == len(set(ids)) == len(IMAGENET_CLASSNAMES) == 1000 and ids == sorted(ids)
OUT = pathlib.Path(__file__).parent / "imagenet_classes.tsv"
OUT.write_text("".join(f"{id}\t{name}\t{synonyms[id]}\n" for id, name in zip(ids, IMAGENET_CLASSNAMES)))
