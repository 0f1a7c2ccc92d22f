"""One connection to a cell's server, one exchange at a time.

    open:  connect → INFO server → attach (a run id or a placement that the cell does not know makes
           the cell a new issuer)
    run:   EVALSHA → the reply;  NOSCRIPT → load, again;  "attach first" → attach, again (once)

redis-py makes the connection and reads the replies. The exchange is driven here, because redis-py's
client would add a pool, a retry loop and a measurement to every batch, and one more task for the
time limit of the write.

Anything that ends an exchange early (time limit, cancellation, a broken socket) closes the
connection: a reply that arrives later can never be taken for the answer to another exchange. Nor
can a reply that nobody asked for: a connection with anything to read is not usable.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import hiredis
from redis.exceptions import BusyLoadingError, NoScriptError, RedisError, ResponseError

from cachesvc.model.errors import TierError, TierTimeoutError, TierUnavailableError
from cachesvc.tiers.fair_timeout import FairTimeout
from cachesvc.tiers.l3.script import ATTACH, Script
from cachesvc.tiers.redis_connections import CleanConnection, is_demotion
from cachesvc.tiers.redis_report import COMMANDS, RedisReport, fields_of, version_of
from cachesvc.tiers.server_settings import LEAST_REDIS

ATTACH_FIRST = 0
"""The reply of the prelude if the server does not know the run id that was sent."""
NEW_ISSUER_WAITS = 1
"""The reply of the prelude while a new issuer must not issue yet."""


class CellConnection:
    """A connection that one exchange at a time may use."""

    def __init__(
        self,
        connection: CleanConnection,
        where: str,
        *,
        placement: tuple[int, int],
        skew_us: int,
        retention_ms: int,
        timeout_seconds: float,
    ) -> None:
        self._connection = connection
        self._where = where
        self._placement = placement
        self._skew = b"%d" % skew_us
        self._retention = b"%d" % retention_ms
        self._timeout_seconds = timeout_seconds
        self._run_id = b""
        self.is_demoted = False
        """True after a reply which says that the server is no master any more. Then the connection
        is closed, and others to the same address may lead to the same server."""
        self.opened_at = float("-inf")
        """When the server's name was looked up, on the loop's clock."""

    def __repr__(self) -> str:
        return f"<CellConnection {self._where} [{'open' if self.is_open else 'closed'}]>"

    @property
    def is_open(self) -> bool:
        """True until the connection is closed from this end."""
        return bool(self._connection.is_connected)

    @property
    def is_usable(self) -> bool:
        """True if the connection is open, in step, and not closed by the server meanwhile."""
        return not self._connection.has_unread()

    async def open(self, connect_timeout_seconds: float) -> None:
        """Connects and attaches. Raises `TierError`; then this connection is closed."""
        self.opened_at = asyncio.get_running_loop().time()
        await self._guarded(self._connect(), connect_timeout_seconds, "connect")

    async def run(self, script: Script, args: list[Any]) -> Any:
        """Returns the reply to a script that begins with the prelude. Raises `TierError`.

        The reply is a list, or `NEW_ISSUER_WAITS`. The time limit covers everything: also loading the
        script, and attaching again.
        """
        return await self._guarded(self._run(script, args), self._timeout_seconds, script.name)

    async def run_untouched(self, script: Script, args: list[Any]) -> Any:
        """Returns the reply to a script without the prelude. Raises `TierError`.

        The script makes no key look used, where the server can do that: Redis from 7.2 on, and Valkey.
        """
        return await self._guarded(self._run_untouched(script, args), self._timeout_seconds, script.name)

    async def report(self, now_us: Callable[[], int]) -> RedisReport:
        """Returns the server's report on itself; `now_us` is the own clock. Raises `TierError`."""
        said: RedisReport = await self._guarded(self._report(now_us), self._timeout_seconds, "report")
        return said

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    async def _guarded(self, exchange: Any, seconds: float, what: str) -> Any:
        try:
            async with FairTimeout(seconds):
                return await exchange
        except TimeoutError as error:
            await self.close()
            raise TierTimeoutError(
                self._where, f"{what}: no answer within {seconds * 1000:.0f} ms"
            ) from error
        except TierError:
            await self.close()
            raise
        except (ResponseError, BusyLoadingError) as error:
            if is_demotion(error):
                self.is_demoted = True  # the next connection may find the promoted server
                await self.close()
                raise TierUnavailableError(self._where, f"{what}: {error}") from error
            raise TierError(self._where, f"{what}: {error}") from error  # an answer: still in step
        except (RedisError, OSError, RuntimeError) as error:
            # uvloop raises RuntimeError for a write to a connection that was reset since its last use,
            # and redis-py lets it through.
            await self.close()
            raise TierUnavailableError(self._where, f"{what}: {error}") from error
        except Exception as error:  # a reply of another shape than the protocol has
            await self.close()
            why = f"{what}: an answer of an unknown shape: {type(error).__name__}"
            raise TierUnavailableError(self._where, why) from error
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> None:
        await self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py has no types here
        await self._attach()
        if not self.is_usable:
            raise TierUnavailableError(self._where, "connect: more replies than commands")

    async def _attach(self) -> None:
        said = await self._info("server")
        if "run_id" not in said:
            why = "its INFO has no run_id, so it is not known which server it is"
            raise TierUnavailableError(self._where, why)
        version = said.get("redis_version", "")
        if (version_of(version) or LEAST_REDIS) < LEAST_REDIS:  # an unknown version is no old one
            why = f"version {version} is too old: a cell needs Redis 7.0, or Valkey 7.2, or later"
            raise TierUnavailableError(self._where, why)
        self._run_id = said["run_id"].encode()
        await self._evaluate(ATTACH, [self._run_id, self._skew, *self._placement])

    async def _info(self, section: str) -> Mapping[str, str]:
        said = await self._call(b"INFO", section.encode())
        if not isinstance(said, bytes):
            raise TierUnavailableError(self._where, f"info: a reply that is none: {said!r:.80}")
        return fields_of(said)

    async def _report(self, now_us: Callable[[], int]) -> RedisReport:
        sent_us = now_us()
        packed = b"".join(hiredis.pack_command(command) for command in COMMANDS)
        await self._connection.send_packed_command(packed, check_health=False)
        time, info, settings = [await self._reply_or_refusal() for _ in COMMANDS]
        for refusal in (time, info):
            if isinstance(refusal, ResponseError):
                raise refusal
        return RedisReport.of(
            time,
            fields_of(info),
            None if isinstance(settings, ResponseError) else settings,
            sent_us=sent_us,
            received_us=now_us(),
        )

    async def _run(self, script: Script, args: list[Any]) -> Any:
        for _ in range(2):
            reply = await self._evaluate(script, [self._run_id, self._skew, self._retention, *args])
            if reply != ATTACH_FIRST:
                return reply
            await self._attach()
        raise TierUnavailableError(self._where, "lost its meta record again and again")

    async def _run_untouched(self, script: Script, args: list[Any]) -> Any:
        try:
            return await self._evaluate_untouched(script, args)
        except NoScriptError:
            await self._call(b"SCRIPT", b"LOAD", script.source)
            return await self._evaluate_untouched(script, args)

    async def _evaluate_untouched(self, script: Script, args: list[Any]) -> Any:
        """Runs the script in one round trip, after which the connection counts uses as before."""
        commands = (
            (b"CLIENT", b"NO-TOUCH", b"ON"),
            (b"EVALSHA", script.sha, b"0", *args),
            (b"CLIENT", b"NO-TOUCH", b"OFF"),
        )
        packed = b"".join(hiredis.pack_command(command) for command in commands)
        await self._connection.send_packed_command(packed, check_health=False)
        _, reply, _ = [await self._reply_or_refusal() for _ in commands]
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def _reply_or_refusal(self) -> Any:
        """Returns a reply; a refusal is returned too, as older servers do not know NO-TOUCH."""
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as refusal:
            return refusal

    async def _evaluate(self, script: Script, args: list[Any]) -> Any:
        try:
            return await self._call(b"EVALSHA", script.sha, b"0", *args)
        except NoScriptError:
            await self._call(b"SCRIPT", b"LOAD", script.source)
            return await self._call(b"EVALSHA", script.sha, b"0", *args)

    async def _call(self, *command: Any) -> Any:
        await self._connection.send_packed_command(hiredis.pack_command(command), check_health=False)
        return await self._connection.read_response(disable_decoding=True)
