"""Rules as operators write them: in the settings, for one sandbox by the command line, and what doctor says of them."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.assembly import assemble
from agent.commands.sandbox import EgressChange, egress
from agent.config import load, load_rules
from agent.core.egress import Egress, Rule
from agent.core.errors import BadInput, ConfigError
from agent.core.investigation import Case, Trigger
from agent.core.sandbox import SandboxSpec
from agent.egress.audit import tidy
from agent.egress.outside import outside
from agent.sandboxes.bubblewrap import Bubblewrap

RULES = """
policy:
  egress:
    secrets: {registry: "${TOKEN}"}
    authorities: private.pem
    rules:
      - {name: packages, hosts: [packages.example.org, "*.mirror.example.net"], ports: [443]}
      - {hosts: [Registry.Example.org], paths: [/v2/*], methods: [GET], headers: {Authorization: "Bearer {registry}"}}
      - {action: deny, hosts: ["*"]}
"""


def written(folder: Path, text: str) -> Path:
    (folder / "sre-agent.yaml").write_text(text)
    return folder


def test_rules_secrets_and_authorities_are_read(tmp_path: Path) -> None:
    settings = load(written(tmp_path, RULES), environment={"TOKEN": "s3cr3t-value"})
    egress = settings.policy.egress
    assert [rule.hosts for rule in egress.rules] == [
        ("packages.example.org", "*.mirror.example.net"),
        ("registry.example.org",),
        ("*",),
    ]
    beyond = outside(settings)
    assert (beyond.secrets, beyond.authorities, beyond.audit) == (
        {"registry": "s3cr3t-value"},
        tmp_path / "private.pem",
        settings.data / "egress",
    )
    assert "s3cr3t-value" not in repr(settings) + repr(beyond)


def test_without_rules_the_policy_is_to_let_nothing_out(tmp_path: Path) -> None:
    assert not load(tmp_path, environment={}).policy.egress.opens


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{host: [a.test]}", r"sre-agent.yaml:5: there is no setting 'policy.egress.rules.0.host'; did you mean 'hosts'"),
        ("{hosts: [http://a.test]}", r"sre-agent.yaml:5: policy.egress.rules.0.hosts: .* is no host: write example.org"),
        ("{ports: [80]}", r"sre-agent.yaml:5: policy.egress.rules.0: .*names hosts or cidrs"),
        ("{hosts: [a.test], ports: [70000]}", r":5: policy.egress.rules.0.ports: .* from 1 to 65535"),
        ("{hosts: [a.test], methods: [get]}", r":5: policy.egress.rules.0.methods: .* is no method"),
        ("{hosts: [a.test], paths: [x]}", r":5: policy.egress.rules.0.paths: .* does not begin with /"),
        ("{cidrs: [10.0.0.0/99]}", r":5: policy.egress.rules.0.cidrs: "),
        ('{hosts: [a.test], headers: {X-Key: "{regstry}"}}', r"rule 1 sets the secret 'regstry', .*; did you mean 'registry'"),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_named_with_its_line(tmp_path: Path, wrong: str, said: str) -> None:
    text = f"policy:\n  egress:\n    secrets: {{registry: x}}\n    rules:\n      - {wrong}\n"
    with pytest.raises(ConfigError, match=said):
        load(written(tmp_path, text), environment={})


def test_audits_that_are_older_than_what_is_kept_go(tmp_path: Path) -> None:
    for name, age in (("old.ndjson", 40), ("old.ndjson.1", 50), ("new.ndjson", 1), ("other", 50)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age * 86_400,) * 2)
    tidy(tmp_path, 30)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.ndjson", "other"]


def test_a_file_of_rules_for_one_sandbox_is_read_the_same_way(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules:\n  - hosts: [a.test]\n    pots: [80]\n")
    with pytest.raises(ConfigError, match=r"rules.yaml:3: there is no setting 'rules.0.pots'; did you mean 'ports'"):
        load_rules(file, environment={})
    file.write_text("rules: [{hosts: [a.test]}]\n")
    assert load_rules(file, environment={}) == Egress(rules=(Rule(hosts=("a.test",)),))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="bubblewrap sandboxes need root")
async def test_investigations_get_the_policy_of_the_settings_and_what_is_pristine_gets_none(tmp_path: Path) -> None:
    text = "sandbox: {kind: bubblewrap}\npolicy: {egress: {rules: [{hosts: [a.test]}]}}\n"
    settings = load(written(tmp_path, text), environment={})
    case = Case(trigger=Trigger(kind="chat", key="k", title="t", at=datetime(2026, 1, 1, tzinfo=UTC)))
    async with assemble(settings) as parts:
        plan = await parts.desk.plan(case)
        made = await parts.desk.sandbox("one", case, plan, connectors={}, investigations={})
        assert made.egress() == Egress(rules=(Rule(hosts=("a.test",)),))
        page = (await made.read("AGENTS.md")).decode()
        assert "- a.test; port 80, 443\n" in page and "There is no network but what is listed at the end:" in page
        async with parts.desk.pristine("two", case, plan, {}) as pristine:
            assert pristine.egress() == Egress()
        await made.delete()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="bubblewrap sandboxes need root")
def test_the_command_changes_and_prints_what_a_sandbox_may_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    kind = Bubblewrap(data / "sandboxes" / "bubblewrap")
    asyncio.run(kind.create("one", SandboxSpec()))

    def said(**change: object) -> str:
        egress(tmp_path, data, "one", EgressChange.model_validate(change))
        return capsys.readouterr().out

    async def rules() -> tuple[Rule, ...]:
        return (await kind.open("one")).egress().rules

    async def delete() -> None:
        await (await kind.open("one")).delete()

    try:
        assert said() == "rules: []\n"
        changed = "rules:\n- action: deny\n  hosts:\n  - '*.b.test'\n- hosts:\n  - a.test\n  ports:\n  - 8443\n"
        assert said(allow=("a.test:8443",), deny=("*.b.test",)) == changed
        assert asyncio.run(rules()) == (Rule(action="deny", hosts=("*.b.test",)), Rule(hosts=("a.test",), ports=(8443,)))
        assert said(shut=True, allow=("10.0.0.1",)) == "rules:\n- hosts:\n  - 10.0.0.1\n  cidrs:\n  - 10.0.0.1/32\n"
        (data / "egress").mkdir()
        (data / "egress" / "one.ndjson").write_text('{"event": "denied"}\n')
        assert said(log=True) == '{"event": "denied"}\n'
        with pytest.raises(BadInput, match="is no host"):
            said(allow=("http://a.test",))
    finally:
        asyncio.run(delete())
