"""What can go without a loss, or stands somewhere else already: space, JSON's layout, repetitions, encoded blobs.

Each function returns a `Shaped`, from which the original is made again with the pieces that were removed. To a model,
`minify_json`, `trim_space` and `fold_repeats` lose nothing: what is gone says nothing, or is still in the text.
`fold_blobs` and `fold_boilerplate` take away what a model might have read; they are for where a policy allows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from negawatt.shape.edits import Cut, Shaped, apply, unchanged
from negawatt.shape.json_spans import parse
from negawatt.shape.sentences import Unit, units, units_of

_JSON_FENCE = re.compile(
    r"^(?P<open>`{3,}|~{3,})(?:json|JSON)?[ \t]*\n(?P<body>.*?)^(?P=open)[ \t]*$", re.MULTILINE | re.DOTALL
)
_JSON_SPACE = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+', re.DOTALL)
_TRAILING = re.compile(r"(?<![ \t])[ \t]+(?=\n)|\n[ \t]*(?:\n[ \t]*){2,}")
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.-]+)*;base64,[A-Za-z0-9+/=_-]{64,}")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{200,}={0,2}(?![A-Za-z0-9+/=_-])")
_LINED = re.compile(r"(?<![^\s])(?:[A-Za-z0-9+/]{60,80}\n){3,}[A-Za-z0-9+/]{1,80}={0,2}")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?:[0-9a-f]{200,}|[0-9A-F]{200,})(?![0-9A-Za-z])")
_LEAST_REPEATED = 120  # characters: a shorter one costs about as much as its reference
_MOST_TRIED = 8  # earlier places of a sentence
_BOILERPLATE = re.compile(
    r"all rights reserved|copyright (?:©|\(c\)|\d{4})|©\s*\d{4}|cookie (?:policy|settings)|we use cookies"
    r"|privacy policy|accept all cookies|terms (?:of use|of service|and conditions)|unsubscribe"
    r"|view (?:this email )?in your browser|skip to (?:main )?content"
    r"|sign up for our newsletter|follow us on|share on (?:facebook|twitter|linkedin)"
    r"|this e-?mail (?:and any attachments )?(?:is|are|may be) (?:confidential|intended)|sent from my \w+"
    r"|if you are not the intended recipient",
    re.IGNORECASE,
)
_MOST_BOILERPLATE_WORDS = 60


def minify_json(text: str) -> Shaped:
    """Return *text* without the layout of its JSON: of all of it, or of what stands in fences.

    Keys keep their order, and every string and number its spelling: 1.0 stays 1.0, and a key that comes twice does.
    """
    if parse(text) is not None:
        return _made(text, _layout(text, 0), "it has no layout to remove")
    cuts = [
        cut
        for fence in _JSON_FENCE.finditer(text)
        if parse(fence["body"]) is not None
        for cut in _layout(fence["body"].rstrip(), fence.start("body"))
    ]
    return _made(text, cuts, "it has no JSON with a layout")


def trim_space(text: str) -> Shaped:
    """Return *text* without space at the ends of lines, and with one empty line where there were several.

    Two spaces that break a line in Markdown stay, and so do indentation and everything between fences.
    """
    cuts: list[Cut] = []
    start = 0
    for code, run in _by_fence(text):
        if not code:
            for match in _TRAILING.finditer(run):
                cuts += _trimmed(run, match, start)
        start += len(run)
    return _made(text, cuts, "it has no space to spare")


def fold_repeats(text: str, *, least: int = _LEAST_REPEATED) -> Shaped:
    """Return *text* with each passage that came before replaced by a note with the first one's beginning.

    A passage: sentences, lines or fenced code one after the other, of at least *least* characters together, that are
    the same but for space. The first occurrence stays.
    """
    return fold_repeats_in([text], least=least)[0]


def fold_repeats_in(texts: Sequence[str], *, least: int = _LEAST_REPEATED) -> list[Shaped]:
    """Return *texts*, such as documents that overlap, each without the passages that came before in any of them."""
    stream = units_of(texts)
    keys = [" ".join(unit.text.split()) for unit in stream]
    seen: dict[str, list[int]] = {}
    cuts: dict[int, list[Cut]] = {}
    place = 0
    while place < len(stream):
        run = max((_same(keys, stream, before, place) for before in seen.get(keys[place], ())), default=0)
        said = " ".join(keys[place : place + run]).strip()
        if len(said) < least:
            places = seen.setdefault(keys[place], [])
            if keys[place] and len(places) < _MOST_TRIED:
                places.append(place)
            place += 1
            continue
        first, last = stream[place], stream[place + run - 1]
        end = last.start + len(last.text.rstrip())
        cuts.setdefault(first.source, []).append(Cut(first.start, end, f'[as above: "{said[:40]}..."]', "repeat"))
        place += run
    return [_made(text, cuts.get(source, ()), "nothing repeats") for source, text in enumerate(texts)]


def _same(keys: Sequence[str], stream: Sequence[Unit], before: int, place: int) -> int:
    """Return how many units from *before* on are the same as those from *place* on, within one text each."""
    run = 0
    while (
        before + run < place
        and place + run < len(keys)
        and keys[before + run] == keys[place + run]
        and stream[before].source == stream[before + run].source
        and stream[place].source == stream[place + run].source
    ):
        run += 1
    while run and not keys[place + run - 1]:
        run -= 1  # an empty line at its end
    return run


def fold_blobs(text: str) -> Shaped:
    """Return *text* with its long base64 and hexadecimal blobs replaced by a note of what they are and how long."""
    cuts: list[Cut] = []
    patterns: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
        (_DATA_URI, lambda match: match[1] or "text/plain"),
        (_LINED, lambda match: "base64"),
        (_HEX, lambda match: "hexadecimal"),
        (_BASE64, lambda match: "base64"),
    ]
    taken: list[tuple[int, int]] = []
    for pattern, named in patterns:
        for match in pattern.finditer(text):
            if any(match.start() < end and start < match.end() for start, end in taken) or not _encoded(match[0]):
                continue
            taken.append(match.span())
            note = f"[{named(match)} left out: {match.end() - match.start():,} characters]"
            cuts.append(Cut(match.start(), match.end(), note, "blob"))
    return _made(text, cuts, "it has no blob")


def fold_boilerplate(text: str) -> Shaped:
    """Return *text* without the sentences that stand on every page or under every e-mail: notices, cookies, footers."""
    cuts = []
    start = 0
    for unit in units(text):
        end = start + len(unit.text)
        if unit.kind in ("prose", "item") and unit.words <= _MOST_BOILERPLATE_WORDS and _BOILERPLATE.search(unit.text):
            cuts.append(Cut(start, end, unit.text[len(unit.text.rstrip()) :].replace(" ", ""), "boilerplate"))
        start = end
    return _made(text, cuts, "it has no boilerplate")


def _made(text: str, cuts: Iterable[Cut], otherwise: str) -> Shaped:
    useful = [cut for cut in cuts if len(cut.put) < cut.end - cut.start]
    return apply(text, useful) if useful else unchanged(text, otherwise)


def _layout(body: str, offset: int) -> Iterator[Cut]:
    """Yield the cuts that take the space between the tokens of the JSON text *body*."""
    for match in _JSON_SPACE.finditer(body):
        if match[0][0] != '"':
            yield Cut(offset + match.start(), offset + match.end(), "", "json")


def _by_fence(text: str) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is fenced code, piece) of *text*."""
    run = ""
    for unit in units(text):
        if unit.kind != "code":
            run += unit.text
            continue
        if run:
            yield False, run
        yield True, unit.text
        run = ""
    if run:
        yield False, run


def _trimmed(run: str, match: re.Match[str], offset: int) -> Iterator[Cut]:
    start, end = offset + match.start(), offset + match.end()
    if match[0][0] != "\n":
        line = run[run.rfind("\n", 0, match.start()) + 1 : match.start()]
        if len(match[0]) == 1 or not line.strip() or "\t" in match[0]:
            yield Cut(start, end, "", "space")
        else:
            yield Cut(start, end, "  ", "space")  # a line break in Markdown
        return
    # What stands before the next line is its indentation.
    indent = match[0].rpartition("\n")[2]
    yield Cut(start, end - len(indent), "\n\n", "space")


def _encoded(blob: str) -> bool:
    """True when *blob* is data, and not a very long word, path, or a run of one sign."""
    body = blob.rpartition(",")[2]
    return len(set(body)) >= 12 and bool(re.search(r"\d", body)) and not re.search(r"(?:/[a-z]+){6}", body)
