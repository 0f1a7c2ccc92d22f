"""Records what `pgoutput` of the installed PostgreSQL sends: `tests/snapshots/pgoutput`.

    python -m tests.peers.record_pgoutput

It writes one file for each protocol: messages, each after its length as four bytes.
"""

import gzip
import struct
from pathlib import Path

from loadtests.postgres import Postgres, postgres

SNAPSHOTS = Path(__file__).parents[1] / "snapshots" / "pgoutput"
SCHEMA = """
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE TABLE blocks (
  id bigint PRIMARY KEY, workspace_id int NOT NULL, page_id int,
  title text, is_open bool, body text, mood mood
);
ALTER TABLE blocks ALTER body SET STORAGE EXTERNAL;
CREATE TABLE pages (id int PRIMARY KEY, name text NOT NULL);
ALTER TABLE pages REPLICA IDENTITY FULL;
CREATE PUBLICATION all_tables FOR ALL TABLES;
SELECT pg_create_logical_replication_slot('s1', 'pgoutput');
SELECT pg_create_logical_replication_slot('s2', 'pgoutput');
"""
TRANSACTIONS = (
    "INSERT INTO blocks VALUES (1, 7, NULL, 'é', true, repeat('x', 3000), 'calm')",
    "UPDATE blocks SET title = 'b', is_open = false WHERE id = 1",
    "UPDATE blocks SET id = 2 WHERE id = 1",
    "DELETE FROM blocks WHERE id = 2",
    "BEGIN; INSERT INTO pages VALUES (1, 'one'); UPDATE pages SET name = 'two'; DELETE FROM pages;"
    " SELECT pg_logical_emit_message(true, 'cachesvc', '{}'); COMMIT",
    "TRUNCATE blocks, pages",
    "SELECT pg_logical_emit_message(false, 'other', 'now')",
    "ALTER TABLE pages ADD COLUMN more int; INSERT INTO pages VALUES (5, 'x', 3)",
    "BEGIN; INSERT INTO pages SELECT n, repeat('y', 400) FROM generate_series(10, 209) n; SAVEPOINT s;"
    " INSERT INTO pages SELECT n, repeat('z', 400) FROM generate_series(300, 499) n; ROLLBACK TO s; COMMIT",
)
"""The last one is above the least `logical_decoding_work_mem`: protocol 2 streams it."""
OPTIONS = {
    1: "'proto_version', '1', 'publication_names', 'all_tables', 'messages', 'true'",
    2: "'proto_version', '2', 'publication_names', 'all_tables', 'messages', 'true', 'streaming', 'on'",
}


def recorded(server: Postgres, protocol: int) -> bytes:
    """The messages of all transactions, each after its length."""
    options = OPTIONS[protocol]
    peek = f"pg_logical_slot_peek_binary_changes('s{protocol}', NULL, NULL, {options})"
    lines = server.psql(f"SELECT encode(data, 'hex') FROM {peek}")  # noqa: S608  nothing here is a caller's
    messages = [bytes.fromhex(line) for line in lines.splitlines()]
    return b"".join(struct.pack("!I", len(message)) + message for message in messages)


def main() -> None:
    SNAPSHOTS.mkdir(parents=True, exist_ok=True)
    with postgres(logical_decoding_work_mem="64kB") as server:
        server.psql(SCHEMA)
        for transaction in TRANSACTIONS:
            server.psql(transaction)
        for protocol in OPTIONS:
            path = SNAPSHOTS / f"protocol-{protocol}.gz"
            path.write_bytes(gzip.compress(recorded(server, protocol), mtime=0))


if __name__ == "__main__":
    main()
