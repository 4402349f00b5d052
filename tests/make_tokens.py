#!/usr/bin/env python3
"""Makes tests/fixtures/tokens.json: texts and their ids by Hugging Face's CLIPTokenizer, start and end included.

    pip install transformers open_clip_torch
    python3 tests/make_tokens.py

The vocabulary is OpenAI's, as open_clip carries it. The texts: a prompt for each class of CIFAR-100 and of ImageNet,
open_clip's prompt templates, hand-picked edges, and seeded strings over scripts, marks, digits and symbols.
"""
import gzip
import importlib.resources
import json
import pathlib
import random

from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from transformers import CLIPTokenizer

OUT = pathlib.Path(__file__).parent / "fixtures" / "tokens.json"

CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()

EDGES = [
    "", " ", "a", "  A  PHOTO\tof a\ncat ", "it's what they'll do, isn't it? we've I'm you'd they're", "DON'T SHOUT'S",
    "1234 5.6% 10th 3.14159e-10 0x7f", "naïve café über straße ÆØÅ", "日本語のテキスト", "привет мир", "emoji 🐱🐶 👩‍👩‍👧 🏳️‍🌈",
    "a_b__c-d--e", "x\u00a0y\u2003z", "½ ² Ⅷ ٣", "e\u0301 combining", "C++ & C# @home #tag $5 100€", "&amp; &lt;b&gt; &quot;q&quot;",
    "“curly” ‘quotes’ — dashes…", "ﬁ ligature ﬀ", "ΣΑΣ Σ ὈΔΥΣΣΕΎΣ", "İstanbul IĞDIR ı", "ẞ ß", "ＦＵＬＬ ｗｉｄｔｈ", "한국어 문장",
    "עברית עם ניקוד שָׁלוֹם", "العربية ١٢٣", "हिन्दी में", "ไทย", "a\u200bb\u200cc", "tab\tnew\nline\r\nend", "\u3000wide space\u3000",
    "'s 't 're 'll 'd 've 'm ''s", "l'été d'or", "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|ENDOFTEXT|>", "<start_of_text>",
    "snake_case camelCase SCREAMING", "a.b.c...", "!!!???", "http://example.com/a?b=c&d=e#f", "\u0130\u0307", "\ufeffbom", "\u0000nul",
    "the quick brown fox jumps over the lazy dog supercalifragilisticexpialidocious", "cat " * 200, "x" * 500,
]

RANGES = [
    (0x20, 0x7F), (0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x250), (0x250, 0x370), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600), (0x600, 0x700),
    (0x900, 0x980), (0xE00, 0xE80), (0x1E00, 0x2000), (0x2000, 0x2070), (0x2070, 0x2200), (0x2200, 0x2600), (0x2600, 0x27C0), (0x3000, 0x3100),
    (0x4E00, 0x5000), (0xAC00, 0xAD00), (0xFB00, 0xFB50), (0xFF00, 0xFFF0), (0x1D400, 0x1D500), (0x1F300, 0x1F650), (0x10400, 0x10450),
]


def tokenizer():
    path = importlib.resources.files("open_clip") / "bpe_simple_vocab_16e6.txt.gz"
    merges = [tuple(line.split()) for line in gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]]
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in printable]
    alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]
    words = alphabet + [c + "</w>" for c in alphabet] + ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=merges)


def strings(rng, count):
    for _ in range(count):
        ranges = rng.sample(RANGES, rng.randint(1, 3))
        chars = [chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randint(1, 24))]
        yield "".join(rng.choice((c, c, c, c + " ")) for c in chars)


def main():
    texts = [f"a photo of a {name}" for name in CIFAR100]
    texts += [template(name) for name, template in zip(IMAGENET_CLASSNAMES, (OPENAI_IMAGENET_TEMPLATES * 13)[:1000])]
    texts += EDGES + list(strings(random.Random(0), 600))
    encode = tokenizer()
    rows = [[text, encode(text, truncation=True, max_length=77)["input_ids"]] for text in texts]
    assert rows[1][1] == [49406, 320, 1125, 539, 320, 16814, 318, 2759, 49407]
    OUT.write_text("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")
    print(f"{len(rows)} texts, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
