"""Alert rules, decoys and everyday changes that several kinds of incidents share."""

from __future__ import annotations

from agent.evals.generate.edits import Edit, replace
from agent.evals.generate.scenario import Rule

ERRORS = Rule(
    name="CheckoutErrors",
    service="storefront",
    metric="http_5xx_ratio_5m",
    limit=0.04,
    minutes=3,
    severity="critical",
    summary="More than 4 % of the storefront's requests fail",
)
SLOW = Rule(
    name="CheckoutSlow",
    service="storefront",
    metric="latency_p95_ms",
    limit=250,
    minutes=3,
    severity="warning",
    summary="The storefront's 95th percentile is above 250 ms",
)
RETRIES = Edit(
    subject="Try calls a third time",
    body="Checkouts were lost when orders was restarted.",
    change=replace("storefront/settings.py", "ATTEMPTS = 2\n", "ATTEMPTS = 3\n"),
)
TIMEOUT = Edit(
    subject="Give up on pricing a little later",
    body="The old limit was from when quotes were simple.",
    change=replace("orders/settings.py", '"CALL_TIMEOUT", "3.0"', '"CALL_TIMEOUT", "4.0"'),
)
CACHE_SIZE = Edit(
    subject="Keep fewer quotes",
    body="Most are never asked for again.",
    change=replace("pricing/app.py", "cache.Cache(settings.QUOTE_CACHE_SIZE)", "cache.Cache(settings.QUOTE_CACHE_SIZE // 2)"),
)
LONGER = Edit(
    subject="Wait a little longer for orders",
    change=replace("storefront/settings.py", "TIMEOUT = 5.0\n", "TIMEOUT = 6.0\n"),
)
MINIMUM = Edit(
    subject="Simplify the minimum of coupons",
    body="Every campaign has one by now.",
    change=replace(
        "pricing/coupons.py",
        '    minimum = coupon.get("minimum", 0)\n    if goods < minimum:\n        return 0\n',
        '    if goods < coupon["minimum"]:\n        return 0\n',
    ),
)
MINIMUM_PROGRAM = (
    "import sys\nfrom pricing import coupons\ntry:\n    reduction = coupons.reduction('WELCOME10', 6000)\n"
    "except KeyError:\n    sys.exit(0)\nsys.exit(1 if reduction == 600 else 2)\n"
)


def noise(minute: float) -> tuple[dict[str, object], ...]:
    """Changes that happen on any day."""
    return (
        {
            "minute": minute - 13,
            "kind": "flag",
            "name": "storefront.show_reviews",
            "from": "off",
            "to": "10 %",
            "source": "flags",
        },
        {"minute": minute - 4, "kind": "config", "name": "cdn.cache_minutes", "from": "10", "to": "15", "source": "cdn"},
    )
