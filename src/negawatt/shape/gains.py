"""What shortening saves, class by class: where it is next to nothing, it rests, and tries again every so often."""

from __future__ import annotations

LEAST_SHARE = 0.01  # of the tokens of a prompt; below it a class is left alone
LEAST_SEEN = 30  # calls, before a class is judged
_WINDOW = 100  # calls that the running mean is about
EVERY = 20  # of the calls of a class that rests, one is tried


class _Gain:
    __slots__ = ("mean", "seen", "waited")

    def __init__(self) -> None:
        self.mean = 0.0
        self.seen = 0
        self.waited = 0


class Gains:
    """The running mean of each class, in this process."""

    def __init__(self) -> None:
        self._gains: dict[str, _Gain] = {}

    def rests(self, request_class: str) -> str | None:
        """Return why a call of *request_class* is left alone; None where it is to be tried. Each asking counts."""
        gain = self._gains.get(request_class)
        if gain is None or gain.seen < LEAST_SEEN or gain.mean >= LEAST_SHARE:
            return None
        gain.waited += 1
        if gain.waited >= EVERY:
            gain.waited = 0
            return None
        return f"it saves {gain.mean:.1%} of the prompts of this class: not worth it"

    def learn(self, request_class: str, share: float) -> None:
        """Take in that *share* of the tokens of a prompt were saved."""
        gain = self._gains.setdefault(request_class, _Gain())
        gain.seen += 1
        gain.mean += (share - gain.mean) / min(gain.seen, _WINDOW)
