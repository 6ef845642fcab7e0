"""What the compress lever takes out of real prompts, sent through the gateway.

    python examples/shaping_demo.py --data DIR [--calls 600] [--questions 400] [--seed N] [--json]

*DIR* holds two data sets:

- tau-bench/gpt-4o-airline.json.gz: 200 conversations of an airline's agent with its tools (github.com/sierra-research/
  tau-bench, MIT). Every message of the agent is a call; the prompt is what stood before it.
- xquad-en/xquad.en.json.gz: 1,190 questions with their paragraph (github.com/google-deepmind/xquad, CC BY-SA 4.0), to
  which nine other paragraphs are added, as a search would bring them along.

Each arm sends the same requests through a gateway of its own. What is real: prompts, questions, answers, and everything
that the gateway does. What is not: no model ran. The agent's calls are answered with what it really said next, whatever
was left out of them, questions with filler; tokens are counted here; and when calls came is not in the data (one every
two seconds, conversation after conversation).

*retention* is the share of questions of which an answer still stands in what is sent: necessary for a right answer, and
no measure of answers. *recall* is the share of the agent's calls of tools whose tool was still in the list. *net*
weighs what the provider's prefix cache would have held of the plain requests (a tenth of the price, five minutes)
against what it holds of the shorter ones; it is left out where there is no such cache. Intervals are 95 %, resampled
over tasks and articles.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import platform
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from negawatt.call import Call, Request, Target
from negawatt.caller import Hints
from negawatt.config import parse_config
from negawatt.economics.counting import TokenCounter
from negawatt.errors import InputError, NegawattError
from negawatt.gateway import Gateway
from negawatt.ledger.memory import MemoryLedger
from negawatt.proof.virtual import VirtualClock, VirtualLoop, run
from negawatt.providers.modelled import Modelled
from negawatt.reply import Reply
from negawatt.shape.weighing import Weighing, sending_of
from negawatt.statistics import Bootstrap
from negawatt.wire.chat import CHAT

SEED = 20261127
MODEL = "gpt-4o-mini"
EVERY_S = 2.0
LEAST_HELD = 4 * 1024  # characters of a prompt from which OpenAI keeps its beginning: 1,024 tokens
LOOPS = Path("tau-bench") / "gpt-4o-airline.json.gz"
QUESTIONS = Path("xquad-en") / "xquad.en.json.gz"
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "loops": {
        "lossless": {},
        "lossless + history": {"history_turns": 3},
        "history, no prefix cache": {"history_turns": 3, "held": False},
        "tools, target 95 %": {"tools_recall": 0.95},
        "tools 95 %, no prefix cache": {"tools_recall": 0.95, "held": False},
    },
    "contexts": {
        "lossless": {},
        "context, target 98 %": {"context": True, "retention": 0.98},
        "context, target 90 %": {"context": True, "retention": 0.9},
    },
}


@dataclass(frozen=True)
class Asked:
    """A request, the *group* that it is resampled with, and what has to survive: one of *answers*, or all of *called*.

    *said*: what the agent really said next.
    """

    request: dict[str, Any]
    group: str
    answers: Sequence[str] = ()
    said: dict[str, Any] | None = None

    @property
    def called(self) -> frozenset[str]:
        return frozenset(call["function"]["name"] for call in (self.said or {}).get("tool_calls") or ())

    def survives(self, sent: bytes) -> bool:
        if self.called:
            return self.called <= {tool["function"]["name"] for tool in orjson.loads(sent)["tools"]}
        text = sent.decode()
        return any(json.dumps(answer, ensure_ascii=False)[1:-1] in text for answer in self.answers)


@dataclass
class Seen:
    """What one arm sent, call by call, and why it was not shorter."""

    bodies: list[bytes] = field(default_factory=list)
    why: dict[str, int] = field(default_factory=dict)

    def tokens(self) -> np.ndarray:
        """Return the input tokens of each call, all of them tokenised."""
        counter = TokenCounter(budget=None)
        return np.array([counter.count(MODEL, CHAT.prompt(Request(body))).tokens for body in self.bodies], float)


def read_json(path: Path) -> Any:
    """Return what is in *path*. Raises `InputError` when it is absent or another file."""
    try:
        return json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def loops(folder: Path, most: int, rng: random.Random) -> list[Asked]:
    """Return the calls of whole conversations, drawn in seeded order, until there are *most*."""
    conversations = read_json(folder / LOOPS)
    tools = tools_of(conversations)
    rng.shuffle(conversations)
    found: list[Asked] = []
    for one in conversations:
        for i, message in enumerate(one["traj"]):
            if message["role"] == "assistant" and len(found) < most:
                messages = [dict(each) for each in one["traj"][:i]]
                request = {"model": MODEL, "messages": messages, "tools": tools, "temperature": 0, "max_tokens": 64}
                found.append(Asked(request, str(one["task_id"]), said=message))
    return found


def tools_of(conversations: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the tools that were called, with the arguments that they were given; descriptions are not in the data."""
    given: dict[str, set[str]] = {}
    for one in conversations:
        for message in one["traj"]:
            for call in message.get("tool_calls") or ():
                function = call["function"]
                given.setdefault(function["name"], set()).update(json.loads(function["arguments"]))
    return [
        {"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": {one: {"type": "string"} for one in sorted(given[name])}}}}
        for name in sorted(given)
    ]  # fmt: skip


def contexts(folder: Path, most: int, rng: random.Random) -> list[Asked]:
    """Return *most* questions, drawn, each with its paragraph among nine others, four of them of the same article."""
    articles = read_json(folder / QUESTIONS)["data"]
    paragraphs = [[one["context"] for one in article["paragraphs"]] for article in articles]
    found: list[Asked] = []
    for a, article in enumerate(articles):
        elsewhere = [text for i, texts in enumerate(paragraphs) if i != a for text in texts]
        for p, paragraph in enumerate(article["paragraphs"]):
            same = [text for i, text in enumerate(paragraphs[a]) if i != p]
            for asked in paragraph["qas"]:
                brought = [paragraph["context"], *rng.sample(same, min(4, len(same)))]
                brought += rng.sample(elsewhere, 10 - len(brought))
                rng.shuffle(brought)
                told = "\n".join(f"<document>\n{text}\n</document>" for text in brought)
                messages = [
                    {"role": "system", "content": "Answer from the documents, in a few words."},
                    {"role": "user", "content": f"{told}\n\n{asked['question']}"},
                ]
                request = {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 16}
                found.append(Asked(request, str(a), [one["text"] for one in asked["answers"]]))
    return rng.sample(found, min(most, len(found)))


class Noting(Modelled):
    """The modelled provider, which notes what it was sent, and says what was really said where that is known."""

    def __init__(self, seen: Seen) -> None:
        super().__init__("modelled", a_s=0.1, b_s=0.0)
        self._seen = seen
        self.said: dict[str, Any] | None = None

    async def ask(self, call: Call, target: Target) -> Reply:
        self._seen.bodies.append(call.request.body)
        reply = await super().ask(call, target)
        if self.said is None:
            return reply
        choice = {
            "index": 0,
            "message": self.said,
            "finish_reason": "tool_calls" if "tool_calls" in self.said else "stop",
        }
        return Reply(CHAT, body=orjson.dumps({**reply.data, "choices": [choice]}))


async def arm(asked: Sequence[Asked], settings: dict[str, Any] | None, loop: VirtualLoop) -> Seen:
    """Send *asked* through a gateway with the lever as *settings* say, None: off."""
    seen, ledger = Seen(), MemoryLedger()
    settings = None if settings is None else dict(settings)
    # Whose prices nobody knows is not known either to charge less for a beginning that it holds.
    row = {"name": "openai"} if settings is None or settings.pop("held", True) else {"name": "openai", "priced_as": "-"}
    lever = {"mode": "off"} if settings is None else {"mode": "on", "least_tokens": 200, **settings}
    off = {name: {"mode": "off"} for name in ("exact_cache", "coalesce", "item_cache")}
    config = parse_config({
        "providers": [row], "holdout": {"share": 0.0}, "levers": {"compress": lever, **off}
    })  # fmt: skip
    clock = VirtualClock(loop, epoch=1_780_000_000)
    provider = Noting(seen)
    async with Gateway.open(
        config, clock=clock, ledger=ledger, providers={"openai": provider}, rng=random.Random(SEED), environ={}
    ) as gateway:
        for one in asked:
            provider.said = one.said
            call = gateway.new_call(orjson.dumps(one.request), Hints())
            reply = await gateway.handle(call)
            await reply.whole()
            await reply.close()
            await asyncio.sleep(EVERY_S)
    for row in ledger.outcomes:
        decision = next((d for d in orjson.loads(row.decisions) if d["lever"] == "compress"), None)
        why = "off" if decision is None else decision.get("reason") or decision["action"]
        seen.why[why] = seen.why.get(why, 0) + 1
    return seen


def net(bodies: Sequence[bytes], asked: Sequence[Asked]) -> np.ndarray:
    """Return what each prompt costs in characters at the price of input, where beginnings are held for five minutes."""
    weighing = Weighing()
    costs = []
    for place, (body, one) in enumerate(zip(bodies, asked, strict=True)):
        sending = sending_of("chat", orjson.loads(body))
        group = f"{one.group} {orjson.dumps(one.request['messages'][:2]).hex()}".encode()
        now = place * EVERY_S
        costs.append(weighing.cost(group, sending, now, LEAST_HELD))
        weighing.sent(group, sending, now)
    return np.array(costs, float)


def report(name: str, asked: Sequence[Asked], seed: int) -> dict[str, Any]:
    """Print and return what each arm saves of *asked*."""
    groups = [one.group for one in asked]
    plain = _run(asked, None)
    before = plain.tokens()
    print(f"\n{name}: {len(asked)} calls, {len(set(groups))} groups, {int(before.sum()):,} input tokens (counted here)")
    found: dict[str, Any] = {}
    for label, settings in ARMS[name].items():
        seen = _run(asked, settings)
        boot = Bootstrap(groups, np.random.default_rng(seed))
        saved = boot.ratio(before - seen.tokens(), before)
        held = net(plain.bodies, asked)
        worth = boot.ratio(held - net(seen.bodies, asked), held)
        row: dict[str, Any] = {"tokens_saved": _cell(saved), "net_saved": _cell(worth), "decisions": seen.why}
        line = f"  {label:28} tokens {_text(saved)}"
        if settings.get("held", True):
            line += f", net of the provider's cache {_text(worth)}"
        wanted = [i for i, one in enumerate(asked) if one.answers or one.called]
        alive = np.array([asked[i].survives(seen.bodies[i]) for i in wanted], float)
        kept = Bootstrap([groups[i] for i in wanted], np.random.default_rng(seed)).proportion(alive)
        what = "retention" if any(one.answers for one in asked) else "recall"
        row[what] = _cell(kept)
        line += f", {what} {_text(kept)}"
        print(line)
        for why, count in sorted(seen.why.items(), key=lambda item: -item[1])[:3]:
            print(f"      {count:5} x {why[:100]}")
        found[label] = row
    return found


def _run(asked: Sequence[Asked], settings: dict[str, Any] | None) -> Seen:
    loop = VirtualLoop()
    return run(arm(asked, settings, loop), loop)


def _cell(figure: Any) -> list[float | None]:
    return [figure.mean, figure.low, figure.high]


def _text(figure: Any) -> str:
    if figure.mean is None:
        return "unknown"
    return f"{figure.mean:.1%} ({figure.low:.1%} to {figure.high:.1%})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with tau-bench/ and xquad-en/")
    parser.add_argument("--calls", type=int, default=600, help="of agents' loops")
    parser.add_argument("--questions", type=int, default=400, help="with ten paragraphs each")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.parse_args()
    worlds: tuple[tuple[str, Callable[[Path, int, random.Random], list[Asked]], int], ...] = (
        ("loops", loops, options.calls), ("contexts", contexts, options.questions)
    )  # fmt: skip
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"modelled provider: no model ran. {date.today().isoformat()}, seed {options.seed}, {machine}")
    try:
        found = {
            name: report(name, read(options.data, most, random.Random(options.seed)), options.seed)
            for name, read, most in worlds
        }
    except NegawattError as error:
        print(f"shaping_demo: {error.message}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
