"""The Lua scripts of a cell: read once, and known to the server by their SHA-1."""

import hashlib
from importlib import resources


class Script:
    """One Lua script. `source` is sent only to a server that does not know `sha`."""

    def __init__(self, name: str, *, with_prelude: bool = True) -> None:
        self.name = name
        self.source = (_lua("prelude") if with_prelude else b"") + _lua(name)
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()

    def __repr__(self) -> str:
        return f"<Script {self.name} {self.sha.decode()}>"


def _lua(name: str) -> bytes:
    return resources.files("cachesvc.tiers.l3.lua").joinpath(f"{name}.lua").read_bytes()


ATTACH = Script("attach", with_prelude=False)
INSPECT = Script("inspect", with_prelude=False)
CLAIM = Script("claim", with_prelude=False)
READ = Script("read")
FILL = Script("fill")
PUT = Script("put")
FENCE = Script("fence")
LEASE = Script("lease")
