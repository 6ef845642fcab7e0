"""Does a description fit a request? `Match` of the configuration, compiled; for classes and for policies' rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from negawatt.config_routes import Match
from negawatt.errors import ConfigError
from negawatt.routing.asked import LANGUAGES, Asked

_SIGNED = "sha256:"
_SIGNATURE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_COMPILED = 1_000_000  # bytes of an expression

_Test = Callable[[Asked], bool]


class Matcher:
    """Whether *match*, which stands at *where* in the configuration, describes a request: all that it names must be so.

    Patterns are those of file names, and upper case is not lower case. Those of system prompts are compared with the
    prompt's first 200,000 characters, with one space wherever there is any white space. Raises `ConfigError`, naming
    the field, for what can describe nothing.
    """

    def __init__(self, match: Match, where: str) -> None:
        self._where = where
        self._tests: tuple[_Test, ...] = tuple(self._compiled(match))
        if not self._tests:
            raise ConfigError(f"{where}: it names nothing, and would describe every request", param=where)

    def matches(self, asked: Asked) -> bool:
        """True when all that the match names is so."""
        return all(test(asked) for test in self._tests)

    def _compiled(self, match: Match) -> Iterator[_Test]:
        """Yield one test for each field that is there, the cheap ones first."""
        yield from self._of_the_request(match)
        yield from self._of_the_ask(match)
        if match.system is not None:
            yield self._system(self._patterns(match.system, "system"))

    def _of_the_request(self, match: Match) -> Iterator[_Test]:
        if (protocols := match.protocols) is not None:
            self._some(protocols, "protocols")
            yield lambda asked: asked.protocol in protocols
        if match.models is not None:
            models = self._patterns(match.models, "models")
            yield lambda asked: _fits(asked.model, models)
        if match.template is not None:
            templates = self._patterns(match.template, "template")
            yield lambda asked: asked.template is not None and _fits(asked.template, templates)
        if (tools := match.tools) is not None:
            yield self._tools(tools)
        if match.schema is not None:
            yield lambda asked: (asked.contract is not None) is match.schema
        if (wanted := match.metadata) is not None:
            self._some(wanted, "metadata")
            given = tuple(wanted.items())
            yield lambda asked: all(n in asked.metadata and fnmatchcase(asked.metadata[n], p) for n, p in given)
        if match.images is not None:
            yield lambda asked: ("image" in asked.inputs) is match.images

    def _of_the_ask(self, match: Match) -> Iterator[_Test]:
        least, most = match.min_chars, match.max_chars
        if least is not None and most is not None and least > most:
            self._refuse("max_chars", f"expected at least min_chars, which is {least}, got {most}")
        if least is not None:
            yield lambda asked: len(asked.ask) >= least
        if most is not None:
            yield lambda asked: len(asked.ask) <= most
        if match.says is not None:
            yield self._says(match.says)
        if (languages := match.languages) is not None:
            self._some(languages, "languages")
            for i, name in enumerate(languages):
                if name not in LANGUAGES:
                    known = ", ".join(sorted(LANGUAGES))
                    self._refuse(f"languages[{i}]", f"{name!r} is none that is told apart; known: {known}")
            yield lambda asked: asked.language in languages

    def _tools(self, wanted: bool | Sequence[str]) -> _Test:
        if isinstance(wanted, bool):
            return lambda asked: bool(asked.tools) is wanted
        patterns = self._patterns(wanted, "tools")
        return lambda asked: any(_fits(name, patterns) for name in asked.tools)

    def _says(self, expression: str) -> _Test:
        """Return the search for *expression* in an ask, which has 20,000 characters at most.

        Its engine takes time in proportion to the text, whatever the expression: nobody can write a request that
        holds the gateway up. So it knows no backreferences and no lookaround.
        """
        import jsonschema_rs

        options = jsonschema_rs.RegexOptions(size_limit=_MOST_COMPILED)
        try:
            compiled: Any = jsonschema_rs.validator_for({"pattern": expression}, pattern_options=options)
        except (jsonschema_rs.ValidationError, ValueError):
            what = "not a regular expression, or too large a one; backreferences and lookaround are not known here"
            self._refuse("says", f"{expression[:100]!r} is {what}")
        return lambda asked: bool(asked.ask) and compiled.is_valid(asked.ask)

    def _system(self, patterns: tuple[str, ...]) -> _Test:
        signatures = [one.removeprefix(_SIGNED).lower() for one in patterns if one.startswith(_SIGNED)]
        for one in signatures:
            if not _SIGNATURE.fullmatch(one):
                self._refuse("system", f"expected 64 hexadecimal digits after {_SIGNED}, got {one[:80]!r}")
        # The prompt that they are compared with has one space wherever there is any white space.
        texts = tuple(_finder(" ".join(one.split())) for one in patterns if not one.startswith(_SIGNED))
        return lambda asked: (
            (bool(signatures) and asked.signature in signatures)
            or (bool(asked.system_words) and any(finds(asked.system_words) for finds in texts))
        )

    def _patterns(self, given: str | Sequence[str], field: str) -> tuple[str, ...]:
        patterns = (given,) if isinstance(given, str) else tuple(given)
        self._some(patterns, field)
        for i, one in enumerate(patterns):
            if not one.strip():
                self._refuse(f"{field}[{i}]", "the pattern is empty")
        return patterns

    def _some(self, given: Any, field: str) -> None:
        if not given:
            self._refuse(field, "expected one at least")

    def _refuse(self, field: str, what: str) -> None:
        raise ConfigError(f"{self._where}.{field}: {what}", param=f"{self._where}.{field}")


def _fits(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def _finder(pattern: str) -> Callable[[str], bool]:
    """Return the test for *pattern*, quick for those of the form ``*words*``: texts are long."""
    words = pattern.removeprefix("*").removesuffix("*")
    if pattern != f"*{words}*" or any(mark in words for mark in "*?["):
        return lambda text: fnmatchcase(text, pattern)
    return lambda text: words in text
