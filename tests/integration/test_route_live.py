"""Routing through the real SDKs: classes that are found, policies by name, what it saves, and bad configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from playing import PRICES, Player, in_chat
from world import Gateway, Json

SMALL, LARGE = "chat-small", "chat-large"
# 60 fresh, 40 read, 20 made (`playing.CHAT_USAGE`); the large one, ten times as dear, would have read all anew.
SMALL_PUSD = (60 * PRICES["input"] + 40 * PRICES["cache_read"] + 20 * PRICES["output"]) * 10**6
LARGE_PUSD = 10 * (100 * PRICES["input"] + 20 * PRICES["output"]) * 10**6
EXAMPLES = """\
[examples]
refund = ["I want my money back", "please refund my order", "how do I get a refund", "return this and pay me back",
  "refund the broken item", "give me my money back now", "can I be refunded", "the refund has not arrived"]
password = ["I forgot my password", "reset my password please", "my login does not work", "cannot sign in at all",
  "how do I change the password", "the password is refused", "sign in fails", "unlock my account"]
"""


def says(text: str, model: str) -> Json:
    """Return an answer in Chat Completions, whole and streamed."""
    told = in_chat({"content": text}, [{"content": text[:1]}, {"content": text[1:]}])
    told["body"]["model"] = model
    return told


class Routing(Gateway):
    """A gateway with a policy for each way of choosing that needs no training, and classes that are found."""

    def __init__(self, folder: Path, player: Player) -> None:
        prices = [
            {**{f"{name}_usd_per_mtok": usd * times for name, usd in PRICES.items()}, "models": model}
            for model, times in ((SMALL, 1), (LARGE, 10))
        ]
        text = "".join(
            "[[price]]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in one.items())
            + '\nsource = "made up"\nchecked = 2026-11-24\n' for one in prices
        )  # fmt: skip
        (folder / "prices.toml").write_text(text, encoding="utf-8")
        (folder / "intents.toml").write_text(EXAMPLES, encoding="utf-8")
        two = [{"model": SMALL}, {"model": LARGE}]
        super().__init__(folder, {
            "holdout": {"share": 0.0},
            "economics": {"prices": str(folder / "prices.toml")},
            "recall": {"embedder": "hashing:"},
            "levers": {"retry": {"attempts": 1}, "coalesce": {"mode": "off"},
                       "classify": {"intents": str(folder / "intents.toml"), "confidence": 0.3}},
            "providers": [{"name": "chat", "kind": "openai-compatible", "base_url": player.base_url,
                           "models": ["chat-*"], "protocols": ["chat"]}],
            "classes": {"legal": {"policy": "careful", "match": [{"says": "(?i)contract"}]},
                        "refund": {"policy": "careful"}, "password": {"policy": "auto"}},
            "policies": {
                "auto": {"model": SMALL, "candidates": two, "replaces": ["chat-large"], "least_tier": {"high": 2}},
                "careful": {"model": LARGE, "candidates": two},
            },
        })  # fmt: skip
        self.folder = folder
        player.play(SMALL, **says("from the small one", SMALL))
        player.play(LARGE, **says("from the large one", LARGE))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routing]:
    folder = tmp_path_factory.mktemp("routing")
    player = Player(folder)
    try:
        one = Routing(folder, player)
        try:
            yield one
        finally:
            one.stop()
    finally:
        player.stop()


@pytest.fixture
def sdk(gateway: Routing) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="any", max_retries=0, timeout=15) as client:
        yield client


def ask(sdk: openai.OpenAI, text: str, model: str = "auto", **headers: str) -> Any:
    """Ask through the SDK and return the response with its headers."""
    messages: Any = [{"role": "user", "content": text}]
    return sdk.chat.completions.with_raw_response.create(model=model, messages=messages, extra_headers=headers)


def test_auto_is_listed_and_answers(gateway: Routing, sdk: openai.OpenAI) -> None:
    """It is a model like any other to an SDK; the header says who answered, the row what it saved."""
    assert {"auto", "careful"} <= {model.id for model in sdk.models.list()}
    got = ask(sdk, "hello there", **{"x-negawatt-task": "listed"})
    assert got.parse().choices[0].message.content == "from the small one"
    assert got.headers["x-negawatt-model"] == SMALL
    row = gateway.one_row("listed")
    assert row["request_model"] == "auto"
    assert (row["cost_pusd"], row["baseline_cost_pusd"]) == (SMALL_PUSD, LARGE_PUSD)


def test_a_stream_says_in_its_last_chunk_what_routing_saved(gateway: Routing, sdk: openai.OpenAI) -> None:
    """With the decision and its reason."""
    chunks = list(sdk.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "hello stream"}], stream=True,
        stream_options={"include_usage": True},
    ))  # fmt: skip
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "from the small one"
    note: Any = chunks[-1].model_extra["negawatt"]  # type: ignore[index]
    assert note["model"] == SMALL
    assert note["saved_usd"] == pytest.approx((LARGE_PUSD - SMALL_PUSD) / 10**12)
    assert [one["action"] for one in note["decisions"] if one["lever"] == "route"] == ["chose", "instead"]


def test_a_class_is_found_and_chooses_the_policy(sdk: openai.OpenAI) -> None:
    """By a rule, and by what was learned from examples; unrelated requests are of none."""
    for text, name, model in (
        ("is this contract valid?", "legal", LARGE), ("please refund my broken order", "refund", LARGE),
        ("I forgot my password, reset it please", "password", SMALL), ("zebras and submarines", "default", SMALL),
    ):  # fmt: skip
        got = ask(sdk, text)
        assert (got.headers["x-negawatt-class"], got.headers["x-negawatt-model"]) == (name, model), text


def test_callers_ask_for_more_and_never_for_less(sdk: openai.OpenAI) -> None:
    """A risk that is higher, a quality that nobody was shown to reach; and a policy takes over a model's calls."""
    assert ask(sdk, "one", LARGE).headers["x-negawatt-model"] == SMALL
    assert ask(sdk, "two", **{"x-negawatt-risk": "high"}).headers["x-negawatt-model"] == LARGE
    assert ask(sdk, "three", **{"x-negawatt-quality": "0.99"}).headers["x-negawatt-model"] == LARGE
    assert ask(sdk, "four", **{"x-negawatt-mode": "off"}).headers["x-negawatt-model"] == LARGE
    with pytest.raises(openai.BadRequestError, match="x-negawatt-quality: expected a share"):
        ask(sdk, "five", **{"x-negawatt-quality": "best"})


def test_the_other_sdk_comes_under_the_same_policies(gateway: Routing) -> None:
    """Anthropic's, whose requests are translated for the model that was chosen."""
    with anthropic.Anthropic(base_url=gateway.base_url.removesuffix("/v1"), api_key="any", max_retries=0) as client:
        said = client.messages.create(model="auto", max_tokens=50, messages=[{"role": "user", "content": "a contract"}])
        assert said.content[0].text == "from the large one"  # type: ignore[union-attr]


def test_the_report_counts_what_routing_saved(gateway: Routing, sdk: openai.OpenAI) -> None:
    """As a lever of its own."""
    ask(sdk, "for the report", **{"x-negawatt-task": "reported"})
    gateway.one_row("reported")
    command = [sys.executable, "-m", "negawatt", "report", "--ledger", str(gateway.folder / "ledger.sqlite"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    assert "route" in json.dumps(told["levers"])


BROKEN = [
    ('[policies.auto]\ncandidates = [{ model = "a" }]\nhow = "learned"\n', "policies.auto.router"),
    ('[policies.auto]\nmodel = "b"\ncandidates = [{ model = "a" }]\n', "policies.auto.model"),
    ('[policies.auto]\nmodel = "x"\ncandidates = [{ model = "x" }]\n', "no provider here serves 'x'"),
    ('[policies.auto]\nhow = "cascade"\ncandidates = [{ model = "a" }, { model = "b" }]\n'
     'cascade = { verify = [{ kind = "exact" }] }\n', "exact is for `negawatt eval` alone"),
    ('[classes.a]\npolicy = "auto"\n', "classes.a.policy"),
    ('[classes.a]\nmatch = [{ says = "(" }]\n', "classes.a.match[0].says"),
    ('[levers.classify]\nintents = "one.toml"\n[classes.a]\n', "all examples are of 'a'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_what_cannot_route_is_refused_before_it_serves(tmp_path: Path, text: str, said: str) -> None:
    """`serve --check` says what `serve` would: the field, the name, the remedy; exit code 2."""
    (tmp_path / "one.toml").write_text('[examples]\na = ["one text", "another text"]\n', encoding="utf-8")
    provider = '[[providers]]\nname = "p"\nkind = "ollama"\nmodels = ["a", "b"]\n'
    (tmp_path / "negawatt.toml").write_text(text + provider, encoding="utf-8")
    command = [sys.executable, "-m", "negawatt", "serve", "--check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr
