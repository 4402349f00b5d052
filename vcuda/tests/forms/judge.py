"""Has NVIDIA's assembler judge the forms that the test `forms` makes.

    VCUDA_FORMS_OUT=/tmp/forms cargo test -p vcuda --test forms write
    pip install nvidia-cuda-nvcc==13.5.37
    python3 judge.py PTXAS /tmp/forms .

Reads sample.txt, plain.txt, steps.txt and prologue.ptx of the first folder, writes verdicts.txt and floors.txt to the
second: `+` or `-` before each form, and for each of the plainest, at each step of versions and targets.
"""
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Refused by its syntax: no batch gets as far as code.
POISON = "popc.approx.b32 %r1, %r2;"


class Judge:
    def __init__(self, ptxas, prologue):
        self.ptxas, self.prologue = ptxas, prologue

    def refused(self, forms, version, target):
        """The indices of the forms that are refused."""
        head = f".version {version}\n.target {target}\n{self.prologue}"
        first = head.count("\n") + 1
        number = int(re.match(r"sm_(\d+)", target)[1])
        refused, left = set(), list(range(len(forms)))
        while left:
            text = head + "".join(forms[i] + "\n" for i in left) + POISON + "\nL0: ret;\n}\n"
            with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
                file.write(text)
                file.flush()
                arch = target if number >= 75 else "sm_75"
                run = subprocess.run([self.ptxas, "-arch", arch, file.name, "-o", "/dev/null"],
                                     capture_output=True, text=True)
            found, at_end, strange = set(), False, False
            for line in (run.stdout + run.stderr).splitlines():
                match = re.search(r"line (\d+); (?:error|fatal)\s*: (.*)", line)
                if not match:
                    continue
                at, what = int(match[1]) - first, match[2]
                at_end |= at == len(left)
                if 0 <= at < len(left):
                    found.add(left[at])
                    of = re.search(r"for instruction '(\w+)", what)
                    strange |= bool(of) and not forms[left[at]].startswith(of[1])
            if (strange or not (found or at_end)) and len(left) > 1:
                # An error on another's line, or none at all: each by itself, or half of them.
                size = 1 if strange else len(left) // 2
                for part in (left[i:i + size] for i in range(0, len(left), size)):
                    refused |= {part[k] for k in self.refused([forms[i] for i in part], version, target)}
                return refused
            if not found and not at_end:
                return refused | set(left)
            refused |= found
            if at_end:
                return refused
            left = [i for i in left if i not in found]
        return refused

    def verdicts(self, forms, version, target):
        """A sign for each form; those of one instruction together."""
        signs = {}
        for name in sorted({re.match(r"\w+", form)[0] for form in forms}):
            batch = [form for form in forms if re.match(r"\w+", form)[0] == name]
            refused = self.refused(batch, version, target)
            signs.update((form, "-" if i in refused else "+") for i, form in enumerate(batch))
        return [signs[form] for form in forms]


def main():
    ptxas, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    prologue = (source / "prologue.ptx").read_text()
    judge = Judge(ptxas, prologue)
    sample = (source / "sample.txt").read_text().splitlines()
    signs = judge.verdicts(sample, "9.5", "sm_90a")
    (out / "verdicts.txt").write_text("".join(f"{s}{form}\n" for s, form in zip(signs, sample)))
    plain = (source / "plain.txt").read_text().splitlines()
    rows = [""] * len(plain)
    for step in (source / "steps.txt").read_text().splitlines():
        # Registers of 128 bits are a feature of their own.
        for wide in (False, True):
            judge.prologue = prologue if wide else re.sub(r"\.reg \.b128.*?;", "", prologue)
            at = [i for i, form in enumerate(plain) if ("%q" in form) == wide]
            refused = judge.refused([plain[i] for i in at], *step.split())
            for k, i in enumerate(at):
                rows[i] += "-" if k in refused else "+"
    (out / "floors.txt").write_text("".join(f"{row} {form}\n" for row, form in zip(rows, plain)))


main()
