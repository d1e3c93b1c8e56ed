"""Table 1 from result.json files alone, against hand-computed figures."""

import json

import numpy as np
import pandas as pd
import pytest

from selora.files import write_json
from selora.scoring.resampling import DRAWS
from selora.study.report.ablation import ablation_runs
from selora.study.report.comparison import difference, differences, marks
from selora.study.report.readme import over, verdicts
from selora.study.report.table1 import collect, table1, write_table1
from selora.study.report.table1_text import escaped

COLUMNS = (
    "dataset method n_seeds fid_mean fid_std kid_mean kid_std kid_clip_mean kid_clip_std clip_mean clip_std "
    "auroc_mean auroc_std unet_params text_encoder_params unet_pct text_encoder_pct train_seconds peak_memory_mb "
    "kid_diff kid_diff_low kid_diff_high kid_diff_p kid_clip_diff kid_clip_diff_low kid_clip_diff_high "
    "kid_clip_diff_p clip_diff clip_diff_low clip_diff_high clip_diff_p auroc_diff auroc_diff_low auroc_diff_high "
    "auroc_diff_p kid_best kid_clip_best clip_best auroc_best"
).split()


def write_run(results, method: str, seed: int, kid: float, bootstrap: dict) -> None:
    result = {
        "dataset": "iu-drr", "method": method, "seed": seed, "n": 100, "fid": 100 * kid, "kid": kid, "kid_clip": 0.05,
        "clip": 20.0, "findings": [{"finding": "nodule", "auroc": 0.6}, {"finding": "nodule, left", "auroc": 0.1}],
        "floor": {"fid": 4.0, "kid": -0.001}, "ceiling": {"fid": 2.0, "kid": 0.01, "clip": 30.0, "findings": []},
        "reference": {"clip": 31.0, "findings": [{"finding": "nodule", "auroc": 0.9}]},
        "unet_params": 10 + seed, "text_encoder_params": 5, "unet_pct": 0.5, "text_encoder_pct": 0.25,
        "unet_mean_rank": 2.0, "text_encoder_mean_rank": 1.5, "train_seconds": 3.0, "peak_memory_mb": 100.0,
        "commit": "abc",
        "settings": {
            "encoder": "efficientnet-lite0", "guidance_scale": 2.0, "sampling_steps": 15, "prompt_dropout": 0.1,
            "base_model": "data/mini-sd", "clip": "data/mini-clip",
            "method": {"threshold": float(method.partition("@")[2] or 1.1)},
        },
    }  # fmt: skip
    if bootstrap:
        result["bootstrap"] = bootstrap
    write_json(results / "runs" / "iu-drr" / method / f"seed{seed}" / "result.json", result)


@pytest.fixture
def folder(tmp_path):
    """Runs from before there were replicates."""
    for method, seed, kid in (("selora", 0, 0.1), ("selora", 1, 0.3), ("base", 0, 0.9)):
        write_run(tmp_path, method, seed, kid, {})
    return tmp_path


@pytest.fixture
def compared(tmp_path):
    """LoRA; with eight seeds SeLoRA 0.1 above it in every replicate, SoRA 0.02 above it, more or less by seed; DyLoRA
    with one seed, the base below all."""
    drawn = np.random.default_rng(0).normal(0.5, 0.05, (8, 40))
    for seed in range(8):
        kid, moved = drawn[seed].tolist(), 0.02 + 0.05 * (-1) ** seed
        write_run(tmp_path, "lora", seed, 0.5 + 0.01 * seed, {"kid": kid})
        write_run(tmp_path, "selora", seed, 0.6 + 0.01 * seed, {"kid": [v + 0.1 for v in kid]})
        write_run(tmp_path, "sora", seed, 0.5 + 0.01 * seed + moved, {"kid": [v + moved for v in kid]})
    write_run(tmp_path, "dylora", 0, 0.45, {"kid": (drawn[0] - 0.05).tolist()})
    write_run(tmp_path, "base", 0, 0.2, {"kid": drawn[0].tolist()})
    return tmp_path


def test_means_deviations_and_order(folder):
    table = table1(collect(folder))
    assert list(table.columns) == COLUMNS
    assert list(table.method) == ["base", "selora"]  # the registry's order, not the alphabet's or the disk's
    selora = table.set_index("method").loc["selora"]
    assert selora.n_seeds == 2
    assert np.isclose(selora.kid_mean, 0.2) and np.isclose(selora.kid_std, np.std([0.1, 0.3], ddof=1))
    assert np.isnan(table.set_index("method").loc["base"].kid_std)


def test_the_caption_says_whether_prompts_are_told_apart(compared):
    write_table1(compared)
    assert "Own prompt less all others'" not in (compared / "table1.md").read_text()  # records of before
    for seed in range(8):
        path = compared / "runs" / "iu-drr" / "lora" / f"seed{seed}" / "result.json"
        drawn = {"kid": [0.5] * 40, "clip_contrast": (np.arange(40) / 10 + seed).tolist()}
        result = json.loads(path.read_text()) | {"clip_contrast": 2.0 + seed, "bootstrap": drawn}
        result["reference"]["clip_contrast"] = 19.0
        write_json(path, result)
    write_table1(compared)
    # a prompt resample's deviation of 1.17 and seeds' of 2.45 over the root of 8, times Student's 2.36 for 7
    assert "images [95 % over seeds and prompts]: +5.5 [2.1, 8.9] on iu-drr (reference images +19.0)" in (
        (compared / "table1.md").read_text()
    )
    (compared / "runs" / "iu-drr" / "lora" / "seed7" / "result.json").unlink()
    write_table1(compared)
    assert "images [95 % over images within seeds]: +5.0 [3.1, 6.8] on iu-drr" in (compared / "table1.md").read_text()


def test_the_readmes_best_auroc_has_an_interval_where_seeds_suffice_and_is_not_of_fewer_seeds(compared):
    """SoRA's mean of eight is the highest but for DyLoRA's one seed; its resamples do not differ, its seeds do."""
    for method, seeds, first in (("lora", 8, 0.6), ("selora", 8, 0.6), ("sora", 8, 0.65), ("dylora", 1, 0.9)):
        for seed in range(seeds):
            path, auroc = compared / f"runs/iu-drr/{method}/seed{seed}/result.json", first + 0.02 * seed
            result = json.loads(path.read_text())
            result["findings"] = [{"finding": "nodule", "auroc": auroc}]
            result["bootstrap"] |= {"auroc": [auroc] * 40}
            write_json(path, result)
    runs = collect(compared)
    *_, said = verdicts(table1(runs), runs)
    error = 2.3646 * np.std(0.02 * np.arange(8), ddof=1) / 8**0.5
    assert f"sora has the highest finding AUROC, 0.720 [{0.72 - error:.3f}, {0.72 + error:.3f}]; the ref" in said
    assert "95 % interval over seeds and prompts" in said
    (compared / "runs/iu-drr/sora/seed7/result.json").unlink()
    runs = collect(compared)
    *_, said = verdicts(table1(runs), runs)
    assert "LoRA r 4 has the highest finding AUROC, 0.670 [" in said


def test_the_readme_compares_parameters_over_the_seeds_that_both_have(compared):
    """SeLoRA's seeds end with other ranks (a parameter more by the seed here); the control has its first alone."""
    write_run(compared, "lora-matched", 0, 0.6, {"kid": [0.6] * 40})
    runs = collect(compared)
    said, *_ = verdicts(table1(runs), runs)
    assert "even ranks with as many (+0.0 [-], 1 seed, 100% of its parameters)" in said


def test_the_readme_says_of_how_many_seeds_each_mean_is(compared):
    assert over(collect(compared)) == (
        "Mean ± standard deviation over seeds (on iu-drr 1 of base, not fine-tuned, 8 of LoRA r 4, 1 of DyLoRA, "
        "8 of SeLoRA, 8 of sora)"
    )


def test_the_caption_names_what_a_reader_must_know(folder):
    write_table1(folder)
    text = (folder / "table1.md").read_text()
    for words in (
        "efficientnet-lite0",
        "100 for iu-drr",
        "Guidance scale 2.0",
        "15 steps",
        "dropout 0.1",
        "Real vs real",
        "Autoencoder limit",
        "hierarchical bootstrap draws seeds, then prompts",
        f"{DRAWS} resamples",
        "Fewer than 8 seeds carry no interval and no mark",
        "best of the adapters",
        "paper's own numbers, as printed",
        "do not compare with those above",
        "| Montgomery County CXR | SeLoRA | 205.54 ± 9.56 | 26.38 ± 0.04 |",
    ):
        assert words in text
    assert "| iu-drr | selora | 2 | 20.0 ± 14.1 | 200.0 ± 141.4 | - | 50.0 ± 0.0 | 20.0 ± 0.0 | 0.600 ± 0.000 |" in text
    assert "| *real vs real* |  | 4.0 | -1.0 |  | - | 31.0 | 0.900 |" in text


def test_adapters_of_fewer_seeds_are_named_as_without_a_mark(compared):
    write_table1(compared)
    assert "Of fewer seeds than the others, and so without any mark: dylora. " in (compared / "table1.md").read_text()


def test_the_time_of_training_is_the_median_so_that_a_stall_does_not_count(compared):
    path = compared / "runs/iu-drr/lora/seed0/result.json"
    write_json(path, json.loads(path.read_text()) | {"train_seconds": 2000.0})
    assert table1(collect(compared)).set_index("method").train_seconds["lora"] == 3.0


def test_the_csv_has_the_contracts_columns(folder):
    write_table1(folder)
    assert list(pd.read_csv(folder / "table1.csv").columns) == COLUMNS


def test_a_method_that_is_higher_by_a_constant_differs_by_it_in_every_replicate(compared):
    table = table1(collect(compared)).set_index("method")
    found = table.loc["selora", ["kid_diff", "kid_diff_low", "kid_diff_high"]].astype(float)
    assert np.allclose(found, 0.1)
    assert table.loc["lora", ["kid_diff", "kid_diff_low", "kid_diff_high"]].isna().all()  # no difference from itself


def test_a_run_against_itself_differs_by_exactly_zero(compared):
    lora = collect(compared).query("method == 'lora'")
    assert difference(lora, lora, "kid") == (0, 0, 0, 1)


def runs_of(drawn: dict[int, np.ndarray]) -> pd.DataFrame:
    """Runs by seed, the figure of each the mean of its replicates."""
    return pd.DataFrame([{"seed": s, "kid": d.mean(), "bootstrap": {"kid": d.tolist()}} for s, d in drawn.items()])


def test_the_difference_is_paired_over_the_seeds_that_both_have():
    """What a seed, or a resample, does to both methods alike is gone before anything is compared."""
    rng = np.random.default_rng(1)
    shared = {seed: 10 * rng.normal() + 10 * rng.normal(size=50) for seed in range(10)}
    b = {seed: drawn for seed, drawn in shared.items() if seed < 9}
    a = {seed: drawn + 1 + 0.01 * rng.normal() for seed, drawn in shared.items() if seed}
    found = difference(runs_of(a), runs_of(b), "kid")
    assert found.value == pytest.approx(np.mean([a[s].mean() - b[s].mean() for s in range(1, 9)]))
    assert 0.98 < found.low < found.high < 1.02 and found.p < 1e-6
    assert np.isnan(difference(runs_of(a), runs_of({s: b[s] for s in range(8)}), "kid").low)  # seven in common


def test_best_and_tied_are_marked_among_the_adapters_only(compared):
    runs = collect(compared)
    # the base is lower and no rival, dylora has one seed
    assert marks(runs, "kid") == {"lora": "best", "selora": "", "sora": "tied"}
    assert marks(runs[runs.seed < 7], "kid") == {}  # too few for an interval
    write_table1(compared)
    text = (compared / "table1.md").read_text()
    assert "| lora | 8 | 53.5 ± 2.4 | **535.0 ± 24.5** | - |" in text
    assert "| selora | 8 | 63.5 ± 2.4 | 635.0 ± 24.5 | +100.0 [100.0, 100.0] * |" in text
    assert "| sora | 8 | 55.5 ± 5.4 | 555.0 ± 53.7 † | +20.0 [-24.7, 64.7] |" in text  # t, 7: 2.365 x 53.45 / sqrt 8
    assert "| dylora | 1 | 45.0 | 450.0 | -50.0 [-] |" in text


def scored(name: str, **methods: float) -> pd.DataFrame:
    """Eight seeds of some methods, with a figure that is theirs give or take 0.1, by seed."""
    rows = [
        {"method": method, "seed": seed, name: value + 0.1 * (-1) ** seed}
        for method, value in methods.items()
        for seed in range(8)
    ]
    return pd.DataFrame([row | {"bootstrap": {name: [row[name]] * 5}} for row in rows])


def test_higher_is_better_for_the_clip_score():
    runs = scored("clip", lora=21.0, selora=20.0)
    assert marks(runs, "clip") == {"lora": "best", "selora": ""}


def test_a_column_whose_best_may_be_chance_has_no_mark():
    assert marks(scored("auroc", lora=0.56, selora=0.5), "auroc") == {}  # 0.56 give or take 0.089
    assert marks(scored("auroc", lora=0.6, selora=0.5), "auroc") == {"lora": "best", "selora": ""}


def test_marks_are_corrected_for_how_many_methods_there_are():
    """A method that is worse at 4 % by itself is tied among nine."""
    worse = [0.1, 0.03, 0.07, 0.0, 0.05, 0.09, 0.01, -0.03]
    runs = pd.DataFrame(
        [
            {
                "method": method,
                "seed": s,
                "kid": v * (method != "lora"),
                "bootstrap": {"kid": [v * (method != "lora")] * 5},
            }
            for method in ("lora", *"abcdefgh")
            for s, v in enumerate(worse)
        ]
    )
    assert difference(runs[runs.method == "a"], runs[runs.method == "lora"], "kid").p == pytest.approx(0.042, abs=0.001)
    assert set(marks(runs, "kid").values()) == {"best", "tied"}
    assert marks(runs[runs.method.isin(["lora", "a"])], "kid") == {"lora": "best", "a": ""}


def test_differences_count_the_seeds_where_the_method_is_better_by_the_figures_own_sign(compared):
    table = differences(collect(compared), "selora", ["lora", "dylora", "vera"]).set_index(["less", "score"])
    assert table.loc[("lora", "kid"), ["difference", "low", "high"]].tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert table.loc[("lora", "kid"), "p"] < 1e-6
    assert table.loc[("lora", "kid"), "better"] == "0 of 8"  # a higher KID is worse
    assert table.loc[("dylora", "kid"), "better"] == "0 of 1"  # one common seed
    assert differences(collect(compared), "base", ["selora"]).set_index("score").loc["kid", "better"] == "1 of 1"
    assert "vera" not in table.index.get_level_values("less")


def test_runs_from_before_there_were_replicates_have_a_difference_without_interval(folder):
    write_run(folder, "lora", 0, 0.2, {})
    selora = table1(collect(folder)).set_index("method").loc["selora"]
    assert np.isclose(selora.kid_diff, 0.1 - 0.2)  # of seed 0, which both have
    assert np.isnan(selora.kid_diff_low) and selora.kid_best == ""
    write_table1(folder)
    assert "| -100.0 [-] |" in (folder / "table1.md").read_text()


def test_the_ablation_is_not_of_table_1(compared):
    write_run(compared, "selora@1.05", 0, 0.4, {})
    assert "selora@1.05" not in set(collect(compared).method)
    ablation = ablation_runs(compared)
    assert list(zip(ablation.threshold, ablation.seed, strict=True)) == [(1.05, 0), *((1.1, s) for s in range(8))]
    assert ablation.auroc.tolist() == [0.6] * 9 and ablation.unet_mean_rank.tolist() == [2.0] * 9
    assert ablation_runs(compared / "nowhere").empty


def test_latex_says_the_same_in_its_own_signs(compared):
    assert escaped("**a_b** 5 % & -1.0 ± 2 † {#}") == r"\textbf{a\_b} 5 \% \& $-$1.0 $\pm$ 2 $^\dagger$ \{\#\}"
    assert escaped("lora-matched [-]") == "lora-matched [-]"
    write_table1(compared)
    text = (compared / "table1.tex").read_text()
    assert r"& \textbf{535.0 $\pm$ 24.5} &" in text and r"+20.0 [$-$24.7, 64.7]" in text
    assert text.isascii()
    for opened in ("table", "tabular"):
        assert text.count(rf"\begin{{{opened}}}") == text.count(rf"\end{{{opened}}}") == 2
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    rows = [line.split(" & ") for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(row) for row in rows} == {13, 6}


def test_a_list_of_numbers_is_one_line_and_reads_back(tmp_path):
    record = {"a": [1.5, None, -2e-07], "words": ["x, [1]", "[\n 1\n]"], "deep": [{"b": [1]}, [[2, 3], []]]}
    write_json(tmp_path / "r.json", record)
    text = (tmp_path / "r.json").read_text()
    assert json.loads(text) == record
    assert '"a": [1.5, null, -2e-07],' in text


def test_no_run_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="make run_all"):
        collect(tmp_path)
