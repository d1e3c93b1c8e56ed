"""What is installed with what: the method needs little, the locks hold all that the study asks for."""

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import method_alone
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from peft import get_peft_model_state_dict
from test_round_trip import WEIGHTS, read

from selora.files import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def brought(requirements: list[str]) -> set[str]:
    """All distributions that come with some requirements, as far as they are installed here."""
    found, asked = set(), [Requirement(line) for line in requirements]
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            try:
                asked += [Requirement(line) for line in requires(name) or []]
                found.add(name)
            except PackageNotFoundError:
                pass  # CUDA's parts, say
    return found


def test_the_method_runs_where_nothing_of_the_study_is_installed(tmp_path):
    there = brought(PROJECT["dependencies"])
    hidden = [
        module
        for module, owners in packages_distributions().items()
        if module != "selora" and not there & {canonicalize_name(owner) for owner in owners}
    ]
    assert {"diffusers", "pandas", "torchmetrics", "matplotlib", "PIL", "sklearn", "pydicom"} <= set(hidden)
    subprocess.run([sys.executable, method_alone.__file__, tmp_path, *hidden], check=True, cwd=REPOSITORY)

    unet, text_encoder = method_alone.trained()  # the same ones again, here, where diffusers writes its own file
    text = convert_state_dict_to_diffusers(get_peft_model_state_dict(text_encoder))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "theirs",
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
        text_encoder_lora_layers={f"text_model.{n.removeprefix('text_model.')}": t for n, t in text.items()},
        **_collate_lora_metadata({"unet": unet, "text_encoder": text_encoder}),
    )
    (ours, our_words), (theirs, their_words) = (read(folder / WEIGHTS) for folder in (tmp_path, tmp_path / "theirs"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert our_words == their_words


def test_the_locks_hold_what_the_study_and_its_tests_ask_for():
    lines = [line for lock in ("requirements.lock", "requirements-nodeps.lock") for line in read_lines(lock)]
    locked = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    for line in [*PROJECT["dependencies"], *(line for extra in ("study", "test") for line in extras(extra))]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), line


def extras(name: str) -> list[str]:
    return PROJECT["optional-dependencies"][name]


def read_lines(lock: str) -> list[str]:
    return [line for line in (REPOSITORY / lock).read_text().splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("command", ["study", "study.report.publish", "data.fetch"])
def test_outside_a_clone_one_line_says_what_the_study_needs(tmp_path, command):
    shutil.copytree(REPOSITORY / "selora", tmp_path / "selora", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", f"selora.{command}"], capture_output=True, text=True, cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "git clone" in done.stderr and "make env" in done.stderr
