"""The one thread that talks to one memcached server.

    event loop                                   thread
    run(work) ── Job ──► SimpleQueue ──────────► work(client)     blocking, first come first served
        ▲                                            │
        └── the job's future ◄── call_soon_threadsafe ┘           once per job

The thread only moves bytes; the event loop decodes them, so tables and counters have one owner.

Cancellation: a job that has not begun is skipped. A job that has begun keeps the thread busy,
perhaps with a silent server; the event loop shuts its connection down, which ends the blocking read
at once, and the thread closes it. So the stream is never left out of step, and the next job begins
on a new connection without waiting for the old one.

A connection that is being made, and the first exchange on it, are spared: they are the only ones
whose callers cannot know how long the way is, and the connection to a far server would never be
made if each caller that gave up took it along. The client's own time limits end them.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from pymemcache.exceptions import MemcacheUnknownError

from cachesvc.model.errors import (
    TierError,
    TierTimeoutError,
    TierUnavailableError,
    UnreadableAnswerError,
)
from cachesvc.telemetry.link_faults import repairable, tls_fault
from cachesvc.telemetry.loops import Loop
from cachesvc.tiers.l2.memcached_client import PipelinedClient

T = TypeVar("T")

STOP_SECONDS = 5.0
"""The longest time that `stop` waits for the jobs that are queued.

Each job has a time limit of its own; a thread that does not end holds up no stop of the process."""


class _Job:
    """Work for the thread, and the future that its result goes to."""

    __slots__ = ("future", "is_abandoned", "is_spared", "work")

    def __init__(self, work: Callable[[PipelinedClient], Any], future: "asyncio.Future[Any]") -> None:
        self.work = work
        self.future = future
        self.is_abandoned = False
        self.is_spared = False

    def finish(self, result: object) -> None:
        """Sets the result on the event loop, unless the caller was cancelled."""
        if not self.future.done():
            self.future.set_result(result)


class MemcachedThread:
    """Runs blocking work on its client, in order.

    `start` and `stop` are called once each, on the event loop that uses the thread.
    """

    def __init__(self, name: str, client: PipelinedClient) -> None:
        self._name = name
        self._client = client
        self.loop = Loop(f"thread of {name}")
        self.unreadable = 0
        """Answers that were out of the protocol."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._running: _Job | None = None  # written by the thread, read by the loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    async def run(self, work: Callable[[PipelinedClient], T]) -> T | TierError:
        """Returns the result of `work(client)`, run on the thread.

        A failure of the exchange is a `TierError` value. A cancelled call closes the connection if its work
        has begun.
        """
        if self._loop is None:
            return TierUnavailableError(self._name, "not started, or stopped")
        job = _Job(work, self._loop.create_future())
        self._jobs.put(job)
        try:
            return await job.future  # type: ignore[no-any-return]  # the result of `work`, or a TierError
        except asyncio.CancelledError:
            self._abandon(job)
            raise

    def _abandon(self, job: _Job) -> None:
        # The flag is set before `_running` is read; `_serve` clears `_running` before it reads the flag.
        # So only this job's connection can be shut down: whatever the thread does in between, it closes
        # the connection of an abandoned job before it begins the next job.
        # A job is spared before it is abandoned, so that the thread sees both or none.
        job.is_spared = self._client.is_learning
        job.is_abandoned = True
        if job.is_spared:
            return
        link = self._client.sock
        if self._running is job and link is not None:
            with contextlib.suppress(OSError):
                if isinstance(link, ssl.SSLSocket):  # its own takes TLS from under the thread that reads
                    socket.socket.shutdown(link, socket.SHUT_RDWR)
                else:
                    link.shutdown(socket.SHUT_RDWR)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        # A daemon thread: a process that ends without `stop` must not wait for a silent server.
        threading.Thread(
            target=self._serve, args=(self._loop, self._ended), name=self._name, daemon=True
        ).start()

    async def stop(self) -> None:
        """Ends the thread when the queued jobs are done, and closes the connection.

        After `STOP_SECONDS` the thread is left behind; its connection closes with the process.
        """
        if self._loop is None or self._ended is None:
            return
        self._loop = None
        self._jobs.put(None)
        await asyncio.wait((self._ended,), timeout=STOP_SECONDS)

    def _serve(self, loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[None]") -> None:
        # RuntimeError: the loop was closed without `stop`, so no caller is left to answer.
        with contextlib.suppress(RuntimeError), self.loop.alive():
            while (job := self._jobs.get()) is not None:
                if not job.is_abandoned:
                    loop.call_soon_threadsafe(job.finish, self._done(job))
            with self.loop.step():
                self._client.close()
            loop.call_soon_threadsafe(ended.set_result, None)
        self._client.close()

    def _done(self, job: _Job) -> object:
        """Does a job and returns its result; a failure is a `TierError`, whatever it is."""
        result: object = TierUnavailableError(self._name, "its thread failed")
        with self.loop.step():
            self._running = job
            try:
                result = self._result_of(job.work)
            finally:
                self._running = None
            if job.is_abandoned and not job.is_spared:
                self._client.close()
        return result

    def _result_of(self, work: Callable[[PipelinedClient], object]) -> object:
        try:
            result = work(self._client)
            self._client.exchanged()
        except TimeoutError:
            self._client.close()
            return TierTimeoutError(self._name, "no answer in time")
        except MemcacheUnknownError as error:
            self._client.close()
            self.unreadable += 1
            unreadable = UnreadableAnswerError(self._name, f"an unreadable answer: {error}")
            unreadable.__cause__ = error
            return unreadable
        except Exception as error:  # noqa: BLE001  the stream is at an unknown place; the thread goes on
            self._client.close()
            why = tls_fault(error) or repairable(str(error)) or f"{type(error).__name__}: {error}"
            unavailable = TierUnavailableError(self._name, why)
            unavailable.__cause__ = error
            return unavailable
        return result
