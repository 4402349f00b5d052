#!/usr/bin/env python3
"""Makes what src/clip/tokenizer/openai.rs needs to clean text as OpenAI's and open_clip's tokenizers do:

* assets/html_entities.tsv: names of HTML 5's character references and their characters, as Python's html.unescape knows them, and in
  capitals, marked by ^, those that ftfy adds;
* assets/mojibake.regex: ftfy's pattern of text in a wrong encoding (ftfy.badness.BADNESS_RE, Apache-2.0, Robyn Speer), as one line in
  the syntax of Rust's regex. Where Python's \\s and \\w are other sets than Rust's, it has both.

    pip install ftfy==6.3.1
    python3 assets/make_text_tables.py
"""
import html.entities
import importlib.metadata
import pathlib
import re._constants as op
import re._parser

from ftfy.badness import BADNESS_RE
from ftfy.chardata import HTML_ENTITIES

assert importlib.metadata.version("ftfy") == "6.3.1"
ASSETS = pathlib.Path(__file__).parent
CATEGORIES = {op.CATEGORY_SPACE: r"\s\x{1c}-\x{1f}", op.CATEGORY_WORD: r"\w\p{N}"}


def char(code):
    return f"\\x{{{code:x}}}"


def item(kind, value):
    match kind:
        case op.LITERAL: return char(value)
        case op.RANGE: return f"{char(value[0])}-{char(value[1])}"
        case op.CATEGORY: return CATEGORIES[value]
        case op.NEGATE: return "^"
    raise ValueError(kind)


def rust(pattern):
    out = ""
    for kind, value in pattern:
        match kind:
            case op.LITERAL: out += char(value)
            case op.ANY: out += "."
            case op.IN: out += "[" + "".join(item(*each) for each in value) + "]"
            case op.BRANCH: out += "(?:" + "|".join(rust(each) for each in value[1]) + ")"
            case op.MAX_REPEAT:
                low, high, inner = value
                out += f"(?:{rust(inner)}){{{low},{'' if high == op.MAXREPEAT else high}}}"
            case op.AT if value == op.AT_BEGINNING: out += "^"
            case _: raise ValueError(kind)
    return out


def main():
    entities = [(name, text) for name, text in html.entities.html5.items()]
    extra = [("^" + name[1:], text) for name, text in HTML_ENTITIES.items() if html.entities.html5.get(name[1:]) != text]
    rows = [f"{name}\t{' '.join(f'{ord(c):x}' for c in text)}\n" for name, text in sorted(entities) + sorted(extra)]
    (ASSETS / "html_entities.tsv").write_text("".join(rows))
    pattern = rust(re._parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags))
    (ASSETS / "mojibake.regex").write_text(pattern + "\n")
    print(f"{len(entities)} and {len(extra)} entities, a pattern of {len(pattern)} characters")


if __name__ == "__main__":
    main()
