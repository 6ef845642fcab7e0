"""The tables of feedback, and of tasks as they are rolled up (`negawatt.success`).

A task is the rows of one tenant that name it; a row that names none is one of its own, and what the gateway asked for
its sake belongs to it. `task` has a row for each; `task_sum` their sums by one grouping, six hours, and one of 64
buckets into which tasks are dealt; all in integers, so that what is added can be taken away again without a trace.
"""

from __future__ import annotations

from negawatt.ledger.feedback import Feedback

WORDS = ", ".join(Feedback.__struct_fields__)

# Sums over tasks: the column of `task_sum`, and what one row of `task` (k) adds to it.
MEASURES = {
    "tasks": "1",
    "calls": "k.calls",
    "cost_pusd": "k.cost_pusd",
    "unpriced_tasks": "k.unpriced > 0",
    "judged": "k.success IS NOT NULL",
    "successes": "coalesce(k.success, 0)",
    "by_feedback": "k.success IS NOT NULL AND k.basis = 'feedback'",
    "by_verifier": "k.success IS NOT NULL AND k.basis = 'verifier'",
    "by_heuristic": "k.success IS NOT NULL AND k.basis = 'heuristic'",
    # Of judged tasks whose cost is known: the two sides of the cost of a success.
    "priced_judged": "k.success IS NOT NULL AND k.unpriced = 0",
    "priced_successes": "k.success IS NOT NULL AND k.success = 1 AND k.unpriced = 0",
    "priced_cost_pusd": "(k.success IS NOT NULL AND k.unpriced = 0) * k.cost_pusd",
    "priced_unknown_cost_pusd": "(k.success IS NULL AND k.unpriced = 0) * k.cost_pusd",
    # Of judged tasks whose energy is known, in microjoules.
    "metered_judged": "k.success IS NOT NULL AND k.unmetered = 0",
    "metered_successes": "k.success IS NOT NULL AND k.success = 1 AND k.unmetered = 0",
    "energy_low_uj": "(k.success IS NOT NULL AND k.unmetered = 0) * k.energy_low_uj",
    "energy_uj": "(k.success IS NOT NULL AND k.unmetered = 0) * k.energy_uj",
    "energy_high_uj": "(k.success IS NOT NULL AND k.unmetered = 0) * k.energy_high_uj",
    # Of successes whose end is known.
    "timed_successes": "k.success IS NOT NULL AND k.success = 1 AND k.latency_ms IS NOT NULL",
    "latency_ms": "CASE WHEN k.success = 1 THEN coalesce(k.latency_ms, 0) ELSE 0 END",
    # Of tasks of which somebody said how much was of use.
    "useful_tokens": "coalesce(k.useful_tokens, 0)",
    "useful_of_tokens": "CASE WHEN k.useful_tokens IS NULL THEN 0 ELSE coalesce(k.output_tokens, 0) END",
}
GROUPINGS = ("all", "class", "tenant", "model", "prompt")
BLOCK_S = 21_600  # seconds of one block of `task_sum`
BUCKETS = 64

_SUMS = ", ".join(f"{name} INTEGER NOT NULL" for name in MEASURES)
TABLES = f"""
CREATE INDEX IF NOT EXISTS outcome_tasks ON outcome (task_id, tenant) WHERE task_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS outcome_asides ON outcome (aside_for) WHERE aside_for IS NOT NULL;
CREATE TABLE IF NOT EXISTS feedback (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, tenant TEXT NOT NULL, kind TEXT NOT NULL, about TEXT NOT NULL,
    permissions TEXT NOT NULL, success INTEGER, score REAL, useful_tokens INTEGER, reason TEXT, user_id TEXT,
    key_id TEXT, idempotency_key TEXT
);
CREATE INDEX IF NOT EXISTS feedback_about ON feedback (about, tenant, kind);
CREATE UNIQUE INDEX IF NOT EXISTS feedback_key ON feedback (tenant, permissions, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE TABLE IF NOT EXISTS task (
    tenant TEXT NOT NULL, id TEXT NOT NULL, bucket INTEGER NOT NULL, block INTEGER NOT NULL, first_at REAL NOT NULL,
    request_class TEXT NOT NULL, model TEXT NOT NULL, prompt TEXT NOT NULL,
    calls INTEGER NOT NULL, asides INTEGER NOT NULL, cost_pusd INTEGER NOT NULL, unpriced INTEGER NOT NULL,
    energy_low_uj INTEGER NOT NULL, energy_uj INTEGER NOT NULL, energy_high_uj INTEGER NOT NULL,
    unmetered INTEGER NOT NULL, output_tokens INTEGER, useful_tokens INTEGER, success INTEGER, basis TEXT,
    latency_ms INTEGER, due_at REAL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS task_first ON task (first_at);
CREATE INDEX IF NOT EXISTS task_due ON task (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS task_sum (
    grouping TEXT NOT NULL, block INTEGER NOT NULL, name TEXT NOT NULL, bucket INTEGER NOT NULL, {_SUMS},
    PRIMARY KEY (grouping, block, name, bucket)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task_latency (
    grouping TEXT NOT NULL, block INTEGER NOT NULL, name TEXT NOT NULL, about_ms REAL NOT NULL, tasks INTEGER NOT NULL,
    PRIMARY KEY (grouping, block, name, about_ms)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task_ask (
    fingerprint TEXT NOT NULL, tenant TEXT NOT NULL, who TEXT NOT NULL, at REAL NOT NULL, call_id TEXT NOT NULL,
    ended REAL NOT NULL, task TEXT NOT NULL,
    PRIMARY KEY (fingerprint, tenant, who, at, call_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task_rule (
    request_class TEXT PRIMARY KEY, answered INTEGER NOT NULL, schema_valid INTEGER NOT NULL,
    has_schema INTEGER NOT NULL, no_retry_within_s REAL, least_score REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS task_touched (seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS task_state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID
"""

_MARKS = ", ".join("?" * len(Feedback.__struct_fields__))
KEEP = f"INSERT INTO feedback ({WORDS}) VALUES ({_MARKS})"
UNDER_KEY = f"SELECT {WORDS} FROM feedback WHERE tenant = ? AND permissions = ? AND idempotency_key = ?"
NEWEST = f"""
SELECT {WORDS} FROM feedback WHERE tenant = ? AND permissions = ? AND kind = ? AND about = ? ORDER BY seq DESC LIMIT 1
"""
HISTORY = f"SELECT {WORDS} FROM feedback WHERE tenant = ? AND about = ? ORDER BY seq"
# Who may speak of a row: whoever has the same permissions; those that a caller added to its key's need not be named.
MAY = "substr({row}, 1, length(f.permissions) + 1) IN (f.permissions, f.permissions || '+')"
SAID_OF_CALLS = f"""
SELECT o.id, f.success FROM feedback f CROSS JOIN outcome o ON o.id = f.about
WHERE f.kind = 'call' AND f.success IS NOT NULL AND coalesce(o.tenant, 'default') = f.tenant
    AND {MAY.format(row="coalesce(o.permissions, '')")}
ORDER BY f.seq
"""
# A task that has no rows yet is none; its words wait for it, where they are found when the rows come.
TOUCH_TASK = "INSERT INTO task_touched (tenant, id) VALUES (?, ?)"
_TASK_OF = "coalesce(task_id, aside_for, id)"
TOUCH_CALL = f"""
INSERT INTO task_touched (tenant, id)
SELECT coalesce(tenant, 'default'), {_TASK_OF} FROM outcome WHERE coalesce(tenant, 'default') = ? AND id = ?
"""
TOUCH_ROW = f"""
INSERT INTO task_touched (tenant, id) SELECT coalesce(tenant, 'default'), {_TASK_OF} FROM outcome WHERE id = ?
"""
