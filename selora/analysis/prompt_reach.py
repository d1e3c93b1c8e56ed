"""Does the prompt reach the picture? What was measured while the mini base learned (scripts/base_model)."""

import pandas as pd

from selora.files import DATA

BASE = DATA / "mini-sd"


def gaps() -> pd.DataFrame:
    """By how much wrong findings cost more than right ones, in the loss of held-out views of the CT.

    Columns: stage ('oracle', which is given a token for each finding, or 'unet', which is given words), samples (seen
    so far), timesteps, gap (loss with another picture's findings less loss with the right ones).
    """
    table = pd.read_csv(BASE / "gauge.csv")
    table["timesteps"] = table["from"].astype(str) + " to " + table["to"].astype(str)
    table["gap"] = table["wrong"] - table["right"]
    return table[["stage", "samples", "timesteps", "gap"]]


def asked() -> pd.DataFrame:
    """What comes of asking the base itself for a finding: AUROC by finding, in the eyes of a classifier of the base's
    own views, on held-out views and on pictures of the oracle and of the words."""
    table = pd.read_csv(BASE / "prompted.csv")
    wide = table.pivot(index="finding", columns="stage", values="auroc_asked").reindex(table.finding.unique())
    return wide.assign(views=table.drop_duplicates("finding").set_index("finding").auroc_views)
