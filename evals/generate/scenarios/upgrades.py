"""Incidents whose guilty change lies in a library: the service's own commit only moves the version."""

from __future__ import annotations

from random import Random

from agent.evals.generate.edits import Edit, append, replace, together
from agent.evals.generate.scenario import Deploy, Library, Scenario
from agent.evals.generate.scenarios.common import CACHE_SIZE, ERRORS, RETRIES, noise

OLD, NEW = "1.8.0", "1.9.0"
ADOPT = Edit(
    subject="Ask parcels what the carrier takes",
    body="The table of surcharges was never up to date.",
    change=together(
        append("requirements.txt", f"parcels=={OLD}\n"),
        replace(
            "pricing/shipping.py",
            "from pricing import settings\n",
            "from parcels import tariff\n\nfrom pricing import settings\n",
        ),
        replace(
            "pricing/shipping.py",
            "    return settings.SHIPPING_BASE + SURCHARGES.get(country, 0)\n",
            "    return settings.SHIPPING_BASE + tariff.surcharge(country)\n",
        ),
    ),
)
UPGRADE = Edit(subject=f"parcels {NEW}", change=replace("requirements.txt", f"parcels=={OLD}", f"parcels=={NEW}"))
UNLISTED = Edit(
    subject="Look zones up directly",
    body="All that we send to are listed by now.",
    change=together(
        replace("parcels/zones.py", "    return ZONES.get(country, FARTHEST)\n", "    return ZONES[country]\n"),
        replace(
            "parcels/zones.py",
            '    """1 is nearest. A country that the carrier does not list is in the farthest zone."""\n',
            '    """1 is nearest."""\n',
        ),
    ),
)
BY_SEA = Edit(
    subject="The farthest zone goes by sea",
    body="The carrier has no parcel price for it any more.",
    change=replace("parcels/tariff.py", "STEPS = {1: 0, 2: 120, 3: 240, 4: 360}\n", "STEPS = {1: 0, 2: 120, 3: 240}\n"),
)


def dependency(rng: Random) -> Scenario:
    """A release of a library does something else than the one before; a service takes it with a hundred commits of its own."""
    minute = 36 + rng.random() * 6
    unlisted = rng.random() < 0.5
    guilty = UNLISTED if unlisted else BY_SEA
    place = 0.3 + rng.random() * 0.5
    told = (
        "zones.zone() of parcels 1.9.0 raises KeyError for countries that the carrier does not list; 1.8.0 took the farthest zone"
        if unlisted
        else "tariff.surcharge() of parcels 1.9.0 raises KeyError for the farthest zone, which has no price any more"
    )
    return Scenario(
        kind="dependency",
        category="dependency",
        mechanism=f"{told}; pricing moved from 1.8.0 to 1.9.0, answers 500, orders 502, the storefront's checkout fails",
        deploys=(Deploy(minute=minute, service="pricing"), Deploy(minute=minute + 1.3, service="storefront")),
        rule=ERRORS,
        early={"pricing": ((0.6, ADOPT),)},
        fixed={"pricing": ((0.3, CACHE_SIZE), (0.4 + rng.random() * 0.4, UPGRADE)), "storefront": ((0.9, RETRIES),)},
        guilty=(("pricing", UPGRADE.subject),),
        decoys=(("storefront", RETRIES.subject), ("pricing", CACHE_SIZE.subject)),
        library=Library(
            name="parcels",
            old=OLD,
            new=NEW,
            fixed=((place, guilty),),
            guilty=guilty.subject,
        ),
        changes=noise(minute),
    )
