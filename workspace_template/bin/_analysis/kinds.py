"""Says what a file is, by its path: code unless it is a test, a document, a style, configuration, dependencies, ..."""

from __future__ import annotations

import re
from functools import lru_cache

KINDS = (
    (
        "test",
        r"(^|/)(tests?|testing|testdata|spec|specs|fixtures|__tests__|mocks?|benchmarks?|"
        r"e2e)/|(^|/)(test_[^/]*|tests?|testing|test_?utils?|conftest)\.\w+$|[._-](test|spec|tests)\.\w+$|_fuzz_test\.|Test\.java$",
    ),
    (
        "docs",
        r"\.(md|rst|adoc|txt)$|(^|/)(examples?|demos?)\.\w+$|(^|/)(docs?|documentation|examples?|demos?|changelog|newsfragments|"
        r"changes)/|(^|/)(LICENSE|CODEOWNERS|AUTHORS|NOTICE|CHANGES|HISTORY|README)[^/]*$",
    ),
    (
        "ci",
        r"(^|/)\.(github|circleci|gitlab|buildkite)/|(^|/)(\.gitlab-ci|\.travis|"
        r"\.golangci|\.pre-commit|tox|codecov|\.editorconfig|\.gitignore|azure-pipelines|Jenkinsfile|towncrier|noxfile|"
        r"\.?readthedocs|renovate|\.?appveyor|MANIFEST\.in|\.coveragerc|\.?ruff|\.flake8|\.bumpversion|\.pylintrc|\.eslint|"
        r"mypy\.ini|pytest\.ini|karma\.conf|bower\.json|component\.json)[^/]*$",
    ),
    ("style", r"\.(css|scss|less|svg|png|jpe?g|gif|ico|woff2?|po|mo|pot|snap|golden)$"),
    (
        "dependency",
        r"(^|/)(go\.(mod|sum)|requirements[^/]*\.(txt|in|lock)|constraints[^/]*\.txt|"
        r"package(-lock)?\.json|yarn\.lock|pnpm-lock\.yaml|poetry\.lock|uv\.lock|Pipfile(\.lock)?|pyproject\.toml|"
        r"setup\.(py|cfg)|Cargo\.(toml|lock)|pom\.xml|build\.gradle(\.kts)?|Gemfile(\.lock)?|composer\.(json|lock)|"
        r"mix\.exs)$",
    ),
    ("build", r"(^|/)(Dockerfile|Makefile|CMakeLists\.txt|Containerfile|\.dockerignore)[^/]*$|\.(mk|cmake|bazel|gradle)$"),
    ("migration", r"(^|/)(migrations?|alembic|flyway|schema)/|\.sql$"),
    ("config", r"\.(ya?ml|toml|ini|cfg|conf|properties|env|json5?|tf|tfvars|hcl|xml)$|(^|/)\.env"),
)
PATTERNS = tuple((name, re.compile(pattern, re.IGNORECASE if name != "ci" else 0)) for name, pattern in KINDS)
REQUIREMENTS = re.compile(r"(^|/)(requirements|constraints)[^/]*\.txt$")
IDLE = ("test", "docs", "ci", "style")


@lru_cache(maxsize=100_000)
def kind_of(path: str) -> str:
    """What a file is, by its path: code unless it is a test, document, style, configuration, ..."""
    if REQUIREMENTS.search(path):
        return "dependency"
    for name, pattern in PATTERNS:
        if pattern.search(path):
            return name
    return "code"
