"""A function that is answered from the cache."""

import asyncio
from dataclasses import dataclass

import pytest
from cachesvc_client import JSON, Cache, CacheError, LoadContext, Namespace

from clients.python.tests.fake_service import FakeService


@pytest.fixture
def users(cache: Cache) -> Namespace[object]:
    return cache.namespace("users", codec=JSON)


async def test_a_cached_function_runs_once_per_key_and_its_result_has_its_tags(
    service: FakeService, users: Namespace[object]
) -> None:
    ran: list[int] = []

    @users.cached("profile:{user_id}", ttl="5m", stale="1m", tags=["user:{user_id}"])
    async def profile(user_id: int) -> dict[str, int]:
        """Loads a profile."""
        ran.append(user_id)
        return {"id": user_id}

    assert await asyncio.gather(*(profile(7) for _ in range(10)), profile(user_id=7)) == [{"id": 7}] * 11
    assert await profile(8) == {"id": 8}
    assert ran == [7, 8]
    (item,) = service.calls(":put")[0].body["items"]
    assert (item["key"], item["ttl"], item["stale_while_revalidate"], item["tags"]) == (
        "profile:7",
        300.0,
        60.0,
        ["user:7"],
    )
    assert (profile.key(7), profile.__doc__) == ("profile:7", "Loads a profile.")
    assert repr(profile).startswith("<CachedFunction test_a_cached_function")


async def test_invalidate_and_refresh_take_the_functions_arguments(users: Namespace[object]) -> None:
    name = "before"

    @users.cached("name:{user_id}:{lang}")
    async def name_of(user_id: int, lang: str = "en") -> str:
        return f"{name} {lang}"

    assert await name_of(7) == await name_of(7, "en") == "before en"
    name = "after"
    assert await name_of(7) == "before en"
    assert (await name_of.invalidate(7)).applied
    assert await name_of(7) == "after en"
    name = "later"
    assert await name_of.refresh(7) == "later en"
    assert await name_of(7) == "later en"


async def test_none_is_remembered_as_absent(service: FakeService, users: Namespace[object]) -> None:
    ran: list[int] = []

    @users.cached("profile:{user_id}")
    async def profile(user_id: int) -> dict[str, int] | None:
        ran.append(user_id)
        return None

    assert [await profile(7), await profile(7)] == [None, None]
    assert ran == [7]
    assert service.held["profile:7"].absent


async def test_a_function_may_say_how_long_its_result_lives(
    service: FakeService, users: Namespace[object]
) -> None:
    @users.cached("token:{user_id}", ttl="5m", tags=["user:{user_id}"])
    async def token(user_id: int, *, ctx: LoadContext | None = None) -> str:
        assert ctx is not None
        assert ctx.key == "token:7"
        assert 0 < ctx.time_left <= 30
        ctx.set_options(ttl=17)
        return "secret"

    assert await token(7) == "secret"
    (item,) = service.calls(":put")[0].body["items"]
    assert (item["ttl"], item["tags"]) == (17.0, ["user:7"])


async def test_a_method_is_cached_for_all_objects_of_its_class(users: Namespace[object]) -> None:
    @dataclass
    class Repository:
        rows: dict[int, str]

        @users.cached("row:{user_id}")
        async def row(self, user_id: int) -> str:
            return self.rows[user_id]

    repository = Repository({7: "seven"})
    assert await repository.row(7) == "seven"
    assert await Repository({}).row(7) == "seven"
    assert repository.row.key(7) == "row:7"
    await repository.row.invalidate(7)
    with pytest.raises(KeyError):
        await Repository({}).row(7)


async def test_a_mistake_in_a_template_is_told_when_the_function_is_decorated(
    users: Namespace[object],
) -> None:
    with pytest.raises(ValueError, match="no parameter 'user'"):

        @users.cached("profile:{user}")
        async def profile(user_id: int) -> None: ...

    with pytest.raises(ValueError, match="ttl: 'soon' is not a duration"):
        users.cached("profile:{user_id}", ttl="soon")


async def test_a_function_is_answered_without_the_cache_and_a_refresh_says_that_it_was_not_done(
    service: FakeService, users: Namespace[object]
) -> None:
    @users.cached("profile:{user_id}")
    async def profile(user_id: int) -> str:
        return "loaded"

    service.problem = (503, {"type": "https://cachesvc.dev/problems/overloaded", "status": 503}, {})
    assert await profile(7) == "loaded"
    with pytest.raises(CacheError, match="overloaded"):
        await profile.refresh(7)
