"""Looks twice at the instances of a running fleet, for the forecast."""

import asyncio
from collections.abc import Sequence

from cachesvc.commands.access import Reach
from cachesvc.commands.credential import Credential, session
from cachesvc.commands.top.deployment import ask_for_deployment
from cachesvc.commands.top.scrape import Asker, Scrape, Silence
from cachesvc.commands.topology.forecast import Measured
from cachesvc.model.errors import ConfigError


async def measured(urls: Sequence[str], seconds: float, credential: Credential, reach: Reach) -> Measured:
    """Returns what the instances that these ones name count within `seconds`.

    Raises `ConfigError` if none answers.
    """
    async with session(credential, ssl=reach.https) as http:
        asker = Asker(http)
        deployment = await ask_for_deployment(asker, urls)
        first = await asker.all(deployment.instances)
        await asyncio.sleep(seconds)
        second = await asker.all(deployment.instances)
    looks = {
        name: (before, after)
        for name, after in second.items()
        if isinstance(before := first[name], Scrape) and isinstance(after, Scrape)
    }
    silent = {
        name: one.why for look in (first, second) for name, one in look.items() if isinstance(one, Silence)
    }
    if not looks:
        why = "; ".join(f"{name}: {one}" for name, one in silent.items())
        raise ConfigError("--from", f"no instance answers: {why}")
    times = [after.at - before.at for before, after in looks.values()]
    return Measured(
        sum(times) / len(times),
        {name: before.metrics for name, (before, _) in looks.items()},
        {name: after.metrics for name, (_, after) in looks.items()},
        silent,
    )
