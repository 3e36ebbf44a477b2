"""What goes wrong: one function for each kind of incident. It says what is guilty, what only looks so, and what is alerted.

Texts of alerts and names of folders do not hint at the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from agent.evals.generate.edits import Edit, replace
from agent.evals.generate.system import Mix


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """A deployment at a minute of the shown hour. The service goes from its last deployed commit to its tip."""

    minute: float
    service: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An alert rule over one metric of one service, evaluated each shown minute: above `above` for `minutes`."""

    name: str
    service: str
    metric: str
    above: float
    minutes: int
    severity: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An incident to be.

    fixed: edits that must be in the newest deployment of a service, with their place in it (0 to 1); guilty: (service, subject)
    of those that cause it; decoys: of those that only look so. reproducer: a Python program, run in the culprit's repository,
    that exits 0 with the suspect and 1 without it.
    """

    kind: str
    verdict: str
    category: str
    mechanism: str
    deploys: tuple[Deploy, ...]
    rule: Rule
    fixed: dict[str, tuple[tuple[float, Edit], ...]]
    guilty: tuple[tuple[str, str], ...] = ()
    decoys: tuple[tuple[str, str], ...] = ()
    reproducer: str = ""
    mix: Mix = field(default_factory=Mix)
    changes: tuple[dict[str, object], ...] = ()
    minutes: int = 66


def exception(rng: Random) -> Scenario:
    """A field that some records lack is taken for granted; the caller's caller is the one that complains."""
    guilty = Edit(
        subject="Simplify the minimum of coupons",
        body="Every campaign has one by now.",
        change=replace(
            "pricing/coupons.py",
            '    minimum = coupon.get("minimum", 0)\n    if goods < minimum:\n        return 0\n',
            '    if goods < coupon["minimum"]:\n        return 0\n',
        ),
    )
    decoy = Edit(
        subject="Try calls a third time",
        body="Checkouts were lost when orders was restarted.",
        change=replace("storefront/settings.py", "ATTEMPTS = 2\n", "ATTEMPTS = 3\n"),
    )
    minute = 36 + rng.random() * 6
    return Scenario(
        kind="exception",
        verdict="root_cause_found",
        category="code",
        mechanism=(
            "pricing/coupons.py reads coupon['minimum'] unconditionally; coupons without a minimum (WELCOME10) raise KeyError, "
            "pricing answers 500, orders 502, the storefront's checkout fails"
        ),
        deploys=(Deploy(minute=minute, service="pricing"), Deploy(minute=minute + 1.4, service="storefront")),
        rule=Rule(
            name="CheckoutErrors",
            service="storefront",
            metric="http_5xx_ratio_5m",
            above=0.04,
            minutes=3,
            severity="critical",
            summary="More than 4 % of the storefront's requests fail",
        ),
        fixed={"pricing": ((0.55 + rng.random() * 0.3, guilty),), "storefront": ((0.9, decoy),)},
        guilty=(("pricing", guilty.subject),),
        decoys=(("storefront", decoy.subject),),
        reproducer=(
            "import sys\nfrom pricing import coupons\ntry:\n    reduction = coupons.reduction('WELCOME10', 6000)\n"
            "except KeyError:\n    sys.exit(0)\nsys.exit(1 if reduction == 600 else 2)\n"
        ),
        changes=(
            {
                "minute": minute - 13,
                "kind": "flag",
                "name": "storefront.show_reviews",
                "from": "off",
                "to": "10 %",
                "source": "flags",
            },
            {"minute": minute - 4, "kind": "config", "name": "cdn.cache_minutes", "from": "10", "to": "15", "source": "cdn"},
        ),
    )


KINDS: dict[str, Callable[[Random], Scenario]] = {"exception": exception}
