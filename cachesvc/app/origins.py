"""The origins of an instance's namespaces, which come and go while it runs.

prepare ──► loaders of the namespaces that come are made and started, in short turns of the loop
take    ──► from this turn of the loop on they load; what is gone is left to the loads that run
later   ──► the loader of a namespace that is still gone is stopped
"""

import asyncio
import ssl
from collections.abc import Iterator, Mapping

from cachesvc.app.paced import paced
from cachesvc.app.tasks import Tasks
from cachesvc.config.service import Service
from cachesvc.config.topology import Namespace, Origin
from cachesvc.model.clock import Clock
from cachesvc.telemetry.troubles import server_trouble, silent_origin
from cachesvc.tiers.breaker import BreakerPool
from cachesvc.tiers.origin.guarded import GuardedLoader
from cachesvc.tiers.origin.http import HttpLoader, Prepared
from cachesvc.tiers.origin.limited import LimitedLoader


class Origins:
    """One loader for each namespace with an origin. `start` once, then `stop` once."""

    def __init__(
        self,
        service: Service,
        namespaces: Mapping[str, Namespace],
        clock: Clock,
        tasks: Tasks,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._request_seconds = service.server.request_timeout.seconds
        self._clock = clock
        self._tasks = tasks
        self._tls = tls
        self.breakers = BreakerPool(service.breakers)
        self._http: dict[str, HttpLoader] = {}
        self.loaders: dict[str, LimitedLoader] = {}
        """The loaders by namespace, also of those that are gone as long as a load may run."""
        self._used: dict[str, tuple[Origin, int]] = {}
        """The origin and `tags_max` that each loader uses."""
        self._prepared: dict[str, Prepared] = {}
        """The origins of `prepare` that are others than those in use."""
        self._lease_waits: dict[str, float] = {}
        """The longest wait of a read before it loads, s, by namespace."""
        self._ending: dict[str, asyncio.Task[None]] = {}
        """The ends of loaders whose namespaces are gone."""
        for name, origin, namespace in _with_origin(namespaces):
            self._make(name, origin, namespace)

    def __repr__(self) -> str:
        return f"<Origins of {[*self.loaders]}>"

    def _make(self, name: str, origin: Origin, namespace: Namespace) -> LimitedLoader:
        self._http[name] = loader = HttpLoader(
            name, origin, clock=self._clock, tags_max=namespace.tags_max, tls=self._tls
        )
        self.loaders[name] = limited = LimitedLoader(
            GuardedLoader(loader, self.breakers.add(name), name),
            limit=origin.concurrency,
            wait_seconds=origin.soft_deadline.seconds,
        )
        self._used[name] = origin, namespace.tags_max
        self._lease_waits[name] = namespace.lease_wait.seconds
        return limited

    async def start(self) -> None:
        for loader in self.loaders.values():
            await loader.start()

    async def stop(self) -> None:
        for loader in self.loaders.values():
            await loader.stop()

    async def prepare(self, namespaces: Mapping[str, Namespace]) -> None:
        """Makes and starts the loaders that these namespaces need and that are not there."""
        wanted = list(_with_origin(namespaces))
        for name, _, _ in wanted:
            if (ending := self._ending.pop(name, None)) is not None:
                ending.cancel()
        async for name, origin, namespace in paced([one for one in wanted if one[0] not in self.loaders]):
            await self._make(name, origin, namespace).start()
        changed = [one for one in wanted if self._used[one[0]] != (one[1], one[2].tags_max)]
        self._prepared = {
            name: self._http[name].prepared(origin, namespace.tags_max)
            async for name, origin, namespace in paced(changed)
        }

    def take(self, namespaces: Mapping[str, Namespace]) -> None:
        """Loads as these namespaces say from now on. They are prepared."""
        there = set[str]()
        for name, origin, namespace in _with_origin(namespaces):
            there.add(name)
            if (prepared := self._prepared.get(name)) is not None:
                self._http[name].use(prepared)
                self._used[name] = origin, namespace.tags_max
            self.loaders[name].wait_seconds = origin.soft_deadline.seconds
            self._lease_waits[name] = namespace.lease_wait.seconds
        for name in self.loaders.keys() - there - self._ending.keys():
            self._ending[name] = self._tasks.spawn(self._end(name), f"end of the origin of {name}")

    async def _end(self, name: str) -> None:
        """Stops a loader when no request is left that began with its namespace."""
        await asyncio.sleep(self._request_seconds + self._lease_waits.pop(name, 0.0))
        loader = self.loaders[name]
        while loader.running or loader.waiting:  # noqa: ASYNC110  a look now and then is enough
            await asyncio.sleep(1)
        del self.loaders[name], self._http[name], self._used[name], self._ending[name]
        self.breakers.remove(name)
        await loader.stop()

    def troubles(self) -> Iterator[str]:
        """Yields a sentence for each origin that does not answer."""
        for name, loader in self._http.items():
            if name in self._ending:
                continue
            if loader.trouble:
                yield server_trouble(f"the origin of {name}", loader.trouble)
            elif self.breakers[name].is_silent:
                yield silent_origin(name)


def _with_origin(namespaces: Mapping[str, Namespace]) -> Iterator[tuple[str, Origin, Namespace]]:
    for name, namespace in namespaces.items():
        if namespace.origin is not None:
            yield name, namespace.origin, namespace
