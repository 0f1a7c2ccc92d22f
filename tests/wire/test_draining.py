"""An instance that is drained answers everything, and tells that it stops."""

import asyncio

from tests.wire.conftest import Site, read_response

PLAIN = b"GET /v1/pages/k HTTP/1.1\r\nHost: test\r\n\r\n"
BATCH = (
    b"POST /v1/pages:get HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    b'Content-Length: 15\r\n\r\n{"keys": ["k"]}'
)


async def test_all_answers_say_so_also_those_of_the_fast_lane(site: Site) -> None:
    site.hold("k")
    for request, method in ((PLAIN, "GET"), (BATCH, "POST")):
        site.web.data._listener.is_stopping = False
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        for drained in (False, False, False, True):  # the lane answers from the third on
            if drained:
                site.web.drain()
            writer.write(request)
            answer = await read_response(reader, method)
            assert answer.status == 200
            assert ("cachesvc-stopping" in answer.headers) is drained
            assert (answer.headers.get("connection") == "close") is drained
        assert await reader.read() == b""
        writer.close()


async def test_new_connections_are_served_and_what_is_refused_says_so_too(site: Site) -> None:
    site.web.drain()
    for method, target, status in (
        ("GET", "/v1/pages/none", 404),
        ("GET", "/v1/nowhere/k", 404),
        ("PUT", "/v1/pages/k", 204),
        ("GET", "/livez", 200),
        ("POST", "/v1/pages:get", 415),
    ):
        answer = await site.ask(method, target)
        assert (answer.status, answer.headers["cachesvc-stopping"]) == (status, "1")
