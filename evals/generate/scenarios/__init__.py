"""The menu of incidents: what goes wrong, one function for each kind.

Each says what is guilty, what only looks so, and what is alerted. Texts of alerts and names of folders do not hint at the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from agent.evals.generate.scenario import Scenario
from agent.evals.generate.scenarios.circumstances import configuration, external, flag, traffic, unsound_alert
from agent.evals.generate.scenarios.commits import exception, latency, leak, two_causes, victim, wrong_result
from agent.evals.generate.scenarios.upgrades import dependency

KINDS: dict[str, Callable[[Random], Scenario]] = {
    "exception": exception,
    "latency": latency,
    "wrong_result": wrong_result,
    "leak": leak,
    "configuration": configuration,
    "flag": flag,
    "dependency": dependency,
    "two_causes": two_causes,
    "victim": victim,
    "traffic": traffic,
    "external": external,
    "unsound_alert": unsound_alert,
}
