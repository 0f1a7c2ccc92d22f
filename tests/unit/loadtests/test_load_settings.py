"""The settings of a load, read from the environment."""

from pathlib import Path

import pytest

from loadtests.load.arrivals import Step
from loadtests.load.settings import mix_of, settings_of

URLS = {"LOAD_URLS": "http://a:1/, http://b:2"}


def test_instances_are_all_that_must_be_said() -> None:
    settings = settings_of(URLS)
    assert settings.urls == ("http://a:1", "http://b:2")
    assert (settings.mix, settings.keys, settings.rate, settings.out) == (
        {"http": 1},
        "zipf:20000:1.1",
        (),
        Path(".run/load"),
    )


def test_a_kind_has_its_share_of_the_weights_and_one_of_weight_0_is_not_there() -> None:
    settings = settings_of({**URLS, "LOAD_MIX": "http=6,sdk=3, writer=1,bulk=0", "LOAD_RATE": "50,9s:70"})
    assert settings.mix == {"http": 6, "sdk": 3, "writer": 1}
    assert settings.share_of("sdk") == 0.3
    assert settings.rate == (Step(0, 50), Step(9, 70))


@pytest.mark.parametrize("mix", ["", "http", "http=x", "http=-1", "http=0", "ftp=1", "http=1.5"])
def test_a_mix_that_is_none_is_refused(mix: str) -> None:
    with pytest.raises(ValueError, match=f"^'{mix}': "):
        mix_of(mix)


@pytest.mark.parametrize(
    "wrong",
    [
        {"LOAD_URLS": "a:1"},
        {"LOAD_KEYS": "zipf"},
        {"LOAD_RATE": "fast"},
        {"LOAD_SEED": "x"},
        {"LOAD_MAX_LAG": "2s"},
    ],
)
def test_the_variable_at_fault_is_named(wrong: dict[str, str]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name}: "):
        settings_of(URLS | wrong)
