"""The dashboard and the rules against a real Prometheus that scrapes the real service after some traffic.

Every query is run, and has to find something; so does every metric of the table. `promtool` would accept a name that is
misspelled, a label that no series has, and a join that matches nothing.
"""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis
import yaml

from cachesvc.telemetry.dashboard.grafana import as_text, dashboard, queries_of
from cachesvc.telemetry.dashboard.panels import exposed_name, rows
from cachesvc.telemetry.metrics.table import TABLE
from loadtests.fleet import Fleet
from tests.doubles.prometheus import Prometheus, QueryError, prometheus

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "grafana" / "cachesvc.json"
COMMAND = "python -m cachesvc.telemetry.dashboard > config/grafana/cachesvc.json"
SELECTOR = re.compile(r"(?<![\w:])(?:cachesvc_|site\w*:)[\w:]+(?:\{[^}]*\})?")
QUERIES = sorted(set(queries_of(dashboard())))

JSON = {"Content-Type": "application/json"}
MANY = json.dumps({"keys": ["a"] * 1000}).encode()
"""Enough reads, of some thousands, for the sample of hot keys."""
NOBODY = "http://127.0.0.1:9"
READ_OUTCOMES = {"hit", "stale", "loaded", "absent", "miss", "failed", "refused"}
"""Those that the rules and the overview know what to think of."""

ONLY_UNDER_OVERLOAD = 'cachesvc_requests_total{operation="get_many",outcome="failed"}'
"""The one selector of the rules that finds nothing here: else a batch says of each key what became of it."""

TOPOLOGY = """
version: 1
regions:
  eu:
    queue: redis://127.0.0.1:26100/0
    pool: {eu-m1: {address: "127.0.0.1:21101", zone: a}}
    instances: {eu-a: "http://127.0.0.1:8101"}
    zones: {eu-a: a}
cells:
  eu-1: {region: eu, url: redis://127.0.0.1:26101/0}
namespaces:
  pages: {owner: web}
  short: {owner: web, ttl: 1s, jitter: 0, early_refresh: 0}
  docs:
    owner: docs
    origin: {url: "http://127.0.0.1:9100/docs/{key}"}
    origin_budget: {concurrency: 64}
"""

NEEDS_MORE = {
    "cachesvc_namespace_requests_shed_total": "overload (test_fair_overload.py)",
    "cachesvc_tls_certificate_left_seconds": "TLS (test_encrypted_servers.py, test_tls.py)",
    "cachesvc_tls_handshakes_total": "TLS",
    "cachesvc_tls_handshakes_failed_total": "TLS",
    "cachesvc_workers": "several workers (test_workers.py)",
    "cachesvc_worker_restarts_total": "several workers",
    "cachesvc_feed_relayed": "relays (test_relay_drills.py)",
    "cachesvc_feed_relays_left_total": "relays",
    "cachesvc_relay_followers": "relays",
    "cachesvc_relay_followers_lost_total": "relays",
    "cachesvc_relay_log_bytes": "relays",
    **{exposed_name(row): "`cachesvc cdc` (test_cdc.py)" for row in TABLE if row.source.startswith("cdc")},
}
"""Metrics that have no samples here, by what has to be there."""


def test_the_dashboard_is_the_one_that_the_table_makes() -> None:
    assert SHIPPED.read_text() == as_text(dashboard()), f"out of date; make it anew: {COMMAND}"


def test_every_metric_has_its_panel_and_the_overview_is_first() -> None:
    shown = rows()
    assert shown[0].title == "Overview"
    panels = [panel.title for row in shown[1:] for panel in row.panels]
    assert sorted(panels) == sorted(map(exposed_name, TABLE))


def test_panels_lie_side_by_side_and_have_ids_of_their_own() -> None:
    document = dashboard()
    panels = [*document["panels"], *(panel for row in document["panels"] for panel in row.get("panels", ()))]
    assert len({panel["id"] for panel in panels}) == len(panels)
    opened = [panel["gridPos"] for panel in document["panels"] if panel["type"] != "row"]
    assert len({(place["x"], place["y"]) for place in opened}) == len(opened)


# against the real ones ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    path = tmp_path_factory.mktemp("dashboard")
    (path / "topology.yaml").write_text(TOPOLOGY)
    # Nobody takes spans and metrics there: what is not taken is counted.
    with Fleet(
        path / "topology.yaml", path / "run", with_origin=True, environ={"CACHESVC_TELEMETRY_OTLP": NOBODY}
    ) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def watching(fleet: Fleet) -> Iterator[Prometheus]:
    """A Prometheus that has evaluated every rule, over traffic that went on between two scrapes."""
    target = {
        "targets": [fleet.url("eu-a").removeprefix("http://")],
        "labels": {"site": "eu", "instance": "eu-a"},
    }
    configuration = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(ROOT / "config" / "prometheus" / "rules.yaml")],
        "scrape_configs": [{"job_name": "cachesvc", "static_configs": [target]}],
    }
    traffic(fleet)  # series with labels begin with their first event: a rate is seen from the second on
    with prometheus(configuration) as running:
        running.wait_for('count_over_time(up{job="cachesvc"}[1m]) >= 2')
        traffic(fleet)
        running.wait_for("site:cachesvc_merges_late:ratio_rate3d")
        running.wait_for("site:cachesvc_reads_bad:ratio_rate3d")
        running.wait_for("cachesvc_server_limit_bytes", within_seconds=20)
        yield running


def traffic(fleet: Fleet) -> None:
    """Reads of every outcome, writes and invalidations."""
    url = fleet.url("eu-a")
    pages, docs, short = f"{url}/v1/pages", f"{url}/v1/docs", f"{url}/v1/short"
    assert call(f"{pages}/missing") == 404
    assert call(f"{pages}/a", "PUT", b"1") == 204
    assert call(f"{short}/a", "PUT", b"1") == 204
    assert call(f"{pages}/a") == 200
    assert call(f"{pages}/a", headers={"If-Match": '"another"'}) == 412
    assert {call(f"{pages}:get", "POST", MANY) for _ in range(15)} == {200}
    assert call(f"{docs}/a") == 200
    assert call(f"{docs}/a", "HEAD") == 200
    assert call(f"{url}/v1/nowhere/a") == 404
    assert call(f"{pages}:get", "POST", b'{"keys": ["a", "missing"]}') == 200
    assert call(f"{pages}:put", "POST", b'{"items": [{"key": "b", "value": "MQ=="}]}') == 200
    assert call(f"{docs}/a", "DELETE") == 200
    assert call(f"{pages}/tagged", "PUT", b"1", {"Cache-Groups": '"t"'}) == 204
    assert call(f"{pages}/tagged") == 200
    assert call(f"{url}/v1/invalidations", "POST", b'{"namespace": "pages", "tags": ["t"]}') == 200
    assert call(f"{pages}/tagged") == 404
    behave(fleet, b'{"status": 500}')
    assert call(f"{docs}/broken") == 502
    assert call(f"{docs}:get", "POST", b'{"keys": ["broken"]}') == 200
    behave(fleet, b'{"status": 0}')
    time.sleep(1.1)  # the time to live of what is in `short`: times of a real service cannot be set
    assert call(f"{short}/a") == 200


def behave(fleet: Fleet, control: bytes) -> None:
    origin = fleet.topology.namespaces["docs"].origin
    assert origin is not None
    assert call(origin.url.replace("/docs/{key}", "/_control"), "POST", control) == 200


def call(url: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] = JSON) -> int:
    request = urllib.request.Request(url, body, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code


def chosen(expression: str) -> str:
    """As Grafana fills in its variables."""
    return expression.replace("$__rate_interval", "1m").replace("$site", ".*").replace("$instance", ".*")


@pytest.mark.slow
@pytest.mark.parametrize(("title", "expression"), QUERIES, ids=lambda text: text[:60])
def test_a_query_of_the_dashboard_is_answered(watching: Prometheus, title: str, expression: str) -> None:
    found = watching.query(chosen(expression))
    assert found or title == "Firing alerts" or title in NEEDS_MORE


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(map(exposed_name, TABLE)))
def test_a_metric_of_the_table_has_samples(watching: Prometheus, name: str) -> None:
    assert bool(watching.query(f'{{__name__=~"{name}(_count)?"}}')) == (name not in NEEDS_MORE)


@pytest.mark.slow
def test_every_rule_is_evaluated_without_an_error(watching: Prometheus) -> None:
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in watching.rules()} == {
        (rule["name"], "ok", "") for rule in watching.rules()
    }


@pytest.mark.slow
def test_every_recorded_series_has_samples(watching: Prometheus) -> None:
    groups = yaml.safe_load((ROOT / "config" / "prometheus" / "rules.yaml").read_text())["groups"]
    recorded = [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]
    assert [name for name in recorded if not watching.query(name)] == []


@pytest.mark.slow
def test_every_selector_of_a_rule_finds_series(watching: Prometheus) -> None:
    """On its own: as a whole an alert finds nothing while all is well, and neither would one with a misspelled matcher."""
    selectors = {selector for rule in watching.rules() for selector in SELECTOR.findall(rule["query"])}
    assert len(selectors) > 50
    lacking = {selector for selector in selectors if not watching.query(selector)}
    assert lacking == {
        ONLY_UNDER_OVERLOAD,
        "cachesvc_worker_restarts_total",
        "cachesvc_tls_certificate_left_seconds",
        *(name for name in lacking if name.startswith("cachesvc_cdc_")),
    }


@pytest.mark.slow
def test_reads_have_no_outcome_that_the_rules_do_not_know(watching: Prometheus) -> None:
    found = watching.query('count by (outcome) (cachesvc_requests_total{operation=~"get|head"})')
    assert {sample.labels["outcome"] for sample in found} == READ_OUTCOMES - {"absent"}


@pytest.mark.slow
def test_an_event_out_of_rule_is_an_alert_with_words(watching: Prometheus, fleet: Fleet) -> None:
    """From the queue to what the person on call is sent: one alert, all the way."""
    redis.Redis.from_url(fleet.topology.regions["eu"].queue).xadd("changes", {"no": "event"})
    watching.wait_for('ALERTS{alertname="CachesvcDeadLetters", alertstate="firing"}')
    (alert,) = [one for one in watching.alerts() if one["labels"]["alertname"] == "CachesvcDeadLetters"]
    assert alert["labels"] == {"alertname": "CachesvcDeadLetters", "severity": "ticket", "site": "eu"}
    assert alert["annotations"]["summary"] == "A producer in eu sends events that break the rules"
    assert alert["annotations"]["runbook"] == "docs/operate.md#cachesvcdeadletters"


@pytest.mark.slow
def test_prometheus_says_what_is_wrong_with_a_query(watching: Prometheus) -> None:
    with pytest.raises(QueryError, match="parse error"):
        watching.query("sum(")
