"""What a policy chooses between."""

from __future__ import annotations

import msgspec

from negawatt.call import Target
from negawatt.config_routes import Candidate


class Choice(msgspec.Struct, frozen=True, gc=False):
    """A candidate, and where it leads. *tier*: as the policy says, else its place in the order, from 1."""

    candidate: Candidate
    tier: int
    targets: tuple[Target, ...]  # its own first, then its fallbacks

    @property
    def name(self) -> str:
        """The model, with its effort where the policy sets one: ``gpt-5 at low``."""
        effort = self.candidate.effort
        return self.candidate.model if effort is None else f"{self.candidate.model} at {effort}"
