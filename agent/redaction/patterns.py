"""What counts as a secret or as personal data, as patterns over text. It replaces nothing.

Not patterns on purpose: commit ids, trace ids, uuids, digests, IP addresses and host names (they are evidence), names of people
(no pattern finds them), and phone numbers without a leading `+` (a run of digits in a log is nearly always something else).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.redaction.assignments import assigned, authorization, bearer, cookie

Span = tuple[int, int, str]
"""Start, end and kind: `secret:aws-key`, `email`."""

PREFIXES: dict[str, tuple[str, str]] = {
    # prefix: (kind, what follows it). https://docs.github.com/en/code-security/secret-scanning lists most of these formats.
    "sk-ant-": ("anthropic-key", r"[\w-]{16,}"),
    "sk-proj-": ("openai-key", r"[\w-]{16,}"),
    "sk-svcacct-": ("openai-key", r"[\w-]{16,}"),
    "sk-admin-": ("openai-key", r"[\w-]{16,}"),
    "sk-or-v1-": ("openrouter-key", r"[\w-]{16,}"),
    "sk-": ("openai-key", r"[A-Za-z0-9]{32,}"),
    "ghp_": ("github-token", r"\w{30,}"),
    "gho_": ("github-token", r"\w{30,}"),
    "ghu_": ("github-token", r"\w{30,}"),
    "ghs_": ("github-token", r"\w{30,}"),
    "ghr_": ("github-token", r"\w{30,}"),
    "github_pat_": ("github-token", r"\w{22,}"),
    "glpat-": ("gitlab-token", r"[\w.-]{20,}"),
    "gldt-": ("gitlab-token", r"[\w-]{20,}"),
    "glft-": ("gitlab-token", r"[\w-]{20,}"),
    "glsoat-": ("gitlab-token", r"[\w-]{20,}"),
    "glrt-": ("gitlab-token", r"[\w.-]{20,}"),
    "glptt-": ("gitlab-token", r"[\w-]{20,}"),
    "glcbt-": ("gitlab-token", r"[\w-]{20,}"),
    "glimt-": ("gitlab-token", r"[\w-]{20,}"),
    "glagent-": ("gitlab-token", r"[\w-]{40,}"),
    "gloas-": ("gitlab-token", r"[\w-]{40,}"),
    "xoxb-": ("slack-token", r"[\w-]{10,}"),
    "xoxp-": ("slack-token", r"[\w-]{10,}"),
    "xoxa-": ("slack-token", r"[\w-]{10,}"),
    "xoxo-": ("slack-token", r"[\w-]{10,}"),
    "xoxr-": ("slack-token", r"[\w-]{10,}"),
    "xoxs-": ("slack-token", r"[\w-]{10,}"),
    "xoxe-": ("slack-token", r"[\w-]{10,}"),
    "xoxe.": ("slack-token", r"[\w.-]{10,}"),
    "xapp-": ("slack-token", r"[\w-]{10,}"),
    "hooks.slack.com/": ("slack-webhook", r"(?:services|workflows|triggers)/[\w/-]{10,}"),
    "discord.com/api/webhooks/": ("discord-webhook", r"\d+/[\w-]{20,}"),
    "sk_live_": ("stripe-key", r"\w{10,}"),
    "sk_test_": ("stripe-key", r"\w{10,}"),
    "rk_live_": ("stripe-key", r"\w{10,}"),
    "rk_test_": ("stripe-key", r"\w{10,}"),
    "whsec_": ("stripe-key", r"[\w+/=]{16,}"),
    "akia": ("aws-key", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "asia": ("aws-key", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "abia": ("aws-key", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "acca": ("aws-key", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "aiza": ("gcp-key", r"[\w-]{35}"),
    "ya29.": ("gcp-token", r"[\w.-]{20,}"),
    "gocspx-": ("gcp-secret", r"[\w-]{20,}"),
    "accountkey=": ("azure-key", r"[A-Za-z0-9+/=]{40,}"),
    "sharedaccesskey=": ("azure-key", r"[A-Za-z0-9+/=]{40,}"),
    "sharedaccesssignature=": ("azure-key", r"[^\s;\"']{20,}"),
    "npm_": ("npm-token", r"[A-Za-z0-9]{30,}"),
    "pypi-ageichlwas5vcmc": ("pypi-token", r"[\w-]{40,}"),
    "pypi-agendgvzdc5wexbplm9yzw": ("pypi-token", r"[\w-]{40,}"),
    "dckr_pat_": ("docker-token", r"[\w-]{20,}"),
    "dop_v1_": ("digitalocean-token", r"[a-f0-9]{40,}"),
    "doo_v1_": ("digitalocean-token", r"[a-f0-9]{40,}"),
    "dor_v1_": ("digitalocean-token", r"[a-f0-9]{40,}"),
    "shpat_": ("shopify-token", r"\w{20,}"),
    "shpss_": ("shopify-token", r"\w{20,}"),
    "shppa_": ("shopify-token", r"\w{20,}"),
    "shpca_": ("shopify-token", r"\w{20,}"),
    "sg.": ("sendgrid-key", r"[\w-]{16,32}\.[\w-]{16,64}"),
    "xkeysib-": ("brevo-key", r"[\w-]{40,}"),
    "hf_": ("huggingface-token", r"[A-Za-z0-9]{30,}"),
    "gsk_": ("groq-key", r"[A-Za-z0-9]{40,}"),
    "pplx-": ("perplexity-key", r"[A-Za-z0-9]{40,}"),
    "xai-": ("xai-key", r"[A-Za-z0-9]{60,}"),
    "nvapi-": ("nvidia-key", r"[\w-]{40,}"),
    "dapi": ("databricks-token", r"[a-f0-9]{32}(?:-\d)?(?![A-Za-z0-9])"),
    "hvs.": ("vault-token", r"[\w-]{20,}"),
    "hvb.": ("vault-token", r"[\w-]{20,}"),
    "hvr.": ("vault-token", r"[\w-]{20,}"),
    "glsa_": ("grafana-token", r"[A-Za-z0-9_]{30,}"),
    "glc_": ("grafana-token", r"[A-Za-z0-9+/=]{30,}"),
    "nrak-": ("newrelic-key", r"[A-Z0-9]{20,}"),
    "sntrys_": ("sentry-token", r"[\w+/=.-]{20,}"),
    "sntryu_": ("sentry-token", r"[a-f0-9]{40,}"),
    "lin_api_": ("linear-key", r"[A-Za-z0-9]{30,}"),
    "dp.pt.": ("doppler-token", r"[A-Za-z0-9]{30,}"),
    "tskey-": ("tailscale-key", r"[\w-]{15,}"),
    "atatt3": ("atlassian-token", r"[\w=-]{50,}"),
    "pscale_tkn_": ("planetscale-token", r"[\w.=-]{20,}"),
    "pscale_pw_": ("planetscale-token", r"[\w.=-]{20,}"),
    "sbp_": ("supabase-token", r"[a-f0-9]{40}"),
    "figd_": ("figma-token", r"[\w-]{20,}"),
    "lsv2_pt_": ("langsmith-key", r"[\w-]{20,}"),
    "age-secret-key-1": ("age-key", r"[A-Z0-9]{50,}"),
    "sq0atp-": ("square-token", r"[\w-]{20,}"),
    "sq0csp-": ("square-token", r"[\w-]{20,}"),
    "eyj": ("jwt", r"[\w=-]{8,}\.[\w=-]{8,}(?:\.[\w=-]*){0,3}"),
}


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A pattern that is tried where one of its literals (in lower case) stands.

    find: given text, lower-cased text, start and end of the literal, the spans it finds there.
    """

    literals: tuple[str, ...]
    find: Callable[[str, str, int, int], Iterator[Span]]


def _prefixed(prefix: str, kind: str, rest: str) -> Anchor:
    exact = re.compile(f"(?:{rest})", re.ASCII)

    def find(text: str, low: str, start: int, end: int) -> Iterator[Span]:
        if start and text[start - 1].isalnum() and text[start - 2 : start] != "\\n":
            return
        if match := exact.match(text, end):
            yield start, _wrapped(text, start, match.end()), f"secret:{kind}"

    return Anchor(literals=(prefix,), find=find)


WRAPPED = re.compile(r"[\"']?\s?\+?\\?\r?\n[ \t>|\"']*([A-Za-z0-9+/=_-]{8,200})(?=[\s\"',;)]|$)")


def _wrapped(text: str, start: int, end: int) -> int:
    """Where a token ends that a terminal or a mailer broke over lines: the rest stands alone on the next line."""
    while end - text.rfind("\n", 0, start) > 60 and (match := WRAPPED.match(text, end)):
        rest = match[1]
        alone = text[match.end() : match.end() + 1] in ("", "\n", "\r", '"', "'")
        if not alone or not any(c.isdigit() for c in rest) or not any(c.isalpha() for c in rest):
            break
        start, end = match.start(1), match.end(1)
    return end


KEY_BLOCK = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
KEY_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----")
KEY_BODY = re.compile(
    r"(?:(?:\\+[nr]|[\s\"'+,>|])*(?:(?:Proc-Type|DEK-Info|Version|Comment|Hash): [^\r\n\\]*|[A-Za-z0-9+/=]{16,}))+"
)
KEY_TAIL = re.compile(
    r"(?<![A-Za-z0-9+/=])(?:[A-Za-z0-9+/=]{16,}+(?:\\+[nr]|[\s\"'+,>|])*+)++[A-Za-z0-9+/=]*+(?:\\+[nr]|[\s\"'+,>|])*+\Z"
)
"""Without a way back: a long line can be cut into pieces of sixteen letters in more ways than anybody can try."""


def _private_key(text: str, low: str, start: int, end: int) -> Iterator[Span]:
    """A whole block, one that was cut off, or the tail of one."""
    if begin := KEY_BLOCK.match(text, start):
        stop = KEY_END.search(text, begin.end(), begin.end() + 50_000)
        body = KEY_BODY.match(text, begin.end())
        if stop:
            yield start, stop.end(), "secret:private-key"
        elif body:
            yield start, body.end(), "secret:private-key"
    elif stop := KEY_END.match(text, start):
        head = max(0, start - 20_000)
        if tail := KEY_TAIL.search(text[head:start]):
            yield head + tail.start(), stop.end(), "secret:private-key"


LOCAL = re.compile(r"[A-Za-z0-9._%+-]{1,64}")
USERINFO = re.compile(r"://[^\s/?#]*\Z")
DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}([A-Za-z]{2,24})(?![A-Za-z0-9])")
NO_TOP_LEVEL = frozenset({  # units of systemd, files and code: `getty@tty1.service`, `logo@2x.png`
    "service", "socket", "timer", "mount", "target", "slice", "device", "scope", "swap", "path", "png", "jpg", "jpeg", "gif",
    "svg", "webp", "css", "js", "ts", "py", "go", "rs", "java", "kt", "rb", "json", "yaml", "yml", "md", "txt", "log", "lock",
    "html", "xml", "so",
})  # fmt: skip


def _email(text: str, low: str, start: int, end: int) -> Iterator[Span]:
    domain = DOMAIN.match(text, end)
    if not domain or domain[1].lower() in NO_TOP_LEVEL:
        return
    head = text[max(0, start - 64) : start][::-1]
    local = LOCAL.match(head)
    if not local:
        return
    name = local[0][::-1].lstrip("._%+-")
    begin = start - len(name)
    is_remote = name.lower() == "git" and text[domain.end() : domain.end() + 1] in (":", "/")  # git@host:owner/repository
    if name and not is_remote and not USERINFO.search(text, max(0, begin - 80), begin):
        yield begin, domain.end(), "email"


URL_PASSWORD = re.compile(r"://[^\s/:@\"'<>]{0,128}:(?P<secret>[^\s/\"'<>]{1,256})@(?=[\w.\[-])")


def _url_password(text: str, low: str, start: int, end: int) -> Iterator[Span]:
    match = URL_PASSWORD.match(text, start)
    if match and not re.fullmatch(r"\$?[{<%(].*|\*+|x{3,}|\$\w+", match["secret"]):
        yield *match.span("secret"), "secret:url-password"


SIGNATURE = re.compile(r"(?:sig|x-amz-signature|x-goog-signature)=([A-Za-z0-9%+/=_-]{20,})", re.IGNORECASE)


def _signature(text: str, low: str, start: int, end: int) -> Iterator[Span]:
    if (match := SIGNATURE.match(text, start + 1)) and text[start] in "?&":
        yield *match.span(1), "secret:url-signature"


AZURE_SECRET = re.compile(r"(?<![\w~.-])[\w~.]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])")


def _azure_secret(text: str, low: str, start: int, end: int) -> Iterator[Span]:
    if match := AZURE_SECRET.match(text, max(0, start - 4)):
        yield *match.span(), "secret:azure-secret"


PHONE = re.compile(r"\+[1-9](?:[ .()/-]{0,2}\d){7,14}(?![\w.:-]*\d)")


def _phone(text: str, low: str, start: int, end: int) -> Iterator[Span]:
    """`+` and a country code, with separators or at least not at the start of a line (an added line of a diff)."""
    match = PHONE.match(text, start)
    if not match or (start and (text[start - 1].isalnum() or text[start - 1] in "+.-/")):
        return
    at_line_start = not start or text[start - 1] == "\n"
    if not (at_line_start and match[0][1:].isdigit()):
        yield *match.span(), "phone"


SSN = re.compile(r"-(?!00)\d\d-(?!0000)\d{4}(?![\w-])", re.ASCII)
SSN_AREA = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}\Z", re.ASCII)
CARD = re.compile(r"\b[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|\.\d)", re.ASCII)
CARD_PREFIX = re.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}(?![A-Za-z0-9])", re.ASCII)
IBAN_LENGTHS = {
    # https://www.swift.com/standards/data-standards/iban-international-bank-account-number
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG DZ",
        25: "AO CV LY MZ PT ST", 26: "IS TR", 27: "FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


def luhn(digits: str) -> bool:
    """The check digit of ISO/IEC 7812-1."""
    doubled = [int(d) * (1 + index % 2) for index, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def iban_length(text: str) -> int | None:
    """How many characters at the beginning of `text` are an IBAN with right check digits (ISO 13616); None if none are."""
    length = IBAN_LENGTHS.get(text[:2])
    taken = [index for index, c in enumerate(text) if c != " "][: length or 0]
    if not length or len(taken) < length:
        return None
    compact = "".join(text[index] for index in taken)
    number = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return taken[-1] + 1 if int(number) % 97 == 1 else None


def numbers(text: str) -> Iterator[Span]:
    """Credit cards, bank accounts and social security numbers."""
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if text[match.start() - 1 : match.start()] not in (".", "-") and CARD_PREFIX.fullmatch(digits) and luhn(digits):
            yield *match.span(), "card"
    for match in IBAN.finditer(text):
        if (length := iban_length(match[0])) is not None:
            yield match.start(), match.start() + length, "iban"
    for match in SSN.finditer(text):
        if area := SSN_AREA.search(text, max(0, match.start() - 4), match.start()):
            yield area.start(), match.end(), "ssn"


ANCHORS: tuple[Anchor, ...] = (
    *(_prefixed(prefix, kind, rest) for prefix, (kind, rest) in PREFIXES.items()),
    Anchor(literals=("-----begin ", "-----end "), find=_private_key),
    Anchor(literals=("@",), find=_email),
    Anchor(literals=("://",), find=_url_password),
    Anchor(literals=("?sig=", "&sig=", "?x-amz-signature=", "&x-amz-signature=", "&x-goog-signature="), find=_signature),
    Anchor(literals=("q~",), find=_azure_secret),
    Anchor(literals=("+",), find=_phone),
    Anchor(literals=("pass", "pwd", "secret", "token", "key", "credential"), find=assigned),
    Anchor(literals=("authorization",), find=authorization),
    Anchor(literals=("bearer",), find=bearer),
    Anchor(literals=("cookie",), find=cookie),
)
