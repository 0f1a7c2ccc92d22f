"""HTTP caching as RFC 9111 has it, over HTTP on both sides: `tests/peers/http_cases.py`."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.peers.http_caching import Verdict, run_all
from tests.peers.http_cases import cases

IDS = [case["id"] for case in cases()]


@pytest.fixture(scope="module")
def verdicts() -> Mapping[str, tuple[Verdict, str]]:
    return asyncio.run(run_all([*cases()], pause_seconds=1.1, settle_seconds=3))


@pytest.mark.parametrize("id_", IDS)
def test_the_answer_of_an_origin_is_used_as_http_allows(
    verdicts: Mapping[str, tuple[Verdict, str]], id_: str
) -> None:
    assert verdicts[id_] == ("pass", "")


def test_no_two_cases_have_one_name() -> None:
    assert len(set(IDS)) == len(IDS)
