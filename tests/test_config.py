"""Settings: defaults, the environment, and errors that name the line and the nearest setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import Settings, load
from agent.core.errors import ConfigError


def _load(tmp_path: Path, text: str, **environment: str) -> Settings:
    (tmp_path / "sre-agent.yaml").write_text(text)
    return load(tmp_path, environment=environment)


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    settings = load(tmp_path, environment={})
    assert settings == Settings(home=tmp_path, data=tmp_path / ".sre-agent")
    assert settings.model_name == "statistical"
    assert settings.database_url == f"sqlite:///{tmp_path}/.sre-agent/sre-agent.db"


def test_a_data_folder_is_relative_to_whoever_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    (home / "sre-agent.yaml").write_text("data: kept\n")
    monkeypatch.chdir(here)
    assert load(home, environment={}).data == home / "kept"
    assert load(home, environment={"SRE_AGENT_DATA": "kept"}).data == here / "kept"
    assert load(home, environment={}, data=Path("kept")).data == here / "kept"


def test_a_key_in_the_environment_chooses_the_model(tmp_path: Path) -> None:
    assert load(tmp_path, environment={"OPENAI_API_KEY": "k"}).model_name == "openai"
    assert load(tmp_path, environment={"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}).model_name == "anthropic"
    assert _load(tmp_path, "model: {name: statistical}", OPENAI_API_KEY="k").model_name == "statistical"


def test_values_are_taken_from_the_environment_and_secrets_are_known(tmp_path: Path) -> None:
    settings = _load(tmp_path, "server:\n  tokens: ['${TOKEN}']\n", TOKEN="long-enough", SRE_AGENT_DATABASE="postgresql://x/y")
    assert settings.server.tokens == ("long-enough",)
    assert settings.database_url == "postgresql://x/y"
    assert settings.secrets == ("long-enough",)
    assert "long-enough" not in repr(settings.secrets) or "secrets" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("modle: {name: x}", ":1: there is no setting 'modle'; did you mean 'model'?"),
        (
            "services:\n  orders:\n    repositry: {url: x}",
            ":3: there is no setting 'services.orders.repositry'; did you mean 'repository'?",
        ),
        ("budget:\n  turns: many", ":2: budget.turns: Input should be a valid integer"),
        ("server:\n  port: 99999", ":2: server.port: Input should be less than or equal to 65535"),
        ("a: 1\na: 2", ":2: a is set twice"),
        ("server:\n  tokens: ['${NOPE}']", ":2: the environment has no NOPE"),
        ("server: [", "not valid YAML"),
        ("- a", ":1: expected settings"),
        ("keys: {a: b}", ":1: 'keys' is not a setting"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, text)
    assert problem in str(caught.value)


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sre-agent.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, environment={})


def test_where_the_apis_are_comes_from_the_environment_where_the_file_does_not_say(tmp_path: Path) -> None:
    environment = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://one", "OPENAI_BASE_URL": "http://two/v1"}
    settings = load(tmp_path, environment=environment)
    assert settings.base_urls == {"anthropic": "http://one", "openai": "http://two/v1"}
    (tmp_path / "sre-agent.yaml").write_text("base_urls: {}\n")
    with pytest.raises(ConfigError, match="not a setting"):
        load(tmp_path, environment=environment)
