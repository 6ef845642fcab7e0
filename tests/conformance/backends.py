"""What the suites over stores and ledgers need: a clock that is moved by hand, and rows to keep."""

from __future__ import annotations

from typing import Any

from negawatt.ledger.outcome import Outcome

EPOCH = 1_780_000_000.0


class ManualClock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return EPOCH + self.now

    def monotonic(self) -> float:
        return self.now


def outcome(call_id: str = "nw-1", **fields: Any) -> Outcome:
    """Return a row with something in every column."""
    row: dict[str, Any] = {
        "id": call_id, "received_at": EPOCH, "tenant": "acme", "user_id": "u", "key_id": "k", "request_class": "faq",
        "task_id": "t", "session_id": "s", "operation": "chat", "protocol": "chat", "stream": True,
        "request_model": "m", "response_model": "m-1", "provider": "openai", "ending": "answered", "status": 200,
        "error_type": None, "error_message": None, "cache": "miss", "holdout": False,
        "fingerprint": "ab" * 32, "attempts": 1, "input_tokens": 100, "output_tokens": 20, "cache_read_tokens": 0,
        "cache_write_tokens": 0, "reasoning_tokens": 5, "usage_basis": "measured", "baseline_input_tokens": 100,
        "baseline_output_tokens": 20, "cost_pusd": 27_000_000, "baseline_cost_pusd": 27_000_000,
        "price_source": "genai-prices", "energy_low_j": 1.5, "energy_j": 2.25, "energy_high_j": 1e3,
        "baseline_energy_low_j": 1.5, "baseline_energy_j": 2.25, "baseline_energy_high_j": 1e3,
        "energy_basis": "measured", "co2e_g": 0.125, "duration_s": 1.5, "queue_s": 0.0, "upstream_s": 1.25,
        "overhead_s": 0.25, "time_to_first_chunk_s": 0.5, "baseline_duration_s": 1.5,
        "decisions": "[]", "attempt_log": "[]", "versions": "{}",
    }  # fmt: skip
    return Outcome(**{**row, **fields})
