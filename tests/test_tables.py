"""Table 1 from result.json files alone, against hand-computed figures."""

import json

import numpy as np
import pandas as pd
import pytest

from selora.tables import collect, markdown, table1, write_table1

COLUMNS = (
    "dataset method n_seeds fid_mean fid_std kid_mean kid_std clip_mean clip_std auroc_mean auroc_std unet_params "
    "text_encoder_params unet_pct text_encoder_pct train_seconds peak_memory_mb"
).split()


@pytest.fixture
def folder(tmp_path):
    for method, seed, kid in (("selora", 0, 0.1), ("selora", 1, 0.3), ("base", 0, 0.9)):
        result = {
            "dataset": "iu-drr", "method": method, "seed": seed, "n": 100, "fid": 100 * kid, "kid": kid,
            "clip": 20.0, "findings": [{"finding": "nodule", "auroc": 0.6}, {"finding": "nodule, left", "auroc": 0.1}],
            "floor": {"fid": 4.0, "kid": -0.001}, "ceiling": {"fid": 2.0, "kid": 0.01, "clip": 30.0, "findings": []},
            "reference": {"clip": 31.0, "findings": [{"finding": "nodule", "auroc": 0.9}]},
            "unet_params": 10 + seed, "text_encoder_params": 5, "unet_pct": 0.5, "text_encoder_pct": 0.25,
            "train_seconds": 3.0, "peak_memory_mb": 100.0,
            "settings": {
                "encoder": "efficientnet-lite0", "guidance_scale": 2.0, "sampling_steps": 15, "prompt_dropout": 0.1,
                "base_model": "data/mini-sd", "clip": "data/mini-clip",
            },
        }  # fmt: skip
        path = tmp_path / "runs" / "iu-drr" / method / f"seed{seed}" / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(result))
    return tmp_path


def test_means_deviations_and_order(folder):
    table = table1(collect(folder))
    assert list(table.columns) == COLUMNS
    assert list(table.method) == ["base", "selora"]  # the registry's order, not the alphabet's or the disk's
    selora = table.set_index("method").loc["selora"]
    assert selora.n_seeds == 2
    assert np.isclose(selora.kid_mean, 0.2) and np.isclose(selora.kid_std, np.std([0.1, 0.3], ddof=1))
    assert np.isnan(table.set_index("method").loc["base"].kid_std)


def test_the_caption_names_what_a_reader_must_know(folder):
    text = markdown(collect(folder))
    for words in (
        "efficientnet-lite0",
        "100 for iu-drr",
        "Guidance scale 2.0",
        "15 steps",
        "dropout 0.1",
        "floor",
        "ceiling",
    ):
        assert words in text
    assert "| iu-drr | selora | 2 | 20.0 ± 14.1 | 200.0 ± 141.4 | 20.0 ± 0.0 | 0.600 ± 0.000 |" in text
    assert "reference against reference* |  | 4.0 | -1.0 | 31.0 | 0.900 |" in text


def test_written_files_agree(folder):
    write_table1(folder)
    assert list(pd.read_csv(folder / "table1.csv").columns) == COLUMNS
    assert (folder / "table1.md").read_text() == markdown(collect(folder))


def test_no_run_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="make run_all"):
        collect(tmp_path)
