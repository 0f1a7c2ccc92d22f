"""A lease's token tells through which instance the lease was asked for."""

import pytest

from cachesvc.model.errors import RequestError
from cachesvc.tiers.l3.leases import holder_mark, holder_of, lease_as_of

INSTANCES = [("eu", "eu-a"), ("us", "us-b")]


def test_a_lease_tells_through_which_instance_it_was_asked_for() -> None:
    lease = f"{holder_mark('us', 'us-b')}0123456789ab-1:1700000000000000"
    assert holder_of(lease, INSTANCES) == "us/us-b"
    assert len(lease) < 80


def test_one_of_an_instance_that_is_not_known_tells_nothing() -> None:
    assert holder_of(f"{holder_mark('us', 'gone')}0123456789ab-1:17", INSTANCES) == ""
    assert holder_of("", INSTANCES) == ""


@pytest.mark.parametrize("lease", ["n:" + "9" * 17, "n:" + "1" * 70, "n:", ":1", "n", "n:-1", "n:1.0", "n:٣"])
def test_a_text_that_no_cell_can_have_granted_is_refused_at_the_door(lease: str) -> None:
    with pytest.raises(RequestError):
        lease_as_of(lease)


def test_an_as_of_is_read() -> None:
    assert lease_as_of("ab-1:1700000000000000") == 1_700_000_000_000_000
