"""Profiles: wrong names and values end with one clear error; the packaged ones are sound."""

import shutil
from dataclasses import replace

import pytest

from selora.methods import METHODS, make_method, named
from selora.study.profiles import FOLDER, load_profile, profile_names


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
        ({"fewer": {"sora": {"cifar": 1}}}, "unknown data set in fewer of sora 'cifar': choose from iu-drr"),
        ({"fewer": {"sora": {"iu-drr": -1}}}, "fewer of sora on iu-drr is -1, but must be a number of seeds"),
        ({"resolution": 300}, "resolution is 300, but .* choose a multiple of 8"),
        ({"method_settings": {"full": {"learning_rate": "1e-5"}}}, "full's learning_rate is '1e-5'; write it as"),
        ({"method_settings": {"selora": {"lambda": 1.1}}}, "unknown setting of selora 'lambda': choose from rank, thr"),
    ],
)
def test_values_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(load_profile("smoke"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": "8"}, "images is '8', but must be of the kind int"),
        ({"images": True}, "images is True, but must be of the kind int"),
        ({"batch_size": 4.0}, "batch_size is 4.0, but must be of the kind int"),
        ({"sampling_batch": None}, "sampling_batch is None, but must"),
        ({"datasets": "iu-drr"}, r"datasets is 'iu-drr', but must be of the kind list\[str\]"),
        ({"methods": []}, r"methods is \[\], but must name at least one"),
        ({"seeds": ["0"]}, r"seeds is \['0'\], but must be of the kind list\[int\]"),
        ({"seeds": []}, "seeds is .*at least one"),
        ({"steps": {"other": 0}}, "steps of other is 0"),
        ({"steps": {"other": "600"}}, "steps is .* but must be of the kind dict"),
        ({"steps": [10]}, "steps is"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; write"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001; write"),
        ({"prompt_dropout": 10.0}, "prompt_dropout is 10.0, but must be a share"),
        ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
        ({"ablation": ["1.1"]}, "ablation is"),
        ({"fewer": {"sora": 1}}, "fewer is"),
        ({"ablation": [-1.0]}, "gives as threshold '-1.0'"),
        ({"compile": "no"}, "compile is 'no', but must be of the kind bool"),
        ({"base_model": ["a"]}, "base_model is"),
        ({"data_root": 3}, r"data_root is 3, but must be of the kind str \| None"),
        ({"method_settings": {"lora": {"rank": "4"}}}, "lora's rank is '4', but must be of the kind int, 1 or more"),
        ({"method_settings": {"lora": {"rank": 0}}}, "lora's rank is 0"),
        ({"method_settings": {"selora": {"threshold": float("nan")}}}, "selora's threshold is nan"),
        ({"method_settings": {"selora": None}}, "method_settings is"),
    ],
)
def test_values_of_another_kind_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"profile smoke: {message}|{message}"):
        replace(load_profile("smoke"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [4, 0, 4]}, r"seeds is \[4, 0, 4\], but must have each value once: 4 stands there 2 times"),
        ({"methods": ["lora", "lora"]}, "methods is .* each value once: 'lora'"),
        ({"ablation": [1.2, 2, 2.0]}, "ablation is .* each value once: 2 stands"),
        ({"utility": {"selora": [8, 8]}}, "utility of selora is .* each value once"),
        ({"sensitivity": {"threshold": [1.1], "interval": [40, 40]}}, "sensitivity of interval is .* each value once"),
        ({"lengths": {"iu-drr": [5, 5]}}, "lengths of iu-drr is .* each value once"),
        ({"ablation_datasets": []}, r"ablation_datasets is \[\], but must name at least one"),
        (
            {"steps": {"montgomery_drr": 9, "other": 10}},
            "unknown data set in steps 'montgomery_drr': choose from .*, other",
        ),
    ],
)
def test_runs_that_would_be_others_than_one_reads_are_refused(changes, message):
    """Twice the same run is no second one; a name that is none would take the steps of others."""
    with pytest.raises(ValueError, match=message):
        replace(load_profile("smoke"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_scale": 10**400}, "guidance_scale is 1000.*, but must be of the kind float"),
        ({"guidance_scale": -2.0}, "guidance_scale is -2.0, but must be more than 1"),
        ({"guidance_scale": 0.5}, "guidance_scale is 0.5, but must be more than 1"),
        ({"seeds": [1, 2**32]}, "a seed is 4294967296, but must be a whole number from 0"),
        ({"seeds": [-1]}, "a seed is -1"),
        ({"sampling_steps": 1001}, "sampling_steps is 1001, but must be 1000 or fewer"),
        ({"ablation": [1.0, 0.9]}, "a threshold of ablation is 0.9, but must be 1"),
        ({"sensitivity": {"threshold": [0.5], "interval": [3]}}, "a threshold of sensitivity is 0.5, but must be 1"),
        ({"method_settings": {"selora": {"threshold": 0.99}}}, "selora's threshold is 0.99, but must be 1"),
        (
            {"method_settings": {"selora": {"init": "xavier"}}},
            "unknown init of selora 'xavier': choose from kaiming, peft",
        ),
        ({"method_settings": {"ranks-gora": {"allocation": "selora"}}}, "allocation is 'selora', but must hold 'gora'"),
        ({"method_settings": {"grow-signal": {"criterion": "sign"}}}, "criterion is 'sign', but must hold 'signal'"),
        ({"method_settings": {"vera": {"config": "LoHaConfig"}}}, "vera's config is .* must hold 'VeraConfig'"),
        ({"method_settings": {"dora": {"options": {"use_dora": False}}}}, "dora's options is .* must hold {'use_dora'"),
        ({"method_settings": {"rslora": {"options": {"bias": "all"}}}}, "rslora's options is .* must hold {'use_rs"),
    ],
)
def test_values_that_no_run_could_keep_to_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(load_profile("smoke"), **changes)


def test_values_at_the_bounds_are_taken():
    settings = {"selora": {"threshold": 1.0, "init": "peft"}, "dora": {"options": {"use_dora": True, "bias": "none"}}}
    changes = {"seeds": [0, 2**32 - 1], "sampling_steps": 1000, "guidance_scale": 0, "method_settings": settings}
    replace(load_profile("smoke"), **changes)
    replace(load_profile("smoke"), guidance_scale=1, ablation=[1])


@pytest.mark.parametrize("names", [{"datasets": "iu-drr, iu-drr"}, {"methods": "lora,base,lora"}])
def test_names_that_stand_twice_on_the_command_line_are_refused(names):
    with pytest.raises(ValueError, match="each value once: '(iu-drr|lora)' stands there 2 times"):
        load_profile("smoke", **names)


def own_profile(folder, old: str, new: str) -> str:
    """The path of a file like smoke's with some of its text replaced."""
    text = (FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    assert old in text
    (folder / "mine.yaml").write_text(text.replace(old, new), encoding="utf-8")
    return str(folder / "mine.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [("\nimages: 8", "\nimages: 011"), ("\nimages: 8", "\nimages: 2:10"), ("seeds: [0]", "seeds: [0, 0_7]"),
     ("guidance_scale: 2.0", "guidance_scale: 1:30.5"), ("[3, 5]", "[3, -012]")],
)  # fmt: skip
def test_numbers_that_yaml_takes_for_others_are_refused(tmp_path, old, new):
    with pytest.raises(
        ValueError, match="mine.yaml cannot be read: it has the number .*, which YAML takes for another"
    ):
        load_profile(own_profile(tmp_path, old, new))


def test_an_ablation_on_a_data_set_that_is_not_the_profiles_is_refused(tmp_path):
    """It would have no runs. On the command line a profile may be narrowed to another set than the ablation's."""
    with pytest.raises(ValueError, match=r"ablation_datasets is \['montgomery-drr'\], but must be among its datasets"):
        load_profile(own_profile(tmp_path, "datasets: [iu-drr, montgomery-drr]", "datasets: [imagefolder]"))
    assert load_profile("smoke", datasets="iu-drr").ablation_datasets == ["montgomery-drr"]


def test_a_setting_that_stands_twice_is_refused(tmp_path):
    """PyYAML would take the last."""
    text = (FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    for more in ("images: 9\n", "batch_size: 4\n", "method_settings:\n  selora: {threshold: 1.1, threshold: 1.2}\n"):
        (tmp_path / "mine.yaml").write_text(text + more, encoding="utf-8")
        with pytest.raises(ValueError, match="mine.yaml cannot be read: it has '.*' twice in .* line"):
            load_profile(str(tmp_path / "mine.yaml"))


def test_a_profile_may_not_be_called_as_the_published_results(tmp_path):
    shutil.copy(FOLDER / "smoke.yaml", tmp_path / "published.yaml")
    with pytest.raises(ValueError, match="call it otherwise"):
        load_profile(str(tmp_path / "published.yaml"))


@pytest.mark.parametrize("name", ["selora@nan", "selora@inf", "selora@-1", "selora@", "selora@1,1", "selora@1e-3"])
def test_a_threshold_is_a_number(name):
    with pytest.raises(ValueError, match=f"'{name}' gives as threshold"):
        named(name)


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


def test_a_run_is_determined_by_the_settings_of_those_it_builds_on():
    """Of one method they stand alone, as in finished runs; of several by method."""
    profile = load_profile("smoke")
    selora, gora = (profile.run_settings("iu-drr", method)["method"] for method in ("selora", "gora"))
    assert profile.run_settings("iu-drr", "lora-matched")["needs"] == selora
    assert profile.run_settings("iu-drr", "ranks-gora")["needs"] == {"selora": selora, "gora": gora}
    assert "needs" not in profile.run_settings("iu-drr", "gora")


def test_minis_runs():
    """Eight seeds for what is claimed; neighbours, and the ranks at equal budgets, on fewer."""
    mini = load_profile("mini")
    counts = {m: [len(mini.seeds_of(m, dataset)) for dataset in mini.datasets] for m in mini.methods}
    eight = ("lora", "dylora", "adalora", "selora", "lora-matched", "selora-random")
    assert {m for m, found in counts.items() if found == [8, 8]} == {*eight}
    assert counts["base"] == counts["full"] == counts["sora"] == [3, 1]
    assert {tuple(found) for m, found in counts.items() if m.startswith("ranks-")} == {(5, 0)}
    assert counts["increlora"] == counts["gora"] == [5, 1]  # as many as the ranks that are theirs
    assert counts["eva"] == counts["vera"] == [1, 0]
    assert len(mini.seeds_of("eva", "imagefolder")) == 1 and len(mini.seeds_of("selora@1.0", "iu-drr")) == 1


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
