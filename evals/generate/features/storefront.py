"""What happened to the storefront over the months: words in four languages, and some code. Nothing here is guilty."""

# ruff: noqa: E501 - the lines of other programs are quoted here

from __future__ import annotations

from random import Random

from agent.evals.generate.edits import Edit, number, replace, row, together
from agent.evals.generate.features.shared import Chains, helper, one, shared

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
