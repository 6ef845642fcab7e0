"""All SQL of the roll-up of tasks: from new rows and new words to tasks, and from tasks to their sums.

One round takes the rows after a watermark, and what else was touched. Their tasks are made anew from all their rows, in
temporary tables and without keeping anybody from writing; then, in one short transaction, they are put in their places
and what changed is added to the sums. It is all in SQL because it runs beside a busy process: SQLite works without the
interpreter's lock.
"""

from __future__ import annotations

import sqlite3

from negawatt.ledger.sql_success import BLOCK_S, BUCKETS, GROUPINGS, MAY, MEASURES

# What a round makes, and who asked what, lies in memory as long as it is no more than 8 MB; all else in a file.
TEMPORARY = (
    "PRAGMA temp.cache_size = -8000",
    "PRAGMA temp.journal_mode = MEMORY",
    "CREATE TEMP TABLE IF NOT EXISTS touched (tenant TEXT, id TEXT, PRIMARY KEY (tenant, id)) WITHOUT ROWID",
    "CREATE TEMP TABLE IF NOT EXISTS place (place INTEGER PRIMARY KEY, tenant TEXT, task TEXT)",
    """CREATE TEMP TABLE IF NOT EXISTS heard (
        tenant TEXT, task TEXT, place INTEGER, id TEXT, at REAL, ended REAL, aside INTEGER, delivered INTEGER,
        request_class TEXT, model TEXT, prompt TEXT, permissions TEXT, cost_pusd INTEGER,
        energy_low_uj INTEGER, energy_uj INTEGER, energy_high_uj INTEGER, output_tokens INTEGER,
        useful_tokens INTEGER, least_score REAL, verdict INTEGER, rank INTEGER, due_at REAL
    )""",
    "CREATE INDEX IF NOT EXISTS temp.heard_tasks ON heard (tenant, task)",
    """CREATE TEMP TABLE IF NOT EXISTS asked (
        fingerprint TEXT, tenant TEXT, who TEXT, at REAL, call_id TEXT, ended REAL, task TEXT,
        PRIMARY KEY (fingerprint, tenant, who, at, call_id)
    ) WITHOUT ROWID""",
    "CREATE TEMP TABLE IF NOT EXISTS asked_at AS SELECT -1 AS mark, -1 AS round",
    "CREATE TEMP TABLE IF NOT EXISTS alike (place INTEGER PRIMARY KEY)",
    "CREATE TEMP TABLE IF NOT EXISTS made AS SELECT * FROM task LIMIT 0",
    "CREATE TEMP TABLE IF NOT EXISTS before AS SELECT * FROM task LIMIT 0",
)
EMPTIED = tuple(f"DELETE FROM temp.{name}" for name in ("alike", "touched", "place", "heard", "made", "before"))

# The last row that was taken in, how many rounds there were (another process may keep the same ledger up), and the last
# row of which `task_ask` has who asked what: every row that was taken in, where nothing says otherwise.
STATE = """
SELECT coalesce(max(CASE name WHEN 'mark' THEN value END), 0), coalesce(max(CASE name WHEN 'round' THEN value END), 0),
    coalesce(max(CASE name WHEN 'asked' THEN value END), max(CASE name WHEN 'mark' THEN value END), 0)
FROM task_state
"""


def rounds_of(connection: sqlite3.Connection) -> int:
    """Return how many rounds there were: as long as it stays the same, so do all figures."""
    return int(connection.execute(STATE).fetchone()[1])


SET_STATE = "INSERT OR REPLACE INTO task_state VALUES ('mark', ?), ('round', ?), ('asked', ?)"
LAST = "SELECT max(rowid) FROM outcome"
# The last of at most so many rows after one, which is where rows go on: nobody has to count them.
NEWEST = "SELECT min(min(rowid) - 1 + ?2, (SELECT max(rowid) FROM outcome)) FROM outcome WHERE rowid > ?1"
WAITING = """
SELECT EXISTS (SELECT 1 FROM outcome WHERE rowid > coalesce((SELECT value FROM task_state WHERE name = 'mark'), 0))
    OR EXISTS (SELECT 1 FROM task_touched) OR EXISTS (SELECT 1 FROM task WHERE due_at <= ?)
"""

_TENANT = "coalesce(o.tenant, 'default')"
_TASK = "coalesce(o.task_id, o.aside_for, o.id)"
_WHO = "coalesce('u' || o.user_id, 's' || o.session_id)"
_PRINT = "substr(o.fingerprint, 1, 24)"  # 96 bits tell requests apart; the keys of `task_ask` are a third shorter
_NEW = "o.rowid > :mark AND o.rowid <= :upto"
# Who counts tokens asks for no answer: that is no attempt at anything, and costs nothing.
_ATTEMPT = "o.operation IS NOT 'count_tokens'"
_LONGEST_S = 3_600  # of a call, as far as it may be found that it was asked again

# Who asked what when, of the classes in which asking again counts. It comes into `task_ask` many rows at a time, since
# there each is on a page of its own, and until then into a temporary table, which the rows make anew if it is lost.
ASKED = f"""
INSERT OR IGNORE INTO temp.asked
SELECT {_PRINT}, {_TENANT}, {_WHO}, o.received_at, o.id, o.received_at + o.duration_s, {_TASK}
FROM outcome o JOIN task_rule r ON r.request_class = o.request_class AND r.no_retry_within_s IS NOT NULL
WHERE {_NEW} AND o.fingerprint IS NOT NULL AND {_WHO} IS NOT NULL AND o.aside_for IS NULL AND {_ATTEMPT}
"""
FORGET_ASKED = "DELETE FROM temp.asked"
ASKED_AT = "SELECT mark, round FROM temp.asked_at"
SET_ASKED_AT = "UPDATE temp.asked_at SET mark = ?, round = ?"
KEPT_ASKED = ("INSERT OR IGNORE INTO task_ask SELECT * FROM temp.asked", FORGET_ASKED)
TOUCHED_BY_ROWS = f"INSERT OR IGNORE INTO temp.touched SELECT {_TENANT}, {_TASK} FROM outcome o WHERE {_NEW}"
NEWEST_TOUCH = "SELECT max(seq) FROM (SELECT seq FROM task_touched ORDER BY seq LIMIT ?)"
TOUCHED_BY_WORDS = "INSERT OR IGNORE INTO temp.touched SELECT tenant, id FROM task_touched WHERE seq <= :seq"
TOUCHED_BY_TIME = "INSERT OR IGNORE INTO temp.touched SELECT tenant, id FROM task WHERE due_at <= :now LIMIT :most"
_ASKS = ("task_ask", "temp.asked")


def _asks(tenant: str, condition: str) -> str:
    """Return whether who asked the row's question asked it in another call, such that *condition* holds."""
    same = f"a.fingerprint = {_PRINT} AND a.tenant = {tenant} AND a.who = {_WHO}"
    return " OR ".join(f"EXISTS (SELECT 1 FROM {asks} a WHERE {same} AND {condition})" for asks in _ASKS)


# New rows that ask what was asked before or after: few, so that for the others it need not be looked up again.
ALIKE = f"""
INSERT INTO temp.alike
SELECT o.rowid FROM outcome o WHERE {_NEW} AND ({_asks(_TENANT, "a.call_id <> o.id")})
"""
# Those whose answer somebody did not take: a new row asks the same again.
TOUCHED_BY_RETRIES = tuple(
    f"""INSERT OR IGNORE INTO temp.touched
    SELECT a.tenant, a.task FROM temp.alike n CROSS JOIN outcome o ON o.rowid = n.place
    CROSS JOIN {asks} a ON a.fingerprint = {_PRINT} AND a.tenant = {_TENANT} AND a.who = {_WHO}
    WHERE o.aside_for IS NULL AND a.at < o.received_at AND a.at >= o.received_at - :window - {_LONGEST_S}"""
    for asks in _ASKS
)
WINDOW = "SELECT max(no_retry_within_s) FROM task_rule"
SETTLED = "DELETE FROM task_touched WHERE seq <= :seq"
BEFORE = (
    "INSERT INTO temp.before SELECT k.* FROM temp.touched t CROSS JOIN task k ON k.tenant = t.tenant AND k.id = t.id"
)

PLACES = (
    f"""INSERT OR IGNORE INTO temp.place SELECT o.rowid, t.tenant, t.id
    FROM temp.touched t CROSS JOIN outcome o ON o.task_id = t.id WHERE {_TENANT} = t.tenant""",
    f"""INSERT OR IGNORE INTO temp.place SELECT o.rowid, t.tenant, t.id
    FROM temp.touched t CROSS JOIN outcome o ON o.aside_for = t.id WHERE o.task_id IS NULL AND {_TENANT} = t.tenant""",
    f"""INSERT OR IGNORE INTO temp.place SELECT o.rowid, t.tenant, t.id
    FROM temp.touched t CROSS JOIN outcome o ON o.id = t.id
    WHERE o.task_id IS NULL AND o.aside_for IS NULL AND {_TENANT} = t.tenant""",
)

_SUCCESS = "coalesce(f.success, f.score >= {least})"


def _said(what: str, known: str, about: str) -> str:
    """Return the newest *what* that feedback says of a call or task; of what it does not mention, the one before."""
    return f"(SELECT {what} FROM feedback f WHERE {about} AND {known} ORDER BY f.seq DESC LIMIT 1)"


_OF_CALL = "f.about = o.id AND f.tenant = p.tenant AND f.kind = 'call' AND "
_OF_CALL += MAY.format(row="coalesce(o.permissions, '')")
_SCORED = _SUCCESS.format(least="r.least_score")


def _decided(lever: str, actions: str, what: str) -> str:
    """Return what the newest of the decisions of *lever* comes to whose action is one of *actions*."""
    action = "json_extract(d.value, '$.action')"
    return f"""CASE WHEN instr(o.decisions, '"{lever}"') THEN (
        SELECT {what.format(action=action)} FROM json_each(o.decisions) d
        WHERE json_extract(d.value, '$.lever') = '{lever}' AND {action} IN {actions} ORDER BY d.key DESC LIMIT 1) END"""


_SCHEMA = _decided("structure", "('kept', 'repaired', 'broken')", "{action} <> 'broken'")
# The small answer of a cascade that was given, as its verifiers saw it. Nobody judged the reference's.
_CASCADE = _decided(
    "route", "('accepted', 'verified', 'doubted', 'escalated', 'corrected')",
    "CASE WHEN json_array_length(d.value, '$.detail.verdicts') > 0 THEN "
    "CASE {action} WHEN 'accepted' THEN 1 WHEN 'verified' THEN 1 WHEN 'doubted' THEN 0 END END",
)  # fmt: skip
_DELIVERED = "o.ending IN ('answered', 'cached', 'coalesced')"
_ENDED = "o.received_at + o.duration_s"

_AGAIN = _asks("p.tenant", f"a.at > {_ENDED} AND a.at <= {_ENDED} + r.no_retry_within_s")

# What is known of each row, before it comes to a verdict.
_KNOWN = f"""
SELECT p.tenant, p.task, p.place, o.id, o.received_at AS at, {_ENDED} AS ended, o.aside_for IS NOT NULL AS aside,
    {_DELIVERED} AS delivered, o.ending IN ('cancelled', 'abandoned') AS left_by_caller, o.request_class,
    coalesce(o.response_model, o.request_model, '') AS model,
    CASE WHEN o.template IS NULL THEN coalesce('@' || o.prompt_version, '')
        ELSE o.template || '@' || coalesce(o.template_version, '') END AS prompt,
    coalesce(o.permissions, '') AS permissions, o.cost_pusd,
    CAST(round(o.energy_low_j * 1e6) AS INTEGER) AS energy_low_uj,
    CAST(round(o.energy_j * 1e6) AS INTEGER) AS energy_uj,
    CAST(round(o.energy_high_j * 1e6) AS INTEGER) AS energy_high_uj, o.output_tokens,
    {_said("f.useful_tokens", "f.useful_tokens IS NOT NULL", _OF_CALL)} AS useful_tokens, r.least_score,
    {_said(_SCORED, f"{_SCORED} IS NOT NULL", _OF_CALL)} AS said,
    {_SCHEMA} AS schema_kept, {_CASCADE} AS cascade, r.request_class IS NOT NULL AS ruled, r.schema_valid,
    r.has_schema AND o.cache IN ('exact', 'semantic', 'coalesced', 'offload') AS kept_as_valid, r.no_retry_within_s,
    r.no_retry_within_s IS NOT NULL AND o.fingerprint IS NOT NULL AND {_WHO} IS NOT NULL AS may_ask_again,
    CASE WHEN r.no_retry_within_s IS NOT NULL AND (p.place <= :mark OR p.place IN (SELECT place FROM temp.alike))
        AND ({_AGAIN}) THEN 1 ELSE 0 END AS asked_again
FROM temp.place p CROSS JOIN outcome o ON o.rowid = p.place
LEFT JOIN task_rule r ON r.request_class = o.request_class
WHERE {_ATTEMPT}
"""
# By what its class declares: all of it has to hold, and what cannot be seen leaves it open.
_GUESS = """
CASE WHEN aside OR NOT ruled OR left_by_caller THEN NULL
    WHEN NOT delivered OR asked_again THEN 0
    WHEN schema_valid AND coalesce(schema_kept, kept_as_valid OR NULL) IS NULL THEN NULL
    WHEN no_retry_within_s IS NOT NULL AND (NOT may_ask_again OR ended + no_retry_within_s > :now) THEN NULL
    ELSE 1 END
"""
_VERIFIED = "CASE WHEN schema_kept = 0 THEN 0 WHEN delivered THEN cascade END"
# Each step once for each row: otherwise SQLite would put the words of one into every place where another names it.
HEARD = f"""
INSERT INTO temp.heard
WITH known AS MATERIALIZED ({_KNOWN}),
judged AS (SELECT *, {_VERIFIED} AS verified, {_GUESS} AS guess FROM known)
SELECT tenant, task, place, id, at, ended, aside, delivered, request_class, model, prompt, permissions,
    cost_pusd, energy_low_uj, energy_uj, energy_high_uj, output_tokens, useful_tokens, least_score,
    CASE WHEN NOT aside THEN coalesce(said, verified, guess) END,
    CASE WHEN aside THEN 0 WHEN said IS NOT NULL THEN 3 WHEN verified IS NOT NULL THEN 2 WHEN guess IS NOT NULL THEN 1
        ELSE 0 END,
    CASE WHEN NOT aside AND said IS NULL AND verified IS NULL AND guess IS NULL AND delivered AND may_ask_again
        AND ended + no_retry_within_s > :now THEN ended + no_retry_within_s END
FROM judged ORDER BY at, id
"""

_OF_TASK = f"""f.about = h.task AND f.tenant = h.tenant AND f.kind = 'task' AND EXISTS (
    SELECT 1 FROM temp.heard e WHERE e.tenant = h.tenant AND e.task = h.task AND {MAY.format(row="e.permissions")})"""
_TASK_SCORED = _SUCCESS.format(least="h.least_score")
_WORD = _said(_TASK_SCORED, f"{_TASK_SCORED} IS NOT NULL", _OF_TASK)
_USEFUL_WORD = _said("f.useful_tokens", "f.useful_tokens IS NOT NULL", _OF_TASK)
# Of each task its first row, that with the best verdict and the last that was delivered, as one number each: in them,
# rows are told apart by their place in `heard`, which is their order in time.
_ORDER = 48  # bits
_ROW = (1 << _ORDER) - 1
_GROUPED = f"""
SELECT tenant, task, min(place) AS place, min((aside << {_ORDER}) | rowid) & {_ROW} AS first,
    max(((1 - aside) << {_ORDER + 2}) | (rank << {_ORDER}) | rowid) & {_ROW} AS best,
    max(((1 - aside) << {_ORDER + 2}) | (delivered << {_ORDER}) | rowid) & {_ROW} AS last,
    sum(NOT aside) AS calls, sum(aside) AS asides, coalesce(sum(cost_pusd), 0) AS cost_pusd,
    sum(cost_pusd IS NULL) AS unpriced, coalesce(sum(energy_low_uj), 0) AS energy_low_uj,
    coalesce(sum(energy_uj), 0) AS energy_uj, coalesce(sum(energy_high_uj), 0) AS energy_high_uj,
    sum(energy_low_uj IS NULL OR energy_uj IS NULL OR energy_high_uj IS NULL) AS unmetered,
    sum(CASE WHEN NOT aside THEN output_tokens END) AS output_tokens, sum(useful_tokens) AS useful_tokens,
    min(due_at) AS due_at
FROM temp.heard GROUP BY tenant, task
"""
# The first row names the task's class and template; the one that decided, or the last, who answered it.
_TOGETHER = f"""
SELECT t.tenant, t.task AS id, t.place, h.at AS first_at, h.request_class,
    CASE WHEN b.rank > 0 THEN b.model ELSE l.model END AS model, h.prompt,
    t.calls, t.asides, t.cost_pusd, t.unpriced, t.energy_low_uj, t.energy_uj, t.energy_high_uj, t.unmetered,
    t.output_tokens, coalesce({_USEFUL_WORD}, t.useful_tokens) AS useful_tokens, {_WORD} AS word,
    CASE WHEN b.rank > 0 THEN b.verdict END AS verdict, b.rank, CASE WHEN b.rank > 0 THEN b.ended END AS decided,
    CASE WHEN l.delivered THEN l.ended END AS ended, t.due_at
FROM ({_GROUPED}) t CROSS JOIN temp.heard h ON h.rowid = t.first CROSS JOIN temp.heard b ON b.rowid = t.best
    CROSS JOIN temp.heard l ON l.rowid = t.last
"""
# Dealt by the place of the task's first row, as Fibonacci hashing deals: the same again whenever it is made anew.
_BUCKET = f"(place % 1048576) * 2654435761 % 4294967296 / {2**32 // BUCKETS}"
_END = "CASE WHEN word IS NULL THEN decided ELSE ended END"
MADE = f"""
INSERT INTO temp.made
SELECT tenant, id, {_BUCKET}, CAST(first_at / {BLOCK_S} AS INTEGER), first_at, request_class, model, prompt,
    calls, asides, cost_pusd, unpriced, energy_low_uj, energy_uj,
    energy_high_uj, unmetered, output_tokens, useful_tokens, coalesce(word, verdict),
    CASE WHEN word IS NOT NULL OR rank = 3 THEN 'feedback' WHEN rank = 2 THEN 'verifier'
        WHEN rank = 1 THEN 'heuristic' END,
    CASE WHEN coalesce(word, verdict) = 1 THEN CAST(round(max(0, {_END} - first_at) * 1e3) AS INTEGER) END,
    CASE WHEN word IS NULL THEN due_at END
FROM ({_TOGETHER})
"""

TASKS = "INSERT OR REPLACE INTO task SELECT * FROM temp.made"

_DIMENSIONS = " UNION ALL ".join(f"SELECT '{name}' AS grouping" for name in GROUPINGS)
NAME = """CASE g.grouping WHEN 'all' THEN '' WHEN 'class' THEN k.request_class WHEN 'tenant' THEN k.tenant
    WHEN 'model' THEN k.model ELSE k.prompt END"""
# What has changed, summed once by all that tasks are told apart by; the groupings are sums of that.
_CHANGES = """
FROM (SELECT -1 AS sign, b.* FROM temp.before b UNION ALL SELECT 1, n.* FROM temp.made n) k
"""
_CHANGE = ", ".join(f"sum(k.sign * ({of})) AS {name}" for name, of in MEASURES.items())
_TOLD_APART = "k.block, k.request_class, k.tenant, k.model, k.prompt, k.bucket"
_SUMMED = ", ".join(f"sum(k.{name})" for name in MEASURES)
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in MEASURES)
SUMS = f"""
INSERT INTO task_sum
WITH changed AS MATERIALIZED (SELECT {_TOLD_APART}, {_CHANGE} {_CHANGES} GROUP BY 1, 2, 3, 4, 5, 6)
SELECT g.grouping, k.block, {NAME} AS name, k.bucket, {_SUMMED}
FROM changed k CROSS JOIN ({_DIMENSIONS}) g WHERE true GROUP BY 1, 2, 3, 4
ON CONFLICT (grouping, block, name, bucket) DO UPDATE SET {_ADDED}
"""
# Two digits of the latency are kept: within 5 %.
LATENCIES = f"""
INSERT INTO task_latency
WITH changed AS MATERIALIZED (
    SELECT k.block, k.request_class, k.tenant, k.model, k.prompt,
        CAST(printf('%.1e', k.latency_ms) AS REAL) AS about_ms, sum(k.sign) AS tasks
    {_CHANGES} WHERE k.latency_ms IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6)
SELECT g.grouping, k.block, {NAME} AS name, k.about_ms, sum(k.tasks)
FROM changed k CROSS JOIN ({_DIMENSIONS}) g WHERE true GROUP BY 1, 2, 3, 4 HAVING sum(k.tasks) <> 0
ON CONFLICT (grouping, block, name, about_ms) DO UPDATE SET tasks = tasks + excluded.tasks
"""
# Verdicts that are new, or other than before: of each class success (1), failure (0) or unknown (null), and how many.
VERDICTS = """
SELECT n.request_class, n.success, count(*)
FROM temp.made n LEFT JOIN temp.before b ON b.tenant = n.tenant AND b.id = n.id
WHERE b.id IS NULL OR b.success IS NOT n.success GROUP BY 1, 2
"""

RULES = "SELECT request_class, answered, schema_valid, has_schema, no_retry_within_s, least_score FROM task_rule"
FORGET_RULES = "DELETE FROM task_rule"
SET_RULE = "INSERT INTO task_rule VALUES (?, ?, ?, ?, ?, ?)"
