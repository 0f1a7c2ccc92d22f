"""A queue that is out of reach when the test says so. It wraps a real `Changes` or `FenceStream`."""

from typing import Any

from cachesvc.model.errors import TierUnavailableError


class ChaosQueue:
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
