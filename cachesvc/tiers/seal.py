"""The seal of copies in memcached: only a holder of the deployment's key can make a copy.

    magic 0xC5 · version 0x02 · msgpack array of `envelope.py`, with an empty checksum · seal

memcached asks nobody who they are: whoever reaches a server can write values there that would be
answered to callers. A seal is the keyed BLAKE2b (RFC 7693; 16 bytes) of all bytes before it, with
the key's full id, so a copy that is moved to the name of another key is a miss. Times, tags and
content type are sealed with the value. Nothing is decoded before its seal was found to fit.

A seal does not hide a value. Nor does it keep anyone from dropping copies, or from putting an
earlier copy of the same key back: that one is judged by its times and by fences, as every copy is.

The first of the keys seals; a copy that any of them has sealed is taken. So a key can be replaced
while instances run. The version 0x02 makes sealed and unsealed copies misses of each other: an
instance with a key believes no copy without a seal.
"""

from collections.abc import Sequence
from hashlib import blake2b
from hmac import compare_digest

from cachesvc.model.entry import Entry, Key
from cachesvc.tiers.envelope import decoded, encoded

MAGIC = b"\xc5\x02"
SEAL_BYTES = 16


class Seal:
    """Packs entries under the first of the keys, and unpacks what any of the keys has sealed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` are 1 or more secrets of 16 to 64 bytes each."""
        # A copy of a keyed state takes 0.3 µs less than a new one. `person` keeps seals apart from what
        # the same secret may sign elsewhere.
        self._keyed = [blake2b(key=key, digest_size=SEAL_BYTES, person=b"cachesvc l2") for key in keys]

    def pack(self, key: Key, entry: Entry) -> bytes:
        """Returns the sealed bytes of `entry` under `key`."""
        array = encoded(key, entry, b"")
        mac = self._keyed[0].copy()
        mac.update(MAGIC)
        mac.update(array)
        return b"".join((MAGIC, array, mac.digest()))

    def unpack(self, key: Key, data: bytes) -> Entry | None:
        """Returns the entry that `data` holds for `key`, or None. Never raises.

        None is the answer for bytes whose seal does not fit, for bytes without one, and for another key.
        """
        return decoded(key, memoryview(data)[2:-SEAL_BYTES]) if self._fits(data) else None

    def _fits(self, data: bytes) -> bool:
        if data[:2] != MAGIC:
            return False
        sealed, seal = memoryview(data)[:-SEAL_BYTES], data[-SEAL_BYTES:]
        for keyed in self._keyed:
            mac = keyed.copy()
            mac.update(sealed)
            if compare_digest(mac.digest(), seal):
                return True
        return False

    def __repr__(self) -> str:
        return f"<Seal [{len(self._keyed)} keys]>"
