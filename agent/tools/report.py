"""The last call of an investigation: the root-cause report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from agent.core.errors import ToolError
from agent.core.finish import Finish
from agent.core.model import ToolSpec
from agent.core.report import Conclusion
from agent.core.tool import Tool

DESCRIPTION = """End the investigation with its report. The host checks every piece of evidence and re-runs every check; what it
cannot verify is sent back to you once. `summary` is what the on-call engineer reads first: two or three sentences."""

BY_HOST = {"Evidence": ("sha256", "verified", "problem"), "Check": ("discriminates", "outcome")}


def report() -> Tool:
    """The tool. Its arguments are a Conclusion, less what only the host may set."""
    schema = Conclusion.model_json_schema()
    schema.pop("title", None)
    schema.pop("description", None)
    for name, fields in BY_HOST.items():
        for field in fields:
            schema["$defs"][name]["properties"].pop(field)

    async def run(arguments: Mapping[str, Any]) -> str:
        try:
            conclusion = Conclusion.model_validate(dict(arguments))
        except ValidationError as error:
            wrong = "\n".join(f"- {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:20])
            raise ToolError(f"report: the arguments do not fit:\n{wrong}", "Call `report` again, corrected.") from error
        raise Finish(_as_claimed(conclusion).model_dump(mode="json", by_alias=True))

    return Tool(spec=ToolSpec(name="report", description=DESCRIPTION, parameters=schema), run=run, repeatable=True)


def _as_claimed(conclusion: Conclusion) -> Conclusion:
    """The conclusion with everything that only the host may say taken out."""
    blank = {"sha256": "", "verified": False, "problem": ""}
    evidence = tuple(item.model_copy(update=blank) for item in conclusion.evidence)
    checks = tuple(check.model_copy(update={"discriminates": False, "outcome": ""}) for check in conclusion.checks)
    return conclusion.model_copy(update={"evidence": evidence, "checks": checks})
