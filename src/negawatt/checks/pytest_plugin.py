"""The pytest plugin: `assert_tokens`, `assert_cost` and `assert_schema` as fixtures.

pytest loads it in every project in whose environment we are: nothing of ours is imported until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest


@pytest.fixture(scope="session")
def assert_tokens() -> Callable[..., int]:
    """``assert_tokens(text_or_messages, most, model="gpt-4o", tools=())``: at most so many tokens. Returns how many."""
    from negawatt.checks import asserting

    return asserting.assert_tokens


@pytest.fixture(scope="session")
def assert_cost() -> Callable[..., Decimal]:
    """``assert_cost(text_or_messages, most_usd, model=..., output_tokens=0)``: a call costs at most so much."""
    from negawatt.checks import asserting

    return asserting.assert_cost


@pytest.fixture(scope="session")
def assert_schema() -> Callable[[str, Any], Any]:
    """``assert_schema(text, schema)``: the text is JSON that keeps the schema. Returns the JSON."""
    from negawatt.checks import asserting

    return asserting.assert_schema
