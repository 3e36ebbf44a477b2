"""The agent's own telemetry: Prometheus metrics of this process. Spans go to OTLP where the environment names an endpoint."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from agent.core.message import Usage

REGISTRY = CollectorRegistry()

ALERTS = Counter("sre_agent_alerts", "Alerts received", ["source", "outcome"], registry=REGISTRY)
INVESTIGATIONS = Counter("sre_agent_investigations", "Investigations that ended", ["verdict"], registry=REGISTRY)
FAILURES = Counter("sre_agent_failures", "Investigations that failed", ["error"], registry=REGISTRY)
RUNNING = Gauge("sre_agent_running", "Investigations that run in this process", registry=REGISTRY)
BRIEF_SECONDS = Histogram(
    "sre_agent_brief_seconds", "From the alert's arrival to the brief", buckets=(0.5, 1, 2, 5, 10, 20, 60), registry=REGISTRY
)
TOKENS = Counter("sre_agent_tokens", "Tokens used", ["model", "kind"], registry=REGISTRY)
DOLLARS = Counter("sre_agent_usd", "US dollars spent on models", ["model"], registry=REGISTRY)
TOOL_CALLS = Counter("sre_agent_tool_calls", "Tool calls", ["tool", "outcome"], registry=REGISTRY)
CACHE_SHORTFALLS = Counter(
    "sre_agent_cache_shortfalls", "Requests that read less from the cache than their prefix should give", ["model", "cause"],
    registry=REGISTRY,
)  # fmt: skip
CACHE_MISSING = Counter(
    "sre_agent_cache_missing_tokens", "Tokens that should have been read from the cache", ["model", "cause"], registry=REGISTRY
)
EMPTY_RUNS = Counter("sre_agent_empty_runs", "Investigations that ended without a single finding or tool call", registry=REGISTRY)
EGRESS_REQUESTS = Counter("sre_agent_egress_requests", "Requests at sandboxes' doors", ["event"], registry=REGISTRY)
EGRESS_BYTES = Counter("sre_agent_egress_bytes", "Bytes that went through sandboxes' doors", ["direction"], registry=REGISTRY)


def count(model: str, usage: Usage, cost: float | None) -> None:
    """Counts what was used of a model."""
    kinds = {
        "input": usage.input_tokens,
        "cache_read": usage.cache_read_tokens,
        "cache_write": usage.cache_write_tokens,
        "output": usage.output_tokens,
    }
    for kind, tokens in kinds.items():
        TOKENS.labels(model, kind).inc(tokens)
    if cost:
        DOLLARS.labels(model).inc(cost)
