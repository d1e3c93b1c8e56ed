"""Profiles: wrong names and values end with one clear error; the packaged ones are sound."""

from dataclasses import replace

import pytest

from selora.methods import METHODS, make_method
from selora.study.profiles import load_profile, profile_names


@pytest.mark.parametrize("name", profile_names())
def test_packaged_profiles_load(name):
    assert load_profile(name).name == name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "fast"}, "unknown profile 'fast': choose from mini, paper, quick, smoke"),
        ({"datasets": "iu-drr,cifar"}, "unknown data set 'cifar': choose from iu-drr"),
        ({"methods": "lohra"}, "unknown method 'lohra': choose from base, full, lora, dylora"),
    ],
)
def test_unknown_names_list_the_choices(changes, message):
    with pytest.raises(ValueError, match=message):
        load_profile(**({"name": "smoke"} | changes))


def test_narrowing_keeps_the_rest():
    whole, narrow = load_profile("smoke"), load_profile("smoke", datasets="montgomery-drr", methods="base, lora")
    assert narrow.datasets == ["montgomery-drr"] and narrow.methods == ["base", "lora"]
    assert replace(narrow, datasets=whole.datasets, methods=whole.methods) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 0}, "images is 0"),
        ({"steps": {}}, "no steps for data set 'iu-drr'"),
        ({"sampling_batch": 0}, "sampling_batch is 0"),
        ({"resolution": 300}, "resolution is 300, but .* choose a multiple of 8"),
        ({"method_settings": {"full": {"learning_rate": "1e-5"}}}, "full's learning_rate is '1e-5'; write it as"),
        ({"method_settings": {"selora": {"lambda": 1.1}}}, "unknown setting of selora 'lambda': choose from rank, thr"),
    ],
)
def test_values_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(load_profile("smoke"), **changes)


def test_a_run_is_determined_by_its_own_settings_only():
    """Other methods' settings, and where data or checkpoints lie, must not make a finished run stale."""
    profile = load_profile("smoke")
    other = replace(
        profile, method_settings={"selora": {"threshold": 2.0, "interval": 3}}, seeds=[1, 2], data_root="elsewhere"
    )
    assert profile.run_settings("iu-drr", "lora") == other.run_settings("iu-drr", "lora")
    assert profile.run_settings("iu-drr", "selora") != other.run_settings("iu-drr", "selora")
    faster = replace(profile, learning_rate=1.0)
    assert profile.run_settings("iu-drr", "lora") != faster.run_settings("iu-drr", "lora")


def test_a_run_too_short_for_a_single_test_is_refused():
    profile = replace(load_profile("smoke"), steps={"other": 5}, method_settings={"selora": {"interval": 6}})
    for method in ("selora", "selora-random"):
        with pytest.raises(ValueError, match="selora would never grow: its interval is 6, and iu-drr gets 5 steps"):
            profile.run_settings("iu-drr", method)


def test_a_data_set_that_is_not_named_takes_the_steps_of_others():
    profile = replace(load_profile("smoke", datasets="imagefolder"), steps={"iu-drr": 7, "other": 5})
    assert profile.run_settings("imagefolder", "lora")["steps"] == 5
    assert profile.run_settings("iu-drr", "lora")["steps"] == 7


@pytest.mark.parametrize("name", METHODS)
def test_every_registered_method_can_be_made_with_its_defaults(name):
    assert make_method(name, {}, seed=0, steps=10).settings == METHODS[name][1]
