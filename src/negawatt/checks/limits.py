"""Budgets, the growth guard, and whether the lock says what is there."""

from __future__ import annotations

from collections.abc import Iterator

from negawatt.checks.findings import Finding, found
from negawatt.checks.measure import Lock, Locked, Measured
from negawatt.checks.plan import Plan, TokenBudget
from negawatt.checks.surfaces import Place, Surface, fits

_UPDATE = "if it is meant, run `negawatt check --update` and commit the lock"


def over_budget(plan: Plan, measured: Measured) -> Iterator[Finding]:
    """Yield the budgets that are exceeded."""
    for budget in plan.file.budgets:
        for surface in measured.surfaces:
            if fits(budget.surface)(surface.name):
                yield from _over(plan, budget, surface, measured.of(surface))


def _over(plan: Plan, budget: TokenBudget, surface: Surface, now: Locked) -> Iterator[Finding]:
    models = plan.file.models if budget.model is None else (budget.model,)
    if budget.block is None:
        counted = {surface.name: (surface.place, now.tokens)}
    else:
        counted = {
            f"block {block.name!r} of {surface.name}": (surface.at(block), now.blocks[block.name].tokens)
            for block in surface.blocks
            if fits(budget.block)(block.name)
        }
    for name, (place, tokens) in counted.items():
        model = max(models, key=lambda one: tokens[one])
        if tokens[model] > budget.most:
            what = f"{name} has {tokens[model]:,} tokens to {model}; its budget is {budget.most:,}"
            remedy = f"cut {tokens[model] - budget.most:,} tokens, or raise the budget in {plan.path.name}"
            yield found("budget", "error", surface, place, what, remedy)


def grown(plan: Plan, measured: Measured, lock: Lock) -> Iterator[Finding]:
    """Yield the surfaces that have grown by more than the guard allows, naming the block that grew most."""
    guard = plan.file.growth
    for surface in measured.surfaces:
        before, now = lock.surfaces.get(surface.name), measured.of(surface)
        for model in plan.file.models:
            old = None if before is None else before.tokens.get(model)
            if before is None or old is None:
                continue
            allowed = max(guard.tokens, old * guard.percent / 100)
            more = now.tokens[model] - old
            if more > allowed:
                where, place = _grew_most(surface, before, now, model)
                share = f", {100 * more / old:+.1f} %" if old else ""
                what = (
                    f"{surface.name} has grown from {old:,} to {now.tokens[model]:,} tokens to {model} "
                    f"(+{more:,}{share}), most of it in {where}; allowed are +{allowed:,.0f}"
                )
                yield found("growth", "error", surface, place, what, _UPDATE)
                break


def _grew_most(surface: Surface, before: Locked, now: Locked, model: str) -> tuple[str, Place]:
    def more(name: str) -> int:
        old = before.blocks.get(name)
        return now.blocks[name].tokens[model] - (0 if old is None else old.tokens.get(model, 0))

    block = max(surface.blocks, key=lambda one: more(one.name))
    return f"block {block.name!r}", surface.at(block)


def stale(plan: Plan, measured: Measured, lock: Lock | None) -> Iterator[Finding]:
    """Yield where the lock does not say what is there: an error where nothing was ever agreed to."""
    where = plan.file.lock
    if lock is None:
        what = f"there is no {where}, so that nothing can be compared with it"
        yield Finding("lock", "error", where, where, 1, what, "run `negawatt check --update` and commit the file")
        return
    for surface in measured.surfaces:
        before, now = lock.surfaces.get(surface.name), measured.of(surface)
        if before is None:
            what = f"{surface.name} is new, with {max(now.tokens.values()):,} tokens"
            yield found("lock", "error", surface, surface.place, what, _UPDATE)
        elif set(before.tokens) != set(now.tokens) or any(
            lock.models.get(m) != b for m, b in measured.lock.models.items()
        ):
            what = f"{surface.name} was counted for other models, or otherwise"
            yield found("lock", "error", surface, surface.place, what, _UPDATE)
        elif before != now:
            what = f"{surface.name} has changed since {where} was made ({_change(before, now)})"
            yield found("lock", "warning", surface, surface.place, what, "run `negawatt check --update`")
    for name in sorted(set(lock.surfaces) - set(measured.lock.surfaces)):
        what = f"{name} is in {where}, and not there any more"
        yield Finding("lock", "error", name, where, 1, what, _UPDATE)


def _change(before: Locked, now: Locked) -> str:
    more = max((now.tokens[model] - before.tokens[model] for model in now.tokens), key=abs)
    return f"{more:+,} tokens" if more else "as many tokens"
