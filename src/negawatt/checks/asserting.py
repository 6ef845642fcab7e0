"""Assertions about prompts and answers, for tests: how many tokens, how much money, which schema.

The pytest plugin gives them as fixtures; they are functions, and work anywhere. Each returns what it measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from negawatt.economics.counting import Count, TokenCounter

Said = str | Sequence[Mapping[str, Any]]  # a text, or messages of Chat Completions


def assert_tokens(said: Said, most: int, *, model: str = "gpt-4o", tools: Sequence[Any] = ()) -> int:
    """Fail where *said* (a text; or messages, with the frame around them, and *tools*) has more than *most* tokens.

    Return how many it has. Nothing is sent: OpenAI's models are counted exactly, others are estimated, which the
    failure says.
    """
    __tracebackhide__ = True
    count = _count(said, model, tools)
    if count.tokens > most:
        raise AssertionError(
            f"{count.tokens:,} tokens to {model} ({count.basis}), "
            f"{count.tokens - most:,} more than the {most:,} allowed"
        )
    return count.tokens


def assert_cost(
    said: Said,
    most_usd: Decimal | float | str,
    *,
    model: str,
    output_tokens: int = 0,
    provider: str | None = None,
    tools: Sequence[Any] = (),
) -> Decimal:
    """Fail where one call with *said* and *output_tokens* of answer costs more than *most_usd* at today's list prices.

    Return what it costs. A model without a price fails too: what is not known is not cheap. *provider*: as the price
    tables call it; None: found by the model's name.
    """
    __tracebackhide__ = True
    from datetime import UTC, datetime

    from negawatt.economics.prices import Prices
    from negawatt.economics.rates import charge
    from negawatt.economics.usage import Usage

    count = _count(said, model, tools)
    usage = Usage(input_tokens=count.tokens, output_tokens=output_tokens, basis="estimated")
    money = charge(usage, Prices().rate(provider, model, datetime.now(UTC)))
    if money is None:
        raise AssertionError(f"no price is known for {model!r}{f' at {provider}' if provider else ''}")
    if money.usd > Decimal(str(most_usd)):
        raise AssertionError(
            f"${money.usd:f} for {count.tokens:,} tokens in ({count.basis}) and {output_tokens:,} out to {model}, "
            f"more than the ${most_usd} allowed"
        )
    return money.usd


def assert_schema(text: str, schema: Any) -> Any:
    """Fail where *text* is not JSON, or breaks the JSON Schema *schema*. Return the JSON. Nothing is repaired.

    Raises `InputError` where *schema* is none: then it is the test that is wrong.
    """
    __tracebackhide__ = True
    import orjson

    from negawatt.errors import InputError
    from negawatt.schemas import broken, no_schema

    if no_schema(schema) is not None:
        raise InputError("the schema is not a valid JSON Schema")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise AssertionError(f"not valid JSON: {error}: {text[:200]!r}") from None
    problem = broken(schema, value)
    if problem is not None:
        raise AssertionError(problem)
    return value


def _count(said: Said, model: str, tools: Sequence[Any]) -> Count:
    from negawatt.protocol import Prompt

    counter = _counter()
    if isinstance(said, str):
        return counter.count(model, Prompt(texts=(said,), tools=tools)) if tools else counter.count_text(model, said)
    return counter.count(model, Prompt(messages=said, tools=tools))


def _counter() -> TokenCounter:
    from negawatt.economics.counting import TokenCounter

    return TokenCounter(budget=None)  # its tokenizers are read once for a process
