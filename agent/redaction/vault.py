"""What each placeholder stands for: a file on this host that nobody else may read. It finds nothing and replaces nothing.

A placeholder is `[kind:digest]`, the digest an HMAC of the value under this installation's own key: the same value has the same
placeholder for good, and nobody can guess a value from it. The file is append-only, a JSON array a line, shared by processes.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from pathlib import Path

from agent.core.errors import ConfigError

PLACEHOLDER = re.compile(r"\[[a-z][a-z0-9-]*(?::[a-z0-9-]+)*:[0-9a-f]{6,64}\]")
DIGITS = 6


class Vault:
    """Placeholders and values. Safe to use from several threads and processes.

    Raises ConfigError where one of its files can be read by others.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._key = _key(folder / "redaction.key")
        self._file = folder / "redaction.map"
        self._read_to = 0
        self._values: dict[str, str] = {}
        self._placeholders: dict[str, str] = {}
        self._lock = threading.Lock()
        os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        _private(self._file)
        with self._lock:
            self._read()

    def placeholder(self, kind: str, value: str) -> str:
        """The placeholder of a value. A value keeps the first kind it was seen as."""
        with self._lock:
            if value not in self._placeholders:
                self._add(kind, value)
            return self._placeholders[value]

    def value(self, placeholder: str) -> str | None:
        """What a placeholder stands for, or None."""
        with self._lock:
            if placeholder not in self._values:
                self._read()
            return self._values.get(placeholder)

    def holds(self, placeholder: str) -> bool:
        """Whether this is one of ours, as far as this process knows."""
        return placeholder in self._values

    def _add(self, kind: str, value: str) -> None:
        with open(self._file, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read()
            if value in self._placeholders:
                return
            digest = hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
            length = DIGITS
            while (name := f"[{kind}:{digest[:length]}]") in self._values:
                length += 2
            end = file.seek(0, os.SEEK_END)
            if end and self._last_byte(file.fileno(), end) != b"\n":  # a line that was cut off by a crash
                file.write(b"\n")
            file.write(json.dumps([name, value]).encode("ascii") + b"\n")
            file.flush()
            os.fdatasync(file.fileno())
            self._read()

    @staticmethod
    def _last_byte(file: int, end: int) -> bytes:
        return os.pread(file, 1, end - 1)

    def _read(self) -> None:
        """Takes in what was appended since, by this process or another one. A broken line is passed over."""
        with open(self._file, "rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_to += len(line)
                try:
                    name, value = json.loads(line)
                except ValueError:
                    continue
                self._values[name] = value
                self._placeholders.setdefault(value, name)


def _key(path: Path) -> bytes:
    """The installation's key, made at first use. Two processes that begin at once agree on one."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    _private(path)
    key = path.read_bytes()
    if len(key) < 32:
        raise ConfigError(
            f"{path}: the key of the redaction is cut off ({len(key)} bytes)", "Restore it, or remove it and redaction.map."
        )
    return key


def _private(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} can be read by others; it holds what was redacted", f"Run: chmod 600 {path}")
