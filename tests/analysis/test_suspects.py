"""Which change is blamed, and when none is."""

from __future__ import annotations

import json
import subprocess
from datetime import timedelta

import pytest

from tests.analysis.conftest import AT, LIVE, Scene, git, rfc
from tests.analysis.test_code import part

LEDGER = (
    "def settle(entry):\n    if entry.currency is None:\n        entry.currency = 'EUR'\n    return post(entry.currency.code)\n"
)
BROKEN = "def settle(entry):\n    return post(entry.currency.code)\n"
NONE = "AttributeError: 'NoneType' object has no attribute 'label'"
BARE = "def sheet(order):\n    return cut(order.size.label)\n"
BEFORE = AT - timedelta(days=3)


def _failing(scene: Scene, text: str) -> None:
    """Orders fails from LIVE on, writing this."""
    rows = []
    for n in range(240):
        moment = AT - timedelta(minutes=115) + timedelta(seconds=30 * n)
        rows.append(json.dumps({"timestamp": rfc(moment), "service": "orders", "level": "INFO", "msg": f"settled {n}"}))
        if moment > LIVE:
            rows.append(
                json.dumps({"timestamp": rfc(moment), "service": "orders", "level": "ERROR", "msg": text.replace("#", str(n))})
            )
    scene.write("telemetry/logs/orders.ndjson", "\n".join(rows))
    head = "timestamp,service,metric,value\n"
    scene.write("telemetry/metrics/m.csv", head + scene.series("orders", "error_ratio", lambda m: 0.002 + 0.4 * (m >= 0)))
    scene.metric = "error_ratio"


def _history(scene: Scene) -> list[str]:
    ids = scene.repository(
        "orders",
        [
            (BEFORE, "Begin", {"ledger.py": LEDGER, "web.py": "def page(order):\n    return render(order)\n"}),
            (
                BEFORE + timedelta(hours=1),
                "Tidy the page",
                {"web.py": "def page(order):\n    # what people see\n    return render(order)\n"},
            ),
            (BEFORE + timedelta(hours=2), "Simplify settling", {"ledger.py": BROKEN}),
            (BEFORE + timedelta(hours=3), "Explain it", {"README.md": "# Orders\n\nsettle the currency of the entry\n"}),
        ],
    )
    scene.deployments = [
        {"timestamp": rfc(BEFORE), "service": "orders", "version": "1", "commit": ids[0]},
        {"timestamp": rfc(LIVE), "service": "orders", "version": "2", "commit": ids[-1]},
    ]
    return ids


def test_the_commit_that_took_the_guard_away_is_blamed_and_its_line_quoted(scene: Scene) -> None:
    ids = _history(scene)
    _failing(scene, "AttributeError: 'NoneType' object has no attribute 'code' while settling entry #")
    answer = scene.answer("suspects")
    first = answer["suspects"][0]
    assert (first["commit"], first["kind"], first["path"], first["side"]) == (ids[2], "removed guard", "ledger.py", "-")
    assert first["text"] == "    if entry.currency is None:"
    assert first["p"] > 0.5
    assert scene.answer("brief")["next"].startswith(f"git -C repos/orders show {ids[2][:12]}")


@pytest.mark.parametrize("deployed", [True, False])
def test_trouble_that_began_later_after_a_deployment_of_its_own_may_have_a_second_cause(scene: Scene, deployed: bool) -> None:
    first = _history(scene)
    _failing(scene, "AttributeError: 'NoneType' object has no attribute 'code' while settling entry #")
    whole = "def sheet(order):\n    if order.size is None:\n        return blank()\n    return cut(order.size.label)\n"
    second = scene.repository(
        "labels", [(BEFORE, "Begin", {"sheet.py": whole}), (BEFORE + timedelta(hours=4), "Read the size", {"sheet.py": BARE})]
    )
    scene.deployments.append({"timestamp": rfc(BEFORE), "service": "labels", "version": "1", "commit": second[0]})
    if deployed:
        went = rfc(LIVE + timedelta(minutes=6))
        scene.deployments.append({"timestamp": went, "service": "labels", "version": "2", "commit": second[1]})
    rows = []
    for n in range(240):
        moment = AT - timedelta(minutes=115) + timedelta(seconds=30 * n)
        rows.append({"timestamp": rfc(moment), "service": "labels", "level": "INFO", "msg": f"printed {n}"})
        if moment > LIVE + timedelta(minutes=7):
            rows.append({"timestamp": rfc(moment), "service": "labels", "level": "ERROR", "msg": NONE})
    scene.write("telemetry/logs/labels.ndjson", "\n".join(json.dumps(row) for row in rows))
    answer = scene.answer("suspects")
    assert answer["suspects"][0]["commit"] == first[2]
    assert answer.get("later", {}).get("commit") == (second[1] if deployed else None)
    assert ("perhaps a second cause" in scene.run("suspects").stdout) is deployed


def test_what_went_live_after_the_onset_is_not_blamed(scene: Scene) -> None:
    ids = _history(scene)
    scene.deployments[1]["timestamp"] = rfc(AT - timedelta(minutes=2))
    _failing(scene, "AttributeError: 'NoneType' object has no attribute 'code' while settling entry #")
    assert scene.answer("suspects")["suspects"][0]["p"] < 0.5, ids


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("*.py", "a/b.py", True), ("src/pay", "src/payments/x.py", False), ("src/pay", "src/pay/x.py", True),
        ("/apps/", "x/apps/y", False), ("apps/", "x/apps/y", True), ("docs/*", "docs/a/b", False), ("src/**/x.py", "src/a/b/x.py", True),
    ],
)  # fmt: skip
def test_lines_of_codeowners_are_read_as_github_reads_them(pattern: str, path: str, covered: bool) -> None:
    assert part("owners")._covers(pattern, path) is covered


def test_an_expired_certificate_is_no_commits_fault(scene: Scene) -> None:
    _history(scene)
    _failing(scene, f"tls: x509: certificate has expired or is not yet valid: notAfter={rfc(LIVE)} attempt #")
    answer = scene.answer("suspects")
    best = answer["explanations"][0]
    assert best["category"] == "infrastructure"
    assert best["p"] > answer["suspects"][0]["p"]


def test_one_record_that_is_refused_over_and_over_is_bad_data(scene: Scene) -> None:
    _history(scene)
    _failing(scene, "cannot parse price: record_id=r-88213 offset=991 is malformed; redelivering")
    answer = scene.answer("suspects")
    assert answer["explanations"][0]["category"] == "data"
    assert answer["explanations"][0]["p"] > answer["suspects"][0]["p"]


def test_a_provider_that_answers_errors_is_external(scene: Scene) -> None:
    _history(scene)
    _failing(scene, "POST https://api.cards.example.com/charges failed: 503 Service Unavailable id=#")
    scene.changes = [
        {"timestamp": rfc(LIVE), "kind": "provider_status", "name": "Cards API charges", "to": "degraded: elevated errors"}
    ]
    answer = scene.answer("suspects")
    assert answer["explanations"][0]["category"] == "external"
    assert answer["explanations"][0]["p"] > answer["suspects"][0]["p"]


def test_an_alert_on_what_did_not_change_is_unsound(scene: Scene) -> None:
    _history(scene)
    scene.metric = "cache_hit_ratio"
    series = scene.series("orders", "cache_hit_ratio", lambda m: 0.4) + scene.series("orders", "error_ratio", lambda m: 0.01)
    scene.write(
        "telemetry/metrics/m.csv", "timestamp,service,metric,value\n" + series + scene.series("orders", "rps", lambda m: 90.0)
    )
    best = scene.answer("suspects")["explanations"][0]
    assert best["category"] == "alert"
    assert best["p"] > 0.5


def test_a_flag_that_code_reads_is_blamed_and_one_that_nothing_reads_is_not(scene: Scene) -> None:
    code = "def settle(entry):\n    if flags.on('currency_table_v2'):\n        return table_v2(entry)\n    return post(entry)\n"
    scene.repository("orders", [(BEFORE, "Begin", {"ledger.py": code})])
    flips = [("currency_table_v2", LIVE), ("page_colours", LIVE + timedelta(seconds=5))]
    scene.changes = [
        {"timestamp": rfc(t), "kind": "flag", "name": n, "service": "orders", "from": "off", "to": "on"} for n, t in flips
    ]
    _failing(scene, "currency table has no row for entry #")
    flags = scene.answer("suspects")["flips"]
    assert flags[0]["name"] == "currency_table_v2"
    assert flags[0]["p"] > 0.5
    brief = scene.answer("brief")
    assert brief["next"] == "flag currency_table_v2: read repos/orders/ledger.py:2, and set it back to off"
    assert "currency_table_v2: off -> on" in brief["changed"][0], "the most suspicious change stands first"


def test_an_upgrade_is_traced_to_the_commit_in_the_packages_own_history(scene: Scene) -> None:
    service = scene.repository(
        "orders", [(BEFORE, "Begin", {"app.py": "import ledgerlib\n", "requirements.txt": "ledgerlib==1.0.0\n"})]
    )
    library = scene.repository(
        "ledgerlib",
        [
            (BEFORE, "1.0.0", {"ledgerlib/__init__.py": LEDGER, "ledgerlib/money.py": "def add(a, b):\n    return a + b\n"}),
            (BEFORE, "Type hints", {"ledgerlib/money.py": "def add(a: int, b: int) -> int:\n    return a + b\n"}),
            (BEFORE, "Faster settling", {"ledgerlib/__init__.py": BROKEN}),
        ],
    )
    folder = scene.root / "repos" / "ledgerlib"
    git(folder, "tag", "v1.0.0", library[0])
    git(folder, "tag", "v1.1", library[2])
    move = {"package": "ledgerlib", "from": "1.0.0", "to": "1.1.0"}
    scene.deployments = [
        {"timestamp": rfc(LIVE), "service": "orders", "version": "9", "commit": service[0], "package_changes": [move]}
    ]
    _failing(scene, "AttributeError: 'NoneType' object has no attribute 'code' while settling entry #")
    answer = scene.answer("dependency-diff")
    assert (answer["upgrades"][0]["repo"], answer["upgrades"][0]["commits"]) == ("ledgerlib", 2)
    assert answer["suspects"][0]["commit"] == library[2]


def test_a_record_of_an_unknown_commit_and_a_broken_record_are_said(scene: Scene) -> None:
    _history(scene)
    scene.deployments.append({"timestamp": rfc(LIVE), "service": "orders", "commit": "f" * 40})
    scene.deployments.append({"timestamp": "tomorrow", "service": "orders"})
    notes = scene.answer("suspects")["notes"]
    assert any("names no commit of repos/orders" in note for note in notes)
    assert any("no readable timestamp" in note for note in notes)


def test_seen_before_and_owner_come_from_memory(scene: Scene) -> None:
    _history(scene)
    _failing(scene, "settling entry # failed: currency has no code")
    scene.write(
        "investigations/inv-7.md",
        "# Orders could not settle\n\nsettling entry failed, currency has no code; error_ratio rises; orders is failing\n",
    )
    scene.write("memory/team.md", "| web | owner: front team, @kim |\n| orders | owner: payments team, @lee |\n")
    brief = scene.answer("brief")
    assert brief["seen"] == ["investigations/inv-7.md: Orders could not settle"]
    assert "payments team" in brief["owner"]
    scene.owners = {"web": "team-front", "orders": "team-orders"}
    assert scene.answer("brief")["owner"] == "team-orders"


def test_a_brief_without_time_says_what_it_left_and_names_the_commit_all_the_same(scene: Scene) -> None:
    _history(scene)
    _failing(scene, "settling entry # failed: currency has no code")
    hurried = scene.answer("brief", "--seconds", "0.001")
    assert "not all was looked at in time: " in " ".join(hurried["notes"])
    assert "logs: 0 of " in " ".join(hurried["notes"])
    assert hurried["changed"], "what went live is known without reading a log"
    assert not any("in time" in note for note in scene.answer("brief")["notes"]), "what was left is not kept as if it were all"


def test_a_call_is_found_that_fails_with_the_commit_and_not_without_it(scene: Scene) -> None:
    shop = "RATES = {'EUR': 1, 'USD': 2}\n\n\ndef price(code, cents):\n    rate = RATES%s\n    return cents * rate\n"
    tests = "import unittest\n\nfrom shop import price\n\n\nclass T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(price('EUR', 5), 5)\n"
    data = json.dumps([{"order": 7, "currency": "CHF"}])
    ids = scene.repository(
        "orders",
        [
            (BEFORE, "Begin", {"shop.py": shop % ".get(code, 1)", "tests/test_shop.py": tests, "orders.json": data}),
            (BEFORE + timedelta(hours=1), "Simplify rates", {"shop.py": shop % "[code]"}),
        ],
    )
    scene.deployments = [{"timestamp": rfc(LIVE), "service": "orders", "version": "2", "commit": ids[1]}]
    stack = 'Traceback (most recent call last):\n  File "/srv/web.py", line 3, in page\n  File "/srv/orders/shop.py", line 5, in price\nKeyError: \'CHF\'\n'
    rows = [
        f"{rfc(AT - timedelta(minutes=m))} ERROR request failed\n{stack}"
        if m < 20
        else f"{rfc(AT - timedelta(minutes=m))} INFO fine"
        for m in range(90, -1, -1)
    ]
    scene.write("telemetry/logs/orders.log", "\n".join(rows))
    found = scene.answer("reproduce")
    assert (found["commit"], found["call"], found["raised"]) == (ids[1], "price('CHF', 5)", "KeyError: 'CHF'")
    folder = scene.root / "repos" / "orders"
    for commit, code in ((ids[1], 0), (ids[0], 1)):
        git(folder, "checkout", "-q", commit)
        assert (
            subprocess.run(["bash", "-c", found["command"]], cwd=scene.root, check=False, capture_output=True).returncode == code
        )


@pytest.mark.slow
def test_what_lies_before_a_deployment_is_looked_at_where_versions_are_tagged_and_does_not_count_as_brought_by_it(
    scene: Scene,
) -> None:
    """Tags may name anything, and only versions say that a release may have been skipped."""
    ids = scene.repository(
        "orders",
        [
            (LIVE - timedelta(days=40), "Begin", {"ledger.py": LEDGER}),
            (LIVE - timedelta(days=30), "Explain it", {"README.md": "# Orders\n"}),
            (LIVE - timedelta(hours=2), "Simplify settling", {"ledger.py": BROKEN}),
        ],
    )
    _failing(scene, "cannot settle #: no attribute 'code'")
    scene.deployments = [{"timestamp": rfc(LIVE), "service": "orders", "version": "2.0", "commit": ids[-1]}]
    seen = {}
    for names in (("import/a", "import/b"), ("v1.0", "v1.1")):
        for name, commit in zip(names, ids, strict=False):
            scene.git("orders", "tag", name, commit)
        answer = scene.answer("suspects")
        seen[names[0]] = answer["seen"]
        assert answer["suspects"][0]["commit"] == ids[-1]
    assert seen == {"import/a": 1, "v1.0": 3}
    assert answer["suspects"][1]["p"] < 0.05 * answer["suspects"][0]["p"]


def test_one_is_less_sure_of_a_suspect_that_only_fits_in_time_and_place() -> None:
    suspect = part("suspects").Suspect(commit=part("commits").Commit(repo="shop", sha="a" * 40), p=0.9)
    for features, fits in (({"means": 0.8}, True), ({"means": 0.4, "words": 1.0}, False), ({"means": 0.2, "line": 1.0}, True)):
        suspect.features = features
        assert (suspect.fits, round(suspect.confidence, 2)) == (fits, 0.9 if fits else 0.5)
