"""Who may come in: a bearer token, a password, a browser's session, a signed delivery, or, where no token is configured, this
machine alone. It decides; it stores nothing and has no users.

A token goes in `Authorization: Bearer TOKEN`, or as the password of `Authorization: Basic` with any name, for senders that know
only that, or, for alerts alone, in `?token=`. The login page makes a cookie of it. Secrets are compared in constant time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from fastapi import Request

from agent.config import ServerSettings
from agent.core.data import Data
from agent.core.errors import AgentError, ConfigError

COOKIE = "sre_agent_session"
SESSION_SECONDS = 12 * 3600
CLOCK_SECONDS = 300
"""How old a signed timestamp may be."""

SIGNATURES = {
    "pagerduty": ("x-pagerduty-signature", "v1="),
    "grafana": ("x-grafana-alerting-signature", ""),
    "sentry": ("sentry-hook-signature", ""),
}
"""Where a source puts HMAC-SHA256(secret, body) in hexadecimal, and what stands before it."""

ANY_SIGNATURE = ("x-hub-signature-256", "sha256=")
"""Where everybody else puts it: GitHub's header, which many tools can send."""

GRAFANA_TIMESTAMP = "x-grafana-alerting-timestamp"


class Refused(AgentError):
    """The request is not let in. `status` is 401 where other credentials may help, 403 where none will."""

    def __init__(self, problem: str, hint: str, status: int = 401) -> None:
        super().__init__(problem, hint)
        self.status = status


class Caller(Data):
    """Who asks. `name` is for logs and as the author of what they say."""

    name: str


class Guard:
    """Lets requests in or raises Refused. Raises ConfigError where the configuration would leave a door open to the network."""

    def __init__(self, settings: ServerSettings) -> None:
        if not settings.tokens and not is_loopback(settings.host):
            raise ConfigError(
                f"server.host is {settings.host!r}, which others can reach, and server.tokens is empty",
                "Set a token (server.tokens, or SRE_AGENT_TOKEN in the environment), or bind 127.0.0.1.",
            )
        if any(not token.strip() for token in settings.tokens) or any(not secret for secret in settings.hmac.values()):
            raise ConfigError("server.tokens and server.hmac must not hold an empty secret", "Remove it, or give it a value.")
        self._tokens = tuple(token.encode() for token in settings.tokens)
        self._secrets = {source: secret.encode() for source, secret in settings.hmac.items()}

    async def enter(self, request: Request) -> Caller:
        """Who asks, for everything but alerts. Raises Refused."""
        if not self._tokens:
            return self._neighbour(request)
        caller = self._by_token(request, in_query=False) or self._by_session(request)
        if caller is None:
            raise Refused(
                "no valid token came with the request", "Send `Authorization: Bearer TOKEN`, or open /login in a browser."
            )
        return caller

    def sender(self, request: Request, source: str) -> Caller | None:
        """Who sends an alert, as far as can be told without its body; None where its signature has to be checked."""
        caller = self._by_token(request, in_query=True)
        if caller is not None:
            return caller
        if source in self._secrets:
            return None
        if not self._tokens:
            return self._neighbour(request)
        raise Refused(
            "no valid token came with the alert",
            "Send `Authorization: Bearer TOKEN` (Alertmanager: http_config.authorization), or Basic with the token as password, "
            f"or sign the body (server.hmac.{source}).",
        )

    def signed(self, source: str, headers: Mapping[str, str], body: bytes) -> Caller:
        """Checks the signature of a delivery. Raises Refused."""
        header, prefix = SIGNATURES.get(source, ANY_SIGNATURE)
        given = [part.strip() for part in headers.get(header, "").split(",")]
        signatures = [part.removeprefix(prefix).lower() for part in given if part.startswith(prefix) and len(part) > len(prefix)]
        if not signatures:
            raise Refused(f"{source}: the delivery is not signed ({header} is missing)", f"Configure the secret at {source}.")
        content = self._stamped(headers, body) if source == "grafana" else body
        expected = hmac.new(self._secrets[source], content, hashlib.sha256).hexdigest().encode()
        valid = [hmac.compare_digest(signature.encode(), expected) for signature in signatures]
        if not any(valid):
            raise Refused(
                f"{source}: the signature in {header} does not fit the body",
                f"server.hmac.{source} and the secret configured at {source} differ, or something on the way changed the body.",
            )
        return Caller(name=source)

    def checks_signature(self, source: str, headers: Mapping[str, str]) -> bool:
        """Whether a delivery claims to be signed and there is a secret to check it with."""
        return source in self._secrets and SIGNATURES.get(source, ANY_SIGNATURE)[0] in headers

    def session(self, token: str) -> str | None:
        """A cookie's value for a browser that knows a token; None if it does not."""
        for known in self._tokens:
            if hmac.compare_digest(token.strip().encode(), known):
                expires = str(int(time.time()) + SESSION_SECONDS)
                return f"{expires}.{_seal(known, expires)}"
        return None

    @property
    def asks(self) -> bool:
        """Whether there are tokens at all."""
        return bool(self._tokens)

    def _by_token(self, request: Request, *, in_query: bool) -> Caller | None:
        given = _credentials(request.headers.get("authorization", ""))
        if given is None and in_query:
            given = request.query_params.get("token")
        if given is None:
            return None
        matches = [hmac.compare_digest(given.encode(), token) for token in self._tokens]
        if not any(matches):
            if self._tokens:
                raise Refused("the token that came with the request is not valid", "Compare it with server.tokens.")
            return None
        return Caller(name=f"token {matches.index(True) + 1}")

    def _by_session(self, request: Request) -> Caller | None:
        expires, _, seal = request.cookies.get(COOKIE, "").partition(".")
        if not re.fullmatch(r"\d{1,12}", expires) or int(expires) < time.time():
            return None
        matches = [hmac.compare_digest(seal.encode(), _seal(token, expires).encode()) for token in self._tokens]
        if not any(matches):
            return None
        _same_origin(request)
        return Caller(name="browser")

    def _neighbour(self, request: Request) -> Caller:
        """Somebody on this machine who speaks to it directly: no proxy, no page of another site."""
        hint = "Set a token (server.tokens or SRE_AGENT_TOKEN) to let others in."
        if request.client is not None and not is_loopback(request.client.host):
            raise Refused("without a token only this machine may ask", hint, 403)
        if any(name in request.headers for name in ("x-forwarded-for", "forwarded", "x-real-ip")):
            raise Refused("the request came through a proxy, and there is no token", hint, 403)
        if not is_loopback(urlsplit(f"//{request.headers.get('host', '')}").hostname or ""):
            raise Refused("the request names another host than this machine, and there is no token", hint, 403)
        _same_origin(request)
        return Caller(name="local")

    @staticmethod
    def _stamped(headers: Mapping[str, str], body: bytes) -> bytes:
        """What Grafana signs: the body, after a timestamp where one is configured."""
        stamp = headers.get(GRAFANA_TIMESTAMP)
        if stamp is None:
            return body
        if not stamp.isdigit() or abs(time.time() - int(stamp)) > CLOCK_SECONDS:
            raise Refused(f"grafana: {GRAFANA_TIMESTAMP} is more than 5 minutes off", "A replay, or a clock is wrong.")
        return f"{stamp}:".encode() + body


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _same_origin(request: Request) -> None:
    """Refuses what a page of another site makes a browser send."""
    if request.method in ("GET", "HEAD"):
        return
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site") or (
        origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    ):
        raise Refused("the request comes from a page of another site", "Use this service's own pages, or a token.", 403)


def _credentials(header: str) -> str | None:
    """The token in an Authorization header; None if there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _seal(token: bytes, expires: str) -> str:
    return hmac.new(token, f"session:{expires}".encode(), hashlib.sha256).hexdigest()
