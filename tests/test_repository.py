"""What the repository's own tools promise: hooks find an environment, workflows and images say what exists."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout in whose folders `environment` makes environments."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


def environment(folder: Path, *tools: str) -> Path:
    """An environment with commands that say where they are."""
    for tool in tools:
        command = folder / "bin" / tool
        command.parent.mkdir(parents=True, exist_ok=True)
        command.write_text("#!/bin/sh\necho $0 $*\n", encoding="utf-8")
        command.chmod(0o755)
    return folder


def hook(checkout: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    bare = {"PATH": os.defpath, **variables}
    command = [str(ROOT / ".ci" / "env"), "ruff", "check", "a b"]
    return subprocess.run(command, cwd=checkout, env=bare, capture_output=True, text=True, timeout=60)


TOOLS = ("ruff", "lint-imports")


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_a_hook_runs_in_the_active_environment_whatever_its_name(checkout: Path, variable: str) -> None:
    environment(checkout / ".venv", *TOOLS)
    active = environment(checkout / "my environment", *TOOLS)
    done = hook(checkout, **{variable: str(active)})
    assert (done.returncode, done.stdout) == (0, f"{active}/bin/ruff check a b\n")


def test_an_active_environment_without_the_tools_is_passed_over(checkout: Path) -> None:
    environment(checkout / ".venv", *TOOLS)
    base = environment(checkout / "conda", "ruff")
    assert hook(checkout, CONDA_PREFIX=str(base)).stdout == f"{checkout}/.venv/bin/ruff check a b\n"


@pytest.mark.parametrize("name", ["env", "my env"])
def test_where_none_is_active_a_hook_runs_where_pre_commit_was_installed(checkout: Path, name: str) -> None:
    environment(checkout / ".venv", *TOOLS)
    installed = environment(checkout / name, *TOOLS)
    quoted = f"'{installed}/bin/python'" if " " in name else f"{installed}/bin/python"
    file = checkout / ".git" / "hooks" / "pre-commit"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/usr/bin/env bash\nINSTALL_PYTHON={quoted}\nARGS=(hook-impl)\n", encoding="utf-8")
    assert hook(checkout).stdout == f"{installed}/bin/ruff check a b\n"


def test_tools_on_the_path_will_do(checkout: Path) -> None:
    found = environment(checkout / "elsewhere", *TOOLS)
    assert hook(checkout, PATH=f"{found}/bin:{os.defpath}").stdout == f"{found}/bin/ruff check a b\n"


def test_without_any_environment_a_sentence_says_what_to_do(checkout: Path) -> None:
    done = hook(checkout)
    assert done.returncode == 1
    assert done.stderr == (
        "No environment here has the tools: activate yours, then pip install -c constraints.txt -e '.[dev]'.\n"
    )


def test_every_hook_asks_for_the_environment() -> None:
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert all(hook["entry"].startswith(".ci/env ") for hook in repository["hooks"])


def read(file: Path) -> Any:
    """A YAML file; the key `on` of workflows, which YAML 1.1 takes for a truth value, as it is written."""
    loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in loaded.items()}


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_has_what_its_jobs_need(file: Path) -> None:
    said = read(file)
    assert said["on"] and said["permissions"]
    for name, job in said["jobs"].items():
        assert job["runs-on"] and job.get("timeout-minutes", 90) <= 90, name
        assert {*([job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", []))} <= said["jobs"].keys()
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), (name, step)
            assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", step["uses"]), (name, step)


@pytest.mark.parametrize("file", [ROOT / "Dockerfile", *WORKFLOWS, ROOT / ".ci" / "run"], ids=lambda file: file.name)
def test_the_commands_that_are_run_exist(file: Path) -> None:
    text, makefile = file.read_text(encoding="utf-8"), (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {*re.findall(r"^([\w-]+):", makefile, re.MULTILINE)}
    assert {*re.findall(r"\bmake ([\w-]+)", text)} <= targets
    assert all((ROOT / name).exists() for name in re.findall(r"\b(?:src|tests|docs)/[\w/.-]+\w", text))


def test_ci_lints_apart_and_tests_every_python_that_is_promised() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    promised = re.findall(r'"Programming Language :: Python :: (\d\.\d+)"', classifiers)
    assert jobs["test"]["strategy"]["matrix"]["python"] == promised
    assert "needs" not in jobs["lint"] and "schedule" in read(ROOT / ".github" / "workflows" / "nightly.yml")["on"]


def test_the_site_is_built_of_every_change_and_published_of_main_alone() -> None:
    said = read(ROOT / ".github" / "workflows" / "pages.yml")
    build, publish = said["jobs"]["build"], said["jobs"]["publish"]
    assert {"push", "pull_request"} <= said["on"].keys() and "make site" in [step.get("run") for step in build["steps"]]
    assert publish["if"] == "github.ref == 'refs/heads/main'" and said["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_workflow_installs_torch_for_the_cpu_which_a_runner_has_room_for(file: Path) -> None:
    assert read(file)["env"]["PIP_EXTRA_INDEX_URL"].endswith("/whl/cpu")


def test_pip_and_github_actions_are_watched() -> None:
    watched = read(ROOT / ".github" / "dependabot.yml")["updates"]
    assert {each["package-ecosystem"] for each in watched} == {"pip", "github-actions", "docker"}


def test_the_image_takes_what_is_pinned_and_runs_as_no_root() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users and users[-1] != "USER root"
    assert any("--constraint constraints.txt" in line for line in lines)
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1] if word[0] != "-"]
    assert copied and all((ROOT / word).exists() for word in copied)


def test_the_devcontainer_builds_that_image() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    said = json.loads("\n".join(line for line in text.splitlines() if not line.strip().startswith("//")))
    file = (ROOT / ".devcontainer" / said["build"]["dockerfile"]).resolve()
    arguments = {line.split()[1].partition("=")[0] for line in file.read_text().splitlines() if line.startswith("ARG ")}
    assert file == ROOT / "Dockerfile" and said["build"]["args"].keys() <= arguments
