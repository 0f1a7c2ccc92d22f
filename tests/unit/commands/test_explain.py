"""`cachesvc explain` as a person meets it: an answer to read, or one line that says what to set right."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest
from msgspec.structs import replace

from cachesvc.cli import main
from cachesvc.explain.answer import (
    Copy,
    Explanation,
    FencesSeen,
    Home,
    HomeCell,
    LeaseSeen,
    Memcached,
    Merge,
    Now,
    Seen,
    TargetFences,
)

NOW = 1_700_000_000_000_000
SECOND = 1_000_000
TWO_REGIONS = "config/two-regions.yaml"

Answer = tuple[int, bytes]


def fresh(age_seconds: float, etag: str = '"new"', **more: object) -> Copy:
    said: dict[str, object] = {
        "standing": "fresh",
        "age_seconds": age_seconds,
        "ttl_seconds": 40.0,
        "bytes": 3,
    } | more
    return Copy(held=True, etag=etag, **said)  # type: ignore[arg-type]  # fields of Copy


EXPLANATION = Explanation(
    verdict="A read at eu/eu-a would answer from l1.",
    key="{ws-7}:block:42",
    namespace="pages",
    owner="web",
    partition="ws-7",
    home_cell=HomeCell("us-2", "us", "pinned", {"eu-1": 2.5}),
    memcached_server="eu-m1",
    asked="eu/eu-a",
    clock=NOW,
    tiers={
        "l1": fresh(9.5, '"old"', tags=("t",), differs="newer at l3"),
        "l2": Copy(held=False),
        "l3": fresh(2.0),
    },
    memcached=Memcached("eu-m1", "its point", "open"),
    fences=FencesSeen(
        newest_known_here=0,
        floor=NOW - 60 * SECOND,
        floor_why="fences were lost before they were read",
        staleness_bound_seconds=0.4,
        max_lag_seconds=2.0,
        targets=(
            TargetFences("key", NOW - 3 * SECOND, 0, 0, 0, 0),
            TargetFences("tag t", 0, 0, NOW - SECOND, 0, 0),
        ),
        merges=(Merge("tag t", "hard", NOW - SECOND, NOW - SECOND // 2, "us"),),
        merges_forgotten_until=NOW - 90 * SECOND,
    ),
    home=Home(lease_held=True, lease=LeaseSeen("us/us-b", NOW - SECOND, NOW + 4 * SECOND), told_by="us/us-a"),
    now=Now("answer from l1", "fresh", "The rule", "l1"),
    elsewhere=(
        Seen("eu", "eu-b", tiers={"l1": Copy(held=None, unavailable="broken"), "l2": Copy(held=False)}),
        Seen("us", "us-b", unavailable="no answer within 50 ms"),
    ),
)


class Service:
    """Answers every request with `answer`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = (200, msgspec.json.encode(EXPLANATION))
        self.asked: list[tuple[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append((self.path, self.headers.get("Cachesvc-Token", "")))
                status, body = service.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the library's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


@pytest.fixture
def explain(service: Service, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        given = (
            arguments
            if "--url" in arguments or "--topology" in arguments
            else (*arguments, "--url", service.url)
        )
        code = main(["explain", *given], {})
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_the_key_is_escaped_and_the_token_sent(
    explain: Callable[..., tuple[int, str, str]], service: Service
) -> None:
    assert explain("pages", "{ws-7}:a/b:explain", "--token", "abc")[0] == 0
    assert service.asked == [("/v1/pages/%7Bws-7%7D%3Aa%2Fb%3Aexplain:explain", "abc")]


def test_it_is_read_as_a_page(explain: Callable[..., tuple[int, str, str]]) -> None:
    code, page, errors = explain("pages", "{ws-7}:block:42")
    assert (code, errors) == (0, "")
    lines = [" ".join(line.split()) for line in page.splitlines()]
    assert lines == [
        "A read at eu/eu-a would answer from l1.",
        "",
        "key {ws-7}:block:42 of pages (owner: web)",
        "partition ws-7",
        "home cell us-2 in us, pinned (eu-1 2.5)",
        "memcached eu-m1: its point; its breaker is open",
        "lease held by us/us-b, ends in 4.0 s (told by us/us-a)",
        "bound 0.4 s (max_lag 2 s)",
        "floor 60.0 s ago: fences were lost before they were read",
        "rule docs/concepts.md, The rule",
        "",
        "copies",
        "where standing age fresh for version bytes tags note",
        "l1 eu/eu-a fresh 9.5 s 40.0 s old 3 t newer at l3",
        "l1 eu/eu-b not known – – – – – broken",
        "l2 eu eu-m1 nothing – – – – –",
        "l3 us-2 fresh 2.0 s 40.0 s new 3 –",
        "",
        "fences, newest of each target",
        "on at home here, at least soft, at home soft, here merged here note",
        "key 3.0 s ago – – – before 90.0 s ago",
        "tag t – 1.0 s ago – – 0.5 s ago, feed of us",
        "",
        "what a read would do",
        "at it would bound note",
        "eu/eu-a answer from l1 0.4 s",
        "eu/eu-b not known –",
        "us/us-b not known – no answer within 50 ms",
    ]


def test_the_answer_as_it_came(explain: Callable[..., tuple[int, str, str]]) -> None:
    _, printed, _ = explain("pages", "k", "--json")
    assert msgspec.json.decode(printed.encode(), type=Explanation) == EXPLANATION


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_an_instance_cannot_rewrite_the_terminal(
    explain: Callable[..., tuple[int, str, str]], service: Service, more: tuple[str, ...]
) -> None:
    evil = replace(EXPLANATION, verdict="\x1b[2Jall is well\u202e")
    service.answer = (200, msgspec.json.encode(evil).replace(b"is well", b"is\xe2\x80\xaewell"))
    code, printed, errors = explain("pages", "k", *more)
    assert (code, errors) == (0, "")
    assert "all is" in printed
    assert not set("\x1b\u202e") & set(printed)


def test_nor_can_a_refusal(explain: Callable[..., tuple[int, str, str]], service: Service) -> None:
    service.answer = (404, b'{"detail": "\\u001b[2J\\u202e"}')
    _, _, errors = explain("pages", "k")
    assert errors == "cachesvc: refused: \\x1b[2J\\u202e\n"


def test_a_namespace_that_is_not_in_the_topology_is_a_mistake(
    explain: Callable[..., tuple[int, str, str]],
) -> None:
    code, _, errors = explain("page", "k", "--topology", TWO_REGIONS)
    assert (code, errors) == (2, "cachesvc: NAMESPACE: no namespace 'page' (did you mean 'pages'?)\n")


def test_what_the_instance_refuses_is_a_mistake(
    explain: Callable[..., tuple[int, str, str]], service: Service
) -> None:
    service.answer = (404, b'{"type": "no-such-namespace", "detail": "no namespace \'page\'"}')
    code, _, errors = explain("page", "k")
    assert (code, errors) == (2, "cachesvc: refused: no namespace 'page'\n")


@pytest.mark.parametrize(
    "given", [("k\n", "--url", "http://h"), ("k", "--url", "h:1"), ("", "--url", "http://h")]
)
def test_a_key_or_url_out_of_rule_is_a_mistake(
    explain: Callable[..., tuple[int, str, str]], given: tuple[str, ...]
) -> None:
    assert explain("pages", *given)[0] == 2


@pytest.mark.parametrize("answer", [(503, b""), (200, b"not json")])
def test_an_instance_that_fails_is_no_answer(
    explain: Callable[..., tuple[int, str, str]], service: Service, answer: Answer
) -> None:
    service.answer = answer
    code, _, errors = explain("pages", "k")
    assert code == 1
    assert errors.startswith("cachesvc: ")


def test_when_nobody_answers_it_is_said_who_was_asked(
    explain: Callable[..., tuple[int, str, str]], service: Service
) -> None:
    service.server.server_close()
    code, _, errors = explain("pages", "k", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert errors.startswith("cachesvc: no instance answers: http://127.0.0.1:9: ")
