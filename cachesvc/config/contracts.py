"""The namespaces that an instance serves now, which change while requests are answered.

    a request's namespace is looked up ──► only what is served is there
    a request goes on after a wait      ──► what is gone since is still answered by `[]`

All parts of an instance share one mapping and look a namespace up at each request.
"""

from collections.abc import Mapping

from cachesvc.config.topology import Namespace


class Contracts(dict[str, Namespace]):
    """The served namespaces by name.

    `contracts[name]` returns the last contract of a namespace that is gone, too: whoever has begun with
    it may end. `in`, `get` and iteration know the served ones only.
    """

    def __init__(self, namespaces: Mapping[str, Namespace]) -> None:
        super().__init__(namespaces)
        self._gone: dict[str, Namespace] = {}

    def __missing__(self, name: str) -> Namespace:
        return self._gone[name]

    def take(self, namespaces: Mapping[str, Namespace]) -> None:
        """Serves exactly these from now on."""
        for name in self.keys() - namespaces.keys():
            self._gone[name] = self.pop(name)
        self.update(namespaces)
