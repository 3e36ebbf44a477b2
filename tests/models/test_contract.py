"""The contract of a language model, on every model there is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from agent.core.model import Model
from agent.models import model as build
from agent.models.scripted import ScriptedModel
from agent.models.scripted import Turn as Scripted
from tests.contracts.model import SECRET, Direct, DirectedContract, ModelContract
from tests.models.rig import Api, Rig, rigged
from tests.provider import Asked, Call, Fault, Script, Turn

TALKATIVE = [Scripted.model_validate({"text": "Hm.", "calls": [{"name": "bash"}, {"name": "note"}]})] * 20


class TestScripted(DirectedContract):
    @pytest.fixture
    async def model(self) -> Model:
        return ScriptedModel(TALKATIVE, window=1_000_000)

    @pytest.fixture
    def direct(self, model: Model) -> Direct:
        assert isinstance(model, ScriptedModel)

        def direct(turns: Sequence[Scripted]) -> None:
            model.script = list(turns)

        return direct


class TestAnthropic(DirectedContract):
    api: Api = "anthropic"

    @pytest.fixture
    async def rig(self) -> AsyncIterator[Rig]:
        async with rigged(self.api, key=SECRET, script=talk, window=1_000_000) as rig:
            yield rig
            assert rig.provider.refused == []

    @pytest.fixture
    async def model(self, rig: Rig) -> Model:
        return rig.model()

    @pytest.fixture
    def direct(self, rig: Rig) -> Direct:
        def direct(turns: Sequence[Scripted]) -> None:
            rig.provider.script = directed(self.api, turns, rig.provider.number)

        return direct


class TestOpenAI(TestAnthropic):
    api: Api = "openai"


class TestStatistical(ModelContract):
    @pytest.fixture
    async def model(self) -> Model:
        return build("statistical")


def talk(asked: Asked) -> Turn:
    return Turn(text="Hm.", thinking="What now?", calls=[Call(name="bash", arguments={"command": "ls"}), Call(name="note")])


def directed(api: Api, turns: Sequence[Scripted], first: int) -> Script:
    """The n-th turn for the n-th request from now on; the last one again for any after it."""
    steps = [_step(api, turn) for turn in turns]
    return lambda asked: steps[min(asked.number - first, len(steps) - 1)]


def _step(api: Api, turn: Scripted) -> Turn | Fault:
    if turn.error == "unavailable":
        return Fault(status=529 if api == "anthropic" else 503)
    if turn.error == "refused":
        return Turn(text="no", stop="refusal") if api == "anthropic" else Fault(status=400, code="content_policy_violation")
    if turn.error == "too_long":
        if api == "anthropic":
            return Fault(status=400, message="prompt is too long: 200001 tokens > 200000 maximum")
        return Fault(status=400, code="context_length_exceeded")
    if turn.error == "final":
        return Fault(status=401, message=f"Incorrect API key provided: {SECRET}")
    calls = [Call(name=call.name, arguments=call.arguments, raw=call.malformed) for call in turn.calls]
    return Turn(text=turn.text, thinking="Let me see.", calls=calls, piece=7)
