"""All SQL of the roll-ups: sums of ledger rows by the quarter of an hour, the hour and the day (UTC).

What is summed by what is data (`rollup_tables`); the statements are made from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from negawatt.ledger.rollup_tables import (
    ACTIONS,
    ALL,
    BLOCKS,
    CALLS,
    DIMENSIONS,
    FEW,
    GROUP_SUMS,
    GROUPED,
    GROUPS,
    MOST,
    NUMBERS,
    OTHER,
    SLOT_S,
    SPANS,
    SUMS,
    TABLES,
    TEMPLATES,
    TENANTS,
    Table,
)


def _columns(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {'INTEGER' if name in NUMBERS else 'TEXT'} NOT NULL" for name in names)


def _sums(table: Table) -> str:
    kinds = {name: "REAL" if name.endswith(("_j", "_s", "_g")) else "INTEGER" for name in table.sums}
    return ", ".join(f"{name} {kind} NOT NULL" for name, kind in kinds.items())


def _create(table: Table) -> str:
    keys = ", ".join((*table.lead, "span", "slot", *table.keys))
    lead = f"{_columns(table.lead)}, " if table.lead else ""
    return (
        f"CREATE TABLE IF NOT EXISTS {table.name} ({lead}span INTEGER NOT NULL, slot INTEGER NOT NULL, "
        f"{_columns(table.keys)}, {_sums(table)}, PRIMARY KEY ({keys})) WITHOUT ROWID;\n"
    )


# `rollup_times`: how long calls took, by class and for all classes together, as text that is added up by
# `negawatt.ledger.histograms`. `rollup_names`: who is told apart. `rollup_state`: "rowid" is the last row that is in
# the roll-ups, "rows" how many are, "skipped" how many cannot be summed. `rollup_dirty`: what has yet to be made, and
# must not be read.
_MORE = """
CREATE TABLE IF NOT EXISTS rollup_times (
    request_class TEXT, what TEXT, span INTEGER, slot INTEGER, counts TEXT NOT NULL,
    PRIMARY KEY (request_class, what, span, slot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollup_names (kind TEXT, name TEXT, PRIMARY KEY (kind, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollup_state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollup_dirty (span INTEGER, slot INTEGER, PRIMARY KEY (span, slot)) WITHOUT ROWID;
"""
SCHEMA = "".join(map(_create, TABLES)) + _MORE

_SLOT = f"(CAST(received_at AS INTEGER) / {SLOT_S} * {SLOT_S})"
DIRTY = f"INSERT OR IGNORE INTO rollup_dirty SELECT {SLOT_S}, {_SLOT} FROM outcome WHERE id = ?"

# Which rows: by number, or those of a slot that are in the roll-ups already. Both take (:first, :last, :since, :until).
NEW = "outcome.rowid > :first AND outcome.rowid <= :last"
OLD = "received_at >= :since AND received_at < :until AND +outcome.rowid <= :last"

FRESH = [
    f"CREATE TEMP TABLE IF NOT EXISTS {name.removeprefix('temp.')} "
    f"({lead}slot INTEGER NOT NULL, {_columns(t.keys)}, {_sums(t)})"
    for t in TABLES
    for name, lead in ((t.fresh, ""), *(((t.staged, "grain TEXT NOT NULL, "),) if t.grains else ()))
] + ["CREATE TEMP TABLE IF NOT EXISTS fresh_times (slot INTEGER, request_class TEXT, what TEXT, counts TEXT)"]
EMPTY = [f"DELETE FROM {name}" for table in TABLES for name in dict.fromkeys((table.fresh, table.staged))]
EMPTY.append("DELETE FROM temp.fresh_times")

_HEX = "'0123456789abcdef'"
_OF = "coalesce(fingerprint, id)"  # repeats of a call belong together, as in a report
GRP = f"((instr({_HEX}, substr({_OF}, -1, 1)) * 2 + (instr({_HEX}, substr({_OF}, -2, 1)) > 8)) & {GROUPS - 1})"


def gather(rows: str) -> list[str]:
    """Return the statements that put what *rows* (`NEW` or `OLD`) come to into the temporary tables.

    All but times and decisions, which `told` is for.
    """
    made = ", ".join(DIMENSIONS.values())
    by = ", ".join(str(i + 1) for i in range(len(DIMENSIONS) + 1))
    few = ", ".join(SUMS[name] for name in FEW)
    return [
        f"INSERT INTO {CALLS.fresh} SELECT {_SLOT}, {made}, {', '.join(SUMS.values())} FROM outcome "
        f"WHERE {rows} GROUP BY {by}",
        f"INSERT INTO {GROUPED.fresh} SELECT {_SLOT}, holdout, {GRP}, {', '.join(GROUP_SUMS.values())} FROM outcome "
        f"WHERE {rows} GROUP BY 1, 2, 3",
        f"INSERT INTO {TENANTS.fresh} SELECT {_SLOT}, tenant, request_class, {few} FROM outcome "
        f"WHERE {rows} AND tenant IS NOT NULL GROUP BY 1, 2, 3",
        f"INSERT INTO {TEMPLATES.fresh} SELECT {_SLOT}, template, coalesce(template_version, ''), {few} FROM outcome "
        f"WHERE {rows} AND template IS NOT NULL GROUP BY 1, 2, 3",
        f"INSERT INTO {BLOCKS.fresh} SELECT {_SLOT}, template, coalesce(template_version, ''), block.key, count(*), "
        f"sum(block.value) FROM outcome, json_each(prompt_blocks) AS block "
        f"WHERE {rows} AND template IS NOT NULL AND prompt_blocks IS NOT NULL GROUP BY 1, 2, 3, 4",
    ]


def told(rows: str) -> str:
    """Return the statement that gives *rows* as one JSON text, [[slot, class, ending, grp, seconds, first, [...]]]:
    how long each took, in all and until its first chunk, and its decisions.

    One text and not a row for each: between rows SQLite gives up the interpreter's lock, and on a busy process each
    return to it can take milliseconds.
    """
    first = "coalesce(time_to_first_chunk_s, 'null')"
    cells = (_SLOT, "json_quote(request_class)", "json_quote(ending)", GRP, "duration_s", first, "decisions")
    one = " || ',' || ".join(cells)
    return f"SELECT '[' || group_concat('[' || {one} || ']') || ']' FROM outcome WHERE {rows}"


def put(table: Table) -> str:
    """Return the statement that puts rows, a JSON array of arrays, into the temporary table of *table*."""
    return _put(table.fresh, 1 + len(table.keys) + len(table.sums))


def _put(name: str, width: int) -> str:
    cells = ", ".join(f"json_extract(value, '$[{i}]')" for i in range(width))
    return f"INSERT INTO {name} SELECT {cells} FROM json_each(?)"


PUT_TIMES = _put("temp.fresh_times", 4)
COUNTS = "SELECT kind, count(*) FROM rollup_names GROUP BY kind"


def admit() -> list[str]:
    """Return the statements that tell new names apart, as long as there is room for their kind."""
    sources = (
        (CALLS, tuple(DIMENSIONS)), (TENANTS, ("tenant",)), (TEMPLATES, ("template", "template_version")),
        (ACTIONS, ("lever", "action")), (BLOCKS, ("block",)),
    )  # fmt: skip
    return [
        f"INSERT OR IGNORE INTO rollup_names SELECT DISTINCT '{kind}', {kind} FROM {table.fresh} "
        f"WHERE {kind} <> '' AND NOT EXISTS (SELECT 1 FROM rollup_names WHERE kind = '{kind}' AND name = {kind}) "
        f"LIMIT max(0, {MOST[kind]} - (SELECT count(*) FROM rollup_names WHERE kind = '{kind}'))"
        for table, kinds in sources
        for kind in kinds
        if kind in MOST
    ]


def fold(kind: str) -> list[str]:
    """Return the statements that count the names of *kind* for which there was no room under `OTHER`."""
    names = [table.fresh for table in TABLES if kind in table.keys]
    if kind == "request_class":
        names.append("temp.fresh_times")
    return [
        f"UPDATE {name} SET {kind} = '{OTHER}' WHERE {kind} NOT IN ('', '{ALL}') "
        f"AND NOT EXISTS (SELECT 1 FROM rollup_names WHERE kind = '{kind}' AND name = {kind})"
        for name in names
    ]


def stage(table: Table) -> list[str]:
    """Return the statements that split what is new into the grains of *table*."""
    sums = ", ".join(f"sum({name})" for name in table.sums)
    every = {key: "-1" if key in NUMBERS else f"'{ALL}'" for key in table.keys}
    return [
        f"INSERT INTO {table.staged} SELECT '{grain}', slot, "
        f"{', '.join(key if key in kept else every[key] for key in table.keys)}, {sums} "
        f"FROM {table.fresh} GROUP BY {', '.join(('slot', *kept))}"
        for grain, kept in table.grains.items()
    ]


def add(table: Table) -> str:
    """Return the statement that adds what is new to the rows of *table* of a quarter of an hour."""
    columns = ", ".join((*table.lead, "span", "slot", *table.keys))
    values = ", ".join((*table.lead, str(SLOT_S), "slot", *table.keys))
    sums = ", ".join(table.sums)
    more = ", ".join(f"{name} = {name} + excluded.{name}" for name in table.sums)
    return (
        f"INSERT INTO {table.name} ({columns}, {sums}) SELECT {values}, {sums} FROM {table.staged} "
        f"WHERE true ON CONFLICT ({columns}) DO UPDATE SET {more}"
    )


FRESH_TIMES = (
    "SELECT fresh.slot, fresh.request_class, fresh.what, fresh.counts, kept.counts FROM temp.fresh_times AS fresh "
    "LEFT JOIN rollup_times AS kept ON kept.request_class = fresh.request_class AND kept.what = fresh.what "
    f"AND kept.span = {SLOT_S} AND kept.slot = fresh.slot"
)
FINER_TIMES = "SELECT request_class, what, counts FROM rollup_times WHERE span = ? AND slot >= ? AND slot < ?"
KEEP_TIMES = "INSERT OR REPLACE INTO rollup_times VALUES (?, ?, ?, ?, ?)"
REMOVE_TIMES = "DELETE FROM rollup_times WHERE span = ? AND slot = ?"

# The hours and days that new rows fall into: their own rows have to be made, when they are over.
OPEN = [
    f"INSERT OR IGNORE INTO rollup_dirty SELECT DISTINCT {span}, slot / {span} * {span} FROM {CALLS.fresh}"
    for span in SPANS[1:]
]
# Those that can be made: quarters whose rows were changed (span), hours and days that are over; the finest first.
RIPE = "SELECT span, slot FROM rollup_dirty WHERE span = ? OR slot + span <= ? ORDER BY span, slot"
NEXT = "SELECT min(slot + span) FROM rollup_dirty"


def _text(grain: str) -> str:
    return f"'{grain}', " if grain else ""


def within(grain: str) -> str:
    """Return the condition, with an AND after it, that a row is of *grain*."""
    return f"grain = '{grain}' AND " if grain else ""


def remove(table: Table) -> list[str]:
    """Return the statements that delete the rows of *table* of one span and slot."""
    return [f"DELETE FROM {table.name} WHERE {within(grain)}span = ? AND slot = ?" for grain in table.grains or ("",)]


def coarsen(table: Table, span: int) -> list[str]:
    """Return the statements that make the rows of one slot of *span* from the next finer ones; (slot, its end)."""
    finer, keys = SPANS[SPANS.index(span) - 1], ", ".join(table.keys)
    columns = ", ".join((*table.lead, "span", "slot", *table.keys, *table.sums))
    sums = ", ".join(f"sum({name})" for name in table.sums)
    return [
        f"INSERT INTO {table.name} ({columns}) SELECT {_text(grain)}{span}, slot / {span} * {span}, {keys}, {sums} "
        f"FROM {table.name} WHERE {within(grain)}span = {finer} AND slot >= ? AND slot < ? GROUP BY {keys}"
        for grain in table.grains or ("",)
    ]


# -- reading ---------------------------------------------------------------------------------------------------

_PART = ", ".join(f"json_extract(value, '$[{i}]') AS {n}" for i, n in enumerate(("nth", "span", "since", "until")))
_PARTS = f"(SELECT {_PART} FROM json_each(?)) AS part"
_WITHIN = "slot >= part.since AND slot < part.until"


def read(table: Table, names: Sequence[str], grain: str, by: Sequence[str], *, new: bool) -> str:
    """Return the statement that sums *names* by bucket and *by*. It takes [[bucket, span, since, until]].

    *new*: of what is in no roll-up yet. Money comes in two halves, so that its sum cannot be beyond 64 bits.
    """
    halves = ("sum({0} >> 20)", "sum({0} & 1048575)")
    sums = [part.format(name) for name in names for part in (halves if name.endswith("_pusd") else ("sum({0})",))]
    keys = ", ".join(("part.nth", *by))
    source, span = (table.staged, "") if new else (table.name, "rolled.span = part.span AND ")
    return (
        f"SELECT {keys}, {', '.join(sums)} FROM {_PARTS} CROSS JOIN {source} AS rolled "
        f"WHERE {within(grain)}{span}{_WITHIN} GROUP BY {keys}"
    )


def read_times(classes: str, *, new: bool) -> str:
    """Return the statement that gives (bucket, class, counts) of those of one kind; *classes*: a condition on them.

    It takes [[bucket, span, since, until]] and the kind.
    """
    source, span = ("temp.fresh_times", "") if new else ("rollup_times", "rolled.span = part.span AND ")
    return (
        f"SELECT part.nth, request_class, counts FROM {_PARTS} CROSS JOIN {source} AS rolled "
        f"WHERE {classes} AND what = ? AND {span}{_WITHIN}"
    )


def seen(table: Table, keys: Sequence[str], *, new: bool) -> str:
    """Return the statement that gives when *keys* were first and last seen; it takes (since, until)."""
    names, source = ", ".join(keys), table.staged if new else table.name
    span = "" if new else f"span = {SLOT_S} AND "
    return f"SELECT {names}, min(slot), max(slot) FROM {source} WHERE {span}slot >= ? AND slot < ? GROUP BY {names}"


EARLIEST = f"SELECT min(slot) FROM rollup_calls WHERE grain = 'total' AND span = {SLOT_S}"
CLASSES = "SELECT name FROM rollup_names WHERE kind = 'request_class'"
