"""Fixtures and settings of every test."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Iterator[None]:
    """A blocking call (sleep, socket, file) from our code while an event loop runs is an error, not a slow test.

    Not looked at: the embedded set-up, the banner and the first look at certificates, which come before anything is served
    and say that they block, and the scrape of `/metrics`, which reads the kernel's own files (/proc/self) and no disk.
    """
    with blockbuster_ctx(scanned_modules=["cachesvc"], excluded_modules=["cachesvc.app.embedded"]) as watched:
        for call in watched.functions.values():
            call.can_block_in("cachesvc/commands/banner.py", "banner")
            call.can_block_in("cachesvc/tiers/tls.py", "watched")
            call.can_block_in("cachesvc/telemetry/metrics/metrics.py", "exposition")
        yield
