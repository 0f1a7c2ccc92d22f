"""Functions that are answered from the cache.

@ns.cached("profile:{user_id}", ttl="5m", tags=["user:{user_id}"])
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

from cachesvc_client.aio.loading import Loader
from cachesvc_client.protocol.wire import Receipt
from cachesvc_client.values.context import ABSENT, Absent, LoadContext, check_awaitable
from cachesvc_client.values.durations import Duration
from cachesvc_client.values.templates import Naming

P = ParamSpec("P")
R = TypeVar("R")


class LoadingNamespace(Protocol):
    """The part of a `Namespace` that a cached function uses or lends to its callers."""

    name: str

    async def get_or_load(
        self,
        key: str,
        loader: Loader[Any],
        *,
        ttl: Duration | None,
        stale: Duration | None,
        stale_if_error: Duration | None,
        lag: Duration | None,
    ) -> Any: ...

    async def delete(self, key: str) -> Receipt: ...

    async def invalidate(self, keys: Iterable[str] = (), *, tags: Iterable[str] = ()) -> Receipt: ...


class CachedFunction(Generic[P, R]):
    """A function with its results cached; called as the function itself.

    One call per key runs the function at a time, as with `get_or_load`. A result of `None` means
    that there is no such value: it is remembered for the namespace's negative TTL and returned as
    `None`. A parameter named `ctx` is filled in with the load's `LoadContext`; give it a default, so
    that callers may leave it out.
    """

    def __init__(
        self,
        namespace: LoadingNamespace,
        function: Callable[P, Awaitable[R]],
        naming: Naming,
        *,
        ttl: float | None,
        stale: float | None,
        stale_if_error: float | None,
        lag: float | None,
        owner: tuple[Any, ...] = (),
    ) -> None:
        self.namespace = namespace
        self._function = function
        self._naming = naming
        self._ttl = ttl
        self._stale = stale
        self._stale_if_error = stale_if_error
        self._lag = lag
        self._owner = owner
        """The object whose method the function is, if it is a method."""
        update_wrapper(self, function)

    def __get__(self, owner: object, _type: type | None = None) -> "CachedFunction[..., R]":
        """Returns the method of the object that the function is looked up on."""
        if owner is None:
            return self
        return CachedFunction(
            self.namespace,
            self._function,
            self._naming,
            ttl=self._ttl,
            stale=self._stale,
            stale_if_error=self._stale_if_error,
            lag=self._lag,
            owner=(owner,),
        )

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        given = (*self._owner, *args)

        async def load(ctx: LoadContext) -> R | Absent:
            ctx.set_options(tags=self._naming.tags(given, kwargs))
            told = {"ctx": ctx} if self._naming.takes_context else {}
            call: Callable[..., Awaitable[R]] = self._function
            loading = call(*given, **kwargs, **told)
            check_awaitable(loading, self._function)
            value = await loading
            return ABSENT if value is None else value

        key = self._naming.key(given, kwargs)
        value = await self.namespace.get_or_load(
            key,
            load,
            ttl=self._ttl,
            stale=self._stale,
            stale_if_error=self._stale_if_error,
            lag=self._lag,
        )
        return cast(R, value)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """Has the function pickled by its name, as functions are; a copy is the function itself."""
        if self._owner:
            return getattr, (*self._owner, self._function.__name__)
        return cast(str, self.__qualname__)  # type: ignore[attr-defined]  # of `update_wrapper`

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of a call with these arguments."""
        return self._naming.key((*self._owner, *args), kwargs)

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> Receipt:
        """Tells the cache that the result of this one call has changed.

        For several functions at once: `namespace.invalidate(tags=…)`.
        """
        return await self.namespace.delete(self.key(*args, **kwargs))

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Invalidates the result, runs the function now, and stores what it returns.

        Other callers of this moment wait for it. Raises `CacheError` if the cache cannot be told.
        """
        await self.invalidate(*args, **kwargs)
        return await self(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<CachedFunction {getattr(self, '__qualname__', '')} in {self.namespace.name}>"
