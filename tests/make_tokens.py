#!/usr/bin/env python3
"""Makes tests/fixtures/tokens.json.gz: texts and their ids by Hugging Face's CLIPTokenizer and by open_clip's SimpleTokenizer (OpenAI's),
start and end included; null instead of the latter's where ftfy takes the text for one of a wrong encoding, or it holds a special token, or ſ or U+0345 where the package regex splits by another case;
and tests/fixtures/tokenizer.json.gz: the tokenizer as transformers saves it.

    pip install transformers==5.24.0 open_clip_torch==3.3.0 ftfy==6.3.1
    python3 tests/make_tokens.py

The vocabulary is OpenAI's, as open_clip carries it. The texts: a prompt for each class of CIFAR-100 and of ImageNet,
open_clip's prompt templates, hand-picked edges, and seeded strings over scripts, marks, digits and symbols, and of words with what
ftfy and HTML change in them.
"""
import gzip
import importlib.resources
import json
import pathlib
import random
import unicodedata

import ftfy
from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from open_clip.tokenizer import SimpleTokenizer, _clean_lower
from transformers import CLIPTokenizer

OUT = pathlib.Path(__file__).parent / "fixtures" / "tokens.json.gz"

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
    "snake_case camelCase SCREAMING", "a.b.c...", "!!!???", "http://example.com/a?b=c&d=e#f", "\u0130\u0307", "it'ſ it'S 'ſ", "\ufeffbom", "\u0000nul",
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
        # What is a character in one version of Unicode alone is split into words by version.
        chars = [c for c in chars if unicodedata.category(c) != "Cn"]
        yield "".join(rng.choice((c, c, c, c + " ")) for c in chars)


ODD = """&amp; &lt;b&gt; &quot; &#39; &#x27; &#x2019; &copy &copy; &EACUTE; &eacute; &notit; &not it &Aacute &AMP &amp;amp; &amp;amp;amp; &hellip; &frac12; &#0;
&#128; &#x80; &#x110000; &#xD800; &#12abc; &#59; &#x1f; &bogus; &ThickSpace; &NotEqualTilde; &fjlig; &nbsp; & && &; &#; &#x; <b> < > “a” ‘b’ ‛c ‟d ʼn ŉ ĳ Ǆ ǆ ﬁsh ﬂy
waﬀle oﬃce ﬄ ﬅ ﬆ ＡＢＣ １２３ ｱｲｳ ｶﾞ ﾡ ￡ ！ 　 ½ café naïve jalapeño crème brûlée São Paulo Åland Łódź façade cliché über Straße Ærø
año niño piñata o’clock rock’n’roll 5″ 6′ 7–8 a—b … · • ° ™ ® © € £ ¥ § ¶ « » ¡hola! ¿qué? ² ³ × ÷ ± µ Ω α β γ Ж щ ы 漢字 かな カナ 한글 ไทย عربي עברית
cafÃ© naÃ¯ve â€œquotedâ€\x9d donâ€™t Ã\xa0 schÃ¶n Â£5 Ð¿Ñ€Ð¸ ï»¿ \ufeff \u200b \u200d \x00 \x07 \x1b[31mred\x1b[0m \x1c \x7f \x85 \u2028 \u2029 \r \r\n \n \t \x0b
\ufffd \ufffc \u206a Iİı ſ ς ΟΔΟΣ ΣΑΣ ǅungla K Å ẞ ﷺ ❤️ 👩‍👩‍👧 🏳️‍🌈 1️⃣ e\u0301 n\u0303 A\u030a 's 'S 'll ’s ’LL 've n't <start_of_text> <end_of_text> <|startoftext|>
snake_case CamelCase a.b,c;d:e!f?g (h) [i] {j} #k @l $m %n ^o *p +q =r |s ~t `u \\v /w"""


def odd(rng, count):
    words, plain = [*ODD.split(), "\r\n", "\n", "\r", "\t", "\x0b", "\x1c", "\x85", "\u2028", "\u3000"], " ".join([*CIFAR100, *IMAGENET_CLASSNAMES]).split()
    for _ in range(count):
        parts = [rng.choice(words) if rng.random() < 0.5 else rng.choice(plain) for _ in range(rng.randint(1, 5))]
        yield rng.choice(["", "a photo of a ", "a photo of the "]) + rng.choice([" ", " ", ""]).join(parts)


class OpenClip:
    """open_clip's tokenizer, that tells whether ftfy took a text for one of a wrong encoding."""

    def __init__(self):
        self.encode, self.bad, is_bad = SimpleTokenizer().encode, False, ftfy.is_bad

        def heard(text):
            self.bad |= is_bad(text)
            return is_bad(text)

        ftfy.is_bad = heard

    def __call__(self, text):
        self.bad = False
        ids = [49406, *self.encode(text)][:76] + [49407]
        special = any(token in _clean_lower(text) for token in ("<start_of_text>", "<end_of_text>", "<|startoftext|>", "<|endoftext|>", "'ſ", "\u0345"))
        return None if self.bad or special else ids


def main():
    texts = [f"a photo of a {name}" for name in CIFAR100]
    texts += [template(name) for name, template in zip(IMAGENET_CLASSNAMES, (OPENAI_IMAGENET_TEMPLATES * 13)[:1000])]
    texts += EDGES + list(strings(random.Random(0), 1500)) + list(odd(random.Random(1), 3500))
    encode, open_clip = tokenizer(), OpenClip()
    rows = [[text, encode(text, truncation=True, max_length=77)["input_ids"], open_clip(text)] for text in texts]
    assert rows[1][1] == rows[1][2] == [49406, 320, 1125, 539, 320, 16814, 318, 2759, 49407]
    lines = "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n"
    OUT.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
    OUT.with_name("tokenizer.json.gz").write_bytes(gzip.compress(encode.backend_tokenizer.to_str().encode(), 9, mtime=0))
    differ, refused = sum(row[1] != row[2] for row in rows), sum(row[2] is None for row in rows)
    print(f"{len(rows)} texts, {differ} with other ids in open_clip, {refused} of them none, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
