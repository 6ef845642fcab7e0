"""The comment on a pull request: one that is found again by its mark, and written anew."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from negawatt.checks.figures import Figures, Line, Monthly
from negawatt.checks.findings import Finding

MARK = "<!-- negawatt-check -->"
_SIGNS = {"error": "❌", "warning": "⚠️", "inconclusive": "❔"}
_VERDICTS = {0: "✅ passed", 1: "❌ failed", 3: "❔ inconclusive"}
_MOST = 50  # findings; a comment may have 65,536 characters


def comment(made: Figures, findings: Sequence[Finding], code: int, notes: Sequence[str] = ()) -> str:
    """Return the comment. *notes* are paragraphs about the other tiers."""
    changed = [line for line in made.lines if line.base != line.head]
    same = [line for line in made.lines if line.base == line.head]
    parts = [MARK, f"### negawatt check: {_VERDICTS[code]}", _summary(made, changed)]
    if changed:
        parts.append(_table(made, changed, change=True))
    if findings:
        parts.append("\n".join(_finding(one) for one in findings[:_MOST]))
        if len(findings) > _MOST:
            parts.append(f"... and {len(findings) - _MOST} more.")
    parts += notes
    if same:
        shown = _table(made, same, change=False)
        parts.append(f"<details><summary>{len(same)} as before</summary>\n\n{shown}\n\n</details>")
    parts.append(
        f"<sub>Tokens of {cell(made.model)} ({made.basis}), of the prompts alone. Money at list prices and energy "
        "(modelled, central) for 30 days at the calls a day that are declared or in the ledger; ? is not known.</sub>"
    )
    return "\n\n".join(parts) + "\n"


def _summary(made: Figures, changed: Sequence[Line]) -> str:
    if not changed:
        return f"{len(made.lines)} surfaces, {made.head:,} tokens: none has more or fewer than before."
    more = made.head - made.base
    month = "" if made.change is None or made.change.usd is None else f", {usd(made.change.usd, sign=True)} a month"
    return f"{len(changed)} of {len(made.lines)} surfaces have changed: **{more:+,} tokens**{month}."


def _table(made: Figures, lines: Sequence[Line], *, change: bool) -> str:
    head = "| surface | base | head | change | calls a day | $ a month | with the prefix cached | Wh a month |"
    rows = [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for line in lines:
        month = line.change if change else line.now
        share = f" ({100 * line.tokens / line.base:+.1f} %)" if line.base and line.tokens else ""
        calls = "?" if line.calls_per_day is None else f"{line.calls_per_day:,.0f}"
        cells = (
            f"`{cell(line.surface)}`", _count(line.base), _count(line.head), f"{line.tokens:+,}{share}", calls,
            *_month(month, sign=change),
        )  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _month(month: Monthly | None, *, sign: bool) -> tuple[str, str, str]:
    if month is None:
        return "?", "?", "?"
    wh = "?" if month.wh is None else f"{month.wh[1]:{'+' if sign else ''},.1f}"
    return usd(month.usd, sign=sign), usd(month.usd_prefix_cached, sign=sign), wh


def usd(amount: Decimal | None, *, sign: bool = False) -> str:
    """Return *amount* with two digits; below a dollar with as many as it takes to be seen."""
    if amount is None:
        return "?"
    form = ",.2f" if amount == 0 or abs(amount) >= 1 else ",.4f"
    before = "-" if amount < 0 else "+" if sign and amount > 0 else ""
    return f"{before}${abs(amount):{form}}"


def _count(tokens: int | None) -> str:
    return "none" if tokens is None else f"{tokens:,}"


def _finding(one: Finding) -> str:
    return f"- {_SIGNS[one.level]} `{cell(one.path)}:{one.line}` {cell(one.what)}. *{cell(one.remedy)}* (`{one.rule}`)"


def cell(text: str) -> str:
    """Return *text* so that it makes no cell, mention, tag or code of its own."""
    for sign, safe in (("|", "\\|"), ("<", "&lt;"), ("`", "'"), ("@", "@\u200b"), ("\n", " ")):
        text = text.replace(sign, safe)
    return text
