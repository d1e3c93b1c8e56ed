"""What a profile needs is looked for before anything runs, and all that is missing is named at once."""

from dataclasses import replace

import huggingface_hub
import pytest

from selora.data import folders
from selora.data.example import DataError
from selora.scoring import SHIPPED
from selora.scoring.classifier import CLASSIFIERS
from selora.scoring.encoders import ENCODERS
from selora.study import __main__, preflight
from selora.study.preflight import check_needs
from selora.study.profiles import load_profile


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with no network, no downloads, and no weights of Inception."""
    monkeypatch.delenv("SELORA_DATA", raising=False)
    monkeypatch.setattr(folders, "RAW", tmp_path / "raw")
    monkeypatch.setattr(preflight, "REPOSITORY", tmp_path)
    monkeypatch.setattr(preflight, "missing_encoders", lambda profile: [f"encoder {profile.encoder}"])


def test_the_paper_profile_names_models_and_data_and_the_commands_that_get_them(bare):
    with pytest.raises(DataError) as caught:
        check_needs(load_profile("paper"))
    message = str(caught.value)
    for words in (
        "data/raw/stable-diffusion-v1-5 (base_model)",
        "python -m selora.data.fetch sd15",
        "python -m selora.data.fetch clip",
        "encoder inception",
        "data set iu-xray: Folder",
        "python -m selora.data.fetch iu-xray",
        "python -m selora.data.fetch montgomery",
    ):
        assert words in message


def test_a_model_that_came_half_is_named_too(bare, tmp_path):
    """What an interrupted download leaves behind."""
    half = tmp_path / "data" / "raw" / "stable-diffusion-v1-5"
    half.mkdir(parents=True)
    (half / "model_index.json").write_text("{}")
    assert "data.fetch sd15" in preflight.missing_models(load_profile("paper"))[0]


def test_one_run_from_the_shell_is_checked_too(bare):
    with pytest.raises(SystemExit, match="selora: Profile paper cannot run here yet.*\n.*data.fetch sd15"):
        __main__.main(["--profile", "paper", "--dataset", "montgomery", "--method", "lora"])


def test_a_model_of_the_hub_is_asked_for(monkeypatch):
    """One in the cache or on a hub that answers is no problem; one that cannot be had is."""
    profile = replace(load_profile("smoke"), base_model="somebody/some-model")
    asked = []
    monkeypatch.setattr(huggingface_hub, "model_info", lambda name, timeout: asked.append(name))
    assert preflight.missing_models(profile) == [] and asked == ["somebody/some-model"]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda name, file: f"cache/{file}")
    assert preflight.missing_models(profile) == [] and len(asked) == 1
    monkeypatch.undo()  # the tests are offline
    (problem,) = preflight.missing_models(profile)
    assert "somebody/some-model (base_model)" in problem and "hf download somebody/some-model" in problem


def test_what_counts_as_shipped_is():
    assert set(SHIPPED) < {*ENCODERS, *CLASSIFIERS}
    for name in ("smoke", "quick", "mini"):
        check_needs(load_profile(name))
