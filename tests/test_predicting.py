"""Predicted outputs are sent where they are known to be taken, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import chat, configured

from negawatt.call import Request, Target
from negawatt.catalogue import predicts
from negawatt.routing.predicting import predicted


def test_the_small_answer_is_the_prediction():
    """In Chat Completions, as the guide says."""
    found = predicted("chat", Request(data=chat("How many?")), "forty")
    assert found is not None
    assert found.get("prediction") == {"type": "content", "content": "forty"}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function"}]},
        {"n": 2},
        {"logprobs": True},
        {"max_completion_tokens": 5},
        {"presence_penalty": 0.5},
        {"frequency_penalty": 0.5},
        {"modalities": ["text", "audio"]},
        {"prediction": {"type": "content", "content": "mine"}},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_does_not_go_together_with_it_is_left_alone(more: dict[str, Any]):
    """Each would be refused; the caller's own prediction stays."""
    assert predicted("chat", Request(data=chat("How many?", **more)), "forty") is None


@pytest.mark.parametrize(
    ("protocol", "text"), [("responses", "x"), ("messages", "x"), ("chat", " "), ("chat", "x" * 70_000)]
)
def test_there_is_nothing_to_predict_with(protocol: str, text: str):
    """Other protocols have no word for it; an empty guess says nothing, an endless one costs too much."""
    assert predicted(protocol, Request(data=chat("How many?")), text) is None


@pytest.mark.parametrize(
    ("provider", "model", "takes"),
    [
        ("openai", "gpt-4o", True),
        ("openai", "gpt-4o-2024-08-06", True),
        ("openai", "gpt-4.1-nano-2025-04-14", True),
        ("openai", "gpt-4o-audio-preview", False),
        ("openai", "gpt-5", False),
        ("own", "gpt-4o", False),
        ("nobody", "gpt-4o", False),
    ],
)
def test_which_models_take_one_is_data(provider: str, model: str, takes: bool):
    """The table of providers says it; what it does not know is not tried."""
    own = {"name": "own", "base_url": "http://127.0.0.1:9/v1"}
    config = configured(providers=[{"name": "openai"}, own])
    assert predicts(config)(Target(provider, model, model)) is takes
