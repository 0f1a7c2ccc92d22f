"""Real HTTP proxies: nginx and HAProxy in set-ups that people run.

The tests that use them are skipped where the binary is not installed: nothing else needs it.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cachesvc.app.embedded.server_process import ServerProcess

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
NGINX = shutil.which("nginx", path=PATH)
HAPROXY = shutil.which("haproxy", path=PATH)

NGINX_PLACES = {
    # Without a path, proxy_pass sends the request target as it came.
    "as it came": "location /keys/ { proxy_pass http://ORIGIN; }",
    # With a path, it sends the decoded, normalised and newly encoded one.
    "with a path": "location /keys/ { proxy_pass http://ORIGIN/data/keys/; }",
    "slashes kept": "merge_slashes off; location /keys/ { proxy_pass http://ORIGIN/data/keys/; }",
    "rewritten": "location / { rewrite ^/keys/(.*)$ /data/keys/$1 break; proxy_pass http://ORIGIN; }",
    # A capture is decoded, and is sent without being encoded again.
    "captured": "location ~ ^/keys/(.*)$ { proxy_pass http://ORIGIN/data/keys/$1; }",
    "decoded": "location /keys/ { proxy_pass http://ORIGIN/data$uri; }",
    "twice": "location /keys/ { proxy_pass http://127.0.0.1:PORT(with a path)/keys/; }",
    "captured, then with a path": (
        "location ~ ^/keys/(.*)$ { proxy_pass http://127.0.0.1:PORT(with a path)/keys/$1; }"
    ),
    "captured twice": "location ~ ^/keys/(.*)$ { proxy_pass http://127.0.0.1:PORT(captured)/keys/$1; }",
}
"""Servers of an nginx by name; `ORIGIN` stands for host and port, `PORT(name)` for a port."""

NORMALISED = """
  http-request normalize-uri percent-decode-unreserved
  http-request normalize-uri path-strip-dot
  http-request normalize-uri path-strip-dotdot full
  http-request normalize-uri path-merge-slashes
  http-request normalize-uri percent-to-uppercase
"""
HAPROXY_PLACES = {
    "as it came": "",
    "normalised": NORMALISED,
    "strict": NORMALISED.replace("unreserved\n", "unreserved strict\n").replace("dotdot full", "dotdot"),
    "decoded": "  http-request set-path %[path,url_dec]",
    "decoded, then normalised": f"  http-request set-path %[path,url_dec]{NORMALISED}",
    "another prefix": "  http-request replace-path /keys/(.*) /data/keys/\\1",
    "decoded to another prefix": "  http-request set-path %[path,url_dec,regsub(^/keys/,/data/keys/)]",
}
"""Front ends of a HAProxy by name, each as its rules."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def nginx(origin: str) -> Iterator[Mapping[str, str]]:
    """An nginx in front of `origin` (host and port). Yields the base URL of each server."""
    ports = {name: free_port() for name in NGINX_PLACES}
    servers = []
    for name, text in NGINX_PLACES.items():
        place = text.replace("ORIGIN", origin)
        for other, port in ports.items():
            place = place.replace(f"PORT({other})", str(port))
        servers.append(f"server {{ listen 127.0.0.1:{ports[name]}; {place} }}")
    temporary = "".join(
        f"{kind}_temp_path {kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = (
        "daemon off; pid nginx.pid; error_log stderr crit; events {}\n"
        f"http {{ access_log off; {temporary}\n" + "\n".join(servers) + "\n}\n"
    )
    with _running("nginx", config, ["-p", ".", "-c", "config"], ports) as urls:
        yield urls


@contextmanager
def haproxy(origin: str) -> Iterator[Mapping[str, str]]:
    """A HAProxy in front of `origin` (host and port). Yields the URL of each front end."""
    ports = {name: free_port() for name in HAPROXY_PLACES}
    fronts = [
        f"frontend f{port}\n  bind 127.0.0.1:{port}\n{HAPROXY_PLACES[name]}\n  default_backend origin\n"
        for name, port in ports.items()
    ]
    config = (
        "global\n  expose-experimental-directives\n  maxconn 200\n"
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"backend origin\n  server origin {origin}\n" + "\n".join(fronts)
    )
    with _running("haproxy", config, ["-db", "-f", "config"], ports) as urls:
        yield urls


@contextmanager
def balancer(servers: Mapping[str, str], check_seconds: float) -> Iterator[str]:
    """A HAProxy that spreads requests over instances (name → host and port). Yields its URL.

    It leaves one after two failed checks of `/readyz`, and takes it again after one that succeeds. It
    sends no request a second time.
    """
    name, port = "all", free_port()
    checked = f"check inter {round(1000 * check_seconds)}ms fall 2 rise 1"
    config = (
        "defaults\n  mode http\n  retries 0\n"
        "  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"frontend front\n  bind 127.0.0.1:{port}\n  default_backend instances\n"
        "backend instances\n  balance roundrobin\n  option httpchk GET /readyz\n"
        + "".join(f"  server {server} {at} {checked}\n" for server, at in servers.items())
    )
    with _running("haproxy", config, ["-db", "-f", "config"], {name: port}) as urls:
        yield urls[name]


@contextmanager
def _running(
    name: str, config: str, options: list[str], ports: Mapping[str, int]
) -> Iterator[Mapping[str, str]]:
    directory = Path(tempfile.mkdtemp(prefix="cachesvc-test-"))
    (directory / "config").write_text(config)
    words = [str(directory / word) if word in (".", "config") else word for word in options]

    def is_ready() -> bool:
        for port in ports.values():
            socket.create_connection(("127.0.0.1", port), 1).close()
        return True

    binary = {"nginx": NGINX, "haproxy": HAPROXY}[name] or name
    process = ServerProcess(name, [binary, *words], is_ready=is_ready, run_dir=directory)
    try:
        process.start()
        yield {place: f"http://127.0.0.1:{port}" for place, port in ports.items()}
    finally:
        process.stop()
        shutil.rmtree(directory, ignore_errors=True)
