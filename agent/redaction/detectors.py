"""The token formats that detect-secrets knows, as patterns of ours. Its own engine is not used.

Measured on 1 MB of logs: its scan of a line runs at 0.1 MB/s and takes every git sha for a secret (7,000 hits), because of its
entropy and keyword plugins; its formats alone are exact. The fork bc-detect-secrets is the one that is released every month; the
original's last release is from May 2024. Formats are matched over the whole text, behind a literal that each of them contains.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

TAKEN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # class: (module, kind, literals in lower case, one of which every match contains)
    "ArtifactoryDetector": ("artifactory", "artifactory-token", ("akc", "artif", "jfrog", "buildkit")),
    "AWSKeyDetector": ("aws", "aws-key", ("akia", "asia", "abia", "acca", "a3t", "aws")),
    "CloudantDetector": ("cloudant", "cloudant-key", ("cloudant",)),
    "DiscordBotTokenDetector": ("discord", "discord-token", ("discord",)),
    "GitHubTokenDetector": ("github_token", "github-token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_")),
    "IbmCloudIamDetector": ("ibm_cloud_iam", "ibm-key", ("ibm",)),
    "IbmCosHmacDetector": ("ibm_cos_hmac", "ibm-key", ("ibm",)),
    "JwtTokenDetector": ("jwt", "jwt", ("eyj",)),
    "MailchimpDetector": ("mailchimp", "mailchimp-key", ("-us",)),
    "NpmDetector": ("npm", "npm-token", ("npm_", "npm token", "npm-token", "_authtoken")),
    "SendGridDetector": ("sendgrid", "sendgrid-key", ("sg.",)),
    "SlackDetector": ("slack", "slack-token", ("xox", "hooks.slack.com")),
    "SoftlayerDetector": ("softlayer", "softlayer-key", ("softlayer",)),
    "SquareOAuthDetector": ("square_oauth", "square-token", ("sq0csp",)),
    "StripeDetector": ("stripe", "stripe-key", ("k_live_",)),
}
LEFT_OUT = {
    "BasicAuthDetector": "misses a password that holds special characters; ours does not",
    "AzureStorageKeyDetector": "takes any 86 characters of base64, as in lock files; ours wants AccountKey",
    "PrivateKeyDetector": "stops at the first line; ours takes the block",
    "TwilioKeyDetector": "takes AC and any 32 characters; account ids are no secrets",
}


REACH = 400
"""How far from its literal a format may lie, in characters."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format: its kind, its expression, and the literals that make trying it worth while."""

    kind: str
    regex: re.Pattern[str]
    literals: tuple[str, ...]

    def find(self, text: str, low: str) -> Iterator[tuple[int, int, str]]:
        """The spans of this format, looked for around its literals in the lower-cased text."""
        for left, right in self._windows(low):
            for match in self.regex.finditer(text, left, right):
                group = next((number for number in range(1, self.regex.groups + 1) if match[number]), 0)
                span = match.span(group) if len(match[group]) > 6 else match.span()
                yield *span, f"secret:{self.kind}"

    def _windows(self, low: str) -> Iterator[tuple[int, int]]:
        hits = sorted(match.start() for literal in self.literals for match in re.finditer(re.escape(literal), low))
        done = 0
        for hit in hits:
            if hit >= done:
                left, done = max(done, hit - REACH), hit + REACH
                yield left, done


def formats() -> tuple[Format, ...]:
    """All formats that are taken. The library is imported here, late: it costs 0.3 s."""
    from detect_secrets import plugins

    found = []
    for name, (module, kind, literals) in TAKEN.items():
        detector = getattr(importlib.import_module(f"{plugins.__name__}.{module}"), name)
        found += [Format(kind=kind, regex=regex, literals=literals) for regex in detector.denylist]
    return tuple(found)
