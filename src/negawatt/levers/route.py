"""route: ask the smallest model that meets the target, where a policy chooses the model; else the one asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from negawatt.call import Call, Target
from negawatt.economics.reference import in_place_of
from negawatt.embedders import Embedder
from negawatt.errors import EmbedderError, InvalidRequest
from negawatt.pipeline import Handler
from negawatt.reply import Reply
from negawatt.routing.affinity import Affinity
from negawatt.routing.asked import Asked, asked_of
from negawatt.routing.cascade import Cascade
from negawatt.routing.choice import Choice
from negawatt.routing.costs import Cost, Costs, limit_of
from negawatt.routing.fits import Fits, Needs
from negawatt.routing.picking import Pick, by_rule, fixed, opened
from negawatt.routing.policies import Demand, Policies, Ranked

if TYPE_CHECKING:
    from negawatt.routing.router import Router

NAME = "route"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the lever works with. *routers* and *cascades* by the name of their policy."""

    policies: Policies
    costs: Costs
    affinity: Affinity
    fits: Fits
    held_by: Callable[[Call], Awaitable[str | None]]  # the provider that holds what the call goes on from
    embedder: Embedder | None = None
    routers: Mapping[str, Router] = field(default_factory=dict)
    cascades: Mapping[str, Cascade] = field(default_factory=dict)


class Considered(NamedTuple):
    """All that is known before somebody is asked. *shut*: why a candidate may not take the request, by its name."""

    ranked: Ranked
    asked: Asked
    demand: Demand
    open: Sequence[Choice]
    shut: Mapping[str, str]
    costs: Mapping[str, Cost]


class Route:
    """Chooses among the candidates of the call's policy, and books what the reference would have cost."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, call: Call, forward: Handler) -> Reply:
        ranked = self._parts.policies.get(call.policy)
        if ranked is None:
            return await forward(call)
        considered = await self.consider(call, ranked)
        if not considered.open:
            reasons = "; ".join(f"{name}: {why}" for name, why in considered.shut.items())
            message = f"model: no candidate of policy {ranked.name!r} may take this request: {reasons}"
            raise InvalidRequest(message, param="model")
        cascade = self._parts.cascades.get(ranked.name)
        if cascade is not None and len(considered.open) > 1:
            reply = await cascade(call, forward, [one for one in ranked.rising if one in considered.open])
            book = None if call.shadow else partial(self._book, call, considered)
        else:
            pick = await self.pick(call, considered)
            call.note(NAME, "chose", pick.reason, detail=_detail(considered, pick))
            reply = await forward(call.with_(targets=_targets(pick.choice, ranked.reference)))
            book = partial(self._rehearsed, call, pick.choice) if call.shadow else partial(self._book, call, considered)
        if book is not None:
            reply.on_read(book)
        return reply

    # -- before anybody is asked -------------------------------------------------------------------------------

    async def consider(self, call: Call, ranked: Ranked) -> Considered:
        """Return who may take *call*, and what each would cost."""
        parts = self._parts
        asked, demand = asked_of(call), parts.policies.demand(call, ranked)
        counted = parts.costs.count(call, ranked.reference)
        needs = Needs(
            input_tokens=counted.tokens, output_tokens=limit_of(call.request.data) or 0, inputs=asked.inputs,
            tools=bool(asked.tools), risk=demand.risk, provider=await self._holder(call, ranked),
        )  # fmt: skip
        # Who may use the policy by its name may use what it chooses.
        key = None if ranked.asked_by_name(call.request.model) else call.caller
        open_: list[Choice] = []
        shut: dict[str, str] = {}
        costs: dict[str, Cost] = {}
        for choice in ranked.choices:
            warm = parts.affinity.warm(call, choice)
            cost = parts.costs.estimate(choice, call, input_tokens=counted.tokens, warm_tokens=warm)
            why = parts.fits.unfit(choice, needs, ranked.settings, key, cost)
            costs[choice.name] = cost
            if why is None:
                open_.append(choice)
            else:
                shut[choice.name] = why
        return Considered(ranked, asked, demand, open_, shut, costs)

    async def _holder(self, call: Call, ranked: Ranked) -> str | None:
        """Return the provider that keeps what *call* goes on from; the reference's where nobody here knows who does."""
        if not call.wire.continues(call.request):
            return None
        return await self._parts.held_by(call) or ranked.reference.targets[0].provider

    async def pick(self, call: Call, considered: Considered) -> Pick:
        """Return the candidate to ask: by the policy's way of choosing, then kept where a switch would cost more."""
        ranked, demand, open_ = considered.ranked, considered.demand, considered.open
        router = self._parts.routers.get(ranked.name)
        if router is not None:
            pick = opened(await self._learned(considered, router), open_)
        elif ranked.settings.how == "rule":
            pick = by_rule(ranked, demand, open_, considered.asked)
        else:
            pick = fixed(ranked, demand, open_)
        kept = self._parts.affinity.keep(call, pick.choice, open_, considered.costs, ranked.settings.order)
        if kept is pick.choice:
            return pick
        reason = f"{pick.reason}: {pick.choice.name}; but the conversation is warm at {kept.name}, which costs less"
        return pick._replace(choice=kept, by="affinity", reason=reason)

    async def _learned(self, considered: Considered, router: Router) -> Pick:
        """Return what the learned router says; the reference where it has nothing to say."""
        ranked, ask, embedder = considered.ranked, considered.asked.ask, self._parts.embedder
        if embedder is None or not ask.strip():
            return Pick(ranked.reference, "learned", "there are no words of a person to go by: the reference")
        try:
            vector = (await embedder.embed([ask]))[0]
        except EmbedderError as error:
            return Pick(ranked.reference, "learned", f"the embedder failed: the reference ({error.message})")
        chosen = router.choose(ask, vector, considered.demand.quality)
        detail = {"gain": chosen.gain, "probabilities": chosen.probabilities}
        return Pick(ranked.named(chosen.name), "learned", chosen.reason, chosen.expected_success, detail)

    # -- afterwards --------------------------------------------------------------------------------------------

    def _book(self, call: Call, considered: Considered, _: Reply) -> None:
        """Note what the reference would have used in place of what was asked, and learn from what was."""
        answered = call.trail.answerer
        ranked, reference = considered.ranked, considered.ranked.reference
        choice = None if answered is None else ranked.asked_at(answered.target)
        if answered is not None and choice is not None:
            call.trail.chosen = answered.target
        if answered is None or answered.usage is None:
            return
        if choice is not None:
            self._parts.affinity.remember(call, answered.target, answered.usage)
            self._parts.costs.learn(call.request_class, choice, answered.usage)
        counted = None if choice is None else self._counted(call, choice, reference, answered.usage.input_tokens)
        warm, thinks = self._parts.affinity.warm(call, reference), self._parts.fits.of(reference).efforts != ()
        saved = in_place_of(call.trail, reference.targets[0], counted=counted, warm=warm, thinks=thinks)
        if saved is not None:
            call.note(NAME, "instead", f"of {reference.name}", saved=saved)

    def _rehearsed(self, call: Call, choice: Choice, _: Reply) -> None:
        """Note what *choice* would have used in place of who was asked."""
        thinks = self._parts.fits.of(choice).efforts != ()
        saved = in_place_of(call.trail, choice.targets[0], thinks=thinks)
        if saved is not None:
            call.note(NAME, "instead", f"{choice.name} would have been", saved=saved)

    def _counted(self, call: Call, choice: Choice, reference: Choice, billed: int) -> int:
        """Return the input tokens of *reference*: as many as were *billed*, by the ratio of our own counts of both."""
        if choice.targets[0].label == reference.targets[0].label:
            return billed
        own, other = (self._parts.costs.count(call, one).tokens for one in (choice, reference))
        return round(billed * other / own) if own else billed


def _targets(choice: Choice, reference: Choice) -> tuple[Target, ...]:
    """Return where *choice* leads, and after all its fallbacks the reference: a failing small model costs no answer."""
    return tuple(dict.fromkeys((*choice.targets, *reference.targets)))


def _detail(considered: Considered, pick: Pick) -> dict[str, Any]:
    """Return what a decision says of its choice."""
    cost = considered.costs[pick.choice.name]
    found: dict[str, Any] = {
        "policy": considered.ranked.name, "by": pick.by, "model": pick.choice.candidate.model,
        "effort": pick.choice.candidate.effort, "tier": pick.choice.tier, "expected_success": pick.expected_success,
        "expected_cost_usd": None if cost.usd is None else float(cost.usd), **(pick.detail or {}),
    }  # fmt: skip
    if considered.shut:
        found["shut"] = dict(considered.shut)
    return {name: value for name, value in found.items() if value is not None}
