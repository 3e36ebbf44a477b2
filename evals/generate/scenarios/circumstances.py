"""Incidents without a guilty commit: settings, flags, visitors, providers, and an alert that is wrong by construction."""

from __future__ import annotations

from random import Random

from agent.evals.generate.edits import Edit, append, replace, together
from agent.evals.generate.scenario import Deploy, Rule, Scenario, Turn
from agent.evals.generate.scenarios.common import (
    CACHE_SIZE,
    ERRORS,
    LONGER,
    RETRIES,
    TIMEOUT,
    noise,
)
from agent.evals.generate.system import Mix


def configuration(rng: Random) -> Scenario:
    """A setting in the wrong unit; no commit is guilty, and the deployments around it are not either."""
    minute = 38 + rng.random() * 6
    name, before, after = "orders.CALL_TIMEOUT", "3.0", "0.003"
    return Scenario(
        kind="configuration",
        category="config",
        mechanism="CALL_TIMEOUT of orders went from 3.0 s to 0.003 s: most calls to pricing and payments are given up too early",
        deploys=(
            Deploy(minute=minute - 2.2, service="pricing"),
            Deploy(minute=minute, service="orders", newest=False, environment={"CALL_TIMEOUT": after}),
            Deploy(minute=minute + 1, service="storefront"),
        ),
        rule=ERRORS,
        fixed={"storefront": ((0.9, RETRIES),)},
        decoys=(("storefront", RETRIES.subject),),
        culprits=(name,),
        changes=(
            *noise(minute),
            {
                "minute": minute,
                "kind": "config",
                "service": "orders",
                "name": name,
                "from": before,
                "to": after,
                "source": "settings",
            },
        ),
    )


def flag(rng: Random) -> Scenario:
    """Code that was delivered dark is switched on and meets requests that it was not made for."""
    minute = 37 + rng.random() * 6
    dark = Edit(
        subject="Express checkout, behind a flag",
        change=together(
            replace("storefront/app.py", "import basket, client, messages", "import basket, client, flags, messages"),
            replace(
                "storefront/app.py",
                "    problem = basket.problem(body)\n",
                '    if flags.is_on("express_checkout"):\n        body = express(body)\n    problem = basket.problem(body)\n',
            ),
            append(
                "storefront/app.py",
                '\n\ndef express(body):\n    """The country is the one of the saved address."""\n'
                '    return {**body, "country": body["address"]["country"]}\n',
            ),
        ),
    )
    name = "storefront.express_checkout"
    return Scenario(
        kind="flag",
        category="config",
        mechanism="the flag express_checkout was switched on; express() in storefront/app.py needs an address, baskets have none",
        deploys=(Deploy(minute=minute - 1.5, service="pricing"), Deploy(minute=minute + 0.9, service="orders")),
        turns=(Turn(minute=minute, flags=("express_checkout",)),),
        rule=ERRORS,
        early={"storefront": ((0.8, dark),)},
        fixed={"pricing": ((0.6, CACHE_SIZE),), "orders": ((0.7, TIMEOUT),)},
        decoys=(("orders", TIMEOUT.subject), ("pricing", CACHE_SIZE.subject)),
        culprits=(name,),
        changes=(
            *noise(minute),
            {
                "minute": minute,
                "kind": "flag",
                "service": "storefront",
                "name": name,
                "from": "off",
                "to": "on",
                "source": "flags",
            },
        ),
    )


def traffic(rng: Random) -> Scenario:
    """More visitors than the services can take; what was deployed meanwhile has nothing to do with it."""
    minute = 36 + rng.random() * 5
    usual = Mix(per_second=15.0)
    sale = Mix(per_second=rng.choice((190.0, 210.0, 230.0)), products=0.12, orders=0.04)
    return Scenario(
        kind="traffic",
        category="capacity",
        mechanism="a sale brought many times the usual checkouts; the workers of orders do not suffice, it turns orders away",
        deploys=(Deploy(minute=minute - 3, service="pricing"), Deploy(minute=minute + 1, service="storefront")),
        turns=(Turn(minute=minute, mix=sale),),
        rule=ERRORS,
        fixed={"pricing": ((0.6, CACHE_SIZE),), "storefront": ((0.9, LONGER),)},
        decoys=(("pricing", CACHE_SIZE.subject), ("storefront", LONGER.subject)),
        mix=usual,
        changes=noise(minute),
        minutes=52,
    )


def external(rng: Random) -> Scenario:
    """The payments provider is down; our own deployments are bystanders."""
    minute = 37 + rng.random() * 6
    return Scenario(
        kind="external",
        category="external",
        mechanism="the payments provider answers 503; orders cannot charge, checkouts fail",
        deploys=(Deploy(minute=minute - 1.8, service="pricing"), Deploy(minute=minute + 0.8, service="orders")),
        turns=(Turn(minute=minute, payments=False),),
        rule=ERRORS,
        fixed={"pricing": ((0.6, CACHE_SIZE),), "orders": ((0.7, TIMEOUT),)},
        decoys=(("orders", TIMEOUT.subject), ("pricing", CACHE_SIZE.subject)),
        culprits=("payments",),
        changes=(
            *noise(minute),
            {
                "minute": minute + 6,
                "kind": "provider_status",
                "name": "payments",
                "from": "operational",
                "to": "major outage",
                "source": "status page",
            },
        ),
    )


def unsound_alert(rng: Random) -> Scenario:
    """The ratio falls because more of what is counted can never hit: quotes with coupons are not cached, by design."""
    minute = 36 + rng.random() * 6
    home = ("DE",)
    usual = Mix(per_second=34.0, single=0.92, countries=home, coupons={"SPRING15": 0.06, "TENOFF": 0.04})
    campaign = Mix(per_second=34.0, single=0.92, countries=home, coupons={"SPRING15": 0.72, "TENOFF": 0.12})
    return Scenario(
        kind="unsound_alert",
        category="alert",
        verdict="alert_unsound",
        mechanism=(
            "the rule counts quotes with coupons, which pricing never caches by design; a campaign brought many of them, so the "
            "ratio fell although quotes without a coupon hit as often as before"
        ),
        deploys=(Deploy(minute=minute - 2, service="pricing"), Deploy(minute=minute + 1.2, service="storefront")),
        turns=(Turn(minute=minute, mix=campaign),),
        rule=Rule(
            name="QuoteCacheIneffective",
            service="pricing",
            metric="quote_cache_hit_ratio_5m",
            limit=0.2,
            below=True,
            minutes=3,
            severity="warning",
            summary="Fewer than 20 % of the quotes come from the cache",
        ),
        fixed={"pricing": ((0.6, CACHE_SIZE),), "storefront": ((0.9, RETRIES),)},
        decoys=(("pricing", CACHE_SIZE.subject), ("storefront", RETRIES.subject)),
        mix=usual,
        changes=noise(minute),
    )
