"""A function that is answered from the cache."""

import asyncio
from dataclasses import dataclass
from functools import partial

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


async def test_a_method_is_cached_for_all_objects_that_its_key_does_not_tell_apart(
    users: Namespace[object],
) -> None:
    @dataclass
    class Repository:
        rows: dict[int, str]

        @users.cached("row:{user_id}", ignore=["self"])
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


@dataclass
class Tenant:
    name: str


@dataclass
class Accounts:
    tenant: Tenant
    rows: dict[int, str]

    async def row(self, user_id: int) -> str:
        return self.rows[user_id]

    async def __call__(self, user_id: int) -> str:
        return self.rows[user_id]


async def test_objects_of_two_tenants_are_told_apart_by_an_attribute(
    service: FakeService, users: Namespace[object]
) -> None:
    class Cached(Accounts):
        @users.cached("row:{self.tenant.name}:{user_id}", tags=["tenant:{self.tenant.name}"])
        async def row(self, user_id: int) -> str:
            return self.rows[user_id]

        @classmethod
        @users.cached("all:{cls.__name__}")
        async def kind(cls) -> str:
            return cls.__name__

    class Other(Cached):
        pass

    a, b = Cached(Tenant("a"), {7: "of a"}), Cached(Tenant("b"), {7: "of b"})
    assert [await a.row(7), await b.row(7), await a.row(7), await b.row(7)] == ["of a", "of b"] * 2
    assert (a.row.key(7), service.held["row:b:7"].tags) == ("row:a:7", ["tenant:b"])
    assert [await Cached.kind(), await Other.kind(), await Cached.kind()] == ["Cached", "Other", "Cached"]


async def test_a_method_whose_key_leaves_out_its_object_is_refused(users: Namespace[object]) -> None:
    accounts = Accounts(Tenant("a"), {7: "seven"})
    with pytest.raises(ValueError, match=r"an attribute such as \{self\.tenant\}.*ignore=\['self'\]"):
        users.cached("row:{user_id}")(Accounts.row)
    with pytest.raises(ValueError, match=r"ignore=\['cls'\]"):

        @users.cached("all")
        async def all_of(cls: type) -> None: ...

    for bound in (accounts.row, partial(Accounts.row, accounts), accounts):
        with pytest.raises(ValueError, match=r"cannot name what .* is bound to"):
            users.cached("row:{user_id}")(bound)
    with pytest.raises(TypeError, match="self is Accounts"):
        await users.cached("row:{self}:{user_id}")(Accounts.row)(accounts, 7)
    row = users.cached("bound:{user_id}", ignore=["self"])(accounts.row)
    assert await row(7) == "seven"


async def test_two_functions_with_one_template_are_refused_unless_both_share_it(
    cache: Cache, users: Namespace[object]
) -> None:
    async def one(user_id: int) -> str:
        return "one"

    async def two(user: int) -> str:
        return "two"

    users.cached("profile:{user_id}")(one)
    for namespace in (users, cache.namespace("users", codec=JSON, version=2)):
        with pytest.raises(ValueError, match=r"one has the template 'profile:\{user_id\}', so that .*two"):
            namespace.cached("profile:{user}")(two)
        with pytest.raises(ValueError, match="shared=True for both"):
            namespace.cached("profile:{user}", shared=True)(two)
    users.cached("other:{user}")(two)
    cache.namespace("pages").cached("profile:{user}")(two)
    users.cached("row:{user_id}", shared=True)(one)
    users.cached("row:{user}", shared=True)(two)


def test_a_function_that_is_made_twice_may_bring_other_results_and_one_that_is_loaded_twice_not(
    cache: Cache, users: Namespace[object]
) -> None:
    def of(tenant: str) -> object:
        @users.cached("name:{user_id}")
        async def name(user_id: int) -> str:
            return f"{tenant} {user_id}"

        return name

    of("a")
    with pytest.raises(ValueError, match=r"name:\{user_id\}"):
        of("b")
    users.cached("row:{user_id}", ignore=["self"])(Accounts.row)
    users.cached("row:{user_id}", ignore=["self"])(Accounts.row)


async def test_the_lag_of_a_functions_source_goes_with_its_fill(
    service: FakeService, cache: Cache, users: Namespace[object]
) -> None:
    @users.cached("a", lag="300ms")
    async def lagging() -> int:
        return 1

    await lagging()
    (item,) = service.calls(":put")[0].body["items"]
    assert item["source_lag"] == 0.3
    with pytest.raises(ValueError, match="lag: '2m' is more than 60 s"):
        users.cached("b", lag="2m")
