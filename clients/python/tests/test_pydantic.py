"""Models of pydantic are types of values as others are."""

import datetime
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from cachesvc_client import Cache, CodecError, json_of, msgpack_of

from clients.python.tests.fake_service import FakeService

pydantic = pytest.importorskip("pydantic")


class User(pydantic.BaseModel):  # type: ignore[misc, name-defined]  # of an optional package
    id: UUID
    name: str = pydantic.Field(alias="userName")
    born: datetime.date | None = None
    tags: set[str] = pydantic.Field(default_factory=set)


class Other(pydantic.BaseModel):  # type: ignore[misc, name-defined]  # of an optional package
    name: str = pydantic.Field(validation_alias="in", serialization_alias="out")


@dataclass
class Team:
    lead: User


ADA = User(id=UUID(int=7), userName="Ada", born=datetime.date(1815, 12, 10), tags={"a"})


async def test_a_model_comes_back_on_a_hit_and_on_a_miss(service: FakeService, cache: Cache) -> None:
    users = cache.namespace("users", type=User, version=1)

    async def load(_key: str) -> Any:
        return ADA

    assert await users.get_or_load("7", load) == ADA
    assert await users.get("7") == ADA
    assert b'"userName":"Ada"' in service.held["7"].value


@pytest.mark.parametrize(
    ("kind", "value"), [(list[User], [ADA]), (dict[str, User] | None, {"a": ADA}), (Team, Team(ADA))]
)
def test_types_with_a_model_in_them(kind: Any, value: Any) -> None:
    codec = json_of(kind)
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (User, {"id": str(UUID(int=7)), "userName": "Ada"}),
        (User, User.model_construct(id="no", name=5)),
        (Other, Other.model_construct(name="x")),
        (User, None),
    ],
)
def test_what_would_not_come_back_is_refused(kind: Any, value: Any) -> None:
    with pytest.raises(CodecError):
        json_of(kind).encode(value)


async def test_a_stored_value_that_does_not_fit_is_a_miss(service: FakeService, cache: Cache) -> None:
    service.hold("7", b'{"id": 5}')
    assert await cache.namespace("users", type=User).get("7") is None


def test_messagepack_refuses_models_when_they_are_declared() -> None:
    with pytest.raises(ValueError, match="pydantic, which writes JSON"):
        msgpack_of(list[User])
