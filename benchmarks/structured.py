"""How many damaged answers are mended, and how many into something else: the figures in docs/structured_outputs.md.

    python benchmarks/structured.py --data DIR [--json]
    python benchmarks/structured.py --objects FILE.jsonl [--json]

DIR holds ``tau-bench/``, whose 1,164 recorded tool calls have JSON arguments; FILE has one JSON value a line (objects
or lists). Each is damaged once in each of eight ways that models damage JSON, with seeded draws, and mended:

- fence: in a fence of Markdown, with or without a language;
- prose: with a sentence before it, after it, or both;
- trailing comma: behind the last member of some or all of its objects and lists;
- quotes: single or typographic ones, apostrophes within escaped as Python does;
- keys: without quotes;
- python: as Python prints the value (True, None, its quotes and escapes);
- comments: pretty, with a comment behind some lines;
- unclosed: without its last one to three closing brackets, although the model stopped by itself.

Where a way does not apply (no key to unquote) the value is left out. *repaired_valid*: the share of damaged texts that
come back as JSON of the same value; *wrongly_repaired*: how many come back as another value; the rest is refused.
Beside that: *undamaged*, how many come back byte for byte; *cut*: cut off by a limit of tokens, at a boundary of
o200k_base tokens drawn uniformly, which the model reports, so that whatever lost part of a value has to be refused;
*more*: harder ways, in which there is not always one way to read the text.
Prints a table, and as the last line one JSON object. Intervals (95 %) are Clopper-Pearson's with the repeats of an
object taken for one.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import platform
import random
import re
import sys
import time
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from negawatt.shape.repair import repair
from negawatt.statistics import Bootstrap

SEED = 20261123
BEFORE = ("Sure! Here is the JSON:\n\n", "The arguments are as follows: ", "Answer:\n", "I'll call the tool now.\n")
AFTER = ("\n\nLet me know if you need anything else!", "\nThis keeps to the schema.", "\n\nNote: dates are as given.")
COMMENTS = ("// as the user asked", "# from the profile", "/* see above */", "// TODO: check")
STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
Damage = Callable[[str, random.Random], "str | None"]


def fence(text: str, rng: random.Random) -> str:
    return f"```{rng.choice(('json', 'JSON', ''))}\n{text}\n```"


def prose(text: str, rng: random.Random) -> str:
    which = rng.randrange(3)
    return (rng.choice(BEFORE) if which != 1 else "") + text + (rng.choice(AFTER) if which != 0 else "")


def outside(text: str, pattern: str, to: Callable[[re.Match[str]], str]) -> str:
    """Replace what matches *pattern* outside of the strings of *text*."""
    both = re.compile(f"{STRING.pattern}|(?P<here>{pattern})")
    return both.sub(lambda match: match[0] if match["here"] is None else to(match), text)


def trailing(text: str, rng: random.Random) -> str:
    if not rng.randrange(2):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    chance = rng.choice((0.5, 1.0))
    return outside(text, r"(?<![{\[\s])\s*[}\]]", lambda m: f",{m[0]}" if rng.random() < chance else m[0])


def quotes(text: str, rng: random.Random) -> str:
    smart = rng.randrange(2)

    def turned(match: re.Match[str]) -> str:
        inner = match[0][1:-1]
        if smart:
            return f"“{inner}”"
        return "'" + inner.replace("'", "\\'").replace('\\"', '"') + "'"

    return STRING.sub(turned, text)


def keys(text: str, _: random.Random) -> str:
    return re.sub(r'"([A-Za-z_]\w*)"(?=\s*:)|' + STRING.pattern, lambda m: m[1] or m[0], text)


def python(text: str, _: random.Random) -> str:
    return repr(json.loads(text))


def comments(text: str, rng: random.Random) -> str:
    lines = json.dumps(json.loads(text), indent=2, ensure_ascii=False).split("\n")
    return "\n".join(f"{line} {rng.choice(COMMENTS)}" if rng.random() < 0.4 else line for line in lines)


def unclosed(text: str, rng: random.Random) -> str:
    bare = text.rstrip()
    for _ in range(rng.randint(1, 3)):
        if len(bare) > 2 and bare[-1] in "}]" and bare[-2] not in "{[":
            bare = bare[:-1].rstrip()
    return bare


def control(text: str, _: random.Random) -> str:
    return re.sub(r"\\([nrt])", lambda m: {"n": "\n", "r": "\r", "t": "\t"}[m[1]], text)


def inner(text: str, _: random.Random) -> str:
    return text.replace('\\"', '"')


def doubled(text: str, _: random.Random) -> str:
    return outside(text, r"[{}]", lambda m: m[0] * 2)


def commaless(text: str, rng: random.Random) -> str:
    places = [m.start() for m in re.finditer(STRING.pattern + r"|(,)", text) if m[1]]
    if not places:
        return text
    at = rng.choice(places)
    return f"{text[:at]} {text[at + 1 :].lstrip()}"


def apostrophes(text: str, _: random.Random) -> str:
    return STRING.sub(lambda m: f"'{m[0][1:-1]}'", text)


def mixed(text: str, rng: random.Random) -> str:
    return fence(trailing(text, rng), rng) if rng.randrange(2) else prose(python(text, rng), rng)


KINDS: dict[str, Damage] = {
    "fence": fence, "prose": prose, "trailing comma": trailing, "quotes": quotes, "keys": keys, "python": python,
    "comments": comments, "unclosed": unclosed,
}  # fmt: skip
MORE: dict[str, Damage] = {
    "control characters": control, "inner quotes": inner, "doubled braces": doubled, "missing comma": commaless,
    "apostrophes": apostrophes, "two at once": mixed,
}  # fmt: skip


@cache
def encoding():
    """OpenAI's o200k_base, from the table that ships with the package."""
    import tiktoken

    data = files("negawatt.economics") / "data"
    table = tomllib.loads((data / "counting.toml").read_text())["encodings"]["o200k_base"]
    rows = (line.partition(b" ") for line in gzip.decompress((data / table["file"]).read_bytes()).splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, _, rank in rows}
    return tiktoken.Encoding("o200k_base", pat_str="|".join(table["pattern"]), mergeable_ranks=ranks, special_tokens={})


def cut(text: str, rng: random.Random) -> str:
    tokens = encoding().encode_ordinary(text)
    kept = tokens[: rng.randrange(1, len(tokens))] if len(tokens) > 1 else tokens
    return encoding().decode_bytes(kept).decode("utf-8", "ignore")


def same(a: object, b: object) -> bool:
    """Equal, with 1 and true apart, and 1 and 1.0."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def row(texts: list[str], damage: Damage, ended: bool | None) -> dict:
    """Damage and mend each text. *ended*: what the model said of its end; True: it was cut."""
    rng = random.Random(SEED)
    right: list[tuple[str, float]] = []
    wrong, reasons = 0, dict[str, int]()
    for text in texts:
        damaged = damage(text, rng)
        try:
            json.loads(damaged)
            continue  # it did not apply
        except ValueError:
            found = repair(damaged, cut=ended)
        good = found.text is not None and same(json.loads(found.text), json.loads(text))
        right.append((text, float(good)))
        wrong += found.text is not None and not good
        if found.text is None:
            reasons[str(found.reason)[-40:]] = reasons.get(str(found.reason)[-40:], 0) + 1
    if not right:
        return {"n": 0, "repaired_valid": None, "interval": [None, None], "wrongly_repaired": 0, "refused": 0}
    boot = Bootstrap([text for text, _ in right], np.random.default_rng(SEED), 2)
    interval = boot.proportion(np.array([good for _, good in right]))
    share = sum(good for _, good in right) / len(right)
    ends = [None if end is None else round(end, 4) for end in (interval.low, interval.high)]
    refused = sum(reasons.values())
    return {"n": len(right), "repaired_valid": round(share, 4), "interval": ends, "wrongly_repaired": wrong,
            "refused": refused, "reasons": dict(sorted(reasons.items(), key=lambda one: -one[1])[:3])}  # fmt: skip


def recorded(folder: Path) -> list[str]:
    data = json.loads(gzip.decompress((folder / "tau-bench" / "gpt-4o-airline.json.gz").read_bytes()))
    messages = (message for loop in data for message in loop["traj"])
    return [call["function"]["arguments"] for message in messages for call in message.get("tool_calls") or ()]


def lines(file: Path) -> list[str]:
    found = []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{file} cannot be read: {error}")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                sys.exit(f"{file}, line {number}: no JSON: {error}")
            if not isinstance(value, dict | list):
                sys.exit(f"{file}, line {number}: neither an object nor a list")
            found.append(line.strip())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with tau-bench/")
    parser.add_argument("--objects", type=Path, help="objects of your own, one a line")
    parser.add_argument("--json", action="store_true", help="nothing but the JSON object")
    arguments = parser.parse_args()
    if arguments.data is None and arguments.objects is None:
        parser.error("--data or --objects is needed")
    texts = lines(arguments.objects) if arguments.objects else recorded(arguments.data)
    if not texts:
        sys.exit("there is nothing in it")
    began = time.process_time()
    kinds = {name: row(texts, damage, False) for name, damage in KINDS.items()}
    more = {name: row(texts, damage, False) for name, damage in MORE.items()}
    more["cut"] = row(texts, cut, True)
    took = time.process_time() - began
    many = sum(one["n"] for one in kinds.values())
    if not many:
        sys.exit("none of it can be damaged")
    result = {
        "n": many,
        "repaired_valid": round(sum(one["n"] * (one["repaired_valid"] or 0) for one in kinds.values()) / many, 4),
        "wrongly_repaired": sum(one["wrongly_repaired"] for one in kinds.values()),
        "objects": len(texts),
        "distinct": len(set(texts)),
        "undamaged": sum(repair(text).text == text for text in texts),
        "kinds": kinds,
        "more": more,
        "ms": round(1000 * took / (many + sum(one["n"] for one in more.values())), 3),
        "seed": SEED,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    if not arguments.json:
        print("| kind | n | same value | 95 % | another value | refused |\n|" + " --- |" * 6)
        for name, one in {**kinds, **more}.items():
            print(f"| {name} | {one['n']:,} | {one['repaired_valid']} | {one['interval'][0]} to {one['interval'][1]} | "
                  f"{one['wrongly_repaired']} | {one['refused']} |")  # fmt: skip
        print(f"\n{result['objects']:,} values ({result['distinct']} distinct), {result['undamaged']:,} undamaged byte "
              f"for byte; {result['date']}, {result['machine']}; seed {SEED}")  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
