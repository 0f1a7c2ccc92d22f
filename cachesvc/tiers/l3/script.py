"""The Lua scripts of a cell: read once, and known to the server by their SHA-1."""

import hashlib
from importlib import resources


class Script:
    """One Lua script. `source` is sent only to a server that does not know `sha`."""

    def __init__(self, name: str, *before: str) -> None:
        """Reads the script; its source begins with the files named `before`, in this order."""
        self.name = name
        self.source = b"".join(map(_lua, (*before, name)))
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()

    def __repr__(self) -> str:
        return f"<Script {self.name} {self.sha.decode()}>"


def _lua(name: str) -> bytes:
    return resources.files("cachesvc.tiers.l3.lua").joinpath(f"{name}.lua").read_bytes()


ATTACH = Script("attach")
INSPECT = Script("inspect")
CLAIM = Script("claim")
READ = Script("read", "prelude")
FILL = Script("fill", "prelude", "writing")
PUT = Script("put", "prelude", "writing")
FENCE = Script("fence", "prelude", "writing")
LEASE = Script("lease", "prelude", "writing")
