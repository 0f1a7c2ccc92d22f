"""The server behind a cell's name, and from when on its word counts."""

from cachesvc.tiers.l3.issuer import NEVER, Issuer

S = 100_000


def test_copies_are_exact_from_the_moment_on_at_which_their_server_was_met() -> None:
    issuer = Issuer(S)
    issuer.meet(1, 10 * S)
    assert issuer.exact_from(1, 0, 20 * S) == 12 * S + 1000
    assert issuer.exact_from(1, 15 * S, 20 * S) == 15 * S
    assert issuer.exact_from(2, 0, 20 * S) == NEVER


def test_a_server_whose_clock_is_set_back_is_met_anew() -> None:
    """Otherwise its copies would not be exact for as long as its clock was ahead."""
    issuer = Issuer(S)
    issuer.meet(1, 3600 * 10 * S)
    assert issuer.exact_from(2, 0, 10 * S) == NEVER
    assert issuer.exact_from(1, 0, 10 * S) == 12 * S + 1000
    assert issuer.exact_from(1, 0, 20 * S) == 12 * S + 1000
    assert issuer.exact_from(1, 0, 9 * S) == 12 * S + 1000, "clocks may differ by S"
    assert issuer.changes == 0
