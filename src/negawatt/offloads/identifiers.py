"""Standard identifiers in a text: e-mail addresses, URLs, telephone numbers, IBANs, ISBNs, cards, UUIDs, addresses.

`extract` returns all of a kind in one form, or None where it cannot be certain to have them all and nothing else: a
number that looks like one and fails its check sum, a telephone number of no known country.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from negawatt.offloads.asking import told
from negawatt.offloads.dates import read_date
from negawatt.offloads.handler import Answered, Declined, OffloadAsk
from negawatt.offloads.language import language_of
from negawatt.offloads.money import read_price

_EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![\w@-])", re.ASCII)
_URL = re.compile(r"\bhttps?://[^\s<>\"'“”]+", re.IGNORECASE)
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,4})?\b")
_ISBN = re.compile(r"(?<![\d-])(?:97[89][- ]?)?\d(?:[- ]?\d){8}[- ]?[\dXx](?![\d-])")
_CARD = re.compile(r"(?<![\d-])\d(?:[- ]?\d){12,18}(?![\d-])")
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]\d|\w)")
_DIGITS = re.compile(r"\+?\d(?:[\d ()/.-]{5,20})\d")
_ISO_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_DATE_LIKE = re.compile(
    r"\b\d{1,4}[/.-]\d{1,2}[/.-]\d{1,4}\b|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.,-])-?\d+(?:\.\d+)?(?![\w%]|[.,/:-]\d)")
_ANY_DIGITS = re.compile(r"\d+")
_SIGN = r"(?:[A-Z]{1,2}\$|[A-Z]{3}(?![A-Za-z])|[€£₹₩₺₴₪₫]|zł|Kč)"
_MONEY = re.compile(rf"(?:{_SIGN}\s?\d[\d.,]*\d|{_SIGN}\s?\d|\d[\d.,]*\s?{_SIGN})")
_DOUBTFUL = re.compile(r"(?<![A-Z])\$|[¥₤]|\bkr\b|\b(?:dollars?|pounds?|crowns?|yen|francs?)\b", re.IGNORECASE)


def extract(kind: str, text: str, region: str | None = None) -> list[Any] | None:
    """Return the values of *kind* in *text*, each once, in order; None where that is not certain.

    *kind*: one of `KINDS`. Raises `KeyError` for another.
    """
    found = KINDS[kind](text, region)
    return None if found is None else list(dict.fromkeys(found))


def _emails(text: str, _: str | None) -> list[Any] | None:
    found = _EMAIL.findall(text)
    return found if text.count("@") == len(found) and not any(".." in one for one in found) else None


def _urls(text: str, _: str | None) -> list[Any] | None:
    if re.search(r"(?<![/\w.])www\.", text, re.IGNORECASE):
        return None  # an address without its scheme: as it stands, or mended?
    found = []
    for url in _URL.findall(text):
        url = url.rstrip(".,;:!?")
        while url.endswith((")", "]")) and url.count("(") + url.count("[") < url.count(")") + url.count("]"):
            url = url[:-1].rstrip(".,;:!?")
        found.append(url)
    return found


def _phones(text: str, region: str | None) -> list[Any] | None:
    import phonenumbers

    matches = list(phonenumbers.PhoneNumberMatcher(text, region))
    taken = [(match.start, match.end) for match in matches]
    for other in _DIGITS.finditer(text):
        digits = sum(char.isdigit() for char in other[0])
        if digits >= 7 and not any(start < other.end() and other.start() < end for start, end in taken):
            return None
    form = phonenumbers.PhoneNumberFormat.E164
    return [phonenumbers.format_number(match.number, form) for match in matches]


def _checked(pattern: re.Pattern[str], module: str) -> Callable[[str, str | None], list[Any] | None]:
    """Return what finds *pattern* and is certain only where the module of python-stdnum accepts each find."""

    def find(text: str, _: str | None) -> list[Any] | None:
        from importlib import import_module

        standard = import_module(f"stdnum.{module}")
        found = pattern.findall(text)
        return [standard.compact(one) for one in found] if all(map(standard.is_valid, found)) else None

    return find


def _ipv4(text: str, _: str | None) -> list[Any] | None:
    found = _IPV4.findall(text)
    return found if all(int(part) < 256 for one in found for part in one.split(".")) else None


def _dates(text: str, _: str | None) -> list[Any] | None:
    found = _ISO_DATE.findall(text)
    if len(found) != len(_DATE_LIKE.findall(text)) or any(read_date(one) is None for one in found):
        whole = read_date(text)
        return None if whole is None else [whole.isoformat()]
    return found


def _numbers(text: str, _: str | None) -> list[Any] | None:
    found = _NUMBER.findall(text)
    if len(_ANY_DIGITS.findall(text)) != sum(1 + ("." in one) for one in found):
        return None  # there are digits that belong to something else
    return [float(one) if "." in one else int(one) for one in found]


def _currencies(text: str, _: str | None) -> list[Any] | None:
    if _DOUBTFUL.search(text):
        return None
    prices = [read_price(one) for one in _MONEY.findall(text)]
    return (
        None if any(one is None or one.currency is None for one in prices) else [one.currency for one in prices if one]
    )


def _languages(text: str, _: str | None) -> list[Any] | None:
    found = language_of(text)
    return None if found is None else [found]


KINDS: dict[str, Callable[[str, str | None], list[Any] | None]] = {
    "email": _emails,
    "url": _urls,
    "phone": _phones,
    "iban": _checked(_IBAN, "iban"),
    "isbn": _checked(_ISBN, "isbn"),
    "card": _checked(_CARD, "luhn"),
    "uuid": lambda text, _: [one.lower() for one in _UUID.findall(text)],
    "ipv4": _ipv4,
    "date": _dates,
    "number": _numbers,
    "currency": _currencies,
    "language": _languages,
}
_CALLED = {
    "email": r"e-?mails?(?:\s+address(?:es)?)?", "url": r"(?:urls?|links?|web\s?addresses)",
    "phone": r"(?:tele)?phone\s+numbers?", "iban": r"ibans?(?:\s+numbers?)?", "isbn": r"isbns?(?:\s+numbers?)?",
    "uuid": r"uuids?", "ipv4": r"ip(?:v4)?\s+addresses",
}  # fmt: skip
_WISH = re.compile(
    r"(?:extract|find|list|get|pull out|give me|return)\s+(?:all\s+(?:of\s+)?|every\s+|each\s+)?(?:the\s+)?(?:"
    + "|".join(f"(?P<{kind}>{words})" for kind, words in _CALLED.items())
    + r")\s+(?:from|in|out of|contained in|mentioned in|that appear in)\s+(?:the\s+|this\s+)?(?:following\s+)?"
    r"(?:text|message|e-?mail|paragraph|string|document|note|sentence)?\s*(?:below)?"
    r"(?P<json>\s*,?\s*(?:and return (?:them|it)\s+)?as\s+(?:a\s+)?json(?:\s+(?:array|list))?)?",
    re.IGNORECASE,
)


class Extraction:
    """Answers a request for all identifiers of one kind in a text: one a line, or as a JSON list where it says so."""

    name = "extraction"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        wanted = told(ask.text)
        match = None if wanted is None else _WISH.fullmatch(wanted.wish)
        if wanted is None or match is None:
            return Declined("it asks for no identifiers of a text")
        kind = next(name for name in _CALLED if match[name])
        found = extract(kind, wanted.body, ask.region)
        if not found:
            return Declined(f"there is none of kind {kind} in it that code is certain of")
        text = orjson.dumps(found).decode() if match["json"] else "\n".join(map(str, found))
        return Answered(text, found)
