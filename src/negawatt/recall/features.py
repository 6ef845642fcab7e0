"""What is to be seen of a question's neighbours before one of their answers is given.

Similarity alone says little: two questions may be near to each other and want different things. That several near
questions had the *same* answer says much more. So every feature but the first is about agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

import msgspec

from negawatt.indexes import Neighbour

NEIGHBOURS = 12  # looked at for one question
_SOFTNESS = 0.05  # of the vote: a neighbour that is so much less similar counts 1/e as much
_NO_SECOND = 0.3  # similarity of questions that have nothing to do with each other, about
_SHARE_FLOOR = 0.02  # keeps the log odds of a unanimous vote finite: +- 3.9

# The prior of each weight of the acceptance rule, for ln(odds of being wrong): more similarity, more agreement and more
# distance to other answers make it less likely. Their signs are what we know beforehand; their size is one, or a half
# where several say nearly the same.
PRIOR = (0.0, -1.0, -0.5, -0.5, -0.5, -0.5, -1.0, 0.0)


class Candidate(msgspec.Struct, frozen=True):
    """The answer that a question's neighbours speak for. *entries*: those that have it, nearest first."""

    entries: tuple[Neighbour, ...]
    features: tuple[float, ...]

    @property
    def mark(self) -> bytes:
        return self.entries[0].mark


def candidate_of(neighbours: Sequence[Neighbour]) -> Candidate | None:
    """Return the candidate among *neighbours*, nearest first; None when there are none."""
    if not neighbours:
        return None
    nearest = neighbours[0].similarity
    votes: dict[bytes, float] = {}
    for one in neighbours:
        votes[one.mark] = votes.get(one.mark, 0.0) + exp((one.similarity - nearest) / _SOFTNESS)
    mark = max(votes, key=votes.__getitem__)
    for_it = [one for one in neighbours if one.mark == mark]
    against = next((one.similarity for one in neighbours if one.mark != mark), None)
    if against is None:  # nobody disagrees: the nearest one who might is not nearer than the last we saw
        against = neighbours[-1].similarity if len(neighbours) >= NEIGHBOURS else _NO_SECOND
    first = for_it[0].similarity
    second = for_it[1].similarity if len(for_it) > 1 else min(first, _NO_SECOND)
    third = for_it[2].similarity if len(for_it) > 2 else min(second, _NO_SECOND)
    share = votes[mark] / sum(votes.values())
    agreement = log((share + _SHARE_FLOOR) / (1 - share + _SHARE_FLOOR))
    nearness = (first - 0.7) * 5
    features = (
        1.0, nearness, (second - 0.6) * 5, (third - 0.6) * 5, (first - against) * 5, (second - against) * 5, agreement,
        nearness * agreement / 2,
    )  # fmt: skip
    return Candidate(tuple(for_it), features)
