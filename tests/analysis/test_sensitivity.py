"""What is said of lambda and t, where the answer is known."""

import numpy as np
import pandas as pd
import pytest

from selora.analysis.sensitivity import sentence

TABLE = pd.DataFrame(
    {"dataset": "iu-drr", "seed": 0, "threshold": [1.0, 1.0, 1.1, 1.1], "interval": [20, 40, 20, 40], "steps": 100}
    | {"val_loss": [0.53, 0.50, 0.52, 0.51], "parameters": [4000, 2000, 1500, 1000], "events": [9, 6, 3, 0]}
)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ([], "not known here: fewer than two were run"),
        ([0.51], "not known here: fewer than two were run"),
        (
            [0.51, 0.525, 0.52],
            "Between 3 seeds at the profile's own settings it moves by 0.0150: over the grid, 2.0 t",
        ),
        ([0.45, 0.51], "Between 2 seeds at the profile's own settings it moves by 0.0600: over the grid no further."),
    ],
)
def test_the_range_over_the_grid_is_set_beside_that_between_seeds(seeds, words):
    text = sentence(TABLE, pd.Series(seeds, dtype=float))
    assert "moves by 0.0300, from 0.5000 (lambda 1, t 40) to 0.5300 (lambda 1, t 20)" in text and words in text
    assert "from 1,000 to 4,000" in text and "died" not in text


def test_trainings_that_died_are_counted_and_do_not_enter():
    text = sentence(TABLE.assign(val_loss=[np.nan, 0.50, 0.52, 0.51]), pd.Series(dtype=float))
    assert "Over 3 pairs" in text and "1 trainings died" in text and "to 0.5200 (lambda 1.1, t 20)" in text
    assert "cannot be told" in sentence(TABLE.head(1), pd.Series(dtype=float))
