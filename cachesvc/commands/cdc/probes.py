"""`/metrics`, `/livez` and `/readyz` of a reader, on a port of its own."""

from aiohttp import web

from cachesvc.changes.postgres.reader import Reader
from cachesvc.model.errors import ConfigError
from cachesvc.telemetry.metrics.metrics import Metrics


class Probes:
    """Answers about one reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._metrics = Metrics()
        self._metrics.watch("cdc", reader.statistics)
        self._metrics.watch("cdc_rows", lambda: reader.assembled)

    def __repr__(self) -> str:
        return f"<Probes of {self._reader!r}>"

    async def start(self, at: str) -> web.AppRunner:
        """Listens at `host:port`; the answer ends that by its `cleanup`.

        Raises `ConfigError` for what is no address, `OSError` if it cannot be had.
        """
        host, port = _address(at)
        application = web.Application()
        application.router.add_get("/metrics", self._answer_metrics)
        application.router.add_get("/livez", self._answer_livez)
        application.router.add_get("/readyz", self._answer_readyz)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await runner.cleanup()
            raise
        return runner

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _answer_livez(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _answer_readyz(self, _: web.Request) -> web.Response:
        """Answers 200 while the slot is read, or another reader has it; else 503 with the reason."""
        tally, trouble = self._reader.tally, self._reader.trouble
        if tally.waiting:
            return web.Response(text="waiting: another reader has the slot\n")
        if tally.reading:
            return web.Response(text=f"reading; {trouble}\n" if trouble else "reading\n")
        return web.Response(status=503, text=f"not reading: {trouble or 'not connected yet'}\n")


def _address(at: str) -> tuple[str, int]:
    host, _, port = at.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError("--listen", f"{at!r} is no address: write it as 127.0.0.1:8089")
    return host.strip("[]"), int(port)
