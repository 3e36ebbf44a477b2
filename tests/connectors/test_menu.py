"""The menu of connectors: settings become a connector, or an error that names the nearest right word."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from agent.connectors import KINDS, connector
from agent.core.errors import ConfigError


def test_settings_make_a_connector_of_that_name() -> None:
    made = connector("prometheus", "metrics", {"url": "http://127.0.0.1:9090", "headers": {"X-Scope-OrgID": "a"}, "timeout": 5})
    assert (made.name, made.kind) == ("metrics", "prometheus")


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        ("promethius", {}, "connectors.x: there is no kind of connector 'promethius'\nDid you mean 'prometheus'?"),
        ("zzz", {}, f"connectors.x: there is no kind of connector 'zzz'\nThere are: {', '.join(KINDS)}."),
        ("logs", {"path": "/x"}, "connectors.x: the kind 'logs' has no setting 'path'\nDid you mean 'paths'?"),
        ("logs", {}, "connectors.x: there is nothing to read\nSet `paths: [/var/log/app/*.log]`, or `units: [app.service]`."),
        (
            "logs",
            {"paths": "var/log"},
            "connectors.x: the path 'var/log' is relative\nWrite the absolute path of a folder, a file or a glob.",
        ),
        (
            "prometheus",
            {"url": "nine:90"},
            "connectors.x: 'nine:90' is not the address of a Prometheus server\nWrite it like http://prometheus:9090.",
        ),
    ],
)
def test_a_wrong_word_is_an_error_that_names_the_right_one(kind: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        connector(kind, "x", settings)
    assert str(raised.value) == told


def test_a_missing_or_ill_typed_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="url: Field required"):
        connector("prometheus", "x", {})
    with pytest.raises(ConfigError, match="timeout: Input should be a valid number"):
        connector("prometheus", "x", {"url": "http://a", "timeout": "soon"})


def test_the_menu_imports_no_sdk_before_it_is_asked_for_its_kind() -> None:
    heavy = ["httpx", "azure.kusto.data", "grafana_client", "pydantic"]
    code = f"import sys, agent.connectors; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
