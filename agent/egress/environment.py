"""How programs inside find the door: the variables that they read, and where the certificates are that they must trust."""

from __future__ import annotations

from pathlib import Path

PORT = 3128
"""Where the door is inside, on 127.0.0.1."""

BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
"""The system's bundle of certificates, on Debian and its relatives."""

INSIDE = "/run/egress/ca-certificates.crt"
"""The system's bundle with the door's own authority, in every sandbox that has a door."""

_TRUST = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
)


def environment() -> dict[str, str]:
    """The variables. What talks to itself on loopback is not sent through the door."""
    door = f"http://127.0.0.1:{PORT}"
    proxies = {name: door for lower in ("http_proxy", "https_proxy", "all_proxy") for name in (lower, lower.upper())}
    direct = dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1")
    trust = dict.fromkeys(_TRUST, INSIDE)
    pip = {"PIP_BREAK_SYSTEM_PACKAGES": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"}
    return {**proxies, **direct, **trust, **pip}
