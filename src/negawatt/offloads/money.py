"""Prices and numbers in one form: "Normalize the price '1.234,56 €' as JSON", "What currency is €20 in?".

What can be read in two ways is declined: "1,234" (a thousand, or one and a bit), "$" (whose dollar?), "¥".
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from negawatt.offloads.asking import plain
from negawatt.offloads.handler import Answered, Declined, OffloadAsk

_AMOUNT = r"[-−]?\d[\d.,'’ \u00a0\u202f]{0,24}"
_PRICE = re.compile(rf"(?P<before>[^\d\s.,-]{{0,4}})\s?(?P<amount>{_AMOUNT}(?<=[\d]))\s?(?P<behind>[^\d\s.,]{{0,5}})")
_WISH = re.compile(
    r"(?:normali[sz]e|parse|convert|standardi[sz]e)\s+(?:the\s+|this\s+)?(?P<what>price|amount|number)\s*:?\s*"
    r"['\"“]?(?P<text>[^'\"“”]{1,40}?)['\"”]?\s+(?:in)?(?:to|as)\s+"
    r"(?:an?\s+)?(?P<form>json|plain number|decimal|decimal number|plain decimal)(?:\s+number)?",
    re.IGNORECASE,
)
_CURRENCY = re.compile(r"(?:what|which)\s+currency\s+(?:is|are)\s+(?P<text>.{1,30}?)(?:\s+in)?", re.IGNORECASE)


class Price(NamedTuple):
    """*currency*: ISO 4217; None: a number alone."""

    amount: Decimal
    currency: str | None


def read_price(text: str) -> Price | None:
    """Return the amount that *text* is, None where it is none or can be read in two ways."""
    match = _PRICE.fullmatch(text.strip())
    if match is None or (match["before"] and match["behind"]):
        return None
    sign = match["before"] or match["behind"]
    currency = _currencies().get(sign)
    amount = _amount(match["amount"])
    return None if amount is None or (sign and currency is None) else Price(amount, currency)


def _amount(text: str) -> Decimal | None:
    """Return the number, with price-parser as the second reader: where the two differ there are two ways to read it."""
    digits = re.sub(r"[\s'’]", "", text.replace("−", "-"))
    marks = re.findall(r"[.,]", digits)
    last = max(digits.rfind("."), digits.rfind(","))
    if last < 0:
        whole = digits
    elif len(set(marks)) == 2 and marks.count(digits[last]) == 1:
        whole = re.sub(r"[.,]", "", digits[:last]) + "." + digits[last + 1 :]
        if not re.fullmatch(r"-?\d{1,3}(?:([.,])\d{3})(?:\1\d{3})*", digits[:last]):
            return None
    elif len(marks) == 1 and len(digits) - last - 1 != 3:
        whole = digits.replace(",", ".")
    elif len(marks) > 1 and len(set(marks)) == 1 and re.fullmatch(r"-?\d{1,3}(?:[.,]\d{3})+", digits):
        whole = re.sub(r"[.,]", "", digits)
    else:
        return None
    if re.match(r"-?0\d", whole) or (re.search(r"\s", text) and not re.match(r"[-−]?\d{1,3}(?:\s\d{3})+(?!\d)", text)):
        return None
    from price_parser import Price as Second

    second = Second.fromstring(text.replace("−", "-").lstrip("-")).amount
    found = Decimal(whole)
    return found if second is not None and second == abs(found) else None


@cache
def _currencies() -> dict[str, str]:
    """Return codes of currencies by what stands for them beside an amount."""
    table = tomllib.loads((files("negawatt.offloads") / "currencies.toml").read_text(encoding="utf-8"))
    signs: dict[str, str] = table["signs"]
    return {code: code for code in table["codes"].split()} | signs


class Money:
    """Answers what one amount is in one form."""

    name = "money"

    async def __call__(self, ask: OffloadAsk) -> Answered | Declined:
        text = plain(ask.text)
        wish, currency = _WISH.fullmatch(text), _CURRENCY.fullmatch(text)
        match = wish or currency
        if match is None:
            return Declined("it asks for no form of an amount")
        price = read_price(match["text"])
        if price is None:
            return Declined("the amount in it can be read in two ways, or in none")
        if wish is None:
            return Answered(price.currency) if price.currency else Declined("it names no currency")
        if wish["form"].lower() == "json":
            if price.currency is None:
                return Declined("what its currency is cannot be told")
            return Answered(f'{{"amount": "{price.amount}", "currency": "{price.currency}"}}', price)
        return Answered(f"{price.amount:f}", price.amount)
