"""The recipes of docs/recipes.md run, each against its own package, if that is installed."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from clients.python.tests.sync.threaded_service import ThreadedService
from clients.python.tests.test_unsent import DOWN

PAGE = Path(__file__).parents[4] / "docs/recipes.md"
SHOWN_URL = "http://127.0.0.1:8080"


def recipe(title: str, url: str, **replaced: str) -> dict[str, Any]:
    """Runs the snippet beneath a title, and returns its names."""
    section = PAGE.read_text().split(f"## {title}\n")[1]
    snippet = re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert snippet is not None
    names: dict[str, Any] = {"__name__": "recipe"}
    text = snippet[1].replace(SHOWN_URL, url)
    for shown, instead in replaced.items():
        text = text.replace(shown, instead)
    exec(compile(text, f"{PAGE.name}#{title}", "exec"), names)  # noqa: S102  our own page
    return names


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
    sqlalchemy = pytest.importorskip("sqlalchemy")
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
    sessions = pytest.importorskip("sqlalchemy.orm").sessionmaker(names["engine"])
    begun: AbstractContextManager[Any] = sessions.begin()
    return begun


def test_django(threaded: ThreadedService) -> None:
    django = pytest.importorskip("django")
    settings = pytest.importorskip("django.conf").settings
    database = pytest.importorskip("django.db")
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
