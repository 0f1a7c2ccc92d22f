"""Logins: one for all Redis servers, or one for each kind."""

from cachesvc.config.logins import RedisLogin, RedisLogins, login_for, redis_credentials
from cachesvc.tiers.redis_connections import access_of


def test_a_block_for_one_kind_stands_in_place_of_the_login_for_both() -> None:
    queues = RedisLogin(user="queue", password="q")
    logins = RedisLogins(user="both", password="b", queues=queues)
    assert login_for(logins, "cells") == ("$.redis", logins)
    assert login_for(logins, "queues") == ("$.redis.queues", queues)
    path, login = login_for(logins, "queues")
    assert redis_credentials(login, path) == ("queue", "q")


def test_without_a_password_there_is_no_login() -> None:
    cells = RedisLogin(password="c")
    assert access_of(RedisLogins(cells=cells), "queues", RedisLogin(), None).login is None
    login = access_of(RedisLogins(cells=cells), "cells", RedisLogin(), None).login
    assert login is not None
    assert login.get_credentials() == ("c",)
