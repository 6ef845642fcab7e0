"""What the PostgreSQL store asks of its database. Keys, tags and groups are there as digests of 24 bytes.

Times are the callers', in seconds since 1970.
"""

from __future__ import annotations

SCHEMA = """
CREATE TABLE IF NOT EXISTS store_entry (
    key bytea PRIMARY KEY, value bytea NOT NULL, expires_at double precision NOT NULL,
    used_at double precision NOT NULL, kind bytea NOT NULL, size bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS store_entry_use ON store_entry (kind, used_at);
CREATE INDEX IF NOT EXISTS store_entry_expiry ON store_entry (expires_at) INCLUDE (size);
CREATE TABLE IF NOT EXISTS store_tag (
    tag bytea NOT NULL, key bytea NOT NULL REFERENCES store_entry ON DELETE CASCADE, PRIMARY KEY (tag, key)
);
CREATE INDEX IF NOT EXISTS store_tag_key ON store_tag (key);
CREATE TABLE IF NOT EXISTS store_total (kind bytea PRIMARY KEY, entries bigint NOT NULL, bytes bigint NOT NULL);
CREATE FUNCTION store_counted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    INSERT INTO store_total AS total (kind, entries, bytes)
    SELECT kind, sign * count(*), sign * sum(size)::bigint FROM touched GROUP BY kind ORDER BY kind
    ON CONFLICT (kind) DO UPDATE SET entries = total.entries + excluded.entries, bytes = total.bytes + excluded.bytes;
    RETURN NULL;
END $$;
CREATE TRIGGER store_added AFTER INSERT ON store_entry
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION store_counted();
CREATE TRIGGER store_gone AFTER DELETE ON store_entry
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION store_counted();
CREATE TABLE IF NOT EXISTS store_claim (
    key bytea PRIMARY KEY, token text NOT NULL, lapses_at double precision NOT NULL
);
CREATE INDEX IF NOT EXISTS store_claim_lapse ON store_claim (lapses_at);
"""
PROBE = "store_claim"  # made last, so where it is, all is
GET = "SELECT value FROM store_entry WHERE key = $1 AND expires_at > $2"
TOUCH = """
UPDATE store_entry SET used_at = read.at FROM unnest($1::bytea[], $2::double precision[]) AS read (key, at)
WHERE store_entry.key = read.key AND store_entry.used_at < read.at
"""
# What was there under the key, and what has expired, some of it.
CLEAR = """
DELETE FROM store_entry WHERE key = $1
OR key IN (SELECT key FROM store_entry WHERE expires_at <= $2 ORDER BY expires_at LIMIT 100)
"""
INSERT = """
WITH added AS (
    INSERT INTO store_entry (key, value, expires_at, used_at, kind, size) VALUES ($1, $2, $3, $4, $5, $6) RETURNING key
)
INSERT INTO store_tag SELECT DISTINCT tag, key FROM unnest($7::bytea[]) AS tag, added
"""
TOTALS = "SELECT kind, bytes FROM store_total WHERE bytes > 0 ORDER BY bytes DESC"
# Of one group, all but one: those not read for longest, until so many bytes have gone.
MAKE_ROOM = """
WITH oldest AS (
    SELECT key, size, sum(size) OVER (ORDER BY used_at, key) AS freed FROM (
        SELECT key, size, used_at FROM store_entry WHERE kind = $1 AND key <> $2 ORDER BY used_at, key LIMIT 100
    ) AS used
)
DELETE FROM store_entry WHERE key IN (SELECT key FROM oldest WHERE freed - size < $3)
"""
DELETE = "DELETE FROM store_entry WHERE key = $1 RETURNING true"
_TAGGED = "SELECT key FROM store_tag WHERE tag = ANY($1::bytea[]) GROUP BY key HAVING count(*) = $2"
COUNT_TAGGED = f"SELECT count(*) FROM store_entry WHERE expires_at > $3 AND key IN ({_TAGGED})"
DELETE_TAGGED = f"DELETE FROM store_entry WHERE key IN ({_TAGGED} LIMIT $4) RETURNING expires_at > $3 AS alive"
CLAIM = """
INSERT INTO store_claim VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE
SET token = excluded.token, lapses_at = excluded.lapses_at WHERE store_claim.lapses_at <= $4 RETURNING true
"""
RELEASE = "DELETE FROM store_claim WHERE key = $1 AND token = $2"
# Claims of those who died; those that somebody else is at are left to them.
LAPSED = """
DELETE FROM store_claim WHERE key IN (SELECT key FROM store_claim WHERE lapses_at <= $1 LIMIT 20 FOR UPDATE SKIP LOCKED)
"""
STATS = """
SELECT (coalesce(sum(entries), 0) - max(gone.rows))::bigint AS entries,
    (coalesce(sum(bytes), 0) - max(gone.size))::bigint AS bytes
FROM (
    SELECT count(*) AS rows, coalesce(sum(size), 0) AS size FROM store_entry WHERE expires_at <= $1
) AS gone LEFT JOIN store_total ON true
"""
