"""Bytes in flight: the bodies of one namespace leave room for those of another."""

import pytest

from cachesvc.model.errors import RequestError
from cachesvc.web.bytes_in_flight import BytesInFlight, Held


def test_the_large_answers_of_one_namespace_do_not_refuse_those_of_another() -> None:
    in_flight = BytesInFlight(800, is_shared=True)
    with Held(in_flight, "large") as large:
        while in_flight.has_room(10, "large"):
            large.take(10)
        assert large.size == 700, "7/8 of the whole"
        with pytest.raises(RequestError):
            in_flight.admit(10, "large")
        with Held(in_flight, "small") as small:
            small.admit()
            small.take(50)
            assert in_flight.has_room(10, "small")
            assert not in_flight.has_room(10, "large")
    assert (in_flight.held, in_flight.by_namespace) == (0, {})


def test_one_namespace_has_all_the_room() -> None:
    in_flight = BytesInFlight(800)
    with Held(in_flight, "pages") as held:
        held.take(790)
        assert in_flight.has_room(10, "pages")
        assert not in_flight.has_room(11, "pages")


def test_one_body_alone_fits_in_any_case() -> None:
    in_flight = BytesInFlight(800, is_shared=True)
    assert in_flight.has_room(5000, "pages")
    in_flight.held = 1  # the head of another request
    assert not in_flight.has_room(5000, "pages")
    assert in_flight.has_room(799, "pages")
