"""The service answers as the cases of clients/conformance say, and computes what its vectors say."""

import pytest

from clients.conformance.case_format import Case, cases
from clients.conformance.replay import replay
from tests.wire.replayed_service import replayed_service

CASES = [(name, case) for name, case in cases() if "fault" not in case.needs]


@pytest.mark.looptime
@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
async def test_the_service_answers_as_the_case_says(case: Case) -> None:
    async with replayed_service() as service:
        await replay(case, service)
