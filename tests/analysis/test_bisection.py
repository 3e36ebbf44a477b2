"""A service's own calls at both ends of an upgrade, and the commit between them from which on they do what was seen."""

from __future__ import annotations

import subprocess
from datetime import timedelta

import pytest

from tests.analysis.conftest import LIVE, Scene, rfc
from tests.analysis.test_code import BEFORE

UNITS = '"""Units."""\nimport re\n\nFORM = re.compile(r"%s")\n\n\ndef weigh(text):\n    found = FORM.match(text)\n    %s\n'
REFUSES = 'if not found:\n        raise ValueError(f"unknown weight {text}")\n    return float(found[1])'
LENIENT = "return float(found[1]) if found else 0.0"
APP = (
    "import webframework\nfrom linker.units import weigh\n\napp = webframework.App('orders')\n\n\n@app.post('/parcels')\n"
    "def price(parcel):\n    return round(weigh(parcel['weight']) * 3, 2)\n"
)
SCRIPT_APP = "const web = require('webframework');\nconst { weigh } = require('linker');\n\nconst price = (text) => weigh(text) * 3;\n\nweb.listen(price);\n"
SCRIPT = "exports.weigh = (text) => {\n  const found = /%s/.exec(text);\n  %s\n};\n"
SCRIPT_LENIENT = "return found ? Number(found[1]) : 0;"
SCRIPT_REFUSES = "if (!found) throw new RangeError(`unknown weight ${text}`);\n  return Number(found[1]);"


def _incident(scene: Scene, steps: list[str], app: str, path: str, line: str) -> list[str]:
    """A library with a commit for each step, all of which one upgrade of a service brought; the ids of the library's commits."""
    extra = {"package.json": '{"name": "linker", "main": "index.js"}\n'} if path.endswith(".js") else {"linker/__init__.py": ""}
    day = BEFORE - timedelta(days=60)
    commits = [(day + timedelta(days=n), f"Step {n}", {path: step, **(extra if not n else {})}) for n, step in enumerate(steps)]
    ids = scene.repository("linker", commits)
    for commit, tag in ((ids[0], "v1.0.0"), (ids[-1], "v1.1.0")):
        scene.git("linker", "tag", tag, commit)
    service = scene.repository("orders", [(BEFORE, "Begin", {"app" + path[path.rindex(".") :]: app})])
    change = {"package": "linker", "from": "1.0.0", "to": "1.1.0"}
    scene.deployments = [{"timestamp": rfc(LIVE), "service": "orders", "commit": service[0], "package_changes": [change]}]
    rows = [f"{rfc(LIVE + timedelta(minutes=m))} {'INFO parcel weighed' if m < 0 else line}" for m in range(-60, 19)]
    scene.write("telemetry/logs/orders.log", "\n".join(rows) + "\n")
    return ids


@pytest.mark.parametrize("script", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_commit_is_found_at_which_a_call_of_the_service_turns(scene: Scene, script: bool) -> None:
    forms = [r"^(\d+)", r"^\s*(\d+)", r"^\s*(\d+)", r"^\s*(\d+) *kg", r"^\s*(\d+) *kg"]
    ends = [False, False, True, True, True]
    if script:
        steps = [SCRIPT % (form, SCRIPT_REFUSES if end else SCRIPT_LENIENT) for form, end in zip(forms, ends, strict=True)]
    else:
        steps = [UNITS % (form, REFUSES if end else LENIENT) for form, end in zip(forms, ends, strict=True)]
    kind = "RangeError" if script else "ValueError"
    line = f"ERROR parcel failed: {kind}: unknown weight 12lb (POST /parcels)"
    app, path = (SCRIPT_APP, "index.js") if script else (APP, "linker/units.py")
    ids = _incident(scene, steps, app, path, line)
    answer = scene.answer("reproduce")
    assert (answer["commit"], answer["parent"]) == (ids[3], ids[2])
    assert answer["suspect"]["commit"] == ids[3] and "12lb" in answer["call"] and kind in answer["does"]
    if not script:
        codes = []
        for commit in (ids[3], ids[2]):
            scene.git("linker", "checkout", "-q", commit)
            codes.append(subprocess.run(["bash", "-c", answer["command"]], cwd=scene.root, check=False).returncode)
        assert codes == [0, 1]


@pytest.mark.slow
def test_another_value_counts_where_a_failing_line_names_what_was_given_and_what_came(scene: Scene) -> None:
    steps = [UNITS % (form, LENIENT) for form in (r"^(\d+)", r"^\s*(\d+)", r"^\s*(\d+) *kg", r"^\s*(\d+) *kg *$")]
    ids = _incident(scene, steps, APP, "linker/units.py", "WARNING price of parcel '12lb' is 0.0: not sent")
    assert scene.answer("reproduce")["commit"] == ids[2]


@pytest.mark.slow
def test_a_text_that_an_expression_reads_for_long_is_made_up(scene: Scene) -> None:
    forms = [r"^(\d+)x", r"^\s*(\d+)x", r"^\s*((?:\d+)+)x", r"^\s*((?:\d+)+) *x"]
    ids = _incident(scene, [UNITS % (form, LENIENT) for form in forms], APP, "linker/units.py", "INFO parcel weighed")
    latency = scene.series("orders", "latency_p95_ms", lambda m: 900.0 if m >= 0 else 4.0)
    cpu = scene.series("orders", "cpu_percent", lambda m: 97.0 if m >= 0 else 4.0)
    scene.write("telemetry/metrics/m.csv", f"timestamp,service,metric,value\n{latency}{cpu}")
    assert scene.answer("reproduce")["commit"] == ids[2]


def test_an_error_that_speaks_of_a_time_begins_no_record(scene: Scene) -> None:
    trace = 'Traceback (most recent call last):\n  File "/srv/app.py", line 8, in price\n    return weigh(text)'
    rows = [
        f"{rfc(LIVE + timedelta(minutes=m))} ERROR parcel failed\n{trace}\nlinker.units.WeightError: no weight at 2019-06-08 13:20:00"
        for m in range(10)
    ]
    scene.write("telemetry/logs/orders.log", "\n".join(rows) + "\n")
    texts = [symptom["text"] for symptom in scene.answer("suspects")["symptoms"]]
    assert any("WeightError" in text for text in texts)


@pytest.mark.slow
def test_where_commits_cannot_be_run_the_likeliest_of_what_is_left_is_named_and_nothing_is_shown(scene: Scene) -> None:
    steps = [UNITS % (r"^(\d+)", LENIENT) + f"\n# {number}\n" for number in range(5)]
    steps += ["def weigh(text:\n", "def weigh(:\n", UNITS % (r"^(\d+) *kg", REFUSES)]
    line = "ERROR parcel failed: ValueError: unknown weight 12lb (POST /parcels)"
    ids = _incident(scene, steps, APP, "linker/units.py", line)
    answer = scene.answer("reproduce")
    assert answer["command"] == ""
    assert answer["suspect"]["commit"] in ids[5:]
    assert answer["suspect"]["fits"] is False
