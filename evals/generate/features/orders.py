"""What happened to orders over the months: states, holidays, depots, and some code. Nothing here is guilty."""

# ruff: noqa: E501 - the lines of other programs are quoted here

from __future__ import annotations

from random import Random

from agent.evals.generate.edits import Edit, append, number, replace, row
from agent.evals.generate.features.shared import Chains, helper, one, shared

HOLIDAYS = {
    **dict.fromkeys(("2026-01-06", "2026-08-15", "2026-11-01", "2026-12-08"), "AT"),
    **dict.fromkeys(("2026-04-06", "2026-05-14", "2026-05-25", "2026-12-26"), "AT BE DE DK NL"),
    **dict.fromkeys(("2026-05-01", "2026-05-08", "2026-07-14", "2026-11-11"), "FR"),
    **dict.fromkeys(("2026-04-27", "2026-05-05", "2026-12-05", "2026-12-06"), "NL"),
    **dict.fromkeys(("2026-04-03", "2026-06-05", "2026-12-24", "2026-12-31"), "DK"),
    **dict.fromkeys(("2026-06-04", "2026-10-03", "2026-10-31", "2026-11-18"), "DE"),
    **dict.fromkeys(("2027-01-01", "2027-03-26", "2027-03-29", "2027-05-06", "2027-05-17"), "AT BE DE DK FR NL"),
    **dict.fromkeys(("2027-01-06", "2027-08-15", "2027-11-01", "2027-12-08", "2027-10-26"), "AT"),
    **dict.fromkeys(("2027-05-01", "2027-05-08", "2027-07-14", "2027-11-11"), "FR"),
}
DEPOTS = {
    "01": "Dresden", "04": "Leipzig", "06": "Halle", "15": "Frankfurt", "18": "Rostock", "24": "Kiel", "26": "Oldenburg",
    "28": "Bremen", "30": "Hanover", "33": "Bielefeld", "34": "Kassel", "38": "Brunswick", "39": "Magdeburg", "40": "Dusseldorf",
    "44": "Dortmund", "45": "Essen", "48": "Munster", "50": "Cologne", "52": "Aachen", "53": "Bonn", "55": "Mainz", "60": "Frankfurt",
    "66": "Saarbrucken", "68": "Mannheim", "70": "Stuttgart", "76": "Karlsruhe", "79": "Freiburg", "86": "Augsburg", "90": "Nuremberg",
    "93": "Regensburg", "97": "Wurzburg", "99": "Erfurt", "02": "Gorlitz", "03": "Cottbus", "07": "Jena", "08": "Zwickau", "09": "Chemnitz",
    "12": "Neukolln", "14": "Potsdam", "17": "Neubrandenburg", "19": "Schwerin", "21": "Luneburg", "23": "Lubeck", "25": "Husum",
    "27": "Bremerhaven", "29": "Celle", "31": "Hildesheim", "32": "Herford", "35": "Giessen", "36": "Fulda", "37": "Gottingen",
}  # fmt: skip


def orders(rng: Random) -> Chains:
    """Limits, states, and some code."""
    chains = shared("orders", rng)
    settings = "orders/settings.py"
    chains.append([Edit(subject=f"Keep {n} orders", change=number(settings, "KEEP_ORDERS", n)) for n in (6000, 8000, 7500)])
    chains.append([Edit(subject=f"Pages of {n} orders", change=number(settings, "PAGE_SIZE", n)) for n in (25, 30, 50)])
    app, states = "orders/app.py", "orders/states.py"
    table = '"""What may follow which state of an order."""\n\nNEXT = {\n}\n\n\ndef may(state, following):\n    return following in NEXT.get(state, ())\n'
    follow = {
        "placed": "paid,cancelled",
        "paid": "packed,cancelled",
        "packed": "sent",
        "sent": "delivered,lost",
        "delivered": "returned",
    }
    chains.append(
        [
            Edit(subject="A table of states", change=append(states, table)),
            *(
                Edit(subject=f"What follows {state}", change=row(states, "NEXT", f'    "{state}": {tuple(after.split(","))!r},'.replace("'", '"')))
                for state, after in follow.items()
            ),
            Edit(subject="Test the states", change=append(
                "tests/test_states.py",
                "import unittest\n\nfrom orders import states\n\n\nclass StatesTest(unittest.TestCase):\n    def test_payment_follows(self):\n"
                '        self.assertTrue(states.may("placed", "paid"))\n\n    def test_nothing_follows_what_is_unknown(self):\n'
                '        self.assertFalse(states.may("nowhere", "paid"))\n',
            )),
        ]
    )  # fmt: skip
    chains += [
        one("Count orders that are not found", replace(
            app, "    if order is None:\n        raise", '    if order is None:\n        telemetry.count("orders_missing_total")\n        raise'
        )),
        one("Count refused baskets", replace(
            app, '            raise Refused(422, "the basket', '            telemetry.count("baskets_refused_total")\n            raise Refused(422, "the basket'
        )),
        one("Log the coupon of an order", replace(
            app, 'order=order["number"], total=quote["total"])', 'order=order["number"], total=quote["total"], coupon=body.get("coupon"))'
        )),
        one("Say whose order number it was", replace(
            app, '"there is no order %s" % number', '"there is no order %r" % number'
        )),
    ]  # fmt: skip
    for day, countries in HOLIDAYS.items():
        subject = rng.choice(("Holiday: {}", "No parcels on {}", "Add {} to the holidays", "{} is a holiday")).format(day)
        chains.append(one(subject, row("orders/holidays.py", "DAYS", f'    "{day}": "{countries}",')))
    for code, town in DEPOTS.items():
        subject = rng.choice(("Depot {}", "Hand over in {}", "Parcels of {} have their own depot")).format(town)
        chains.append(one(subject, row("orders/depots.py", "DEPOTS", f'    "{code}": "{town}",')))
    chains += _orders_helpers()
    return chains


def _orders_helpers() -> Chains:
    return [
        helper("orders", "numbers", "valid", "check order numbers that customers type",
               "def valid(text):\n    return text.isdigit() and len(text) > 1 and check_digit(text[:-1]) == int(text[-1])",
               ['self.assertTrue(numbers.valid("6291041500213"))', 'self.assertFalse(numbers.valid("6291041500214"))']),
        helper("orders", "numbers", "grouped", "order numbers in groups of three",
               'def grouped(number):\n    return " ".join(number[place : place + 3] for place in range(0, len(number), 3))',
               ['self.assertEqual(numbers.grouped("1000017"), "100 001 7")', 'self.assertEqual(numbers.grouped(""), "")']),
        helper("orders", "addresses", "lines", "print addresses on parcels",
               'def lines(address):\n    keys = ("name", "street", "town", "country")\n    return [address[key] for key in keys if address.get(key)]',
               ['self.assertEqual(addresses.lines({"name": "A", "town": "B"}), ["A", "B"])', "self.assertEqual(addresses.lines({}), [])"]),
        helper("orders", "addresses", "same", "compare addresses without case",
               "def same(first, second):\n    return str(first).lower() == str(second).lower()",
               ['self.assertTrue(addresses.same("A", "a"))', 'self.assertFalse(addresses.same("A", "b"))']),
        helper("orders", "days", "workdays", "delivery in working days",
               'def workdays(weekday, days):\n    """Calendar days until that many working days have passed; Monday is 0."""\n    passed = 0\n'
               "    while days:\n        passed += 1\n        days -= (weekday + passed) % 7 < 5\n    return passed",
               ["self.assertEqual(days.workdays(4, 1), 3)", "self.assertEqual(days.workdays(0, 0), 0)"]),
        helper("orders", "totals", "by_country", "totals by country for the monthly figures",
               'def by_country(rows):\n    totals = {}\n    for country, cents in rows:\n        totals[country] = totals.get(country, 0) + cents\n    return totals',
               ['self.assertEqual(totals.by_country([("DE", 1), ("DE", 2)]), {"DE": 3})', "self.assertEqual(totals.by_country([]), {})"]),
        helper("orders", "totals", "share", "shares for the monthly figures",
               "def share(part, whole):\n    return 0 if not whole else round(100 * part / whole)",
               ["self.assertEqual(totals.share(1, 3), 33)", "self.assertEqual(totals.share(1, 0), 0)"], ["Monthly figures are in whole per cent."]),
        helper("orders", "exports", "line", "export orders as semicolon separated lines",
               'def line(values):\n    return ";".join(str(value).replace(";", ",") for value in values)',
               ['self.assertEqual(exports.line([1, "a;b"]), "1;a,b")', 'self.assertEqual(exports.line([]), "")'],
               ["Exports are read by the accounting program every night."]),
    ]  # fmt: skip
