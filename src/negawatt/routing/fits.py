"""Hard rules: why a candidate may not be asked, whatever it costs. In words, for whoever reads the decision."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from negawatt.caller import Caller
from negawatt.config_routes import Policy
from negawatt.config_types import LEVELS, Level
from negawatt.economics.accounts import Accounts
from negawatt.economics.capabilities import Capabilities, KnownModels
from negawatt.routing.choice import Choice
from negawatt.routing.costs import Cost


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a request needs of whoever answers it."""

    input_tokens: int | None = None  # as counted here; None: not counted
    output_tokens: int = 0  # that it allows for the answer; 0: it does not say
    inputs: frozenset[str] = frozenset()  # what it has beside text: image, audio, file
    tools: bool = False
    risk: Level | None = None
    provider: str | None = None  # that keeps what it goes on from


class Fits:
    """Applies the rules. *models* knows what models can do, where a policy does not say it itself."""

    def __init__(self, models: KnownModels, accounts: Accounts) -> None:
        self._models = models
        self._accounts = accounts

    def of(self, choice: Choice) -> Capabilities:
        """Return what *choice* can do: as its policy says, else as is known of its first target."""
        target, own = choice.targets[0], choice.candidate
        known = self._models.of(target.model, self._accounts.price_id(target.provider))
        return msgspec.structs.replace(
            known,
            context_tokens=known.context_tokens if own.context_tokens is None else own.context_tokens,
            inputs=known.inputs if own.inputs is None else frozenset(own.inputs),
            tools=known.tools if own.tools is None else own.tools,
        )

    def unfit(
        self, choice: Choice, needs: Needs, policy: Policy, caller: Caller | None = None, cost: Cost | None = None
    ) -> str | None:
        """Return why *choice* may not be asked; None when it may.

        Unknown is allowed, except for a region: where it matters, it has to be said. *cost* is an estimate; a price
        that is unknown does not fit under a limit either.
        """
        target = choice.targets[0]
        if needs.provider is not None and target.provider != needs.provider:
            return f"the conversation is kept by {needs.provider}"
        if caller is not None and not caller.may_use(choice.candidate.model):
            return "this key may not use it"
        return _against_policy(choice, needs, policy, cost) or _beyond(self.of(choice), needs)


def least_tier(policy: Policy, risk: Level | None) -> int:
    """Return the tier below which nothing is asked at *risk*: what is said of it, and of every lesser one."""
    levels = () if risk is None else LEVELS[: LEVELS.index(risk) + 1]
    return max((policy.least_tier[level] for level in levels if level in policy.least_tier), default=0)


def _against_policy(choice: Choice, needs: Needs, policy: Policy, cost: Cost | None) -> str | None:
    least = least_tier(policy, needs.risk)
    if choice.tier < least:
        return f"of tier {choice.tier}; risk {needs.risk} asks for {least} at least"
    region = choice.candidate.region
    if policy.regions is not None and region not in policy.regions:
        where = "of a region that is not said" if region is None else f"in {region}"
        return f"{where}; allowed: {', '.join(policy.regions)}"
    if policy.max_cost_usd is None or cost is None:
        return None
    if cost.usd is None:
        return f"no price is known of it, and the most is {policy.max_cost_usd:g} USD"
    if cost.usd > Decimal(str(policy.max_cost_usd)):
        return f"it would cost about {float(cost.usd):.3g} USD, and the most is {policy.max_cost_usd:g}"
    return None


def _beyond(can: Capabilities, needs: Needs) -> str | None:
    missing = sorted(needs.inputs - {"text"} - can.inputs) if can.inputs is not None else []
    if missing:
        return f"it takes no {' and no '.join(missing)}"
    if needs.tools and can.tools is False:
        return "it calls no tools"
    if can.context_tokens is not None and needs.input_tokens is not None:
        tokens = needs.input_tokens + needs.output_tokens
        if tokens > can.context_tokens:
            return f"about {tokens:,} tokens of input and answer; its context window has {can.context_tokens:,}"
    return None
