"""A local HTTP server that speaks the Anthropic Messages and the OpenAI Responses API as the real ones do, refusals and all.

It answers by script, refuses what the providers refuse, streams in their event order, accounts for cache reads and writes by
their rules, and injects faults. Its token is four bytes of JSON. It is no model and knows nothing of the agent.
"""

from tests.provider.script import Asked, Call, Fault, Script, Turn
from tests.provider.server import Provider, serve

__all__ = ["Asked", "Call", "Fault", "Provider", "Script", "Turn", "serve"]
