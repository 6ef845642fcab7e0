"""What the PostgreSQL index asks of its database. Keys, tags and scopes are there as digests of 24 bytes.

An entry is never changed, only made and deleted: when it was last read is in a table of its own, so that reading
writes nothing into the graphs. Times are the callers', in seconds since 1970.
"""

from __future__ import annotations

SCHEMA = """
CREATE TABLE IF NOT EXISTS index_meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), model text NOT NULL, dimensions integer NOT NULL
);
CREATE TABLE IF NOT EXISTS index_entry (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key bytea NOT NULL UNIQUE, scope bytea NOT NULL,
    expires_at double precision NOT NULL, size bigint NOT NULL, mark bytea NOT NULL, name bytea NOT NULL,
    vector vector({dimensions}) NOT NULL CHECK (vector_norm(vector) BETWEEN 0.99 AND 1.01), value bytea NOT NULL
);
ALTER TABLE index_entry ALTER COLUMN vector SET STORAGE {storage};
CREATE INDEX IF NOT EXISTS index_entry_scope ON index_entry (scope, expires_at);
CREATE INDEX IF NOT EXISTS index_entry_expiry ON index_entry (expires_at) INCLUDE (size);
CREATE TABLE IF NOT EXISTS index_use (
    id bigint PRIMARY KEY REFERENCES index_entry ON DELETE CASCADE, at double precision NOT NULL
);
CREATE INDEX IF NOT EXISTS index_use_at ON index_use (at, id);
CREATE TABLE IF NOT EXISTS index_tag (
    tag bytea NOT NULL, id bigint NOT NULL REFERENCES index_entry ON DELETE CASCADE, PRIMARY KEY (tag, id)
);
CREATE INDEX IF NOT EXISTS index_tag_id ON index_tag (id);
CREATE TABLE IF NOT EXISTS index_total (
    one boolean PRIMARY KEY DEFAULT true CHECK (one), entries bigint NOT NULL, bytes bigint NOT NULL
);
INSERT INTO index_total (entries, bytes) VALUES (0, 0);
CREATE FUNCTION index_counted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE sign integer := CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END;
BEGIN
    UPDATE index_total SET entries = entries + sign * changed.rows, bytes = bytes + sign * changed.size
    FROM (SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS size FROM touched) AS changed
    WHERE changed.rows > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER index_added AFTER INSERT ON index_entry
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION index_counted();
CREATE TRIGGER index_gone AFTER DELETE ON index_entry
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION index_counted();
CREATE TABLE IF NOT EXISTS index_case (
    id bytea NOT NULL, tier text NOT NULL, request_class text NOT NULL, at double precision NOT NULL,
    review boolean NOT NULL, wrong boolean, basis text, body bytea NOT NULL, PRIMARY KEY (id, tier)
);
CREATE INDEX IF NOT EXISTS index_case_class ON index_case (request_class, tier, at, id);
CREATE INDEX IF NOT EXISTS index_case_review ON index_case (at, id) WHERE review;
"""
PROBE = "index_case"  # made last, so where it is, all is
SET_META = "INSERT INTO index_meta (model, dimensions) VALUES ($1, $2) ON CONFLICT DO NOTHING"
META = 'SELECT model, dimensions FROM "{schema}".index_meta'

EXTENSION = "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'"
CREATE_EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"

# -- entries -------------------------------------------------------------------------------------------------------

# The distance is an expression that no graph answers: every vector of the scope is compared.
EXACT = """
SELECT name, similarity, mark FROM (
    SELECT id, name, mark, 1 - (vector <=> (SELECT $2::real[]::vector)) AS similarity FROM index_entry
    WHERE scope = $1 AND expires_at > $3
) AS compared ORDER BY similarity DESC, id LIMIT $4
"""
# The scope stands in the text: only so the planner sees that the graph of this scope is meant.
GRAPH = """
SELECT name, 1 - distance AS similarity, mark FROM (
    SELECT id, name, mark, vector <=> $1::real[]::vector AS distance FROM index_entry
    WHERE scope = '\\x{scope}'::bytea AND expires_at > $2 ORDER BY vector <=> $1::real[]::vector LIMIT $3
) AS found ORDER BY distance, id
"""
GET = "SELECT id, value FROM index_entry WHERE key = $1 AND expires_at > $2"
TOUCH = """
UPDATE index_use SET at = read.at FROM unnest($1::bigint[], $2::double precision[]) AS read (id, at)
WHERE index_use.id = read.id AND index_use.at < read.at
"""
# What was there under the key, and what has expired, some of it.
CLEAR = """
DELETE FROM index_entry WHERE key = $1
OR id IN (SELECT id FROM index_entry WHERE expires_at <= $2 ORDER BY expires_at LIMIT 100)
"""
INSERT = """
WITH added AS (
    INSERT INTO index_entry (key, scope, vector, mark, name, value, expires_at, size)
    VALUES ($1, $2, $3::real[]::vector, $4, $5, $6, $7, $8) RETURNING id
), used AS (INSERT INTO index_use SELECT id, $9 FROM added),
tagged AS (INSERT INTO index_tag SELECT DISTINCT tag, id FROM unnest($10::bytea[]) AS tag, added)
SELECT id FROM added
"""
TOTAL = "SELECT entries, bytes FROM index_total"
# Of all but one, those not read for longest: until so many entries, and so many bytes, have gone.
MAKE_ROOM = """
WITH oldest AS (
    SELECT id, size, sum(size) OVER (ORDER BY at, id) AS freed, row_number() OVER (ORDER BY at, id) AS place
    FROM (SELECT id, at FROM index_use WHERE id <> $1 ORDER BY at, id LIMIT 100) AS used JOIN index_entry USING (id)
)
DELETE FROM index_entry WHERE id IN (SELECT id FROM oldest WHERE place <= $2 OR freed - size < $3)
"""
DELETE = "DELETE FROM index_entry WHERE key = $1 RETURNING expires_at"
_TAGGED = "SELECT id FROM index_tag WHERE tag = ANY($1::bytea[]) GROUP BY id HAVING count(*) = $2"
COUNT_TAGGED = f"SELECT count(*) FROM index_entry WHERE expires_at > $3 AND id IN ({_TAGGED})"
DELETE_TAGGED = f"DELETE FROM index_entry WHERE id IN ({_TAGGED} LIMIT $4) RETURNING expires_at > $3 AS alive"
STATS = """
SELECT entries - gone.rows AS entries, bytes - gone.size AS bytes,
    (SELECT count(*) FROM (SELECT DISTINCT scope FROM index_entry WHERE expires_at > $1) AS alive) AS scopes
FROM index_total, (
    SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS size FROM index_entry WHERE expires_at <= $1
) AS gone
"""

# -- graphs --------------------------------------------------------------------------------------------------------

GRAPHS = """
SELECT relname AS name, indisvalid AS valid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE indrelid = 'index_entry'::regclass AND relname ~ '^graph_[0-9a-f]{48}$'
"""
COUNT = "SELECT count(*) FROM (SELECT FROM index_entry WHERE scope = $1 LIMIT $2) AS counted"
TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
# Without holding up those who put; it takes long.
CREATE_GRAPH = """
CREATE INDEX CONCURRENTLY graph_{scope} ON index_entry USING hnsw (vector vector_cosine_ops)
WITH (m = {m}, ef_construction = {ef}) WHERE scope = '\\x{scope}'::bytea
"""
DROP_GRAPH = "DROP INDEX CONCURRENTLY IF EXISTS graph_{scope}"

# -- cases ---------------------------------------------------------------------------------------------------------

# What a person said stays: wrong and basis are columns, and the body's own are not looked at.
ADD_CASE = """
INSERT INTO index_case AS old (id, tier, request_class, at, review, wrong, basis, body)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (id, tier) DO UPDATE SET
    request_class = excluded.request_class, at = excluded.at, review = excluded.review, body = excluded.body,
    wrong = CASE WHEN {kept} THEN old.wrong ELSE excluded.wrong END,
    basis = CASE WHEN {kept} THEN old.basis ELSE excluded.basis END
""".format(kept="old.basis = 'human' AND excluded.basis IS DISTINCT FROM 'human'")
TRIM_CASES = """
DELETE FROM index_case WHERE (id, tier) IN (
    SELECT id, tier FROM index_case WHERE request_class = $1 AND tier = $2 ORDER BY at DESC, id DESC OFFSET $3
)
"""
LABEL = """
UPDATE index_case SET wrong = CASE WHEN {kept} THEN wrong ELSE $2 END, basis = CASE WHEN {kept} THEN basis ELSE $3 END
WHERE id = $1 RETURNING true
""".format(kept="basis = 'human' AND $3 <> 'human'")
RECENT = """
SELECT id, tier, wrong, basis, body FROM index_case WHERE request_class = $1 AND tier = $2
ORDER BY at DESC, id DESC LIMIT $3
"""
WAITING = """
SELECT id, tier, wrong, basis, body FROM index_case WHERE review AND basis IS DISTINCT FROM 'human'
ORDER BY at, id LIMIT $1
"""
DROP_CASE = "DELETE FROM index_case WHERE id = $1 AND tier = $2"
CLASSES = "SELECT DISTINCT request_class, tier FROM index_case"
