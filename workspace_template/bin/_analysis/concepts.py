"""What code is about when a symptom speaks of something: from words of users and operators to words of programmers.

General to the field, of no one system: an answer 301 is about redirects, garbled text about charsets, uploads about forms.
"""

from __future__ import annotations

import re

CONCEPTS: tuple[tuple[str, str], ...] = (
    (
        r"garbl|mojibake|undecod|charset|unreadable|\bencoding|unicode|looks? wrong",
        "charset encoding decode codec unicode detect",
    ),
    (
        r"cannot be read|unexpected token|unexpected end|binary data|not valid json",
        "decode decompress gzip encoding content json",
    ),
    (r"round(?:ed|ing)|precision|decimal|digits|cents", "float round decimal precision format fmt quantize"),
    (
        r"file descriptor|too many open files|open_fds|sockets?\b|connections?[ _](?:leak|in.use)|too many connections",
        "close connection pool release socket disconnect dispose",
    ),
    (r"\brss\b|out of memory|\boom|heap|memory", "cache lru maxsize weakref evict clear references"),
    (r"hang|stuck|heartbeat|full cpu|100 ?%|abandoned|spinning", "regex loop search match lock wait"),
    (r"upload|multipart|attachment", "multipart form file boundary chunk stream body buffer"),
    (r"download|streaming", "stream chunk body buffer"),
    (r"log ?ins?\b|sign.?in|session|unauthori[sz]ed|token", "auth token claim verify session cookie expire subject"),
    (r"queue|backlog|waiting", "queue active waiting slot release pending"),
    (r"render|page\b|pages\b|template", "template render cache loader"),
    (r"\blinks?\b|\burls?\b|host ?name", "url host authority parse path"),
    (r"\bfetch|\bfeeds?\b|crawl|scrap|poll", "client request response redirect connection"),
    (r"does not start|failed to (?:boot|start)|crash.?loop|cannot boot", "import module removed deprecated"),
    (r"duplicate|twice|double", "retry dedupe idempotent once"),
    (r"time ?zone|hour off|wrong hour|\bdst\b|utc", "timezone tz utc offset local"),
    (r"wrong order|sorted|out of order", "sort order key"),
    (r"boolean|true|false", "bool convert true"),
    (r"certificate|handshake|\bssl\b|\btls\b", "tls ssl verify cert context cipher version"),
    (r"truncat|cut off|incomplete", "limit length slice truncate max"),
    (r"stale|outdated|old data", "cache ttl expire invalidate"),
    (r"\bsql\b|query|queries", "parse token statement query"),
    (r"too large|too big|entity", "limit size length max memory body form"),
    (
        r"signature|checksum|digest|hmac|hash(?:es)? differ",
        "sign digest hmac hash encode dumps serialize separators sort body bytes",
    ),
    (
        r"(?:no|without|missing|unknown|relative|absolute) (?:a )?(?:host|url|address|domain|path)|\bhops?\b|\bforward",
        "location redirect absolute url host join",
    ),
    (r"no (?:samples|series|data ?points)|\babsent\b|scrape", "name suffix label sample metric total expose prefix"),
    (r"negative|below zero|out of bounds|not positive|must be positive", "validate validator range min bound check false"),
    (r"mismatch|differs?\b|not equal|unlike|discrepan", "format serialize encode sort order round separator default"),
    (r"hit[_ ]?r?ati|cach(?:e|ing)|\bmisses\b", "cache vary etag header cookie key expire control"),
    (
        r"\b0 (?:items|rows|entries|results|lines)|nothing (?:found|parsed)|\bempty\b",
        "follow redirect filter strip parse skip default",
    ),
    (r"escap|&(?:lt|gt|amp|quot)|markup|\bhtml\b|tags?\b shown", "escape autoescape markup safe html quote"),
    (r"\bdates?\b|\bmonth|\byears?\b|calendar|leap", "date day month year parse format calendar"),
    (r"header", "header name value case join split parse"),
    (r"retr(?:y|ies)|attempts? exhausted|gave up", "retry attempt backoff total status allowed"),
)
STATUS: tuple[tuple[str, str], ...] = (
    (r"3xx|30[12378]", "redirect location follow history"),
    (r"400", "invalid parse header malformed validate"),
    (r"40[13]", "auth token verify claim signature permission"),
    (r"404", "route path rule match slash"),
    (r"405", "method allow"),
    (r"408|504", "timeout deadline"),
    (r"409", "conflict lock version"),
    (r"41[13]", "length size limit memory max body form parts"),
    (r"414|431", "header line length limit"),
    (r"415|406", "content type accept encoding mimetype"),
    (r"422", "validate schema field"),
    (r"429", "limit rate throttle retry"),
    (r"503", "pool capacity retry limit"),
)
PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), brought.split()) for pattern, brought in CONCEPTS)
ANSWERS = tuple(
    (
        re.compile(
            rf"(?:http|status|code|answers?|answered|returned|got|responses?|->|[:=\"_])[\s_\"]*(?:{code})(?:\b|_)", re.IGNORECASE
        ),
        brought.split(),
    )
    for code, brought in STATUS
)


REFUSED = re.compile(r"(?i)reject|refus|invalid|denied|turned_away|blocked|validation|4xx|failed_checks")
"""What, if there is less of it, is mostly no longer looked for."""


def related(text: str) -> set[str]:
    """Words that the code behind such a symptom is likely to have."""
    found = {word for pattern, brought in (*PATTERNS, *ANSWERS) if pattern.search(text) for word in brought}
    if text.rstrip().endswith(" falls") and REFUSED.search(text):
        found |= {"validate", "validator", "check", "strict", "reject", "invalid"}
    return found
