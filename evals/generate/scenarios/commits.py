"""Incidents with a guilty commit, or two."""

from __future__ import annotations

from random import Random

from agent.evals.generate.edits import Edit, append, replace, together
from agent.evals.generate.scenario import Deploy, Rule, Scenario
from agent.evals.generate.scenarios.common import (
    ERRORS,
    MINIMUM,
    MINIMUM_PROGRAM,
    RETRIES,
    SLOW,
    TIMEOUT,
    noise,
)
from agent.evals.generate.system import Mix


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
    edit = pause(rng.choice((0.3, 0.35, 0.4)))
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
        mix=Mix(per_second=7.0),
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
            limit=0.5,
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
            limit=28,
            minutes=2,
            severity="warning",
            summary="pricing needs more than 28 MB",
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
        mix=Mix(per_second=30.0),
        changes=noise(minute + 12),
    )


def two_causes(rng: Random) -> Scenario:
    """Two services get worse within minutes, each by a commit of its own."""
    minute = 33 + rng.random() * 6
    wait = pause(0.12)
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
        mix=Mix(per_second=15.0),
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
