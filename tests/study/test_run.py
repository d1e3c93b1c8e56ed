"""The whole study at its smallest, as a user runs it: the files of the contract, and what a second run does."""

import json
import re
import shutil

import nbformat
import pandas as pd
import papermill
import pytest
import torch
from diffusers import StableDiffusionPipeline

from selora.data import DataError
from selora.files import NOTEBOOKS, REPOSITORY, write_json
from selora.study.profiles import load_profile
from selora.study.report.publish import publish
from selora.study.results import Run
from selora.study.run import make_run
from selora.study.sample_run import sample_run

DATASETS = ("iu-drr", "montgomery-drr")
METHODS = ("base", "full", "lora", "dylora", "adalora", "selora")


def run_all(results) -> None:
    given = {"profile": "smoke", "results": str(results)}
    papermill.execute_notebook(NOTEBOOKS / "run_all.ipynb", results / "run_all.ipynb", given, progress_bar=False)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The results folder of `make run_all PROFILE=smoke`."""
    results = tmp_path_factory.mktemp("results")
    run_all(results)
    return results


def test_a_second_study_that_has_nothing_to_make_executes_no_notebook(smoke):
    copies = list((smoke / "smoke" / "notebooks").iterdir())
    before = [path.stat().st_mtime_ns for path in copies]
    run_all(smoke)
    assert [path.stat().st_mtime_ns for path in copies] == before


def test_the_contracts_files_are_there(smoke):
    folder = smoke / "smoke"
    for dataset in DATASETS:
        for method in METHODS:
            files = {path.name for path in (folder / "runs" / dataset / method / "seed0").iterdir()}
            expected = {"result.json", "samples", "scores.csv"}
            if method != "base":
                expected |= {"history.csv"}
            if method == "full":
                expected |= {"linear_layers.safetensors"}
            if method not in ("base", "full"):
                expected |= {"ranks.csv", "pytorch_lora_weights.safetensors"}
            if method == "selora":
                expected |= {"expansions.csv"}
            assert expected <= files
            assert "checkpoint.safetensors" not in files
    table = pd.read_csv(folder / "table1.csv")
    assert sorted(zip(table.dataset, table.method, strict=True)) == sorted((d, m) for d in DATASETS for m in METHODS)
    books = {path.name for path in NOTEBOOKS.glob("[0-9]*.ipynb")}
    books -= {"08_further.ipynb", "16_budgets.ipynb"}  # none of their methods is in smoke
    assert {path.name for path in (folder / "notebooks").iterdir()} == books
    page = (folder / "index.html").read_text()
    assert "<table>" in page
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"9_curves_this", "10_rank_map_iu-drr", "13_paper_prompt_iu-drr", "13_findings_iu-drr"} <= figures
    assert all(f'src="figures/{name}.png"' in page for name in figures)


def test_what_is_published_holds_few_samples_one_adapter_and_nothing_of_real_radiographs(smoke, tmp_path, monkeypatch):
    folder, target = tmp_path / "smoke", tmp_path / "published"
    shutil.copytree(smoke / "smoke", folder)
    real = folder / "figures" / "13_findings_montgomery.png"  # as if the real set had been run
    shutil.copyfile(folder / "figures" / "13_findings_iu-drr.png", real)
    shutil.copytree(folder / "runs/iu-drr/selora", folder / "runs/montgomery/selora")
    monkeypatch.setattr("selora.study.report.publish.SAMPLES", 7)
    publish(folder, target)
    kept = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert {"index.html", "table1.md", "table1.tex", "audit.csv", "audit.json", "cost.csv", "sensitivity.csv"} <= kept
    assert {"utility.csv", "copies.csv"} <= kept
    assert "figures/13_findings_iu-drr.webp" in kept
    assert "runs/iu-drr/selora/seed0/expansions.csv" in kept
    assert "runs/montgomery-drr/selora@1.0/seed0/expansions.csv" in kept
    assert {name for name in kept if name.endswith(".safetensors")} == {
        "runs/iu-drr/selora/seed0/pytorch_lora_weights.safetensors"
    }
    samples = pd.Series([name for name in kept if "/samples/" in name])
    assert set(samples.str.split("/").str[1:4].str.join("/").value_counts()) == {7}
    assert set(samples.str.split("/").str[1]) == set(DATASETS) and samples.str.endswith(".webp").all()
    assert not samples.str.contains("@").any() and set(samples.str.split("/").str[2]) == set(METHODS)
    assert not any(name.endswith((".png", "findings_montgomery.webp", "scores.csv")) for name in kept)
    page = (target / "index.html").read_text()
    assert all((target / name).exists() for name in re.findall(r'src="(.*?)"', page)) and "13_findings_iu-drr" in page
    assert not any(str(REPOSITORY) in path.read_text() for path in target.glob("notebooks/*"))
    cells = nbformat.read(target / "notebooks" / "13_samples.ipynb", as_version=4).cells
    assert not any("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))
    assert "0.216" in (target / "notebooks" / "14_audit.ipynb").read_text()


def test_the_control_for_size_reads_seloras_run(smoke):
    """lora-matched is not in smoke: made here, it takes the rank whose parameters are nearest to SeLoRA's."""
    result = make_run(Run(load_profile("smoke"), "montgomery-drr", "lora-matched", 0, smoke))
    grown = json.loads((smoke / "smoke/runs/montgomery-drr/selora/seed0/result.json").read_text())
    for network in ("unet", "text_encoder"):
        per_rank = result[f"{network}_params"] / result[f"{network}_mean_rank"]
        assert abs(result[f"{network}_params"] - grown[f"{network}_params"]) <= per_rank / 2
    assert result["settings"]["needs"] == grown["settings"]["method"]
    shutil.rmtree(smoke / "smoke/runs/montgomery-drr/lora-matched")  # no part of the profile's table


def test_the_ablation_is_run_on_its_data_sets_alone_and_stays_out_of_table_1(smoke):
    folder = smoke / "smoke"
    assert [path.parent.name for path in folder.glob("runs/*/selora@1.0")] == ["montgomery-drr"]
    ranks = pd.read_csv(folder / "runs" / "montgomery-drr" / "selora@1.0" / "seed0" / "ranks.csv")
    assert ranks["rank"].nunique() == 1  # at 1.0 all layers grow at every test


@pytest.mark.parametrize("method", ["base", "full", "adalora", "dylora"])
def test_a_finished_run_samples_any_prompt_as_it_did_its_own(smoke, method):
    from PIL import Image
    from PIL.ImageChops import difference

    from selora.data import load_examples

    profile, first = load_profile("smoke"), load_examples("iu-drr", "test")[0]
    run = Run(profile, "iu-drr", method, 0, smoke)
    (again,) = sample_run(run, first.prompt, 1)
    own = Image.open(*run.samples([first.id]))
    assert max(high for _, high in difference(own, again).getextrema()) <= 1


@pytest.mark.parametrize("dataset", DATASETS)
def test_selora_ends_with_different_ranks_and_its_files_agree(smoke, dataset):
    folder = smoke / "smoke" / "runs" / dataset / "selora" / "seed0"
    ranks, expansions = pd.read_csv(folder / "ranks.csv"), pd.read_csv(folder / "expansions.csv")
    assert list(ranks.columns) == ["network", "layer", "kind", "rank"]
    assert list(expansions.columns) == ["step", "network", "layer", "fi_ratio", "rank", "expanded", "b_norm"]
    assert ranks["rank"].nunique() >= 2
    result = json.loads((folder / "result.json").read_text())
    scored = expansions[expansions.step <= result["best_step"]].groupby(["network", "layer"]).expanded.sum() + 1
    assert (ranks.set_index(["network", "layer"])["rank"].sort_index() == scored.sort_index()).all()


def test_the_saved_adapter_makes_the_same_images_in_a_stock_pipeline(smoke):
    """Prompted as the run was, a stock pipeline with the saved adapter makes the run's own samples."""
    from PIL import Image
    from PIL.ImageChops import difference

    from selora.data import load_examples
    from selora.diffusion.sampling import sample

    profile = load_profile("smoke")
    folder = smoke / "smoke" / "runs" / "iu-drr" / "selora" / "seed0"
    pipe = StableDiffusionPipeline.from_pretrained(REPOSITORY / "data" / "mini-sd")
    prompts = [e.prompt for e in load_examples("iu-drr", "test")][: profile.images]
    own = [Image.open(folder / "samples" / f"{e.id}.png") for e in load_examples("iu-drr", "test")[: profile.images]]

    def largest_difference():
        images = sample(
            pipe, prompts, 128, profile.sampling_steps, profile.guidance_scale, profile.sampling_batch, seed=0
        )
        pairs = zip(own, images, strict=True)
        return max(difference(a, Image.fromarray(b)).getextrema()[0][1] for a, b in pairs)

    assert largest_difference() > 8  # the base alone makes other images, so this can see a difference
    pipe.load_lora_weights(folder)
    assert largest_difference() <= 1
    assert pipe.unet.dtype == torch.float32


def test_one_removed_run_is_made_again_alone_and_alike(smoke):
    folder = smoke / "smoke"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/*/result.json")}
    removed = folder / "runs" / "montgomery-drr" / "lora" / "seed0"
    old = json.loads((removed / "result.json").read_text())
    shutil.rmtree(removed)
    given = {"profile": "smoke", "results": str(smoke)}
    papermill.execute_notebook(NOTEBOOKS / "04_lora.ipynb", smoke / "04_lora.ipynb", given, progress_bar=False)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/*/result.json")}
    assert {path for path in after if after[path] != before[path]} == {removed / "result.json"}
    new = json.loads((removed / "result.json").read_text())
    for name in ("fid", "kid", "kid_clip", "clip", "ms_ssim", "best_step", "unet_params"):
        assert new[name] == pytest.approx(old[name], rel=1e-6)


def test_a_finished_run_with_other_settings_is_refused_with_what_differs(tmp_path):
    profile = load_profile("smoke")
    run = Run(profile, "iu-drr", "lora", 0, tmp_path)
    write_json(run.folder / "settings.json", profile.run_settings("iu-drr", "lora") | {"learning_rate": 1.0})
    with pytest.raises(ValueError, match=r"other settings \(learning_rate: 1.0 -> 0.002; base_contents: None -> "):
        make_run(run)


def test_missing_data_ends_before_anything_is_written(tmp_path):
    profile = load_profile("smoke", datasets="montgomery", data_root=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="nowhere"):
        make_run(Run(profile, "montgomery", "lora", 0, tmp_path))
    assert not (tmp_path / "smoke").exists()
