"""The changes of a transaction become few requests."""

import pytest
from cachesvc_client.requests.changes import MOST_NAMES, Changes, invalidation_of


def test_changes_of_a_namespace_become_one_request_and_repeated_names_are_sent_once() -> None:
    changes = Changes()
    changes.note(invalidation_of("pages", ["a", "b"], tags=["t"]))
    changes.note(invalidation_of("users", ["a"]))
    changes.note(invalidation_of("pages", ["b", "c"]))
    assert len(changes) == 5
    assert [(asked.namespace, asked.keys, asked.tags) for asked in changes.take()] == [
        ("pages", ["a", "b", "c"], ("t",)),
        ("users", ["a"], ()),
    ]
    assert (len(changes), changes.take()) == (0, [])


def test_what_is_invalidated_in_another_way_is_another_request() -> None:
    changes = Changes()
    changes.note(invalidation_of("pages", ["a"]))
    changes.note(invalidation_of("pages", ["a"], soft=True))
    changes.note(invalidation_of("pages", ["a"], over="5m"))
    changes.note(invalidation_of("pages", ["a"], wait="region"))
    changes.note(invalidation_of("pages", all=True, confirm="pages"))
    assert [(one.soft, one.over, one.wait, one.all, one.confirm) for one in changes.take()] == [
        (False, "", "none", False, ""),
        (True, "", "none", False, ""),
        (False, "5m", "none", False, ""),
        (False, "", "region", False, ""),
        (False, "", "none", True, "pages"),
    ]


@pytest.mark.parametrize("count", [MOST_NAMES, MOST_NAMES + 1, 2 * MOST_NAMES + 500])
def test_a_large_transaction_is_sent_in_parts_that_the_service_takes(count: int) -> None:
    changes = Changes()
    changes.note(invalidation_of("pages", [f"k{i}" for i in range(count)], tags=["t"]))
    parts = changes.take()
    assert max(len(part.keys) + len(part.tags) for part in parts) <= MOST_NAMES
    assert [key for part in parts for key in part.keys] == [f"k{i}" for i in range(count)]
    assert [tag for part in parts for tag in part.tags] == ["t"]
