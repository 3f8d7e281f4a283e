"""What is released with the package: workflows, container, citation say what the project has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from msekit.version import __version__

REPOSITORY = Path(__file__).parents[1]
PROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_run_what_there_is(file: Path):
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    ran = []
    for job in read(file)["jobs"].values():
        assert job["runs-on"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert "@" in step.get("uses", "@")
            ran.append(step.get("run", ""))
    assert set(re.findall(r"\bmake ([a-z]+)", "\n".join(ran))) <= targets
    assert all((REPOSITORY / script).is_file() for script in ran if script.startswith(".ci/"))


def test_every_promised_python_runs_the_wheel():
    tried = read(REPOSITORY / ".github" / "workflows" / "ci.yml")["jobs"]["wheel"]["strategy"]["matrix"]
    promised = re.findall(r"Python :: (3\.\d+)", PROJECT)
    assert tried["python"] == promised
    assert f'requires-python = ">={promised[0]}"' in PROJECT
    assert {entry["os"] for entry in tried["include"]} == {"macos-latest", "windows-latest"}


def test_publishing_needs_no_token():
    release = read(REPOSITORY / ".github" / "workflows" / "release.yml")["jobs"]
    assert release["publish"]["permissions"] == {"id-token": "write"}
    assert "secrets." not in (REPOSITORY / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    assert release["publish"]["needs"] == "build"


def test_the_container_is_made_of_what_there_is():
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert {"msekit", "configs", "launch", "pyproject.toml"} <= set(copied)
    assert all((REPOSITORY / name).exists() for name in copied)
    admitted = re.findall(r"^!(.*)$", (REPOSITORY / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(copied) == set(admitted)
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", text, re.MULTILINE)
    assert all(re.search(rf"^{extra} = \[", PROJECT, re.MULTILINE) for extra in extras.split(","))


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = read(REPOSITORY / "CITATION.cff")
    assert citation["version"] == __version__
    assert f'version = "{__version__}"' in PROJECT
    assert f'license = "{citation["license"]}"' in PROJECT
    assert [person["family-names"] for person in citation["preferred-citation"]["authors"]] == ["Yang", "Dong", "Qiang"]


def test_issue_forms_ask_for_what_helps():
    bug = read(REPOSITORY / ".github" / "ISSUE_TEMPLATE" / "bug.yml")
    assert {"command", "output", "machine"} <= {part["id"] for part in bug["body"]}
