"""What counts as a secret and what does not, that nothing is lost, and that the map lasts and stays private."""

from __future__ import annotations

import importlib
import json
import pkgutil
import random
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1, sha256
from pathlib import Path
from urllib.parse import quote

import pytest

from agent.core.errors import ConfigError
from agent.redaction import Redaction
from agent.redaction.detectors import LEFT_OUT, TAKEN

PASSWORD = "hunter2hunter2"


@pytest.fixture(scope="module")
def redaction(tmp_path_factory: pytest.TempPathFactory) -> Redaction:
    return Redaction(tmp_path_factory.mktemp("redaction"))


def kinds(redaction: Redaction, text: str) -> list[str]:
    """The kinds of the placeholders that a text gets, in order; the rest must be as it was, and come back."""
    redacted = redaction.redact(text)
    assert redaction.restore(redacted) == text
    assert redaction.redact(redacted) == redacted
    found = [part.split("]")[0].rpartition(":")[0] for part in redacted.split("[")[1:] if "]" in part and ":" in part]
    return [kind.removeprefix("secret:") for kind in found if kind]


SECRETS = {
    # formats; put together here so that no scanner takes this file for a leak
    "AKIA" + "Q7ZX5N2M4P6R8T3V": "aws-key",
    "ASIA" + "Q7ZX5N2M4P6R8T3V": "aws-key",
    "AIza" + "SyD4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t": "gcp-key",
    "ya29." + "a0AfH6SMBx1y2z3_4w5v6u7t8s9r": "gcp-token",
    "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8": "github-token",
    "github_pat_" + "11ABCDEFG0abcdefghijkl_mnopqrstuv": "github-token",
    "glpat-" + "xYz1234567890abcdefg": "gitlab-token",
    "xoxb-" + "1234567890-abcdefghijklmnop": "slack-token",
    "https://hooks.slack.com/" + "services/T00000000/B00000000/abcdefghijklmnop": "slack-token",
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc": "stripe-key",
    "sk-ant-" + "api03-abcdefghijklmnopqrstuvwxyz0123456789": "anthropic-key",
    "sk-proj-" + "abcdefghijklmnopqrstuvwxyz0123456789": "openai-key",
    "sk-" + "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGH": "openai-key",
    "npm_" + "abcdefghijklmnopqrstuvwxyz0123456789": "npm-token",
    "SG." + "abcdefghijklmnopqrstuv.abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG": "sendgrid-key",
    "hvs." + "CAESIJ1234567890abcdefghij": "vault-token",
    "dckr_pat_" + "abcdefghijklmnopqrstuvwxyz1": "docker-token",
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N": "jwt",
    "a1b" + "8Q~abcdefghijklmnopqrstuvwxyz0123456": "azure-secret",
    "carol.o-neil+ops@mail.corp.example.org": "email",
    "4111 1111 1111 1111": "card",
    "378282246310005": "card",
    "DE89 3704 0044 0532 0130 00": "iban",
    "GB82WEST12345698765432": "iban",
    "+49 (170) 123-4567": "phone",
    "219-09-9999": "ssn",
}
IN_CONTEXT = {
    f"password={PASSWORD}": "password",
    f"DB_PASSWORD: {PASSWORD}": "password",
    'spring.datasource.password: "letmein"': "password",
    "PGPASSWORD=letmein psql": "password",
    '{"client_secret": "Zm9vYmFyYmF6cXV4"}': "secret",
    '{\\"apiKey\\": \\"d41d8cd98f00b204\\"}': "key",
    "x-api-key: d41d8cd98f00b204": "key",
    "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzKEYzzz1": "key",
    "--token 9f86d081884c7d65": "token",
    "?access_token=9f86d081884c7d65&x=1": "token",
    "<password>letmein</password>": "password",
    "ALTER ROLE app PASSWORD 'letmein'": "password",
    f"redis://:{PASSWORD}@cache:6379/0": "url-password",
    "amqp://app:p@ss:w0rd@queue/": "url-password",
    "Authorization: Token 9f86d081884c7d65": "authorization",
    "'authorization': 'Basic YXBwOnNlY3JldHNlY3JldA=='": "authorization",
    "sent Bearer 9f86d081884c7d659a2f": "bearer-token",
    "Cookie: sid=9f86d081; theme=dark": "cookie",
    "https://s3.example/x?X-Amz-Signature=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b": "url-signature",
    "AccountKey=" + "aB3d" * 21 + "aB==": "azure-key",
}
EVIDENCE = (
    "commit da39a3ee5e6b4b0d3255bfef95601890afd80709 (HEAD -> main, tag: v1.2.3)",
    "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7",
    "request_id=123e4567-e89b-12d3-a456-426614174000",
    "image: registry/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    '"integrity": "sha512-' + "aB3d" * 21 + 'aB=="',
    "cache_key=orders:12345678 partition_key=abc12345678 primary key (order_1)",
    "max_tokens=4096 token_count=12 tokens: 8000 session_token_ttl=3600",
    'password = request.form["password"]',
    "password: str = None, token=token, api_key=settings.API_KEY",
    "if password != confirm_password or token == other_token:",
    "invalid token: unexpected end of file, secret: not found, API key: missing",
    '"password": "must not be empty"',
    'password="%s" token={token} secret=${SECRET} key=<api_key> PASSWORD=********',
    "secretName: db-credentials, secretKeyRef, --token-file /run/token",
    "git@github.com:acme/app.git getty@tty1.service logo@2x.png lodash@4.17.21 <component@1.2.3>",
    "10.1.2.3:5432 fe80::1 db-7f9c6d5b4-x2x7k 2026-11-20T12:00:00.123456789Z",
    "epoch 1763640000123456 1763640000123456789 offset 900719925474099267",
    "@@ -1,7 +1,7 @@ def f()\n+41111111\n+0.5",
    "bearer token expired; Authorization header missing; cookie: missing",
    'File "/srv/app/auth/token.py", line 12, in verify_token',
    "const token = await getToken(); secret := vault.Read(path)",
    "SELECT key, value FROM settings WHERE key = 'pool_size'",
)


@pytest.mark.parametrize("text", SECRETS)
def test_a_format_is_recognized_wherever_it_stands(redaction: Redaction, text: str) -> None:
    for place in ("{}", "x {} y", '"{}"', "value={};", "({})\n"):
        assert kinds(redaction, place.format(text)) == [SECRETS[text]], place


@pytest.mark.parametrize("text", IN_CONTEXT)
def test_a_name_gives_its_value_away(text: str, tmp_path: Path) -> None:
    assert kinds(Redaction(tmp_path), text) == [IN_CONTEXT[text]]


@pytest.mark.parametrize("text", EVIDENCE)
def test_evidence_stays_readable(text: str, tmp_path: Path) -> None:
    assert Redaction(tmp_path).redact(text) == text


def test_numbers_that_only_look_like_personal_data_stay(redaction: Redaction) -> None:
    for text in (
        "4111 1111 1111 1112",
        "DE88 3704 0044 0532 0130 00",
        "0.4111111111111111",
        "id-4111111111111111-x",
        "1-219-09-9999",
    ):
        assert redaction.redact(text) == text


def test_the_same_value_has_the_same_placeholder_after_a_restart_and_another_installation_another(tmp_path: Path) -> None:
    text = f"password={PASSWORD} for carol@example.org"
    first = Redaction(tmp_path / "a").redact(text)
    again = Redaction(tmp_path / "a")
    assert (again.redact(text), again.restore(first)) == (first, text)
    assert Redaction(tmp_path / "b").redact(text) != first
    assert Redaction(tmp_path / "b").restore(first) == first


def test_the_map_is_private_and_says_so_when_it_is_not(tmp_path: Path) -> None:
    Redaction(tmp_path).redact("carol@example.org")
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {
        "redaction.key": "0o600",
        "redaction.map": "0o600",
    }
    (tmp_path / "redaction.map").chmod(0o644)
    with pytest.raises(ConfigError, match=r"can be read by others.*\n.*chmod 600"):
        Redaction(tmp_path)


def test_a_map_that_was_cut_off_loses_one_line(tmp_path: Path) -> None:
    first = Redaction(tmp_path)
    kept, lost = first.redact("carol@example.org"), first.redact("dave@example.org")
    file = tmp_path / "redaction.map"
    file.write_bytes(file.read_bytes()[:-5])
    second = Redaction(tmp_path)
    assert second.redact("erin@example.org").startswith("[email:")
    third = Redaction(tmp_path)
    assert (third.restore(kept), third.restore(lost)) == ("carol@example.org", lost)
    assert third.redact("dave@example.org") == lost


@pytest.mark.slow
def test_processes_and_threads_that_begin_at_once_agree(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from agent.redaction import Redaction\n"
        "r = Redaction(Path(sys.argv[1]))\nprint([r.redact(f'user{n}@example.org') for n in range(50)])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = {process.communicate()[0] for process in started}
    assert len(said) == 1
    shared = Redaction(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        names = list(pool.map(shared.redact, [f"new{n % 40}@example.org" for n in range(200)]))
    assert len(set(names)) == 40
    assert [json.loads(line)[1] for line in (tmp_path / "redaction.map").read_text().splitlines()].count("new7@example.org") == 1


def test_a_known_value_is_taken_out_in_any_spelling(tmp_path: Path) -> None:
    value = "plain words <and> more/things"
    redaction = Redaction(tmp_path, known=[value])
    for spelling in (value, quote(value), json.dumps(json.dumps({"v": value})), value.encode().hex().upper(), f"a{value}b"):
        redacted = redaction.redact(f"seen: {spelling}.")
        assert spelling not in redacted
        assert redaction.restore(redacted) == f"seen: {spelling}."


def test_a_secret_that_its_name_gave_away_is_known_from_then_on(tmp_path: Path) -> None:
    redaction = Redaction(tmp_path)
    name = redaction.redact(f"PASSWORD={PASSWORD}").removeprefix("PASSWORD=")
    assert redaction.redact(f"login with {PASSWORD} refused") == f"login with {name} refused"


def test_patterns_of_the_configuration(tmp_path: Path) -> None:
    redaction = Redaction(tmp_path, patterns={"customer": r"CUST-\d{6}", "badge": r"badge (\w+)"})
    redacted = redaction.redact("CUST-123456 showed badge x7")
    assert redacted.startswith("[customer:") and "badge [badge:" in redacted
    assert redaction.restore(redacted) == "CUST-123456 showed badge x7"


@pytest.mark.parametrize(
    ("patterns", "problem"),
    [
        ({"customer": "CUST-("}, "policy.redact.customer: not a regular expression"),
        ({"Customer Id": "x"}, "a name is made of"),
        ({"all": ".*"}, "matches the empty text"),
    ],
)
def test_a_pattern_that_is_none_is_refused(tmp_path: Path, patterns: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Redaction(tmp_path, patterns=patterns)


def test_a_forged_placeholder_is_text_like_any_other(tmp_path: Path) -> None:
    redaction = Redaction(tmp_path)
    text = f"[secret:password:{PASSWORD}] and [secret:aws-key:123456]"
    redacted = redaction.redact(text)
    assert PASSWORD not in redacted
    assert redaction.restore(redacted) == text


@pytest.mark.slow
def test_hostile_text_neither_hangs_nor_is_lost(tmp_path: Path) -> None:
    redaction = Redaction(tmp_path, known=["a-known-value-of-mine"])
    hostile = (
        "@" * 20_000, "password=" * 5_000, "a." * 20_000 + "@b." * 5_000, "://" * 10_000 + "@", "eyJ" + "a" * 50_000 + "." * 5_000,
        "-----BEGIN RSA PRIVATE KEY-----" * 200, "%41" * 20_000, "\\u0041" * 10_000, "4 " * 20_000, "\n" * 50_000, "İ" * 10_000,
        "\ud800 password=hunter2hunter2", "A" * 100_000, "Bearer " * 10_000, "cookie: a=" * 5_000, '"' * 50_000, "+1" * 20_000,
        "A" * 2_000 + "!\n-----END PRIVATE KEY-----", '{"a": "a line\\n"} ' * 10_000, "a%s" * 30_000, "a &b c " * 20_000,
    )  # fmt: skip
    for text in hostile:
        started = time.perf_counter()
        assert redaction.restore(redaction.redact(text)) == text
        assert time.perf_counter() - started < 5, text[:40]


@pytest.mark.slow
def test_whatever_is_redacted_comes_back(tmp_path: Path) -> None:
    redaction = Redaction(tmp_path, known=["a-known-value-of-mine"])
    pieces = [*SECRETS, *IN_CONTEXT, *EVIDENCE, "\n", " ", '"', "\\n", "%40", "=", "a-known-value-of-mine", "ü", "[", "]", ":"]
    dice = random.Random(7)
    for _ in range(400):
        text = "".join(dice.choice(pieces) for _ in range(dice.randrange(1, 12)))
        redacted = redaction.redact(text)
        assert redaction.restore(redacted) == text
        assert redaction.restore(redaction.redact(redacted)) == text


def test_every_format_of_the_library_is_taken_or_left_out_for_a_reason() -> None:
    """An upgrade that brings a new format must be decided on."""
    plugins = importlib.import_module("detect_secrets.plugins")
    base = importlib.import_module("detect_secrets.plugins.base").RegexBasedDetector
    found = set()
    for info in pkgutil.iter_modules(plugins.__path__):
        module = importlib.import_module(f"detect_secrets.plugins.{info.name}")
        classes = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, base)]
        found |= {value.__name__ for value in classes if value is not base}
    assert found == set(TAKEN) | set(LEFT_OUT)


def sample(lines: int) -> str:
    """Logs as services write them."""
    text = []
    for n in range(lines):
        short, long = sha1(str(n).encode()).hexdigest(), sha256(str(n).encode()).hexdigest()
        text += [
            f"2026-11-20T12:00:{n % 60:02}.{n % 1000:03}Z INFO web request_id={uuid.UUID(short[:32])} status=200 ms={n % 977} /orders/{n}",
            f'{{"ts":"2026-11-20T12:00:{n % 60:02}Z","level":"error","msg":"KeyError: price","commit":"{short}","cache_key":"{long}"}}',
            f'10.1.2.{n % 255} - - [20/Nov/2026:12:00:{n % 60:02} +0000] "GET /static/app.{short[:8]}.js HTTP/1.1" 200 {n * 7}',
        ]
    return "\n".join(text)


def test_logs_pass_fast_enough_and_untouched(tmp_path: Path) -> None:
    """At least 5 MB/s are asked for on a machine of its own; the bound here leaves room for a busy one."""
    redaction = Redaction(tmp_path)
    redaction.redact("imports what it needs")
    text = sample(2_000)
    started = time.process_time()
    assert redaction.redact(text) == text
    speed = len(text) / 1e6 / (time.process_time() - started)
    print(f"{speed:.1f} MB/s of processor time")
    assert speed > 1.5
