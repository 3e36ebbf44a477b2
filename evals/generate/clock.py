"""Shown time: a short real run is told as a long one. Nothing else knows that time is stretched."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from agent.core.data import Data

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Clock(Data):
    """Real second `real` is shown as `shown`, and each real second after it as `factor` seconds. Durations are not stretched."""

    real: float
    shown: datetime
    factor: float

    def at(self, real: float) -> datetime:
        """The shown time of a real one (seconds since 1970)."""
        return self.shown + timedelta(seconds=(real - self.real) * self.factor)

    def wait(self, shown: timedelta) -> None:
        """Sleeps until that much shown time has passed since the beginning."""
        time.sleep(max(0.0, self.real + shown.total_seconds() / self.factor - time.time()))

    def text(self, line: str) -> str:
        """A line with the times in it as they are shown."""
        return STAMP.sub(lambda found: rfc(self.at(datetime.fromisoformat(found[0]).timestamp())), line)


def rfc(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
