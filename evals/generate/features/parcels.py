"""What happened to the parcels library between its releases. Nothing here is guilty."""

# ruff: noqa: E501 - the lines of other programs are quoted here

from __future__ import annotations

from random import Random

from agent.evals.generate.edits import Edit, append, number, replace, row
from agent.evals.generate.features.shared import Chains, helper, one

COUNTRIES = {
    "CH": 3, "CZ": 3, "ES": 4, "FI": 4, "GB": 4, "HU": 3, "IE": 4, "IT": 3, "LI": 2, "NO": 4, "PL": 3, "PT": 4, "SE": 3, "SI": 3,
    "SK": 3, "HR": 4, "EE": 4, "LV": 4, "LT": 4, "GR": 4, "MT": 4, "CY": 4, "RO": 4, "BG": 4, "IS": 4,
}  # fmt: skip


def parcels(rng: Random) -> Chains:
    """Zones, weights, labels, and some code."""
    chains: Chains = [
        one(f"{country} is in zone {zone}", row("parcels/zones.py", "ZONES", f'    "{country}": {zone},'))
        for country, zone in COUNTRIES.items()
    ]
    chains += [
        one(f"Test the zone of {country}", append(
            f"tests/test_zone_{country.lower()}.py",
            f"import unittest\n\nfrom parcels import zones\n\n\nclass {country.title()}Test(unittest.TestCase):\n"
            f"    def test_zone(self):\n        self.assertEqual(zones.zone(\"{country}\"), {zone})\n",
        ))
        for country, zone in (("DE", 1), ("AT", 2), ("NL", 2), ("LU", 2))
    ]  # fmt: skip
    chains += [
        [Edit(subject=f"Free up to {grams} g", change=number("parcels/weights.py", "FREE", grams)) for grams in (2200, 2500, 2400)],
        [Edit(subject=f"Steps of {grams} g", change=number("parcels/weights.py", "STEP", grams)) for grams in (4500, 4800)],
        one("Say how long a label may be", replace(
            "parcels/labels.py", '"""Texts of labels."""\n', '"""Texts of labels: at most forty characters a line."""\n'
        )),
        one("Cut names that do not fit", replace(
            "parcels/labels.py", '    return "%s, %s" % (name.strip(), country)\n', '    return "%s, %s" % (name.strip()[:36], country)\n'
        )),
        one("Labels in capitals", replace("parcels/labels.py", '    return "P%09d" % order\n', '    return ("p%09d" % order).upper()\n')),
        one("Round up by the whole step", replace(
            "parcels/weights.py", "    return 90 * -(-(grams - FREE) // STEP)\n",
            "    steps, rest = divmod(grams - FREE, STEP)\n    return 90 * (steps + (rest > 0))\n",
        )),
        [
            Edit(subject="List the zones", change=append("parcels/zones.py", "\n\ndef countries(zone):\n    return sorted(c for c, z in ZONES.items() if z == zone)\n")),
            Edit(subject="Zones for a table in the README", change=append("README.md", "\nZone 1 is the depot's own country.\n")),
        ],
        helper("parcels", "dates", "days", "days on the way by zone",
               'def days(zone):\n    """Working days."""\n    return (0, 1, 2, 4, 6)[zone]',
               ["self.assertEqual(dates.days(1), 1)", "self.assertEqual(dates.days(4), 6)"], ["Days are working days."]),
        helper("parcels", "sizes", "fits", "whether a parcel fits the machine",
               "def fits(length, width, height):\n    return length + 2 * (width + height) <= 3000",
               ["self.assertTrue(sizes.fits(600, 400, 300))", "self.assertFalse(sizes.fits(2000, 900, 900))"]),
        helper("parcels", "codes", "digit", "check digits of parcel numbers",
               "def digit(number):\n    return (10 - sum(int(c) * (3 if place % 2 else 1) for place, c in enumerate(number)) % 10) % 10",
               ['self.assertEqual(codes.digit("12345"), 7)', 'self.assertEqual(codes.digit("0"), 0)']),
        [Edit(subject="Notes for releases", change=append("README.md", "\n## Releases\n\nWhat changed stands in the log.\n"))],
    ]  # fmt: skip
    return chains
