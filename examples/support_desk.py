"""Write the sample workload: a morning at the support desk of an invented product, for `make demo`.

    python examples/support_desk.py [--out DIR] [--seed N] [--requests N]

writes support.trace.jsonl (who asked what, and when) and support.recording.jsonl (the answers). Everything in them is
made up by this script from the facts in support_desk.toml; the same seed gives the same bytes. No model was asked:

- answers are written by templates from the facts in the prompt; those whose facts decide what is right are marked
  correct, summaries and drafts have no verdict;
- tokens are estimated: one for every 4 characters, rounded up, and 4 for each message;
- timings are modelled: 0.35 s to the first chunk, and 0.012 s for each output token.

What it is like: three tenants ask the same desk, popular questions more often (Zipf's law), some of them at the same
moment because something has just happened. A question asked twice in a tenant is the same request, byte for byte.
Order questions are personal, drafts are sampled (temperature 0.7), the knowledge base changes once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tomllib
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

FACTS = Path(__file__).with_suffix(".toml")
SAMPLES = Path(__file__).parent.parent / "src" / "negawatt" / "proof" / "samples"
SEED = 20261123
REQUESTS = 400
ZIPF = 0.8
MORNING_S = 7200.0
NEW_KNOWLEDGE_S = 5400.0  # when the knowledge base gets its new version
BUSY = (5, 7, 9, 12, 10, 8, 6, 5)  # how busy each eighth of the morning is
FIRST_CHUNK_S, TOKEN_S = 0.35, 0.012
CREATED = 1_795_424_400  # 2026-11-23 09:00 UTC
NOTE = "answer written by a script; timing modelled: 0.35 s + 0.012 s per output token; tokens: characters / 4"
SMALL, LARGE = "gpt-4o-mini", "gpt-4o"
TENANTS = ("alder", "birch", "cedar")
TENANT_SHARES = (5, 3, 2)
USERS = 12  # in each tenant
BURSTS = 12
CLASS_SHARES = {"faq": 60, "order_status": 12, "summarise": 9, "classify": 12, "draft": 7}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Intent:
    """Something that can be asked, with the request that asks it and the answers that it gets."""

    kind: str  # the request class
    request: dict[str, Any]
    answers: tuple[str, ...]
    correct: bool | None
    users: tuple[tuple[str, str], ...] = ()  # (tenant, user): who may ask it; empty: everybody


class Dice:
    """Seeded choices that use only `random.random`, whose sequence Python promises to keep."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def whole(self, low: int, high: int) -> int:
        return low + int(self.random() * (high - low + 1))

    def pick(self, options: Sequence[_T], weights: Sequence[float] | None = None) -> _T:
        sums = list(accumulate(weights or [1.0] * len(options)))
        return options[bisect(sums, self.random() * sums[-1])]

    def zipf(self, options: Sequence[_T]) -> _T:
        return self.pick(options, [rank**-ZIPF for rank in range(1, len(options) + 1)])

    def shuffled(self, options: Sequence[_T]) -> list[_T]:
        return [option for _, option in sorted(((self.random(), i), option) for i, option in enumerate(options))]


def chat(model: str, system: str, knowledge: str, question: str, **settings: Any) -> dict[str, Any]:
    content = f"{system}\n\nKnowledge:\n{knowledge}" if knowledge else system
    messages = [{"role": "system", "content": content}, {"role": "user", "content": question}]
    return {"model": model, "messages": messages, **settings}


def part_intents(part: dict[str, Any], system: str) -> list[Intent]:
    """Return what is asked about one part of the product: five intents, each in two phrasings."""
    name, number = part["name"], part["number"]
    knowledge = (
        f"{name}, part {number}, sits {part['place']}. Clean every {part['days']} days. Fault: it {part['sign']}; "
        f"then {part['remedy']}. To change it: {part['swap']}. Price {part['price']} EUR, "
        f"warranty {part['warranty']} months."
    )
    asked = {
        f"How often should I clean the {name}?|When does the {name} need cleaning?":
            f"Clean the {name} every {part['days']} days. It sits {part['place']}.",
        f"What does a new {name} cost?|How much is a spare {name}?":
            f"A new {name} (part {number}) costs {part['price']} EUR.",
        f"My {name} {part['sign']}. What can I do?|Help, the {name} {part['sign']}!":
            f"Please {part['remedy']}. If it still {part['sign']}, we can change the {name} under its warranty of "
            f"{part['warranty']} months.",
        f"How do I change the {name}?|How is the {name} replaced?":
            f"To change the {name}, {part['swap']}. The new one is part {number}.",
        f"How long is the warranty on the {name}?|Is the {name} still under warranty after a year?":
            f"The warranty on the {name} is {part['warranty']} months from delivery.",
    }  # fmt: skip
    return [
        Intent("faq", chat(SMALL, system, knowledge, ask, temperature=0, **streamed(ask)), (answer,), True)
        for asks, answer in asked.items()
        for ask in asks.split("|")
    ]


def streamed(question: str) -> dict[str, Any]:
    """Return how a question is sent: about half of them as a stream, the same one always in the same way."""
    if hashlib.sha256(question.encode()).digest()[0] % 2:
        return {}
    return {"stream": True, "stream_options": {"include_usage": True}}


def policy_intents(policies: list[dict[str, Any]], system: str) -> list[Intent]:
    return [
        Intent("faq", chat(SMALL, system, p["knows"], ask, temperature=0, **streamed(ask)), (p["says"],), True)
        for p in policies
        for ask in p["asks"]
    ]


def incident_intents(incidents: list[dict[str, Any]], system: str) -> list[Intent]:
    """Return what many ask at once. Every other one leaves the temperature to the provider: shared, never cached."""
    return [
        Intent("faq", chat(SMALL, system, i["knows"], i["asks"], **({} if n % 2 else {"temperature": 0}),
                           **streamed(i["asks"])), (i["says"],), True)
        for n, i in enumerate(incidents)
    ]  # fmt: skip


def order_intents(facts: dict[str, Any], dice: Dice) -> list[Intent]:
    """Return questions after orders. Every third order belongs to two users, who may not see each other's answers."""
    states = {
        "packed": "It is packed and leaves with the next pick-up.",
        "on its way": "It has left our warehouse and is on its way.",
        "delivered": "It was delivered; the carrier has a signature.",
        "waiting for stock": "One part of it is out of stock, so it has not left yet.",
    }
    intents = []
    for n in range(20):
        number, state, part = f"M-{4100 + 37 * n}", dice.pick(list(states)), dice.pick(facts["parts"])
        tenant = dice.pick(TENANTS, TENANT_SHARES)
        users = [(tenant, f"u-{dice.whole(1, USERS):02}") for _ in range(2 if n % 3 == 0 else 1)]
        knowledge = f"Order {number} of this user: 1 x {part['name']} ({part['number']}), state: {state}."
        answer = f"Your order {number} with the {part['name']}: {states[state]}"
        ask = f"Where is my order {number}?"
        request = chat(SMALL, facts["system"], knowledge, ask, temperature=0, **streamed(ask))
        intents.append(Intent("order_status", request, (answer,), True, tuple(users)))
    return intents


def ticket(part: dict[str, Any], days: int, solved: bool) -> str:
    end = "That helped, thank you." if solved else "Nothing changed. Please send a new one."
    return (
        f"Customer: for {days} days now my {part['name']} {part['sign']}.\nDesk: Sorry to hear that. Please "
        f"{part['remedy']}.\nCustomer: Tried it twice. {end}\nDesk: Noted, for part {part['number']}."
    )


def summary_intents(facts: dict[str, Any], dice: Dice) -> list[Intent]:
    intents = []
    for part in facts["parts"]:
        days, solved = dice.whole(2, 9), dice.random() < 0.5
        end = "The advice solved it." if solved else f"It did not help; the customer asks for a new {part['name']}."
        answer = f"For {days} days the {part['name']} {part['sign']}. The desk advised: {part['remedy']}. {end}"
        system = "Summarise the ticket for a colleague: the fault, what was tried, how it stands. At most 60 words."
        request = chat(LARGE, system, "", ticket(part, days, solved), temperature=0, max_tokens=120)
        intents.append(Intent("summarise", request, (answer,), None))
    return intents


def label_intents(facts: dict[str, Any], dice: Dice) -> list[Intent]:
    kinds: dict[str, Callable[[str, str], str]] = {
        "fault": lambda name, sign: f"My {name} {sign} and I am out of ideas.",
        "order": lambda name, _: f"I would like to buy another {name}, how do I pay?",
        "complaint": lambda name, sign: f"This is the second time that the {name} {sign}. I want my money back.",
    }
    system = (
        "Sort the customer's message. Reply with a JSON object and nothing else: intent is fault, order or complaint; "
        "part is the part's number or null; urgent is true only if someone could be hurt."
    )
    knowledge = "; ".join(f"{part['name']} {part['number']}" for part in facts["parts"])
    intents = []
    for part in facts["parts"]:
        for kind in dice.shuffled(list(kinds))[:2]:
            labels = {"intent": kind, "part": part["number"], "urgent": part["name"] == "power supply"}
            request = chat(
                SMALL, system, knowledge, kinds[kind](part["name"], part["sign"]),
                temperature=0, response_format={"type": "json_object"},
            )  # fmt: skip
            intents.append(Intent("classify", request, (json.dumps(labels),), True))
    return intents


def draft_intents(facts: dict[str, Any]) -> list[Intent]:
    intents = []
    for part in facts["parts"]:
        tip = f"please {part['remedy']}"
        answers = (
            f"Thank you for writing to us. We are sorry that your {part['name']} {part['sign']}. First, {tip}. If that "
            "does not help, reply to this mail and we will find the next step together.",
            f"Hello, and thank you for your patience. When the {part['name']} {part['sign']}, {tip}. "
            "Let us know how it went; we are glad to help further.",
        )
        ask = f"Draft a friendly reply to a customer whose {part['name']} {part['sign']}."
        knowledge = f"{part['name']}: {part['remedy']}."
        request = chat(LARGE, facts["system"], knowledge, ask, temperature=0.7, stream=True)
        intents.append(Intent("draft", request, answers, None))
    return intents


def tokens(text: str) -> int:
    return -(-len(text) // 4)


def recording_lines(intent: Intent) -> list[dict[str, Any]]:
    """Return the lines of the recording for one intent: one for each answer."""
    request = {name: value for name, value in intent.request.items() if name not in ("stream", "stream_options")}
    prompt = sum(4 + tokens(message["content"]) for message in request["messages"])
    lines = []
    for n, answer in enumerate(intent.answers):
        made = tokens(answer)
        digest = hashlib.sha256(f"{json.dumps(request)}{n}".encode()).hexdigest()
        choice = {"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
        usage = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
        response = {"id": f"chatcmpl-{digest[:16]}", "object": "chat.completion", "created": CREATED}
        response |= {"model": request["model"], "choices": [choice], "usage": usage}
        duration_s = round(FIRST_CHUNK_S + TOKEN_S * made, 3)
        timing = {"first_chunk_s": FIRST_CHUNK_S, "duration_s": duration_s, "basis": "modelled"}
        line = {"request": request, "response": response, "timing": timing, "provider": "openai"}
        lines.append(line | {"correct": intent.correct, "usage_basis": "estimated", "note": NOTE})
    return lines


def trace_line(arrival_s: float, intent: Intent, tenant: str, user: str) -> dict[str, Any]:
    line = {"arrival_s": round(arrival_s, 3), "request": intent.request, "tenant": tenant, "user": user}
    line["class"] = intent.kind
    if intent.kind == "faq":
        line["corpus_version"] = "kb-2" if arrival_s >= NEW_KNOWLEDGE_S else "kb-1"
    return line


def asked(intent: Intent, dice: Dice) -> tuple[str, str]:
    """Return who asks: a tenant, and one of its users."""
    if intent.users:
        return dice.pick(intent.users)
    return dice.pick(TENANTS, TENANT_SHARES), f"u-{dice.whole(1, USERS):02}"


def morning(facts: dict[str, Any], requests: int, dice: Dice) -> list[tuple[float, Intent, str, str]]:
    """Return who asks what, and when, in the order of time."""
    faq = [intent for part in facts["parts"] for intent in part_intents(part, facts["system"])]
    faq += policy_intents(facts["policies"], facts["system"])
    intents = {
        "faq": dice.shuffled(faq),
        "order_status": order_intents(facts, dice),
        "summarise": summary_intents(facts, dice),
        "classify": label_intents(facts, dice),
        "draft": draft_intents(facts),
    }
    happened: list[tuple[float, Intent, str, str]] = []
    incidents = incident_intents(facts["incidents"], facts["system"])
    for n in range(BURSTS):  # within a second, several users of one tenant ask what nobody has asked before
        intent, tenant = incidents[n % len(incidents)], TENANTS[n // len(incidents)]
        start = MORNING_S * (n + dice.random()) / BURSTS
        first = dice.whole(1, USERS)
        for user in range(first, first + dice.whole(4, 7)):
            happened.append((start + dice.random(), intent, tenant, f"u-{1 + user % USERS:02}"))
    eighth_s = MORNING_S / len(BUSY)
    while len(happened) < requests:
        start = eighth_s * dice.pick(range(len(BUSY)), BUSY)
        kind = dice.pick(list(CLASS_SHARES), list(CLASS_SHARES.values()))
        intent = dice.zipf(intents[kind])
        happened.append((start + dice.between(0, eighth_s), intent, *asked(intent, dice)))
    return sorted(happened[:requests], key=lambda one: one[0])


def write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    path.write_bytes(text.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=SAMPLES, help="folder to write to (default: the package's own)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    options = parser.parse_args()
    facts = tomllib.loads(FACTS.read_text(encoding="utf-8"))
    facts["system"] = facts["system"].strip()
    happened = morning(facts, options.requests, Dice(options.seed))
    trace = [trace_line(*one) for one in happened]
    asked_once = {json.dumps(intent.request): intent for _, intent, _, _ in happened}
    recording = [line for intent in asked_once.values() for line in recording_lines(intent)]
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "support.trace.jsonl", trace)
    write(options.out / "support.recording.jsonl", recording)
    classes = ", ".join(f"{count} {kind}" for kind, count in Counter(line["class"] for line in trace).most_common())
    known = {(tenant, json.dumps(intent.request)) for _, intent, tenant, _ in happened}
    print(f"{len(trace)} requests ({classes}), {len(trace) - len(known)} of them asked before in their tenant")
    print(f"{len(asked_once)} different requests, {len(recording)} answers, in {options.out}")


if __name__ == "__main__":
    main()
