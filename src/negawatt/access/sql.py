"""All SQL of the file of keys. Keys and secrets are never deleted; lines of the audit log are final."""

from __future__ import annotations

APPLICATION = 0x6E776B79  # "nwky", in the file's application_id
VERSION = 1  # of the schema, in the file's user_version

SCHEMA = """
CREATE TABLE IF NOT EXISTS access_key (
    id TEXT PRIMARY KEY, note TEXT NOT NULL, tenant TEXT NOT NULL, user TEXT, permissions TEXT NOT NULL,
    models TEXT, classes TEXT, budgets TEXT NOT NULL, admin INTEGER NOT NULL, use INTEGER NOT NULL,
    expires_at REAL, created_at REAL NOT NULL, created_by TEXT NOT NULL, revoked_at REAL, used_at REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS access_secret (
    digest BLOB PRIMARY KEY, key_id TEXT NOT NULL REFERENCES access_key (id), handle TEXT NOT NULL UNIQUE,
    made_at REAL NOT NULL, ends_at REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
    place INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    about TEXT NOT NULL, detail TEXT NOT NULL, chain TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS audit_stays BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'lines of the audit log stay'); END;
CREATE TRIGGER IF NOT EXISTS audit_is_final BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'lines of the audit log are final'); END
"""

KEYS = """
SELECT id, note, tenant, user, permissions, models, classes, budgets, admin, use, expires_at, created_at, created_by,
    revoked_at, used_at
FROM access_key ORDER BY created_at, id
"""
KEY = KEYS.replace("ORDER BY", "WHERE id = ? ORDER BY")
SECRETS = "SELECT digest, key_id, handle, made_at, ends_at FROM access_secret ORDER BY made_at, handle"
INSERT_KEY = f"INSERT INTO access_key VALUES ({', '.join('?' * 15)})"
INSERT_SECRET = "INSERT INTO access_secret VALUES (?, ?, ?, ?, ?)"
REVOKE = "UPDATE access_key SET revoked_at = ? WHERE id = ?"
END_SECRETS = "UPDATE access_secret SET ends_at = ? WHERE key_id = ? AND coalesce(ends_at, 9e99) > ?"
USED = "UPDATE access_key SET used_at = ?1 WHERE id = ?2 AND coalesce(used_at, 0) < ?1"

NOTE = "INSERT INTO audit (place, at, actor, action, about, detail, chain) VALUES (?, ?, ?, ?, ?, ?, ?)"
HEAD = "SELECT place, chain FROM audit ORDER BY place DESC LIMIT 1"
LINES = """
SELECT place, at, actor, action, about, detail, chain FROM audit WHERE at >= ? AND place < ? ORDER BY place DESC LIMIT ?
"""
ALL_LINES = "SELECT place, at, actor, action, about, detail, chain FROM audit ORDER BY place"
LAST_PLACE = "SELECT seq FROM sqlite_sequence WHERE name = 'audit'"
LAST_OF = "SELECT detail FROM audit WHERE action = ? ORDER BY place DESC LIMIT 1"
