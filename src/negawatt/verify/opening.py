"""Verifiers by what the configuration says of them.

A plug-in is an entry point of the group ``negawatt.verifiers``, named by ``call`` of a check of kind ``python`` (a name
without a colon). Its value is what ``call`` may name: a function of a `Case`, or a class that makes a `Verifier`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import msgspec

from negawatt.config_routes import Check
from negawatt.errors import ConfigError
from negawatt.verify.agreeing import AgreementVerifier
from negawatt.verify.answer import AnswerVerifier, Scorer
from negawatt.verify.exact import ExactVerifier
from negawatt.verify.groundedness import GroundednessVerifier
from negawatt.verify.judge import JudgeVerifier
from negawatt.verify.logprob import LogprobVerifier
from negawatt.verify.python import PythonVerifier
from negawatt.verify.regex import RegexVerifier
from negawatt.verify.schema import SchemaVerifier
from negawatt.verify.verdict import Verifier

if TYPE_CHECKING:
    from negawatt.embedders import Embedder

GROUP = "negawatt.verifiers"
_USED = {  # fields of a check that each kind looks at; another one would be ignored, and nobody would know
    "regex": {"pattern"}, "python": {"call", "least"}, "agreement": {"with_models", "samples", "least"},
    "logprob": {"least"}, "groundedness": {"least"}, "judge": {"model", "least"}, "answer": {"file", "least"},
    "draft": {"model"}, "schema": set(), "exact": set(),
}  # fmt: skip


class Given(msgspec.Struct, frozen=True):
    """What some verifiers need beside their check. *reference*: the model that judges where the check names none.

    *scorer* opens the learned score in a file, for a place in the configuration. It raises `ConfigError`.
    """

    embedder: Embedder | None = None
    reference: str | None = None
    scorer: Callable[[str, str], Scorer] | None = None


def open_verifier(check: Check, where: str, given: Given | None = None) -> Verifier:
    """Return the verifier that *check* describes. Raises `ConfigError` that names the field and the remedy.

    *where* is the path of the check, such as ``policies.cheap.cascade.verify[0]``. A check of kind ``draft`` is no
    verifier: the cascade itself has the reference accept or correct (`negawatt.routing.cascade`).
    """
    _only(check, where)
    return _OPEN[check.kind](check, where, given or Given())


def _only(check: Check, where: str) -> None:
    usual = Check(kind=check.kind)
    for name in Check.__struct_fields__:
        if name != "kind" and getattr(check, name) != getattr(usual, name) and name not in _USED[check.kind]:
            known = ", ".join(sorted(_USED[check.kind])) or "none"
            raise _wrong(where, name, f"a check of kind {check.kind} does not use it (it uses: {known}); leave it out")


def _wrong(where: str, field: str, message: str) -> ConfigError:
    return ConfigError(f"{where}.{field}: {message}", param=f"{where}.{field}")


def _regex(check: Check, where: str, _: Given) -> Verifier:
    if not check.pattern:
        raise _wrong(where, "pattern", 'a check of kind regex needs one, such as pattern = "^[A-Z]{2}$"')
    try:
        return RegexVerifier(re.compile(check.pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise _wrong(where, "pattern", f"{check.pattern[:100]!r} is no regular expression: {error}") from error


def _python(check: Check, where: str, _: Given) -> Verifier:
    if not check.call:
        raise _wrong(where, "call", 'a check of kind python needs one, such as call = "package.module:function"')
    found = _imported(check.call, where)
    if inspect.isclass(found):
        try:
            made: Any = found()
        except Exception as error:
            raise _wrong(where, "call", f"{check.call} could not be made: {type(error).__name__}: {error}") from error
        verifier: Verifier = made
        return verifier
    if not callable(found):
        raise _wrong(where, "call", f"{check.call} is {type(found).__name__}, which cannot be called")
    return PythonVerifier(found, check.call, least=0.5 if check.least is None else check.least)


def _imported(call: str, where: str) -> Any:
    module, colon, name = call.partition(":")
    if not colon:
        point = next(iter(entry_points(group=GROUP, name=call)), None)
        if point is None:
            known = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
            message = f"{call!r} is neither package.module:function nor an installed plug-in (installed: {known})"
            raise _wrong(where, "call", message)
        load: Callable[[], Any] = point.load
    else:

        def load() -> Any:
            found = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            return found

    try:
        return load()
    except Exception as error:
        # Whatever somebody else's module raises while it is imported.
        message = f"{call!r} cannot be imported: {type(error).__name__}: {error}; is it installed, and on the path?"
        raise _wrong(where, "call", message) from error


def _judge(check: Check, where: str, given: Given) -> Verifier:
    model = check.model or given.reference
    if model is None:
        raise _wrong(where, "model", "a check of kind judge needs a model that judges")
    return JudgeVerifier(model, least=check.least)


def _answer(check: Check, where: str, given: Given) -> Verifier:
    if check.file is None or given.scorer is None:
        raise _wrong(where, "file", "a check of kind answer needs the score that `negawatt eval --scorer` learns")
    scorer = given.scorer(check.file, f"{where}.file")
    return AnswerVerifier(scorer, least=0.5 if check.least is None else check.least)


def _draft(_: Check, where: str, __: Given) -> Verifier:
    raise _wrong(
        where, "kind", "draft is for cascades: there, the reference accepts or corrects; it judges nothing else"
    )


_OPEN: Mapping[str, Callable[[Check, str, Given], Verifier]] = {
    "schema": lambda _, __, ___: SchemaVerifier(),
    "exact": lambda _, __, ___: ExactVerifier(),
    "regex": _regex,
    "python": _python,
    "agreement": lambda check, _, given: AgreementVerifier(
        check.with_models, check.samples, least=check.least, embedder=given.embedder
    ),
    "logprob": lambda check, _, __: LogprobVerifier(least=0.5 if check.least is None else check.least),
    "groundedness": lambda check, _, __: GroundednessVerifier(least=check.least),
    "judge": _judge,
    "answer": _answer,
    "draft": _draft,
}
