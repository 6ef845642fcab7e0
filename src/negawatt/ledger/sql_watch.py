"""SQL of what is watched: the alerts that are kept, and what windows are made of again at the start."""

from __future__ import annotations

ALERTS = """
CREATE TABLE IF NOT EXISTS alert (
    id TEXT PRIMARY KEY, state TEXT NOT NULL, started_at REAL NOT NULL, alert TEXT NOT NULL
) WITHOUT ROWID;
"""
KEEP = "INSERT OR REPLACE INTO alert VALUES (?, ?, ?, ?)"
DROP = "DELETE FROM alert WHERE id = ?"
KEPT = "SELECT alert FROM alert ORDER BY started_at"

FACTS = (
    "received_at", "request_class", "protocol", "stream", "ending", "status", "error_type", "request_model",
    "response_model", "cache", "attempts", "output_tokens", "baseline_input_tokens", "cost_pusd", "duration_s",
    "time_to_first_chunk_s", "template",
)  # fmt: skip
# Of the decisions, which are most of a row, only whether the mark is in them.
SELECT = f"""
SELECT {", ".join(FACTS)}, CASE WHEN instr(decisions, ?) THEN ? ELSE '' END
FROM outcome WHERE received_at >= ? AND received_at < ? ORDER BY received_at
"""
# When the newest rows but so many begin; nothing where there are fewer.
BEGIN = "SELECT received_at FROM outcome WHERE received_at < ? ORDER BY received_at DESC LIMIT 1 OFFSET ?"
