"""The metrics of several processes as one text."""

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cachesvc.telemetry.metrics.merged import merged
from cachesvc.telemetry.metrics.metrics import Metrics

OPENMETRICS = "application/openmetrics-text"


def test_each_series_has_the_label_and_each_metric_its_comments_once() -> None:
    one = (
        b"# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\n"
        b'# HELP b B.\n# TYPE b gauge\nb{x="{y}"} 2.0\n'
    )
    two = b'# HELP b B.\n# TYPE b gauge\nb{x=""} 3.0\n# HELP c C.\n# TYPE c gauge\n'
    assert merged({"0": one, "1": two}, "worker") == (
        b'# HELP a_total A.\n# TYPE a_total counter\na_total{worker="0"} 1.0\n'
        b'# HELP b B.\n# TYPE b gauge\nb{worker="0",x="{y}"} 2.0\nb{worker="1",x=""} 3.0\n'
        b"# HELP c C.\n# TYPE c gauge\n"
    )


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
async def test_it_is_read_by_the_parser_of_its_format(accept: str, parse: object) -> None:
    assert callable(parse)
    metrics = Metrics()
    metrics.counts.request("pages", "get", "hit", 0.001)
    text, _ = await metrics.exposition(accept)
    families = {family.name: family for family in parse(merged({"0": text, "1": text}, "worker").decode())}
    samples = families["cachesvc_requests"].samples
    assert {sample.labels["worker"] for sample in samples} == {"0", "1"}
    alone = {family.name: len(family.samples) for family in parse(text.decode())}
    assert {name: len(family.samples) for name, family in families.items()} == {
        name: 2 * count for name, count in alone.items()
    }
