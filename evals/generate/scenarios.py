"""What goes wrong: one function for each kind of incident. It says what is guilty, what only looks so, and what is alerted.

Texts of alerts and names of folders do not hint at the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from agent.evals.generate.edits import Edit, append, replace, together
from agent.evals.generate.system import Mix


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """A deployment at a minute of the shown hour: of the newest commit, or, with other settings, of the one that runs."""

    minute: float
    service: str
    newest: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What happens at a minute without a deployment: visitors behave differently, flags are on, the payments provider fails."""

    minute: float
    mix: Mix | None = None
    flags: tuple[str, ...] | None = None
    payments: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An alert rule over one metric of one service, evaluated each shown minute: beyond `limit` for more than `minutes`."""

    name: str
    service: str
    metric: str
    limit: float
    minutes: int
    severity: str
    summary: str
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value is beyond the limit."""
        return value < self.limit if self.below else value > self.limit


Place = tuple[float, Edit]
"""Where in a service's newest deployment an edit stands, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An incident to be.

    large: the service whose newest deployment holds more than a hundred commits. fixed: edits that must be in the newest
    deployment of a service; early: in what ran before. guilty: (service, subject) of the commits that cause it; decoys: of those
    that only look so. culprits: names of guilty records in changes.json. reproducer: a Python program, run in the first guilty
    repository, that exits 0 with the suspect and 1 without it.
    """

    kind: str
    category: str
    mechanism: str
    rule: Rule
    verdict: str = "root_cause_found"
    large: str = "pricing"
    deploys: tuple[Deploy, ...] = ()
    turns: tuple[Turn, ...] = ()
    fixed: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    early: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    guilty: tuple[tuple[str, str], ...] = ()
    decoys: tuple[tuple[str, str], ...] = ()
    culprits: tuple[str, ...] = ()
    reproducer: str = ""
    mix: Mix = field(default_factory=Mix)
    changes: tuple[dict[str, object], ...] = ()
    minutes: int = 66


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
    limit=90,
    minutes=3,
    severity="warning",
    summary="The storefront's 95th percentile is above 90 ms",
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


def exception(rng: Random) -> Scenario:
    """A field that some records lack is taken for granted; the caller's caller is the one that complains."""
    minute = 36 + rng.random() * 6
    return Scenario(
        kind="exception",
        category="code",
        mechanism=(
            "pricing/coupons.py reads coupon['minimum'] unconditionally; coupons without a minimum (WELCOME10) raise KeyError, "
            "pricing answers 500, orders 502, the storefront's checkout fails"
        ),
        deploys=(Deploy(minute=minute, service="pricing"), Deploy(minute=minute + 1.4, service="storefront")),
        rule=ERRORS,
        fixed={"pricing": ((0.55 + rng.random() * 0.3, MINIMUM),), "storefront": ((0.9, RETRIES),)},
        guilty=(("pricing", MINIMUM.subject),),
        decoys=(("storefront", RETRIES.subject),),
        reproducer=MINIMUM_PROGRAM,
        changes=noise(minute),
    )


def pause(seconds: float) -> Edit:
    """A wait before each try, the first one included."""
    return Edit(
        subject="Wait before a call is tried again",
        body="Two tries at once only made it worse for pricing.",
        change=together(
            replace("orders/client.py", "import json\n", "import json\nimport time\n"),
            replace(
                "orders/client.py",
                "    for attempt in range(1, settings.ATTEMPTS + 1):\n",
                "    for attempt in range(1, settings.ATTEMPTS + 1):\n        time.sleep(settings.PAUSE * attempt)\n",
            ),
            replace("orders/settings.py", "ATTEMPTS = 1\n", f"ATTEMPTS = 2\nPAUSE = {seconds}\n"),
        ),
    )


PAUSE_PROGRAM = (
    "import sys, time\nfrom orders import client\nclient._once = lambda target, url, body: {}\nbegan = time.monotonic()\n"
    "client.call('x', 'http://x')\nsys.exit(0 if time.monotonic() - began > 0.05 else 1)\n"
)


def latency(rng: Random) -> Scenario:
    """A wait that was meant for second tries comes before the first one too."""
    minute = 34 + rng.random() * 8
    edit = pause(rng.choice((0.08, 0.1, 0.12)))
    return Scenario(
        kind="latency",
        category="code",
        mechanism="orders/client.py sleeps before every attempt, the first included, so each call to pricing takes longer",
        large="orders",
        deploys=(Deploy(minute=minute, service="orders"), Deploy(minute=minute + 1.1, service="storefront")),
        rule=SLOW,
        fixed={"orders": ((0.4 + rng.random() * 0.4, edit),), "storefront": ((0.8, RETRIES),)},
        guilty=(("orders", edit.subject),),
        decoys=(("storefront", RETRIES.subject),),
        reproducer=PAUSE_PROGRAM,
        changes=noise(minute),
    )


def wrong_result(rng: Random) -> Scenario:
    """Nothing fails: a shown part of a sum is computed from something else than the sum."""
    minute = 34 + rng.random() * 8
    edit = Edit(
        subject="Show the tax of the goods",
        body="Customers asked why it differs from the label.",
        change=replace(
            "pricing/app.py",
            '        "tax": tax.amount(net, country),\n',
            '        "tax": tax.amount(goods - reduction, country),\n',
        ),
    )
    return Scenario(
        kind="wrong_result",
        category="code",
        mechanism="pricing/app.py shows the tax without shipping's while the total has it, so quotes with shipping do not add up",
        deploys=(Deploy(minute=minute, service="pricing"), Deploy(minute=minute + 1.2, service="orders")),
        rule=Rule(
            name="QuotesInconsistent",
            service="orders",
            metric="quotes_inconsistent_per_minute",
            limit=1,
            minutes=3,
            severity="warning",
            summary="Orders whose parts do not add up to their total",
        ),
        fixed={"pricing": ((0.3 + rng.random() * 0.5, edit),), "orders": ((0.7, TIMEOUT),)},
        guilty=(("pricing", edit.subject),),
        decoys=(("orders", TIMEOUT.subject),),
        reproducer=(
            "import sys\nfrom pricing import app\nq = app.quote({'items': [{'sku': 'MUG-114', 'quantity': 1}]})\n"
            "sys.exit(1 if q['goods'] - q['reduction'] + q['shipping'] + q['tax'] == q['total'] else 0)\n"
        ),
        changes=noise(minute),
    )


def leak(rng: Random) -> Scenario:
    """Something is kept for every request; memory tells half an hour later."""
    minute = 9 + rng.random() * 5
    edit = Edit(
        subject="Remember which catalogue a price came from",
        body="For questions of customers about old prices.",
        change=together(
            append(
                "pricing/catalogue.py", "\n\ndef everything():\n    return [dict(product) for product in _products.values()]\n"
            ),
            replace("pricing/app.py", "\n\ndef quote(", "\n_origins = []\n\n\ndef quote("),
            replace(
                "pricing/app.py",
                '        goods += volume.price(product["price"], item["quantity"])\n',
                '        goods += volume.price(product["price"], item["quantity"])\n'
                "        _origins.append((item, product, catalogue.everything()))\n",
            ),
        ),
    )
    return Scenario(
        kind="leak",
        category="code",
        mechanism="pricing/app.py appends a copy of the whole catalogue to _origins for every priced item and never drops one",
        deploys=(
            Deploy(minute=minute, service="pricing"),
            Deploy(minute=minute + 22 + rng.random() * 4, service="storefront"),
            Deploy(minute=minute + 27, service="orders"),
        ),
        rule=Rule(
            name="MemoryHigh",
            service="pricing",
            metric="resident_memory_mb",
            limit=34,
            minutes=2,
            severity="warning",
            summary="pricing needs more than 34 MB",
        ),
        fixed={
            "pricing": ((0.5 + rng.random() * 0.3, edit),),
            "storefront": ((0.9, RETRIES),),
            "orders": ((0.6, TIMEOUT),),
        },
        guilty=(("pricing", edit.subject),),
        decoys=(("storefront", RETRIES.subject), ("orders", TIMEOUT.subject)),
        reproducer=(
            "import sys, tracemalloc\nfrom pricing import app\ntracemalloc.start()\n"
            "ask = lambda n: app.quote({'items': [{'sku': 'MUG-114', 'quantity': 1}], 'country': 'DE', 'coupon': 'X', 'n': n})\n"
            "[ask(n) for n in range(50)]\nbefore = tracemalloc.get_traced_memory()[0]\n[ask(n) for n in range(200)]\n"
            "sys.exit(0 if tracemalloc.get_traced_memory()[0] - before > 500000 else 1)\n"
        ),
        mix=Mix(per_second=40.0),
        changes=noise(minute + 12),
    )


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


def two_causes(rng: Random) -> Scenario:
    """Two services get worse within minutes, each by a commit of its own."""
    minute = 33 + rng.random() * 6
    wait = pause(0.1)
    return Scenario(
        kind="two_causes",
        category="code",
        mechanism=(
            "pricing/coupons.py raises KeyError for coupons without a minimum; independently orders/client.py sleeps before "
            "every attempt, so what still works is slow"
        ),
        deploys=(
            Deploy(minute=minute, service="pricing"),
            Deploy(minute=minute + 2.5, service="orders"),
            Deploy(minute=minute + 3.4, service="storefront"),
        ),
        rule=ERRORS,
        fixed={
            "pricing": ((0.4 + rng.random() * 0.4, MINIMUM),),
            "orders": ((0.5, wait),),
            "storefront": ((0.9, RETRIES),),
        },
        guilty=(("pricing", MINIMUM.subject), ("orders", wait.subject)),
        decoys=(("storefront", RETRIES.subject),),
        reproducer=MINIMUM_PROGRAM,
        changes=noise(minute),
    )


def victim(rng: Random) -> Scenario:
    """The culprit is silent: it refuses politely, and two callers complain."""
    minute = 35 + rng.random() * 7
    most = rng.choice((3, 4))
    edit = Edit(
        subject="Count pieces, not lines, for the longest basket",
        body="A basket of fifty lines was never the problem.",
        change=together(
            replace(
                "pricing/app.py",
                "    if not items or len(items) > settings.MAX_ITEMS:\n",
                '    if not items or sum(item["quantity"] for item in items) > settings.MAX_PIECES:\n',
            ),
            append("pricing/settings.py", f"MAX_PIECES = {most}\n"),
        ),
    )
    return Scenario(
        kind="victim",
        category="code",
        mechanism=f"pricing/app.py refuses baskets of more than {most} pieces with 422; orders and storefront pass it on",
        deploys=(Deploy(minute=minute, service="pricing"), Deploy(minute=minute + 1.3, service="storefront")),
        rule=Rule(
            name="BasketsRefused",
            service="storefront",
            metric="http_4xx_ratio_5m",
            limit=0.04,
            minutes=3,
            severity="critical",
            summary="More than 4 % of the storefront's requests are refused",
        ),
        fixed={"pricing": ((0.5 + rng.random() * 0.3, edit),), "storefront": ((0.9, RETRIES),)},
        guilty=(("pricing", edit.subject),),
        decoys=(("storefront", RETRIES.subject),),
        reproducer=(
            "import sys\nfrom pricing import app, http\ntry:\n    app.quote({'items': [{'sku': 'MUG-114', 'quantity': 9}]})\n"
            "except http.Refused:\n    sys.exit(0)\nsys.exit(1)\n"
        ),
        changes=noise(minute),
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
    usual = Mix(single=0.85, coupons={"SPRING15": 0.06, "TENOFF": 0.04})
    campaign = Mix(single=0.85, coupons={"SPRING15": 0.72, "TENOFF": 0.12})
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


KINDS: dict[str, Callable[[Random], Scenario]] = {
    "exception": exception,
    "latency": latency,
    "wrong_result": wrong_result,
    "leak": leak,
    "configuration": configuration,
    "flag": flag,
    "two_causes": two_causes,
    "victim": victim,
    "traffic": traffic,
    "external": external,
    "unsound_alert": unsound_alert,
}
