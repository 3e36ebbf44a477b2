"""Journal entries as items for people: what the agent did, each short, with more on request. It renders no HTML."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from agent.core.data import Data
from agent.core.journal import Entry

SHOWN = 6000
"""Characters of one text on a page; the API has the rest."""

TITLE = 200
OWN_ENTRY = ("finding", "query", "ask", "report", "propose", "delegate")
"""Calls that leave an entry of their own, or an error; showing the call as well would say it twice."""


class Item(Data):
    """One line of the timeline. text is always seen, more is folded away. tone: plain, thought, call, good, bad or quiet."""

    seq: int
    at: datetime
    label: str
    title: str
    text: str = ""
    more: str = ""
    link: str = ""
    tone: str = "plain"


def item(entry: Entry) -> list[Item]:
    """What a page shows of an entry: usually one item, several for a reply with calls, none for bookkeeping."""
    show = SHOW.get(entry.kind, _none)
    return [Item(seq=entry.seq, at=entry.at, **fields) for fields in show(entry.data)]


def cut(text: str, limit: int = SHOWN) -> str:
    """A text of at most `limit` characters, with both ends and a word on what is missing."""
    if len(text) <= limit:
        return text
    return f"{text[: limit * 2 // 3]}\n[… {len(text) - limit} characters more in the API]\n{text[-limit // 3 :]}"


def line(text: str, limit: int = TITLE) -> str:
    """A text on one line."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


Fields = list[dict[str, Any]]


def _head(data: dict[str, Any]) -> Fields:
    if data.get("epoch", 1) == 1:
        return [{"label": "model", "title": "The investigation began", "tone": "quiet", "more": cut(_texts_of(data))}]
    return [{"label": "model", "title": f"The history was shortened (epoch {data['epoch']})", "tone": "quiet"}]


def _texts_of(data: dict[str, Any]) -> str:
    return "\n\n".join(_text(message) for message in data.get("messages", ()))


def _text(message: dict[str, Any]) -> str:
    return "\n".join(str(block["text"]) for block in message.get("blocks", ()) if block.get("type") == "text")


def _message(data: dict[str, Any]) -> Fields:
    text = _text(data.get("message", {}))
    by = str(data.get("by", ""))
    title = {"inbox": "A message arrived", "finish": "The report was sent back"}.get(by, f"A note of {by}")
    if by in ("inbox", "finish"):
        return [{"label": by, "title": title, "text": cut(text)}]
    return [{"label": by, "title": title, "more": cut(text), "tone": "quiet"}]


def _reply(data: dict[str, Any]) -> Fields:
    message = data.get("message", {})
    fields: Fields = []
    if text := _text(message).strip():
        fields.append({"label": "thinks", "title": "", "text": cut(text), "tone": "thought"})
    for block in message.get("blocks", ()):
        if block.get("type") == "tool_call":
            arguments = block.get("arguments", {})
            if block.get("name") in OWN_ENTRY:
                continue
            first = max((str(value) for value in arguments.values()), key=len, default=block.get("malformed") or "")
            fields.append(
                {
                    "label": block.get("name", "call"),
                    "title": line(first),
                    "more": cut(_arguments(arguments)) if len(first) > TITLE or len(arguments) > 1 else "",
                    "tone": "call",
                }
            )
    return fields


def _arguments(arguments: dict[str, Any]) -> str:
    return "\n".join(f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in arguments.items())


def _result(data: dict[str, Any]) -> Fields:
    result = data.get("result", {})
    content = str(result.get("content", ""))
    bad = bool(result.get("is_error"))
    first = next((text for text in content.splitlines() if text.strip()), "no output")
    lines = content.count("\n") + 1
    title = line(first, 120) if lines < 2 else f"{line(first, 120)}  · {lines} lines"
    return [{"label": "error" if bad else "result", "title": title, "more": cut(content), "tone": "bad" if bad else "quiet"}]


def _finding(data: dict[str, Any]) -> Fields:
    text = "\n".join(filter(None, (str(data.get("quote", "")), str(data.get("hypothesis", "")))))
    return [
        {
            "label": "finding",
            "title": line(str(data.get("claim", "")), 400),
            "text": line(str(data.get("source", ""))),
            "tone": "good",
        }
        | ({"more": cut(text)} if text else {})
    ]


def _query(data: dict[str, Any]) -> Fields:
    window = f"{data.get('start', '')} to {data.get('end', '')}"
    title = f"{data.get('connector', '')}: {line(str(data.get('query', data.get('text', ''))))}"
    return [{"label": "query", "title": title, "text": window, "link": str(data.get("link", "")), "tone": "call"}]


def _desk(data: dict[str, Any]) -> Fields:
    names = [str(repository.get("name", "")) for repository in data.get("repositories", ())]
    title = f"Repositories on the desk: {', '.join(names) or 'none'}"
    return [{"label": "desk", "title": line(title), "more": cut("\n".join(map(str, data.get("notes", ())))), "tone": "quiet"}]


def _said(label: str, title: str, key: str, tone: str = "plain") -> Callable[[dict[str, Any]], Fields]:
    def show(data: dict[str, Any]) -> Fields:
        return [{"label": label, "title": title, "text": cut(str(data.get(key, ""))), "tone": tone}]

    return show


def _error(data: dict[str, Any]) -> Fields:
    return [
        {"label": "error", "title": line(str(data.get("problem", ""))), "text": cut(str(data.get("hint", ""))), "tone": "bad"}
    ]


def _child(data: dict[str, Any]) -> Fields:
    """What a side investigation did, with its name on it."""
    child, of = str(data.get("child", "")), str(data.get("of", ""))
    if of == "plan":
        texts = "\n".join(f"{number}. {text}" for number, text in enumerate(data.get("hypotheses", ()), 1))
        return [{"label": "delegates", "title": "Hypotheses are investigated side by side", "text": cut(texts)}]
    if of == "head" and "shared" in data:
        return [{"label": child, "title": "A side investigation began", "more": cut(_texts_of(data)), "tone": "quiet"}]
    if of == "ended":
        tone = "bad" if data.get("verdict") == "failed" else "good"
        return [
            {"label": child, "title": line(str(data.get("verdict", ""))), "text": cut(str(data.get("text", ""))), "tone": tone}
        ]
    return [{**fields, "label": f"{child} {fields['label']}"} for fields in SHOW.get(of, _none)(data)]


def _none(data: dict[str, Any]) -> Fields:
    return []


SHOW: dict[str, Callable[[dict[str, Any]], Fields]] = {
    "child": _child,
    "head": _head,
    "message": _message,
    "reply": _reply,
    "result": _result,
    "finding": _finding,
    "query": _query,
    "desk": _desk,
    "question": _said("asks", "A question to the engineer", "question", "good"),
    "handover": _said("model", "The embedded investigator takes over", "why", "bad"),
    "fallback": _said("model", "Another model goes on", "why", "bad"),
    "parked": _said("model", "The provider is away; it goes on by itself", "why", "bad"),
    "interim": _said("meanwhile", "What the embedded investigator has", "text", "good"),
    "discarded": _said("engineer", "A reply was interrupted", "text", "quiet"),
    "proposal": _said("proposes", "A change was staged", "title", "good"),
    "report": _said("report", "The report was written", "", "good"),
    "error": _error,
}
"""What is shown of each kind; the kinds that are not here are bookkeeping."""
