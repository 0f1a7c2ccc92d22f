"""A queue that a test can put out of reach. It wraps a real `Changes` or `FenceStream`."""

from typing import Any

from cachesvc.model.errors import TierUnavailableError


class ChaosQueue:
    """The wrapped queue; while `down` is true, every call fails. `calls` has the calls' names."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue
        self.down = False
        self.calls: list[str] = []

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self.queue, method)
        if method in ("start", "stop") or not callable(inner):
            return inner

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(method)
            if self.down:
                raise TierUnavailableError("queue", "down")
            return await inner(*arguments, **options)

        return call
