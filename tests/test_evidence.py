"""What stands of a report when the host has looked: real git, real checkouts, real commands, in the sandbox that ships for tests."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.core.investigation import Alert, Case, Deployment, RepositoryRef, Trigger
from agent.core.journal import MemoryJournal
from agent.core.report import (
    Cause,
    Check,
    CodeSource,
    CommandSource,
    Conclusion,
    Evidence,
    QuerySource,
    Side,
    Source,
    Suspect,
    TelemetrySource,
)
from agent.core.sandbox import Sandbox, SandboxSpec
from agent.core.workspace import furnish
from agent.evidence import Checker, quotes, ties
from agent.evidence.diffs import Changed
from agent.evidence.exercise import Effect, Exercise, collect, effect, prepare
from agent.evidence.experiments import Outcome
from agent.evidence.verdict import Suspect as Standing
from agent.evidence.verdict import supports
from agent.redaction import Redaction
from agent.repos import Checkout, Mirror, Repositories
from agent.sandboxes.local import Local

AT = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
TOTAL = """def total_price(order):
    price = order["price"] * order["count"]
    return price - order.get("discount", 0)
"""
COMMITS = (
    ("first", -300, {"pricing/__init__.py": "", "pricing/total.py": TOTAL, "web/banner.py": "BANNER = 'welcome'\n"}),
    ("pool", -200, {"settings.yaml": "pool_size: 5\n"}),
    ("guilty", -20, {"pricing/total.py": TOTAL.replace('order.get("discount", 0)', 'order["discount"]')}),
    ("decoy", -15, {"web/banner.py": "BANNER = 'spring sale'\n", "settings.yaml": "pool_size: 9\n"}),
    ("later", 90, {"pricing/total.py": TOTAL}),
)
FAILURE = """\
2026-03-04T11:5{minute}:00Z ERROR web order {number} failed
Traceback (most recent call last):
  File "/srv/shop/pricing/total.py", line 3, in total_price
    return price - order["discount"]
KeyError: 'discount'
"""
REPRODUCER = (
    "cd repos/shop && python3 -c '\n"
    "from pricing.total import total_price\n"
    'try:\n    total_price({"price": 2, "count": 3})\n'
    'except KeyError as error:\n    print("KeyError:", error)\n'
    "else:\n    raise SystemExit(1)\n'"
)
BY_TIME = """awk -v s="$START" -v e="$END" '$1 >= s && $1 < e && / ERROR /{n++} END{exit !n}' telemetry/logs/web.log"""


class Code:
    """The repository of all incidents here, mirrored and checked out once."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.commits = repository(self.source)
        self.repositories = Repositories(folder / "data")
        self._mirror: Mirror | None = None
        self._checkouts: dict[str, Checkout] = {}

    async def mirror(self) -> Mirror:
        if self._mirror is None:
            self._mirror = await self.repositories.mirror(RepositoryRef(name="shop", url=str(self.source), service="shop"))
        return self._mirror

    async def checkout(self, commit: str) -> Checkout:
        if commit not in self._checkouts:
            self._checkouts[commit] = await self.repositories.checkout(await self.mirror(), commit, live=True, at=AT)
        return self._checkouts[commit]


class World:
    """One incident: a repository with a guilty commit and a decoy, the log of a failing service, and what the host holds of it."""

    def __init__(self, folder: Path, code: Code) -> None:
        self.folder = folder
        self.code = code
        self.commits = code.commits
        self.telemetry = folder / "telemetry"
        write_log(self.telemetry)
        alert = Alert(
            source="generic",
            fingerprint="f",
            title="Orders fail",
            service="shop",
            labels={"alertname": "OrderErrors"},
            annotations={"expr": "rate(order_errors_total[5m]) > 0.1"},
            starts_at=AT,
            raw={"title": "Orders fail", "expr": "rate(order_errors_total[5m]) > 0.1"},
        )
        self.case = Case(
            trigger=Trigger(kind="alert", key="k", at=AT, title="Orders fail", service="shop", alerts=(alert,)),
            repositories=(RepositoryRef(name="shop", url=str(code.source), service="shop"),),
            deployments=(Deployment(timestamp=AT - timedelta(minutes=10), service="shop", commit=self.commits["decoy"]),),
            telemetry=self.telemetry,
        )
        self.journal = MemoryJournal()
        self.sandboxes = Local(folder / "sandboxes", no_protection=True)
        self.made = 0
        self.template = EMPTY_TEMPLATE

    async def checker(self, **options: Any) -> Checker:
        repositories, mirror = self.code.repositories, await self.code.mirror()

        @asynccontextmanager
        async def pristine(refs: Mapping[str, str]) -> AsyncIterator[Sandbox]:
            self.made += 1
            number = self.made
            seed = self.folder / f"seed-{number}"
            seed.mkdir()
            furnish(seed, template=self.template, case=self.case)
            copy_into(self.telemetry, seed / "telemetry")
            commit = refs.get("shop", self.commits["decoy"])
            checkout = await self.code.checkout(commit)
            sandbox = await self.sandboxes.create(f"check-{number}", SandboxSpec(seed=seed, layers=(checkout.layer,)))
            try:
                yield sandbox
            finally:
                await sandbox.delete()

        return Checker(
            case=self.case,
            journal=self.journal,
            objects=repositories.history([mirror]),
            pristine=pristine,
            deployed={"shop": self.commits["decoy"]},
            **options,
        )

    async def evidence(self, source: Source, quote: str, **options: Any) -> Evidence:
        """One citation after the host has looked."""
        item = Evidence(claim="a claim", supports="symptom", source=source, quote=quote)
        judged = await (await self.checker(**options)).judge(Conclusion(verdict="likely", summary="s", evidence=(item,)))
        return judged.conclusion.evidence[0]

    def report(self, name: str = "guilty", *checks: Check, **changes: Any) -> Conclusion:
        """A report that blames a commit, with true quotes of it and of the failure."""
        commit = self.commits[name]
        text = {"guilty": 'return price - order["discount"]', "decoy": "BANNER = 'spring sale'"}.get(name, "pool_size: 5")
        evidence = (
            Evidence(
                claim="orders fail", supports="symptom", source=TelemetrySource(path="telemetry/logs/web.log"), quote=SYMPTOM
            ),
            Evidence(claim="how", supports="mechanism", source=CodeSource(repo="shop", commit=commit), quote=text),
        )
        cause = Cause(statement="it broke orders", category="code", service="shop", repo="shop", commit=commit, confidence=0.95)
        fields = {"verdict": "root_cause_found", "summary": "s", "causes": (cause,), "evidence": evidence, "checks": checks}
        return Conclusion(**{**fields, **changes})

    def at_commits(self, name: str, command: str = REPRODUCER, **changes: Any) -> Check:
        commit = self.commits[name]
        sides = {"with_": Side(ref=commit), "without": Side(ref=f"{commit}^")}
        fields: dict[str, Any] = {"claim": "it fails with the commit", "command": command, "repo": "shop", **sides, **changes}
        return Check(**fields)


SYMPTOM = 'File "/srv/shop/pricing/total.py", line 3, in total_price'
EMPTY_TEMPLATE = Path(__file__).parent / "contracts"


def copy_into(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target / file.relative_to(source))


def repository(folder: Path) -> dict[str, str]:
    """The repository, and its commits by name."""
    folder.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words: str, minutes: int = 0) -> str:
        moment = (AT + timedelta(minutes=minutes)).isoformat()
        dates = {"GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment}
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        return subprocess.run(
            ["git", *identity, *words], cwd=folder, env={**environment, **dates}, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q", "-b", "main")
    made = {}
    for name, minutes, files in COMMITS:
        for path, content in files.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(content)
        git("add", ".")
        git("commit", "-q", "-m", name, minutes=minutes)
        made[name] = git("rev-parse", "HEAD")
    return made


def write_log(folder: Path) -> None:
    lines = [f"2026-03-04T11:{minute:02}:00Z INFO web order {minute} done\n" for minute in range(10, 52)]
    lines += [FAILURE.format(minute=minute, number=100 + minute) for minute in range(2, 10)]
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "web.log").write_text("".join(lines))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Code:
    return Code(tmp_path_factory.mktemp("code"))


@pytest.fixture
def world(tmp_path: Path, code: Code) -> World:
    return World(tmp_path, code)


# Citations


async def test_code_is_found_at_its_commit_and_its_lines_are_put_right(world: World) -> None:
    source = CodeSource(
        repo="shop", commit=world.commits["guilty"][:10], path="repos/shop/pricing/total.py", start_line=1, end_line=1
    )
    found = await world.evidence(source, 'return   price - order["discount"]')
    line = b'    return price - order["discount"]\n'
    assert found == Evidence(
        claim="a claim",
        supports="symptom",
        source=CodeSource(repo="shop", commit=world.commits["guilty"], path="pricing/total.py", start_line=3, end_line=3),
        quote='return   price - order["discount"]',
        sha256=hashlib.sha256(line).hexdigest(),
        verified=True,
    )


async def test_a_commits_own_diff_can_be_quoted_with_and_without_its_marks(world: World) -> None:
    source = CodeSource(repo="shop", commit=world.commits["guilty"])
    marked = await world.evidence(source, '-    return price - order.get("discount", 0)\n+    return price - order["discount"]')
    after = await world.evidence(source, 'price = order["price"] * order["count"]\n    return price - order["discount"]')
    assert (marked.verified, after.verified) == (True, True)


@pytest.mark.parametrize(
    ("source", "quote", "problem"),
    [
        ({"path": "pricing/total.py"}, "return price - order.get('rebate', 0)", "is not in pricing/total.py at"),
        ({"path": "pricing/gone.py"}, "return price - order", "does not exist at that commit"),
        (
            {"path": "pricing/total.py", "commit": "0123456789ab"},
            "return price - order",
            "commit 0123456789ab is not in the repo",
        ),
        ({"path": "pricing/total.py", "repo": "shoop"}, "return price - order", "Did you mean 'shop'?"),
        ({"path": "pricing/total.py"}, "}", "too short to prove anything"),
        ({"path": "pricing/total.py"}, "  \n ", "the quote is empty"),
        ({"path": "pricing/total.py"}, "def total_price(order):\n...\nreturn price", "without an ellipsis"),
        ({"path": "pricing/total.py"}, "1: def total_price(order):", "leave out line numbers"),
        ({"path": None}, "pool_size: 5 and more", "not in the diff of"),
    ],
)
async def test_a_wrong_code_citation_says_what_to_mend(world: World, source: dict[str, Any], quote: str, problem: str) -> None:
    fields = {"repo": "shop", "commit": world.commits["guilty"], **source}
    found = await world.evidence(CodeSource(**fields), quote)
    assert (found.verified, found.sha256) == (False, "")
    assert problem in found.problem


async def test_telemetry_is_read_from_the_hosts_file_and_json_spelling_is_no_difference(world: World) -> None:
    (world.telemetry / "logs" / "app.ndjson").write_text('{"msg":"first"}\n{"msg":"cart says \\"no such item\\" to 17"}\n')
    found = await world.evidence(TelemetrySource(path="/workspace/telemetry/logs/app.ndjson"), 'cart says "no such item" to 17')
    line = b'{"msg":"cart says \\"no such item\\" to 17"}\n'
    place = TelemetrySource(path="telemetry/logs/app.ndjson", start_line=2, end_line=2)
    assert (found.source, found.sha256, found.problem) == (place, hashlib.sha256(line).hexdigest(), "")


async def test_a_compressed_log_is_searched_too(world: World) -> None:
    (world.telemetry / "logs" / "old.log.gz").write_bytes(gzip.compress(b"a\n" * 9 + b"the disk is full on node seven\n"))
    found = await world.evidence(TelemetrySource(path="telemetry/logs/old.log.gz"), "the disk is full on node seven")
    assert found.source == TelemetrySource(path="telemetry/logs/old.log.gz", start_line=10, end_line=10)


async def test_a_large_log_is_searched_beyond_the_cited_lines(world: World) -> None:
    filler = b"".join(b"line %d of nothing that matters here\n" % n for n in range(300_000))
    (world.telemetry / "logs" / "big.log").write_bytes(filler + b"queue depth reached its limit\n" + filler)
    source = TelemetrySource(path="telemetry/logs/big.log", start_line=20, end_line=30)
    found = await world.evidence(source, "queue depth reached its limit")
    assert found.source == TelemetrySource(path="telemetry/logs/big.log", start_line=300_001, end_line=300_001)
    window = TelemetrySource(path="telemetry/logs/big.log", start_line=500_001, end_line=500_003)
    found = await world.evidence(window, "line 200000 of nothing that matters here\nline 200001 of nothing that matters here")
    assert found.source == TelemetrySource(path="telemetry/logs/big.log", start_line=500_002, end_line=500_003)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("notes.md", "notes.md is written by the agent"),
        ("results/0001.txt", "copies that the agent can write"),
        ("findings.jsonl", "the ledger is written by the agent"),
        ("memory/overview.md", "what earlier investigations believed"),
        ("telemetry/../../etc/passwd", "is not a telemetry file"),
        ("/etc/passwd", "is not a telemetry file"),
        ("telemetry/logs/out.log", "did not come with the incident"),
        ("telemetry/logs/none.log", "did not come with the incident"),
        ("telemetry/queries/0001-x.json", "holds no query that was run"),
    ],
)
async def test_bytes_that_the_agent_could_have_written_are_no_evidence(world: World, path: str, problem: str) -> None:
    (world.telemetry / "logs" / "out.log").symlink_to("/etc/passwd")
    found = await world.evidence(TelemetrySource(path=path), "root:x:0:0:root")
    assert not found.verified
    assert problem in found.problem


async def test_the_alert_as_received_can_be_cited(world: World) -> None:
    furnished = await world.evidence(TelemetrySource(path="incident/alerts.json"), "rate(order_errors_total[5m]) > 0.1")
    received = await world.evidence(
        TelemetrySource(path="incident/alert.json"),
        '"severity":"critical", "team"',
        payloads=(b'{"severity":"critical","team":1}',),
    )
    assert (furnished.verified, received.problem) == (
        True,
        "the quote is not in incident/alert.json; copy it exactly, only white space may differ",
    )


async def queried(world: World) -> tuple[QuerySource, str]:
    start, end = AT - timedelta(hours=1), AT
    rows = {"connector": "prometheus", "columns": ["time", "service", "value"], "rows": [["2026-03-04T11:50:00Z", "shop", 0.25]]}
    blob = await world.journal.put(json.dumps(rows).encode())
    source = QuerySource(connector="prometheus", query="rate(order_errors_total[5m])", start=start, end=end)
    fields = {"connector": "prometheus", "query": source.query, "link": "http://prom/graph?x", "blob": blob}
    times = {"start": start.isoformat(), "end": end.isoformat(), "path": "telemetry/queries/0001-prometheus.json"}
    await world.journal.append("query", {**fields, **times})
    return source, blob


async def test_a_query_that_was_run_proves_its_rows_however_they_were_shown(world: World) -> None:
    source, blob = await queried(world)
    for quote in ('["2026-03-04T11:50:00Z", "shop", 0.25]', "2026-03-04T11:50:00Z\tshop\t0.25", "service: shop, value: 0.25"):
        found = await world.evidence(source, quote)
        assert (found.verified, found.sha256, found.problem) == (True, blob, "")
    assert found.source == source.model_copy(update={"link": "http://prom/graph?x"})
    by_file = await world.evidence(TelemetrySource(path="telemetry/queries/0001-prometheus.json"), '11:50:00Z", "shop", 0.25]')
    assert by_file.verified


@pytest.mark.parametrize(
    ("changes", "quote", "problem"),
    [
        ({}, "2026-03-04T11:50:00Z shop 0.99", "do not hold the quote"),
        ({"start": AT - timedelta(hours=2)}, "2026-03-04T11:50:00Z shop 0.25", "not with this window; it was: 2026-03-04T11:00"),
        ({"query": "up == 0"}, "2026-03-04T11:50:00Z shop 0.25", "was not run on 'prometheus'; the last ones that were"),
        ({"connector": "loki"}, "2026-03-04T11:50:00Z shop 0.25", "no query was run on a connector 'loki'"),
    ],
)
async def test_a_query_that_was_not_run_proves_nothing(world: World, changes: dict[str, Any], quote: str, problem: str) -> None:
    source, _ = await queried(world)
    found = await world.evidence(source.model_copy(update=changes), quote)
    assert not found.verified
    assert problem in found.problem


async def test_a_command_is_run_again_where_nobody_has_worked(world: World) -> None:
    await queried(world)
    counted = await world.evidence(
        CommandSource(command="grep -c KeyError telemetry/logs/web.log | sed 's/^/failures: /'"), "failures: 8"
    )
    rows = await world.evidence(CommandSource(command="cat telemetry/queries/*.json"), '11:50:00Z", "shop", 0.25]')
    assert (counted.problem, rows.problem) == ("", "")


@pytest.mark.parametrize(
    ("command", "quote", "problem"),
    [
        ("echo 'orders fail with KeyError'", "orders fail with KeyError", "holds the quote itself"),
        (
            "printf 'orders fail %s\\n' 'with KeyError'",
            "orders fail with KeyError",
            "even where there is no code and no telemetry",
        ),
        ("cat results/0001.txt", "orders fail with KeyError", "results/ is empty there"),
        ("sleep 30", "orders fail with KeyError", "did not end within"),
        ("no-such-program", "orders fail with KeyError", "was not found (exit 127)"),
        ("tail -1 telemetry/logs/web.log", "orders fail with KeyError", "It prints: KeyError: 'discount'"),
    ],
)
async def test_a_command_that_proves_nothing_says_why(world: World, command: str, quote: str, problem: str) -> None:
    found = await world.evidence(CommandSource(command=command), quote, seconds=0.5 if "sleep" in command else 60.0)
    assert not found.verified
    assert problem in found.problem


async def test_a_redacted_quote_is_compared_with_the_text_it_stands_for_and_stays_redacted(world: World, tmp_path: Path) -> None:
    line = "2026-03-04T11:55:00Z WARN login of carol@corp.example.org failed"
    (world.telemetry / "logs" / "auth.log").write_text(f"{line}\n")
    redaction = Redaction(tmp_path / "redaction")
    quote = redaction.redact(line)
    found = await world.evidence(TelemetrySource(path="telemetry/logs/auth.log"), quote, redactor=redaction)
    assert (found.verified, found.quote) == (True, quote)
    assert "carol" not in found.model_dump_json()
    missing = await world.evidence(
        CommandSource(command="cat telemetry/logs/auth.log"), "another line altogether", redactor=redaction
    )
    assert "carol" not in missing.problem and "[email:" in missing.problem


# Checks and the verdict


async def test_the_right_cause_with_a_reproducer_stands(world: World) -> None:
    judged = await (await world.checker()).judge(world.report("guilty", world.at_commits("guilty")))
    assert (judged.conclusion.verdict, judged.downgraded, judged.objections) == ("root_cause_found", "", ())
    assert judged.conclusion.checks[0].discriminates
    outcome = "with the suspect it exits 0, without it exits 1; the same when repeated"
    assert judged.conclusion.checks[0].outcome == outcome
    assert judged.conclusion.causes[0].confidence == 0.95


async def test_windows_around_the_onset_stand_where_the_failure_names_what_the_commit_changed(world: World) -> None:
    judged = await (await world.checker()).judge(world.report("guilty", window()))
    assert (judged.conclusion.verdict, judged.downgraded) == ("root_cause_found", "")


def window(command: str = BY_TIME, **changes: Any) -> Check:
    sides = {
        "with_": Side(start=AT - timedelta(minutes=9), end=AT),
        "without": Side(start=AT - timedelta(minutes=40), end=AT - timedelta(minutes=9)),
    }
    return Check(**{"claim": "errors began", "command": command, **sides, **changes})


@pytest.mark.parametrize(
    "kind",
    [
        "the same check",
        "its own reproducer",
        "a grep",
        pytest.param("a script that greps", marks=pytest.mark.slow),
        "its own change",
        "a window",
        "none",
    ],
)
async def test_a_wrong_cause_with_true_quotes_does_not_stand(world: World, kind: str) -> None:
    """Everything quoted is genuine; what was blamed is a harmless commit that was deployed at the same moment."""
    reads = "python3 -c \"import sys; sys.exit('spring sale' not in open('repos/shop/web/banner.py').read())\""
    runs = "cd repos/shop && python3 -c 'from web.banner import BANNER; print(BANNER); raise SystemExit(\"sale\" not in BANNER)'"
    checks = {
        "the same check": world.at_commits("decoy"),
        "its own reproducer": world.at_commits("guilty"),
        "a grep": world.at_commits("decoy", "grep -q 'spring sale' repos/shop/web/banner.py"),
        "a script that greps": world.at_commits("decoy", reads),
        "its own change": world.at_commits("decoy", runs),
        "a window": window(),
        "none": None,
    }
    check = checks[kind]
    judged = await (await world.checker()).judge(world.report("decoy", *([check] if check else [])))
    assert judged.conclusion.verdict == "likely"
    assert judged.conclusion.causes[0].confidence == 0.7
    assert judged.downgraded.startswith("root_cause_found became likely: ")
    assert judged.objections


@pytest.mark.slow
async def test_a_check_that_prints_nothing_is_watched_while_it_runs(world: World) -> None:
    """The natural form: the error goes into grep, and nobody sees it but the host, which watches the code raise it."""
    call = "from pricing.total import total_price; total_price(dict(price=2, count=3))"
    silent = f'cd repos/shop && python3 -c "{call}" 2>&1 | grep -q KeyError'
    symptom = world.report().evidence[0].model_copy(update={"quote": "KeyError: 'discount'"})
    report = world.report("guilty", world.at_commits("guilty", silent))
    judged = await (await world.checker()).judge(report.model_copy(update={"evidence": (symptom, report.evidence[1])}))
    assert (judged.conclusion.verdict, judged.downgraded) == ("root_cause_found", "")


async def test_only_functions_of_the_repository_are_watched_and_not_the_checks_own_ones(world: World) -> None:
    sandbox = await world.sandboxes.create("watched", SandboxSpec())
    await sandbox.write("repos/shop/pricing/total.py", TOTAL.replace('order.get("discount", 0)', 'order["discount"]').encode())
    environment = await prepare(sandbox)
    program = (
        "import sys; sys.path.insert(0, '.')\ndef own(): raise ValueError('mine')\ntry: own()\nexcept ValueError: pass\n"
        "from pricing.total import total_price; total_price(dict(price=2, count=3))"
    )
    await sandbox.run(f'cd repos/shop && python3 -c "{program}"', env=environment)
    found = await collect(sandbox)
    await sandbox.delete()
    assert (list(found.calls), found.raised) == (
        ["shop/pricing/total.py:total_price"],
        {"KeyError: 'discount'": "shop/pricing/total.py:total_price"},
    )


SYNTAX = """python3 -c 'import ast; t = ast.dump(ast.parse(open("repos/shop/web/banner.py").read())); raise SystemExit("sale" not in t)'"""


@pytest.mark.parametrize(
    "command",
    [
        SYNTAX,
        f"tail -4 telemetry/logs/web.log; {SYNTAX}",
        "cat repos/shop/pricing/total.py; " + SYNTAX,
        "cd repos/shop && python3 -c 'from web.banner import BANNER\nfrom pricing.total import total_price\n"
        'total_price({"price": 2, "count": 3, "discount": 0})\nraise SystemExit("sale" not in BANNER)\n\'',
    ],
    ids=["its syntax", "beside the log", "beside the guilty code", "beside a harmless call"],
)
@pytest.mark.slow
async def test_a_fact_about_the_commit_is_not_the_symptom_whatever_is_printed_beside_it(world: World, command: str) -> None:
    judged = await (await world.checker()).judge(world.report("decoy", world.at_commits("decoy", command)))
    assert judged.conclusion.verdict == "likely"
    assert judged.conclusion.checks[0].discriminates or "exits" in judged.conclusion.checks[0].outcome


async def test_windows_speak_for_a_commit_only_on_both_sides_of_its_going_live(world: World) -> None:
    """It went live at 11:50; from 11:51 on it failed, but before that nothing is compared with what ran without it."""
    late = window(
        with_=Side(start=AT - timedelta(minutes=5), end=AT),
        without=Side(start=AT + timedelta(hours=-3), end=AT - timedelta(hours=2)),
    )
    early = world.case.model_copy(
        update={"deployments": (Deployment(timestamp=AT - timedelta(hours=4), service="shop", commit=world.commits["decoy"]),)}
    )
    straddling = await (await world.checker()).judge(world.report("guilty", late))
    world.case = early
    inside = await (await world.checker()).judge(world.report("guilty", late))
    assert (straddling.conclusion.verdict, inside.conclusion.verdict) == ("root_cause_found", "likely")
    assert "do not lie on both sides of the moment when commit" in inside.downgraded


def test_what_only_the_suspect_does_is_the_effect_of_a_check() -> None:
    with_ = Exercise(
        calls={"shop/a.py:slow": (1, 0.9), "shop/a.py:same": (1, 0.9)},
        raised={"KeyError: 'x'": "shop/a.py:slow", "OSError: y": "shop/b.py:f"},
        gave={"shop/a.py:slow.tax": ("1", "2"), "shop/a.py:now": ("1",), "shop/a.py:same": ("1",)},
        blocks=9_000,
    )
    without = Exercise(
        calls={"shop/a.py:slow": (1, 0.01), "shop/a.py:same": (1, 0.8)},
        raised={"OSError: y": "shop/b.py:f"},
        gave={"shop/a.py:slow.tax": ("1", "3"), "shop/a.py:now": ("2",), "shop/a.py:same": ("1",)},
        blocks=2_000,
    )
    again = without.model_copy(update={"gave": {**without.gave, "shop/a.py:now": ("3",)}})
    found = effect(with_, without, again)
    assert found == Effect(
        ran=("shop/a.py:same", "shop/a.py:slow"),
        raised=("KeyError: 'x' in shop/a.py:slow",),
        slower=("shop/a.py:slow",),
        gave=("shop/a.py:slow.tax",),
        larger=True,
    )


@pytest.mark.parametrize(
    ("found", "seen", "expected"),
    [
        (Effect(raised=("KeyError: 'discount' in shop/a.py:total",)), "KeyError: 'discount'", True),
        (Effect(raised=("KeyError: 'rebate' in shop/a.py:total",)), "KeyError: 'discount'", False),
        (Effect(raised=("KeyError: 'DK' in shop/a.py:zone",)), "ERROR request failed: KeyError: 'DK'", True),
        (Effect(raised=("KeyError: 'DK' in shop/a.py:zone",)), "ERROR request failed: KeyError: 'DKK'", False),
        (Effect(raised=("KeyError: 4 in shop/a.py:zone",)), "ERROR request failed: KeyError: 4", False),
        (Effect(raised=("KeyError: 'rebate' in shop/a.py:total_of",)), "in total_of\nKeyError: 'discount'", True),
        (Effect(raised=("ValueError: basket holds eleven pieces in shop/a.py:f",)), "refused: basket holds eleven", True),
        (Effect(slower=("shop/a.py:total",)), "latency_p95 0.9", True),
        (Effect(slower=("shop/b.py:total",)), "latency_p95 0.9", False),
        (Effect(slower=("shop/a.py:total",)), "orders fail", False),
        (Effect(raised=("Refused: a basket has 1 to 20 items in shop/a.py:f",)), '"msg": "basket refused"', True),
        (Effect(raised=("Refused: a basket has 1 to 20 items in shop/a.py:f",)), "basket too large", False),
        (Effect(larger=True), "slope resident_memory_mb", True),
        (Effect(larger=True), "latency_p95 0.9", False),
    ],
)
def test_an_effect_is_the_symptom_where_both_say_the_same(found: Effect, seen: str, expected: bool) -> None:
    assert ties.happened(found, ("a.py",), seen, ("Orders fail",)) is expected


@pytest.mark.parametrize(
    ("name", "seen", "expected"),
    [
        ("price.tax", "does not add up total=2360 tax=275", True),
        ("price.tax", "the taxi is late", False),
        ("reduction", "wrong reduction", True),
    ],
)
def test_another_value_is_the_symptom_under_a_name_that_was_seen(name: str, seen: str, expected: bool) -> None:
    assert ties.gave(Effect(gave=(f"shop/a.py:{name}",)), seen, ("Orders fail",)) is expected


@pytest.mark.parametrize(
    ("line", "is_loud"),
    [
        ("2026-03-04T11:02:00Z INFO order placed total=3", False), ('{"level":"info","msg":"order placed"}', False),
        ("level=debug msg=placed", False), ("2026-03-04T11:02:00Z,orders,placed_per_minute,31.0", False),
        ("2026-03-04T11:02:00Z INFO order 3 failed", True), ("2026-03-04T11:02:00Z WARNING quote does not add up tax=2", True),
        ("KeyError: 'discount'", True), ("order 3 has no price", True), ("information is missing", True),
    ],
)  # fmt: skip
def test_lines_that_are_written_when_all_is_well_are_told_from_others(line: str, is_loud: bool) -> None:
    assert bool(ties.loud(line)) is is_loud


def test_a_plain_line_speaks_for_a_commit_only_where_nothing_else_is_far_more_probable() -> None:
    outcome = Outcome(kind="commit", executes=True, calls=True, reproduces=True, quietly=True)
    assert not supports(outcome, Standing(commit="a" * 40))
    assert supports(outcome, Standing(commit="a" * 40, plausible=True))
    assert supports(outcome.model_copy(update={"quietly": False}), Standing(commit="a" * 40))


@pytest.mark.parametrize(
    ("output", "other", "command", "expected"),
    [
        ("total 11900", "total 10000", "python3 x.py", True),
        ("total 11900", "total 11900", "python3 x.py", False),
        ("total 11900", "", "test 11900", False),
        ("the basket is unpriced", "", "python3 x.py", True),
        ("nothing alike", "", "python3 x.py", False),
    ],
)
def test_what_is_printed_counts_where_only_the_suspect_prints_it(output: str, other: str, command: str, expected: bool) -> None:
    assert ties.printed(output, other, command, "WARN unpriced basket, total=11900", ("Basket alert",)) is expected


def _analysed(world: World, **answer: Any) -> None:
    """The analysis is a command on the desk; from now on one stands in for it that gives this answer."""
    template = world.folder / "template"
    (template / "bin").mkdir(parents=True)
    (template / "bin" / "suspects").write_text(f"#!/bin/sh\necho '{json.dumps({'suspects': [], **answer})}'\n")
    (template / "bin" / "suspects").chmod(0o755)
    world.template = template


def _of_the_provider(world: World, *checks: Check) -> Conclusion:
    """A report that blames no commit, with true quotes of the symptom."""
    cause = Cause(statement="the provider failed", category="external", commit=None, confidence=0.9)
    evidence = tuple(
        Evidence(claim="c", supports=kind, source=TelemetrySource(path="telemetry/logs/web.log"), quote="KeyError: 'discount'")
        for kind in ("symptom", "mechanism")
    )
    return world.report("guilty", *checks, causes=(cause,), evidence=evidence)


@pytest.mark.parametrize(
    ("commit", "explanation", "category", "expected"),
    [
        (0.1, 0.8, "external", "root_cause_found"),
        (0.1, 0.8, "data", "likely"),
        (0.3, 0.6, "external", "likely"),
        (0.3, 0.4, "external", "likely"),
        (0.8, 0.1, "external", "likely"),
    ],
)
@pytest.mark.slow
async def test_a_check_by_time_carries_a_cause_without_a_commit_only_where_the_host_finds_such_a_one(
    world: World, commit: float, explanation: float, category: str, expected: str
) -> None:
    _analysed(
        world,
        suspects=[{"commit": world.commits["guilty"], "p": commit}],
        explanations=[{"category": category, "p": explanation}],
    )
    judged = await (await world.checker()).judge(_of_the_provider(world, window()))
    assert judged.conclusion.verdict == expected
    assert (f"finds commit {world.commits['guilty'][:12]} far more probable" in judged.downgraded) is (commit == 0.8)


@pytest.mark.parametrize(
    ("blamed", "answer", "expected"),
    [
        ("decoy", {"suspects": [("decoy", 0.9, True, "")]}, "root_cause_found"),
        ("decoy", {"suspects": [("decoy", 0.9, False, "")]}, "likely"),
        ("guilty", {"suspects": [("guilty", 0.2, True, "")], "unknown": 0.1}, "root_cause_found"),
        ("guilty", {"suspects": [("guilty", 0.2, True, "")], "unknown": 0.7}, "likely"),
        ("decoy", {"suspects": [("guilty", 0.5, True, ""), ("decoy", 0.45, True, "guilty")]}, "likely"),
        ("guilty", {"suspects": [("guilty", 0.5, True, ""), ("decoy", 0.45, False, "guilty")]}, "root_cause_found"),
        ("decoy", {"suspects": [("decoy", 0.5, True, ""), ("guilty", 0.45, False, "")]}, "likely"),
    ],
    ids=[
        "first for what it does",
        "first for its time and place",
        "the words, and first",
        "the words, and something unknown is likelier",
        "what brought the guilty one",
        "what was brought by another",
        "two that are close",
    ],
)
@pytest.mark.slow
async def test_a_check_by_time_carries_a_commit_that_the_host_puts_first_for_what_it_does(
    world: World, blamed: str, answer: dict[str, Any], expected: str
) -> None:
    rows = [
        {"commit": world.commits[name], "p": p, "fits": fits, "through": world.commits.get(through, "")}
        for name, p, fits, through in answer["suspects"]
    ]
    _analysed(world, **{**answer, "suspects": rows})
    judged = await (await world.checker()).judge(world.report(blamed, window()))
    assert judged.conclusion.verdict == expected


async def test_a_flag_that_the_host_finds_has_to_be_the_one_that_the_report_names(world: World) -> None:
    _analysed(world, flips=[{"name": "new_tax", "p": 0.9}])
    other = _of_the_provider(world, window())
    flag = other.model_copy(update={"causes": (other.causes[0].model_copy(update={"mechanism": "the flag NEW_TAX went on"}),)})
    checker = await world.checker()
    assert [(await checker.judge(report)).conclusion.verdict for report in (other, flag)] == ["likely", "root_cause_found"]


def test_a_stack_trace_is_of_the_line_before_it() -> None:
    log = FAILURE.format(minute=5, number=7) + FAILURE.format(minute=6, number=8)
    from_line = quotes.find(log.encode(), "ERROR web order 7 failed")
    from_error = quotes.find(log.encode(), "KeyError: 'discount'", near=5)
    whole = FAILURE.format(minute=5, number=7).rstrip("\n")
    assert from_line and from_error
    assert (from_line.start_line, from_line.end_line, from_line.region) == (1, 1, whole)
    assert (from_error.start_line, from_error.end_line, from_error.region) == (5, 5, whole)
    plain = quotes.find(b"one\ntwo and three\nfour\n", "two and three")
    assert plain and plain.region == "two and three"


def test_the_names_of_fields_tie_nothing_to_anything() -> None:
    line = '{"timestamp": "x", "trace_id": "a1", "msg": "checkout failed in charge_card for basket"}'
    change = Changed(path="web/a.go", added=("trace_id := charge_card(basket)",))
    assert ties.between([change], line, ()) == ties.Tie(names=("basket", "charge_card"), strong=True)
    assert ties.between([Changed(path="a.go", added=("trace_id := f()",))], line, ()) == ties.Tie()


@pytest.mark.parametrize(
    ("suspect", "expected"),
    [
        ({"foremost": True, "tie": ties.Tie(names=("a", "b"), strong=True)}, True),
        ({"foremost": True, "tie": ties.Tie(names=("a",))}, False),
        ({"foremost": True, "tie": ties.Tie(names=("a", "b"), strong=True), "rival": "commit d"}, False),
        ({"first": True}, True),
        ({"tie": ties.Tie(names=("a", "b"), strong=True)}, False),
    ],
)
def test_a_check_by_time_counts_for_the_commit_that_stands_out(suspect: dict[str, Any], expected: bool) -> None:
    outcome = Outcome(kind="window", start=AT, until=AT)
    assert supports(outcome, Standing(commit="c", live=AT, recorded=True, **suspect)) is expected
    late = Standing(commit="c", live=AT - timedelta(hours=2), recorded=True, **suspect)
    assert not supports(outcome, late), "it was live in both windows"


def test_a_name_that_many_changes_share_counts_for_little() -> None:
    rare, usual = ties.Tie(names=("reduction",)), ties.Tie(names=("step",))
    scores = ties.rarity([rare, usual, usual, usual])
    assert scores[0] > scores[1] == scores[2]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("grep -q BANNER repos/shop/web/banner.py", "with the suspect it exits 0, without it exits 0"),
        ("exit 3", "exits 3, without it exits 3; it must exit 0 with the suspect and exactly 1 without it"),
        ("sleep 30", "did not end within"),
        ('test "$(git -C repos/shop rev-parse HEAD)" = x', "asks git or /proc"),
        ("grep -q {guilty} /tmp/x", "its command names the commit"),
        ("python3 -c 'import pricing.gone'", "breaks instead of answering no"),
        ("test $((RANDOM % 2)) = 0 && exit 7; exit 9", "it must exit 0 with the suspect"),
    ],
)
@pytest.mark.slow
async def test_a_check_that_cannot_tell_is_said_to_fail_and_how(world: World, command: str, problem: str) -> None:
    text = command.format(guilty=world.commits["guilty"]) if "{guilty}" in command else command
    if "pricing.gone" in command:
        text = "cd repos/shop && grep -q 'order.\"discount' pricing/total.py && exit 0; " + command
    judged = await (await world.checker(seconds=0.5 if "sleep" in command else 60.0)).judge(
        world.report("guilty", world.at_commits("guilty", text))
    )
    assert (judged.conclusion.checks[0].discriminates, judged.conclusion.verdict) == (False, "likely")
    assert problem in judged.conclusion.checks[0].outcome


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        (window('test "$START" = 2026-03-04T11:51:00Z'), "does not look at data"),
        (window("grep -q KeyError telemetry/logs/web.log"), "with the suspect it exits 0, without it exits 0"),
        (
            window(with_=Side(start=AT, end=AT + timedelta(hours=1)), without=Side(start=AT, end=AT + timedelta(hours=2))),
            "overlap",
        ),
        (window(with_=Side(), without=Side(start=AT, end=AT + timedelta(hours=2))), "needs start and end on both sides"),
        (
            window(
                with_=Side(start=AT + timedelta(hours=3), end=AT + timedelta(hours=4)),
                without=Side(start=AT + timedelta(hours=1), end=AT + timedelta(hours=2)),
            ),
            "do not straddle the onset",
        ),
        (window(with_=Side(label="a"), without=Side(label="a")), "its two sides are the same"),
    ],
)
async def test_a_check_by_time_must_look_at_data_on_both_sides_of_the_onset(world: World, check: Check, problem: str) -> None:
    judged = await (await world.checker()).judge(world.report("guilty", check))
    assert not judged.conclusion.checks[0].discriminates
    assert problem in judged.conclusion.checks[0].outcome


@pytest.mark.slow
async def test_times_without_a_zone_are_in_utc(world: World) -> None:
    aware = window()
    sides = {
        name: Side(start=side.start and side.start.replace(tzinfo=None), end=side.end and side.end.replace(tzinfo=None))
        for name, side in (("with_", aware.with_), ("without", aware.without))
    }
    judged = await (await world.checker()).judge(world.report("guilty", aware.model_copy(update=sides)))
    assert judged.conclusion.verdict == "root_cause_found"


async def test_hostile_text_is_a_problem_like_any_other(world: World) -> None:
    (world.telemetry / "logs" / "cut.log.gz").write_bytes(gzip.compress(b"x" * 10_000)[:20])
    for source in (
        TelemetrySource(path="telemetry/logs/\0"),
        CodeSource(repo="shop", commit=world.commits["guilty"], path="\0/../../etc/passwd"),
        CodeSource(repo="../shop", commit="--upload-pack=x", path="a"),
        CodeSource(repo="shop", commit=world.commits["guilty"], path="../../../etc/passwd"),
        CommandSource(command="cat \0"),
        TelemetrySource(path="telemetry/" + "a" * 5_000),
        TelemetrySource(path="telemetry/logs"),
        TelemetrySource(path="incident/../../../etc/passwd"),
        TelemetrySource(path=""),
        TelemetrySource(path="telemetry/logs/cut.log.gz"),
    ):
        found = await world.evidence(source, "root:x:0:0:root:/root")
        assert (found.verified, bool(found.problem)) == (False, True), source
    check = world.at_commits("guilty", "true \0")
    judged = await (await world.checker()).judge(world.report("guilty", check))
    assert judged.conclusion.checks[0].outcome == "its command holds a NUL character"


@pytest.mark.slow
async def test_what_held_long_before_the_onset_as_well_is_no_sign_of_it(world: World) -> None:
    log = world.telemetry / "logs" / "web.log"
    earlier = "".join(f"2026-03-04T10:{minute}:00Z ERROR web order failed\n" for minute in range(41, 59))
    log.write_text(earlier + log.read_text())
    judged = await (await world.checker()).judge(world.report("guilty", window()))
    assert "also holds long before the onset" in judged.conclusion.checks[0].outcome


async def test_a_check_with_memory_is_found_out(world: World) -> None:
    """The state file would make every second run fail; each run has a desk of its own, so there is no second run."""
    command = "test ! -e notes-of-mine && touch notes-of-mine"
    judged = await (await world.checker()).judge(world.report("guilty", world.at_commits("guilty", command)))
    assert judged.conclusion.checks[0].outcome.startswith("with the suspect it exits 0, without it exits 0")


@pytest.mark.slow
async def test_sides_far_apart_must_still_differ_at_the_suspect_itself(world: World) -> None:
    """From `first` to `decoy` the failure appears, but it is not `pool` that brought it."""
    sides: dict[str, Any] = {"with_": Side(ref=world.commits["decoy"]), "without": Side(ref=world.commits["first"])}
    wrong = await (await world.checker()).judge(world.report("pool", world.at_commits("pool", **sides)))
    assert "it makes no difference" in wrong.conclusion.checks[0].outcome
    right = await (await world.checker()).judge(world.report("guilty", world.at_commits("guilty", **sides)))
    assert right.conclusion.verdict == "root_cause_found"


def _grown(folder: Path, world: World, *steps: str) -> dict[str, str]:
    """A history of its own for a world: `bad` and `good` commit the failing line or the sound one, `merge` a branch that is `bad`."""
    source, made = folder / "grown", {}

    def git(*words: str, minutes: int) -> str:
        moment = (AT + timedelta(minutes=minutes)).isoformat()
        environment = {**os.environ, "GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment}
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
        done = subprocess.run(["git", "-C", str(source), *identity, *words], env=environment, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def commit(name: str, text: str, minutes: int) -> None:
        (source / "pricing" / "total.py").write_text(text)
        git("add", ".", minutes=minutes)
        git("commit", "-qm", name, minutes=minutes)
        made[name] = git("rev-parse", "HEAD", minutes=minutes)

    (source / "pricing").mkdir(parents=True)
    (source / "pricing" / "__init__.py").touch()
    bad = TOTAL.replace('order.get("discount", 0)', 'order["discount"]')
    git("init", "-q", "-b", "main", minutes=0)
    commit("first", TOTAL, -100)
    for number, step in enumerate(steps):
        minutes = -60 + 5 * number
        if step == "merge":
            git("checkout", "-q", "-b", "feature", minutes=minutes)
        commit(f"{step}{number}", TOTAL + "\n" if step == "good" else bad, minutes)
        if step == "merge":
            git("checkout", "-q", "main", minutes=minutes)
            git("merge", "-q", "--no-ff", "-m", "merge", "feature", minutes=minutes + 1)
            made["merge"] = git("rev-parse", "HEAD", minutes=minutes)
    world.code = Code.__new__(Code)
    world.code.source, world.code.commits, world.code._checkouts, world.code._mirror = source, made, {}, None
    world.code.repositories = Repositories(folder / "repos")
    last = made["merge"] if "merge" in made else list(made.values())[-1]
    live = [(timedelta(minutes=50), made.get("bad0")), (timedelta(minutes=45), made.get("good1")), (timedelta(minutes=10), last)]
    deployments = tuple(Deployment(timestamp=AT - ago, service="shop", commit=commit) for ago, commit in live if commit)
    refs = (RepositoryRef(name="shop", url=str(source), service="shop"),)
    world.case = world.case.model_copy(update={"deployments": deployments, "repositories": refs})
    world.commits = {**made, "decoy": last}
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "blamed", "problem"),
    [
        (("merge",), "merge0", ""),
        (("merge",), "merge", "is a merge, and"),
        (("bad", "good"), "bad0", "it had been undone"),
        (("bad", "good", "bad"), "bad0", "it had been undone"),
        (("bad", "good", "bad"), "bad2", ""),
    ],
)
async def test_neither_a_merge_nor_what_was_undone_is_guilty_in_the_others_place(
    world: World, tmp_path: Path, steps: tuple[str, ...], blamed: str, problem: str
) -> None:
    _grown(tmp_path, world, *steps)
    judged = await (await world.checker()).judge(world.report(blamed, world.at_commits(blamed)))
    (check,) = judged.conclusion.checks
    assert problem in check.outcome and check.discriminates is not bool(problem)


async def test_sides_the_wrong_way_round_are_refused(world: World) -> None:
    check = world.at_commits("guilty", with_=Side(ref=world.commits["first"]), without=Side(ref=world.commits["guilty"]))
    judged = await (await world.checker()).judge(world.report("guilty", check))
    assert "the wrong way round" in judged.conclusion.checks[0].outcome


@pytest.mark.slow
async def test_each_of_two_causes_has_its_own_check(world: World) -> None:
    report = world.report("guilty", world.at_commits("guilty"), world.at_commits("decoy"))
    second = report.causes[0].model_copy(update={"commit": world.commits["decoy"]})
    judged = await (await world.checker()).judge(report.model_copy(update={"causes": (*report.causes, second)}))
    assert [check.discriminates for check in judged.conclusion.checks] == [True, False]
    assert judged.conclusion.verdict == "root_cause_found"
    assert [cause.confidence for cause in judged.conclusion.causes] == [0.95, 0.7]
    assert "Cause 2 has no check of its own that speaks for it: it is likely at most." in judged.objections
    swapped = await (await world.checker()).judge(report.model_copy(update={"causes": (second, *report.causes)}))
    assert swapped.conclusion.verdict == "likely"


async def test_a_commit_of_after_the_incident_or_not_deployed_is_not_the_cause(world: World) -> None:
    quote = 'return price - order.get("discount", 0)'
    mechanism = Evidence(
        claim="how", supports="mechanism", source=CodeSource(repo="shop", commit=world.commits["later"]), quote=quote
    )
    judged = await (await world.checker()).judge(world.report("later", world.at_commits("later"), evidence=(mechanism,)))
    assert judged.conclusion.verdict == "likely"
    assert "was made at 2026-03-04T13:30:00+00:00, after the incident began" in judged.downgraded
    assert judged.conclusion.causes[0].confidence == 0.3


async def test_an_unknown_commit_is_no_cause_at_all(world: World) -> None:
    cause = Cause(statement="x", category="code", repo="shop", commit="f" * 40, confidence=0.9)
    suspects = (Suspect(repo="shop", commit="e" * 40, score=1.0),)
    judged = await (await world.checker()).judge(world.report("guilty", causes=(cause,), suspects=suspects))
    assert (judged.conclusion.verdict, judged.conclusion.causes[0].confidence) == ("inconclusive", 0.3)
    assert "commit " + "f" * 40 + " is not in the repository" in judged.downgraded
    assert any("e" * 40 in objection for objection in judged.objections)


@pytest.mark.slow
async def test_no_mechanism_no_symptom_or_nothing_verified(world: World) -> None:
    checker = await world.checker()
    report = world.report("guilty", world.at_commits("guilty"))
    verdicts = []
    for evidence in (report.evidence[:1], report.evidence[1:], ()):
        judged = await checker.judge(report.model_copy(update={"evidence": evidence}))
        verdicts.append((judged.conclusion.verdict, judged.downgraded.partition(": ")[2].partition(";")[0]))
    assert verdicts == [
        ("likely", f"no verified evidence of the mechanism of what commit {world.commits['guilty'][:12]} changed"),
        ("likely", "no verified evidence of the symptom"),
        ("inconclusive", "no evidence could be verified"),
    ]


async def test_when_it_began_says_not_that_no_commit_did_it(world: World) -> None:
    judged = await (await world.checker()).judge(_of_the_provider(world, window()))
    assert judged.conclusion.verdict == "likely"
    assert "a commit that went live then would pass it too" in judged.downgraded


@pytest.mark.slow
async def test_a_sick_and_a_healthy_instance_make_a_check_by_label(world: World) -> None:
    (world.telemetry / "logs" / "web-1.log").write_text("ERROR out of memory\n")
    (world.telemetry / "logs" / "web-2.log").write_text("INFO all well\n")
    check = Check(
        claim="only one",
        command='grep -q ERROR "telemetry/logs/$LABEL.log"',
        with_=Side(label="web-1"),
        without=Side(label="web-2"),
    )
    checker = await world.checker()
    judged = await checker.judge(world.report("guilty", check))
    assert judged.conclusion.checks[0].discriminates
    assert (await checker.judge(_of_the_provider(world, check))).conclusion.verdict == "root_cause_found"


async def test_an_unsound_alert_needs_evidence_about_the_alerts_own_data(world: World) -> None:
    checker = await world.checker()
    cause = Cause(statement="the threshold cannot be met", category="alert", confidence=0.9)
    log = Evidence(
        claim="c", supports="symptom", source=TelemetrySource(path="telemetry/logs/web.log"), quote="INFO web order 10 done"
    )
    alert = log.model_copy(
        update={"source": TelemetrySource(path="incident/alerts.json"), "quote": "rate(order_errors_total[5m]) > 0.1"}
    )
    verdicts = []
    for item in (log, alert):
        conclusion = Conclusion(verdict="alert_unsound", summary="s", causes=(cause,), evidence=(item,))
        verdicts.append((await checker.judge(conclusion)).conclusion.verdict)
    assert verdicts == ["likely", "alert_unsound"]


async def test_an_honest_i_do_not_know_is_left_alone(world: World) -> None:
    conclusion = Conclusion(verdict="inconclusive", summary="nothing found")
    judged = await (await world.checker()).judge(conclusion)
    assert (judged.conclusion, judged.downgraded, judged.objections) == (conclusion, "", ())


@pytest.mark.slow
async def test_the_same_report_is_not_checked_twice_and_a_mended_one_only_where_it_changed(world: World) -> None:
    checker = await world.checker()
    report = world.report("guilty", world.at_commits("guilty"))
    await checker.judge(report)
    runs = world.made
    await checker.judge(report)
    await checker.judge(report.model_copy(update={"summary": "better words"}))
    assert (runs, world.made) == (8, 8)


async def test_a_repository_that_could_not_be_had_leaves_the_cause_likely(world: World) -> None:
    world.case = world.case.model_copy(
        update={"repositories": (*world.case.repositories, RepositoryRef(name="gone", url="/nowhere"))}
    )
    cause = Cause(statement="x", category="code", repo="gone", commit="a" * 40, confidence=0.9)
    judged = await (await world.checker()).judge(world.report("guilty", causes=(cause,)))
    assert (judged.conclusion.verdict, "repository gone could not be had" in judged.downgraded) == ("likely", True)
