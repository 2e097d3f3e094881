"""Prometheus' own reader of the text format, on stdin; prints how many samples it has found."""

import sys

from prometheus_client.parser import text_string_to_metric_families

families = list(text_string_to_metric_families(sys.stdin.read()))
for family in families:
    assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
print(sum(len(family.samples) for family in families))
