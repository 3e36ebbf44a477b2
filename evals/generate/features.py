"""What happened to the services over the months: a pool of edits for each, from which history.py draws. None of them is guilty.

Each function gives chains: the edits of one chain are applied in their order, chains in any.
"""

# ruff: noqa: E501 - the lines of other programs are quoted here

from __future__ import annotations

import itertools
from collections.abc import Sequence
from random import Random

from agent.evals.generate.edits import Change, Edit, append, number, record, replace, row, together

Chains = list[list[Edit]]


def one(subject: str, change: Change, body: str = "") -> list[Edit]:
    """A chain of a single edit."""
    return [Edit(subject=subject, change=change, body=body)]


def helper(
    service: str, module: str, name: str, summary: str, source: str, cases: Sequence[str], later: Sequence[str] = ()
) -> list[Edit]:
    """A function that arrives with a test, gets a second case, and is documented."""
    path, test = f"{service}/{module}.py", f"tests/test_{module}_{name}.py"
    title = "".join(part.title() for part in name.split("_"))
    head = f"import unittest\n\nfrom {service} import {module}\n\n\nclass {title}Test(unittest.TestCase):\n"
    bodies = [f"    def test_{number}(self):\n        {case}\n" for number, case in enumerate(cases, 1)]
    edits = [
        Edit(
            subject=f"{summary[0].upper()}{summary[1:]}",
            change=together(append(path, f"\n\n{source}\n"), append(test, head + bodies[0])),
        )
    ]
    edits += [
        Edit(
            subject=(f"Test {name} at its edges", f"One more case for {name}", f"Cover {name}")[len(name) % 3],
            change=append(test, "\n" + body),
        )
        for body in bodies[1:]
    ]
    edits += [Edit(subject=f"Mention {name} in the README", change=append("README.md", f"\n{line}\n")) for line in later]
    return edits


def shared(service: str, rng: Random) -> Chains:
    """What every repository sees: tools move on, notes grow, docstrings come."""
    chains: Chains = []
    for tool, versions in {
        "ruff": ["0.3.0", "0.3.2", "0.3.5", "0.4.1", "0.4.4", "0.5.0", "0.5.2"],
        "coverage": ["7.4.1", "7.4.3", "7.4.4", "7.5.0", "7.5.1"],
    }.items():
        steps = itertools.pairwise(versions)
        chains.append(
            [
                Edit(subject=f"Move {tool} to {new}", change=replace("requirements-dev.txt", f"{tool}=={old}", f"{tool}=={new}"))
                for old, new in steps
            ]
        )
    notes = (
        "## Running it locally\n\nSet $PORT and start it; there is no database.",
        "## On call\n\nLook at the error ratio first, then at the log of the service that it calls.",
        "## Releases\n\nA release is a tag on main. It is rolled out without downtime.",
        "## Metrics\n\n`http_requests_total` by route and status, `http_request_duration_seconds` as a histogram.",
        "## Log lines\n\nOne line an event; a traceback follows the line that it belongs to.",
        "## Style\n\nStandard library only. Small functions.",
    )
    order = rng.sample(notes, k=len(notes))
    chains.append(
        [Edit(subject=f"README: {note.splitlines()[0][3:].lower()}", change=append("README.md", f"\n{note}\n")) for note in order]
    )
    chains.append(
        [
            Edit(
                subject="Say when a request is not JSON",
                change=replace(
                    f"{service}/http.py",
                    '            body = json.loads(self.rfile.read(length) or b"{}")\n',
                    '            raw = self.rfile.read(length)\n            try:\n                body = json.loads(raw or b"{}")\n'
                    '            except ValueError:\n                return self._answer(400, b\'{"error": "not JSON"}\')\n',
                ),
            ),
            Edit(
                subject="Limit the size of request bodies",
                change=together(
                    replace(
                        f"{service}/http.py",
                        "            raw = self.rfile.read(length)\n",
                        '            if length > MOST_BYTES:\n                return self._answer(413, b\'{"error": "too large"}\')\n'
                        "            raw = self.rfile.read(length)\n",
                    ),
                    replace(f"{service}/http.py", "\n\nclass Refused", "\nMOST_BYTES = 1000000\n\n\nclass Refused"),
                ),
            ),
        ]
    )
    chains.append(
        one("Name the span buckets", replace(f"{service}/telemetry.py", "BUCKETS = (", "# upper bounds in seconds\nBUCKETS = ("))
    )
    chains.append(one("Add slower buckets", replace(f"{service}/telemetry.py", "1.0, 2.5)", "1.0, 2.5, 5.0, 10.0)")))
    chains.append(
        one(
            "Describe count()",
            replace(
                f"{service}/telemetry.py",
                "def count(name, amount=1, **labels):\n",
                'def count(name, amount=1, **labels):\n    """Adds to a counter."""\n',
            ),
        )
    )
    chains.append(
        one(
            "Describe observe()",
            replace(
                f"{service}/telemetry.py",
                "def observe(name, seconds, **labels):\n",
                'def observe(name, seconds, **labels):\n    """Adds a duration to a histogram."""\n',
            ),
        )
    )
    chains.append(
        one(
            "Describe context()",
            replace(
                f"{service}/telemetry.py",
                "def context():\n",
                'def context():\n    """The running span as the value of a header."""\n',
            ),
        )
    )
    return chains


COUNTRIES = {
    "BG": 200, "CY": 190, "CZ": 210, "EE": 220, "ES": 210, "FI": 255, "GR": 240, "HR": 250, "HU": 270, "IE": 230,
    "IT": 220, "LT": 210, "LU": 170, "LV": 210, "MT": 180, "PL": 230, "PT": 230, "RO": 190, "SE": 250, "SI": 220, "SK": 230,
}  # fmt: skip
GOODS = (
    "Jug", "Sieve", "Rolling Pin", "Cake Tin", "Muffin Tray", "Pie Dish", "Bread Box", "Cutting Board", "Paring Knife", "Chef Knife",
    "Steel", "Corkscrew", "Can Opener", "Salt Mill", "Pepper Mill", "Scale", "Thermometer", "Funnel", "Pastry Brush", "Spatula",
    "Tongs", "Wok", "Casserole", "Stock Pot", "Steamer", "Mandoline", "Mortar", "Pestle", "Garlic Press", "Zester", "Trivet",
    "Oven Mitt", "Tea Towel", "Napkin", "Egg Cup", "Butter Dish", "Sugar Bowl", "Milk Jug", "Cake Stand", "Ice Bucket",
    "Toast Rack", "Gravy Boat", "Fish Kettle", "Melon Baller", "Apple Corer", "Nutcracker", "Potato Masher", "Salad Spinner",
    "Measuring Jug", "Cooling Rack", "Piping Bag", "Dough Scraper", "Icing Knife", "Jam Jar", "Pickle Fork", "Oyster Knife",
    "Crepe Pan", "Tagine", "Fondue Set", "Waffle Iron", "Rice Cooker", "Slow Cooker", "Toaster", "Blender", "Food Mill",
)  # fmt: skip
CAMPAIGNS = (
    "AUTUMN",
    "GARDEN",
    "EASTER",
    "SUMMER",
    "BRUNCH",
    "PICNIC",
    "BAKING",
    "MIDWEEK",
    "NIGHT",
    "STUDENT",
    "LOYAL",
    "TEATIME",
    "MOTHERS",
)


def pricing(rng: Random) -> Chains:
    """Products, prices, taxes, campaigns, and some code."""
    chains = shared("pricing", rng)
    for name in GOODS:
        sku = f"{name[:3].upper().strip()}-{rng.randrange(210, 990)}"
        price = rng.randrange(3, 90) * 100 + rng.choice((0, 50, 90, 95))
        chains.append(
            one(
                f"Sell the {name.lower()}",
                record("data/products.json", f'  {{"sku": "{sku}", "name": "{name}", "price": {price}}}'),
            )
        )
    for country, rate in COUNTRIES.items():
        subject = rng.choice(("Tax for {}", "Add the VAT rate of {}", "VAT: {}", "Sell to {}: tax")).format(country)
        chains.append(one(subject, row("pricing/tax.py", "RATES", f'    "{country}": {rate},')))
        chains.append(
            one(
                f"Shipping to {country}",
                row("pricing/shipping.py", "SURCHARGES", f'    "{country}": {rng.randrange(2, 12) * 50},'),
            )
        )
    for name in CAMPAIGNS:
        percent, least = rng.choice((5, 10, 12, 15)), rng.randrange(2, 9) * 1000
        line = f'  {{"code": "{name}{percent}", "percent": {percent}, "minimum": {least}}}'
        subject = rng.choice(("Campaign {}", "Coupon for {}", "Marketing: {} coupon", "Prepare the {} campaign")).format(
            name.lower()
        )
        chains.append(one(subject, record("data/coupons.json", line)))
    settings = "pricing/settings.py"
    for name, values in {
        "MAX_ITEMS": (60, 75, 80),
        "QUOTE_CACHE_SIZE": (768, 1024, 1000),
        "SHIPPING_FREE_FROM": (8500, 8000, 8900),
    }.items():
        words = name.lower().replace("_", " ")
        chains.append([Edit(subject=f"Set {words} to {value}", change=number(settings, name, value)) for value in values])
    chains += _pricing_code()
    chains += _pricing_helpers()
    return [chain for chain in chains if chain]


def _pricing_code() -> Chains:
    coupons, volume, tax, cache = (f"pricing/{name}.py" for name in ("coupons", "volume", "tax", "cache"))
    return [
        [
            Edit(subject="List the coupon codes", change=append(coupons, "\n\ndef codes():\n    return sorted(_coupons)\n")),
            Edit(
                subject="Test that codes are written in capitals",
                change=append(
                    "tests/test_coupon_codes.py",
                    "import unittest\n\nfrom pricing import coupons\n\n\nclass CodesTest(unittest.TestCase):\n"
                    "    def test_capitals(self):\n        self.assertTrue(all(code == code.upper() for code in coupons.codes()))\n",
                ),
            ),
        ],
        [
            Edit(subject="Explain fixed amounts", change=replace(
                coupons, '    return min(goods, coupon["amount"])\n', '    return min(goods, coupon["amount"])  # never below nothing\n'
            )),
        ],
        [
            Edit(subject="Keep the coupon file's name in one place", change=replace(
                coupons, '_FILE = Path(__file__).parent.parent / "data" / "coupons.json"\n',
                '_DATA = Path(__file__).parent.parent / "data"\n_FILE = _DATA / "coupons.json"\n',
            )),
        ],
        [
            Edit(subject="Turn the tiers round", change=replace(
                volume,
                "    found = 0\n    for least, share in TIERS:\n        if quantity >= least:\n            found = share\n    return found\n",
                "    return max(share for least, share in TIERS if quantity >= least or least == 1)\n",
            )),
            Edit(subject="A tier from 50", change=replace(volume, "(25, 8))", "(25, 8), (50, 10))")),
            Edit(subject="A tier from 100", change=replace(volume, "(50, 10))", "(50, 10), (100, 12))")),
        ],
        one("Round tax in one place", replace(
            tax, "    return (net * rate(country) + 500) // 1000\n",
            "    return _rounded(net * rate(country))\n\n\ndef _rounded(mills):\n    return (mills + 500) // 1000\n",
        )),
        one("Accept lower case country codes for tax", replace(
            tax, "    return RATES.get(country, 0)\n", "    return RATES.get(country.upper(), 0)\n"
        )),
        one("Count cached quotes by country", replace(
            "pricing/app.py", '        telemetry.count("quotes_cached_total")\n',
            '        telemetry.count("quotes_cached_total")\n        telemetry.count("quotes_cached_by_country_total", country=country)\n',
        )),
        [
            Edit(subject="Forget all quotes on demand", change=replace(
                cache, "    def __len__(self):\n", "    def clear(self):\n        with self._lock:\n            self._entries.clear()\n\n    def __len__(self):\n",
            )),
            Edit(subject="Test the cache", change=append(
                "tests/test_cache.py",
                "import unittest\n\nfrom pricing import cache\n\n\nclass CacheTest(unittest.TestCase):\n    def test_the_oldest_goes(self):\n"
                "        kept = cache.Cache(2)\n        for name in 'abc':\n            kept.put(name, name)\n"
                "        self.assertEqual((kept.get('a'), kept.get('c')), (None, 'c'))\n",
            )),
            Edit(subject="Test clearing the cache", change=append(
                "tests/test_cache.py",
                "\n    def test_clear(self):\n        kept = cache.Cache(2)\n        kept.put('a', 1)\n        kept.clear()\n"
                "        self.assertEqual(len(kept), 0)\n",
            )),
        ],
        one("Count unknown products", replace(
            "pricing/app.py", '        if product is None:\n            raise',
            '        if product is None:\n            telemetry.count("products_missing_total")\n            raise',
        )),
        one("Count refused product pages", replace(
            "pricing/app.py", '    if found is None:\n        raise Refused(404',
            '    if found is None:\n        telemetry.count("product_pages_missing_total")\n        raise Refused(404',
        )),
        one("Ship free only with goods", replace(
            "pricing/shipping.py", "    if goods >= settings", "    if goods > 0 and goods >= settings"
        )),
        *(
            one(f"Test the tax of {country}", append(
                f"tests/test_tax_{country.lower()}.py",
                f"import unittest\n\nfrom pricing import tax\n\n\nclass {country.title()}Test(unittest.TestCase):\n"
                f"    def test_amount(self):\n        self.assertEqual(tax.amount({net}, \"{country}\"), {(net * rate + 500) // 1000})\n",
            ))
            for country, rate, net in (("AT", 200, 999), ("BE", 210, 4545), ("DK", 250, 1010), ("FR", 200, 2503), ("NL", 210, 7777))
        ),
    ]  # fmt: skip


def _pricing_helpers() -> Chains:
    return [
        helper("pricing", "money", "split", "split an amount into parts that add up",
               'def split(cents, parts):\n    """Equal parts; the first ones take what is left over."""\n    share, rest = divmod(cents, parts)\n'
               "    return [share + (place < rest) for place in range(parts)]",
               ["self.assertEqual(money.split(100, 3), [34, 33, 33])", "self.assertEqual(sum(money.split(7, 4)), 7)"]),
        helper("pricing", "money", "percent_of", "percentages in whole cents",
               "def percent_of(cents, share):\n    return cents * share // 100",
               ["self.assertEqual(money.percent_of(999, 10), 99)", "self.assertEqual(money.percent_of(0, 10), 0)"]),
        helper("pricing", "money", "rounded_to", "round prices to a step",
               'def rounded_to(cents, step):\n    """Half up."""\n    return (cents + step // 2) // step * step',
               ["self.assertEqual(money.rounded_to(1003, 5), 1005)", "self.assertEqual(money.rounded_to(1002, 5), 1000)"]),
        helper("pricing", "weights", "grams", "weights for the carrier's new tariff",
               'def grams(kilograms):\n    return round(kilograms * 1000)',
               ["self.assertEqual(weights.grams(1.2), 1200)"], ["Weights are whole grams."]),
        helper("pricing", "weights", "parcels", "number of parcels by weight",
               'MOST = 31500\n\n\ndef parcels(grams):\n    """Parcels of at most 31.5 kg."""\n    return max(1, -(-grams // MOST))',
               ["self.assertEqual(weights.parcels(31501), 2)", "self.assertEqual(weights.parcels(0), 1)"]),
        helper("pricing", "codes", "normal", "normalize codes as customers type them",
               'def normal(code):\n    """Capitals, without blanks and dashes."""\n    return code.replace("-", "").replace(" ", "").upper()',
               ['self.assertEqual(codes.normal("spring-15 "), "SPRING15")', 'self.assertEqual(codes.normal(""), "")']),
        helper("pricing", "codes", "looks_like", "tell coupon codes from order numbers",
               "def looks_like(code):\n    return code.isalnum() and not code.isdigit()",
               ['self.assertTrue(codes.looks_like("SPRING15"))', 'self.assertFalse(codes.looks_like("100001"))']),
        helper("pricing", "periods", "quarter", "quarter of a month for the price lists",
               "def quarter(month):\n    return (month + 2) // 3",
               ["self.assertEqual([periods.quarter(m) for m in (1, 3, 4, 12)], [1, 1, 2, 4])"], ["Price lists change with the quarter."]),
        helper("pricing", "periods", "overlap", "overlap of two campaign periods",
               'def overlap(first, second):\n    """Whether two (start, end) pairs share a day."""\n    return first[0] <= second[1] and second[0] <= first[1]',
               ["self.assertTrue(periods.overlap((1, 5), (5, 9)))", "self.assertFalse(periods.overlap((1, 4), (5, 9)))"]),
        helper("pricing", "tables", "by", "index rows by a column",
               "def by(column, rows):\n    return {row[column]: row for row in rows}",
               ['self.assertEqual(tables.by("a", [{"a": 1}]), {1: {"a": 1}})']),
        helper("pricing", "tables", "doubles", "find rows that occur twice",
               "def doubles(values):\n    seen = set()\n    return sorted({value for value in values if value in seen or seen.add(value)})",
               ['self.assertEqual(tables.doubles("abca"), ["a"])', 'self.assertEqual(tables.doubles(""), [])']),
    ]  # fmt: skip


LANGUAGES = {
    "de": ("Ihr Warenkorb ist leer.", "Diesen Warenkorb können wir nicht verkaufen.", "Bitte melden Sie sich an.",
           "Diese Bestellung kennen wir nicht.", "Dieses Produkt haben wir nicht.", "Bitte prüfen Sie die Mengen.",
           "Etwas ist schiefgegangen. Bitte noch einmal."),
    "fr": ("Votre panier est vide.", "Nous ne pouvons pas vendre ce panier.", "Veuillez vous connecter.",
           "Nous ne connaissons pas cette commande.", "Nous n'avons pas ce produit.", "Vérifiez les quantités.",
           "Une erreur est survenue. Réessayez."),
    "nl": ("Je mandje is leeg.", "Dit mandje kunnen we niet verkopen.", "Log eerst in.", "Deze bestelling kennen we niet.",
           "Dit product hebben we niet.", "Controleer de aantallen.", "Er ging iets mis. Probeer het nog eens."),
    "da": ("Din kurv er tom.", "Vi kan ikke sælge denne kurv.", "Log venligst ind.", "Vi kender ikke denne ordre.",
           "Vi har ikke denne vare.", "Tjek antallet.", "Noget gik galt. Prøv igen."),
}  # fmt: skip
MESSAGES = (
    "basket_empty",
    "basket_refused",
    "customer_missing",
    "order_missing",
    "product_missing",
    "quantity_wrong",
    "try_again",
)


def storefront(rng: Random) -> Chains:
    """Words in four languages, limits, and some code."""
    chains = shared("storefront", rng)
    path = "storefront/messages.py"
    for language, texts in LANGUAGES.items():
        begin = Edit(
            subject=f"Begin with {language}", change=replace(path, "TEXTS = {\n", f'TEXTS = {{\n    "{language}": {{\n    }},\n')
        )
        words = [
            Edit(
                subject=f"{language}: {name.replace('_', ' ')}", change=row(path, f'"{language}"', f'        "{name}": "{text}",')
            )
            for name, text in zip(MESSAGES, texts, strict=True)
        ]
        chains.append([begin, *rng.sample(words, k=len(words))])
    settings = "storefront/settings.py"
    chains.append(
        [Edit(subject=f"Call requests slow from {ms} ms", change=number(settings, "SLOW_MS", ms)) for ms in (900, 750, 700)]
    )
    app = "storefront/app.py"
    chains += [
        one(
            "Count product pages",
            replace(app, '    return {"title"', '    telemetry.count("product_pages_total")\n    return {"title"'),
        ),
        one(
            "Refuse baskets of more than 40 different items",
            together(
                replace(
                    "storefront/basket.py",
                    "    if any(item",
                    '    if len(body["items"]) > MOST_ITEMS:\n        return "basket_refused"\n    if any(item',
                ),
                replace("storefront/basket.py", "\n\ndef problem", "\nMOST_ITEMS = 40\n\n\ndef problem"),
            ),
        ),
        one(
            "Log who gave up at the basket",
            replace(
                app,
                "    if problem:\n        raise",
                '    if problem:\n        telemetry.count("baskets_refused_total", problem=problem)\n        raise',
            ),
        ),
        one(
            "Count looks at orders",
            replace(app, '    return {"state"', '    telemetry.count("order_pages_total")\n    return {"state"'),
        ),
    ]
    chains += _storefront_helpers()
    return [chain for chain in chains if chain]


def _storefront_helpers() -> Chains:
    return [
        helper("storefront", "links", "slug", "readable addresses for products",
               'def slug(title):\n    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())',
               ['self.assertEqual(links.slug("Milk Jug (1 l)"), "milk-jug-1-l")', 'self.assertEqual(links.slug(""), "")']),
        helper("storefront", "links", "canonical", "one address for each page",
               'def canonical(path):\n    return "/" + path.strip("/").lower()',
               ['self.assertEqual(links.canonical("Product/MUG/"), "/product/mug")', 'self.assertEqual(links.canonical("/"), "/")']),
        helper("storefront", "pages", "window", "page numbers around the current one",
               "def window(page, pages, width=2):\n    return list(range(max(1, page - width), min(pages, page + width) + 1))",
               ["self.assertEqual(pages.window(5, 9), [3, 4, 5, 6, 7])", "self.assertEqual(pages.window(1, 2), [1, 2])"]),
        helper("storefront", "pages", "count", "number of pages",
               "def count(items, size):\n    return -(-items // size)",
               ["self.assertEqual(pages.count(41, 20), 3)", "self.assertEqual(pages.count(0, 20), 0)"]),
        helper("storefront", "wishes", "merge", "merge the wish lists of two devices",
               "def merge(first, second):\n    return list(dict.fromkeys([*first, *second]))",
               ['self.assertEqual(wishes.merge("ab", "bc"), ["a", "b", "c"])', "self.assertEqual(wishes.merge([], []), [])"]),
        helper("storefront", "languages", "accepted", "languages that a browser accepts, in its order",
               'def accepted(header):\n    return [part.split(";")[0].strip()[:2].lower() for part in header.split(",") if part.strip()]',
               ['self.assertEqual(languages.accepted("de-DE,de;q=0.9, en"), ["de", "de", "en"])', 'self.assertEqual(languages.accepted(""), [])']),
        helper("storefront", "greetings", "greeting", "greet by the hour",
               'def greeting(hour):\n    return "Good morning" if hour < 12 else "Good evening" if hour >= 18 else "Hello"',
               ['self.assertEqual(greetings.greeting(9), "Good morning")', 'self.assertEqual(greetings.greeting(18), "Good evening")'],
               ["Greetings follow the visitor's clock."]),
        helper("storefront", "text", "shorten", "shorten long product names",
               'def shorten(words, limit):\n    return words if len(words) <= limit else words[: limit - 1].rstrip() + "…"',
               ['self.assertEqual(text.shorten("Stock Pot", 6), "Stock…")', 'self.assertEqual(text.shorten("Wok", 3), "Wok")']),
        helper("storefront", "text", "plural", "plurals in messages",
               'def plural(number, word):\n    return "%d %s%s" % (number, word, "" if number == 1 else "s")',
               ['self.assertEqual(text.plural(1, "item"), "1 item")', 'self.assertEqual(text.plural(0, "item"), "0 items")']),
    ]  # fmt: skip


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


POOLS = {"storefront": storefront, "orders": orders, "pricing": pricing}
