"""Descriptions of requests: all that a match names must be so, and what can describe nothing is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from worlds import bare_call

from negawatt.config_routes import Match
from negawatt.errors import ConfigError
from negawatt.routing.asked import asked_of
from negawatt.routing.matching import Matcher
from negawatt.wire.wires import WIRES

PROMPT = "You are the support agent of a shop.\nBe brief."
SIGNATURE = hashlib.sha256(b"You are the support agent of a shop. Be brief.").hexdigest()
REQUEST: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": "Where is my refund?"}],
    "tools": [{"type": "function", "function": {"name": "search_orders"}}],
    "metadata": {"team": "shop-eu"},
    "negawatt": {"template": "support/v2"},
    "response_format": {"type": "json_object"},
}


def described(match: dict[str, Any], request: dict[str, Any] | None = None, protocol: str = "chat") -> bool:
    matcher = Matcher(msgspec.convert(match, Match), "classes.a.match[0]")
    return matcher.matches(asked_of(bare_call(REQUEST if request is None else request, wire=WIRES[protocol])))


FITS: list[dict[str, Any]] = [
    {"protocols": ["messages", "chat"]},
    {"models": "gpt-4o*"},
    {"models": ["claude*", "gpt-4o-mini"]},
    {"system": "You are the support agent * Be brief."},
    {"system": ["*billing*", "*support  agent*"]},
    {"system": "*"},
    {"system": "*support*of a shop*"},
    {"system": "*Be brie[f]*"},
    {"system": f"sha256:{SIGNATURE}"},
    {"system": f"sha256:{SIGNATURE.upper()}"},
    {"says": r"(?i)\bREFUNDS?\b"},
    {"says": "^Where"},
    {"metadata": {"team": "shop-*"}},
    {"template": "support/*"},
    {"tools": True},
    {"tools": ["search_*", "other"]},
    {"schema": True},
    {"images": False},
    {"min_chars": 19, "max_chars": 19},
    {"languages": ["de", "en"]},
    {"models": "gpt*", "says": "refund", "tools": True, "languages": ["en"]},
]
DOES_NOT: list[dict[str, Any]] = [
    {"protocols": ["messages"]},
    {"models": "GPT-4o*"},
    {"system": "support agent"},
    {"system": "*shop"},
    {"system": "shop*"},
    {"system": f"sha256:{'0' * 64}"},
    {"says": "REFUND"},
    {"says": r"^refund"},
    {"metadata": {"team": "shop-us"}},
    {"metadata": {"team": "*", "unit": "*"}},
    {"template": "faq"},
    {"tools": False},
    {"tools": ["orders"]},
    {"schema": False},
    {"images": True},
    {"min_chars": 20},
    {"max_chars": 18},
    {"languages": ["de"]},
    {"models": "gpt*", "says": "invoice"},
]


@pytest.mark.parametrize("match", FITS, ids=str)
def test_a_match_describes_what_it_names(match: dict[str, Any]):
    """Each field by itself, and several together."""
    assert described(match)


@pytest.mark.parametrize("match", DOES_NOT, ids=str)
def test_a_match_describes_nothing_else(match: dict[str, Any]):
    """One field that is not so is enough."""
    assert not described(match)


@pytest.mark.parametrize(
    "match",
    [
        {"system": "*"},
        {"says": ".*"},
        {"metadata": {"team": "*"}},
        {"template": "*"},
        {"tools": ["*"]},
        {"languages": ["en"]},
        {"min_chars": 1},
    ],
    ids=str,
)
def test_what_is_not_there_fits_no_pattern(match: dict[str, Any]):
    """Not even one that fits everything."""
    assert not described(match, {"model": "m", "messages": []})


@pytest.mark.parametrize(
    ("match", "field", "said"),
    [
        ({}, "", "names nothing"),
        ({"says": "("}, ".says", "not a regular expression"),
        ({"says": r"(\w)\1"}, ".says", "backreferences"),
        ({"says": "(?=x)y"}, ".says", "lookaround"),
        ({"says": "x{1,2000}{1,2000}"}, ".says", "too large"),
        ({"system": "sha256:abc"}, ".system", "64 hexadecimal digits"),
        ({"system": ["ok", "sha256:"]}, ".system", "64 hexadecimal digits"),
        ({"languages": ["en", "klingon"]}, ".languages[1]", "known: de, el, en"),
        ({"languages": []}, ".languages", "one at least"),
        ({"models": []}, ".models", "one at least"),
        ({"models": ""}, ".models[0]", "empty"),
        ({"tools": []}, ".tools", "one at least"),
        ({"tools": ["a", ""]}, ".tools[1]", "empty"),
        ({"metadata": {}}, ".metadata", "one at least"),
        ({"protocols": []}, ".protocols", "one at least"),
        ({"min_chars": 9, "max_chars": 8}, ".max_chars", "at least min_chars"),
    ],
    ids=str,
)
def test_a_match_that_can_describe_nothing_is_refused(match: dict[str, Any], field: str, said: str):
    """With the path of the field and what is wrong with it."""
    with pytest.raises(ConfigError) as caught:
        Matcher(msgspec.convert(match, Match), "classes.a.match[0]")
    assert str(caught.value).startswith(f"classes.a.match[0]{field}: ") and said in str(caught.value)


def test_no_expression_can_hold_the_gateway_up():
    """One that takes a backtracking engine longer than the universe is old is searched in the time of any other."""
    for expression in (r"(a+)+$", r"(a|aa)+$", r"^(.*a){20}$"):
        request = {"model": "m", "messages": [{"role": "user", "content": "a" * 20_000 + "b"}]}
        assert described({"says": expression}, request) in (True, False)


def test_the_whole_system_prompt_counts_whatever_its_white_space():
    """Line breaks in prompt and pattern are spaces."""
    assert described({"system": "*shop.\n  Be brief.*"})


def test_images_are_seen():
    """In any protocol."""
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    request = {"model": "m", "messages": [{"role": "user", "content": [image]}]}
    assert described({"images": True}, request) and not described({"images": False}, request)
    item = {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}
    assert described({"images": True}, {"model": "m", "input": [item]}, "responses")
