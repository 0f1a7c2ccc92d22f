"""The recipes of docs/recipes.md for databases run, each against its own package."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import django
import pytest
import sqlalchemy
from django import db as database
from django.conf import settings
from sqlalchemy.orm import sessionmaker

from clients.python.tests.sync.recipes import recipe
from clients.python.tests.sync.threaded_service import ThreadedService
from clients.python.tests.test_unsent import DOWN


def goes_through(
    threaded: ThreadedService,
    names: dict[str, Any],
    transaction: Callable[[], AbstractContextManager[Any]],
    change: Callable[[Any, list[str]], None],
    rows: Callable[[], int],
) -> None:
    """Commits, rolls back, commits while the cache is down, and empties the outbox."""
    service = threaded.fake
    with transaction() as session:
        change(session, ["a"])
        assert service.calls("invalidations") == []
    assert [call.body["keys"] for call in service.calls("invalidations")] == [["a"]]
    assert rows() == 0
    with pytest.raises(KeyError):
        fails(transaction, change)
    assert len(service.calls("invalidations")) == 1
    assert rows() == 0
    service.problems_of["pages"] = DOWN
    with transaction() as session:
        change(session, ["c"])
    assert rows() == 1
    service.problems_of.clear()
    names["empty_outbox"]()
    assert rows() == 0
    assert service.calls("invalidations")[-1].body["keys"] == ["c"]
    names["cache"].close()


def fails(
    transaction: Callable[[], AbstractContextManager[Any]], change: Callable[[Any, list[str]], None]
) -> None:
    with transaction() as session:
        change(session, ["b"])
        raise KeyError


def test_sqlalchemy(threaded: ThreadedService, tmp_path: Path) -> None:
    names = recipe("SQLAlchemy", threaded.url, **{"shop.db": str(tmp_path / "shop.db")})
    names["Base"].metadata.create_all(names["engine"])

    def rows() -> int:
        with names["engine"].connect() as connection:
            return len(connection.execute(sqlalchemy.select(names["Outbox"].id)).all())

    goes_through(
        threaded,
        names,
        lambda: _begun(names),
        lambda session, keys: names["changed"](session, names["pages"], keys=keys),
        rows,
    )


def _begun(names: dict[str, Any]) -> AbstractContextManager[Any]:
    begun: AbstractContextManager[Any] = sessionmaker(names["engine"]).begin()
    return begun


def test_django(threaded: ThreadedService) -> None:
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, INSTALLED_APPS=[]
    )
    django.setup()
    names = recipe("Django", threaded.url)
    with database.connection.schema_editor() as editor:
        editor.create_model(names["Outbox"])
    goes_through(
        threaded,
        names,
        database.transaction.atomic,
        lambda _session, keys: names["changed"](names["pages"], keys=keys),
        names["Outbox"].objects.count,
    )
