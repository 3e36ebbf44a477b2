"""Reports as people read them."""

from __future__ import annotations

from agent.core.report import Check, CommandSource, Evidence, Side, Suspect
from agent.markdown import _check, _evidence, _suspects, code, fenced, harmless, visible

PROGRAM = "cd repos/a && python3 -c '\nimport b\nb.run()'"


def test_a_command_of_several_lines_can_be_copied_and_run() -> None:
    check = Check(claim="it fails", command=PROGRAM, with_=Side(ref="abc"), without=Side(ref="abc~1"), discriminates=True)
    told = _check(check).splitlines()
    assert told[0] == "- it fails (discriminates)  "
    assert [row.removeprefix("  ") for row in told[1:6]] == ["```", *PROGRAM.splitlines(), "```"]
    assert told[6].startswith("  with: abc; without: abc~1")
    evidence = Evidence(claim="it fails", supports="symptom", source=CommandSource(command=PROGRAM), quote="x")
    assert "\n".join(told[1:6]) in _evidence(evidence)


def test_a_command_of_one_line_stands_in_the_line() -> None:
    evidence = Evidence(claim="it\nfails", supports="symptom", source=CommandSource(command="grep `x` y"), quote="one\ntwo")
    assert _evidence(evidence) == "- it fails (symptom; NOT verified: )  \n  ``grep `x` y``  \n  > one\n  > two"


def test_suspects_of_which_nothing_is_said_share_a_line() -> None:
    suspects = [
        Suspect(repo="a", commit=f"{n}" * 40, score=0.9 if n == 1 else 0.0, why="it raises" if n == 1 else "") for n in (1, 2, 3)
    ]
    assert _suspects(suspects) == [f"- a@{'1' * 12} (0.90) it raises", f"- then, less likely: a@{'2' * 12}, a@{'3' * 12}"]
    assert _suspects(suspects[1:]) == [f"- a@{'2' * 12}, a@{'3' * 12}"]


def test_text_of_strangers_stays_text() -> None:
    hostile = "\x1b[2J\x1b]0;x\x07 <script>a</script> [here](javascript:a) <*> \u202ereversed"
    assert visible(hostile).isprintable()
    assert (
        harmless("<script>a</script> [here](javascript:a) <*> 1 < 2") == r"\<script>a\</script> [here]\(javascript:a) <*> 1 < 2"
    )
    assert harmless("one\n# Root cause: none\n```\n#5 is open") == "one\n\\# Root cause: none\n\\```\n#5 is open"
    assert code("a ``b`` c`") == "``` a ``b`` c` ```"
    assert fenced("```\n````\n") == "`````\n```\n````\n\n`````"
