"""Does another criterion grow better networks? Each arm at SeLoRA's parameters, against the paper's rule and against
uniform ranks, from the records of finished runs."""

from collections.abc import Sequence

import pandas as pd

from selora.methods import METHODS
from selora.scoring.intervals import LEVEL
from selora.study.report.comparison import difference

ARMS = tuple(name for name in METHODS if name.startswith("grow-"))
RIVALS = ("selora", "lora-matched")  # the paper's rule, and uniform ranks
NEAR = 0.01  # share by which parameters that count as equal may differ


def arms_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Each arm against the paper's rule and against uniform ranks, over the seeds that both have: one row per data set,
    arm and rival that were run.

    Columns: dataset, arm, rival, seeds, parameters (the arm's by the rival's), equal (within 1 %), difference of KID x
    1000 (below 0: the arm is better), low, high, p, better (by how many seeds).

    Args:
        runs: `table1.collect`.
    """
    rows = []
    for dataset, own in runs.groupby("dataset", sort=False):
        for arm in [name for name in ARMS if (own.method == name).any()]:
            for rival in [name for name in RIVALS if (own.method == name).any()]:
                pair = [own[own.method == name] for name in (arm, rival)]
                both = pair[0].merge(pair[1], on="seed", suffixes=("", "_other"))
                if both.empty:
                    continue
                sizes = [both[f"unet_params{end}"] + both[f"text_encoder_params{end}"] for end in ("", "_other")]
                value, low, high, p = difference(*pair, "kid")
                rows.append(
                    {"dataset": dataset, "arm": arm, "rival": rival, "seeds": len(both)}
                    | {"parameters": sizes[0].sum() / sizes[1].sum()}
                    | {"equal": bool(((sizes[0] / sizes[1] - 1).abs() <= NEAR).all())}
                    | {"difference": 1000 * value, "low": 1000 * low, "high": 1000 * high, "p": p}
                    | {"better": f"{(both.kid < both.kid_other).sum()} of {len(both)}"}
                )
    columns = ["dataset", "arm", "rival", "seeds", "parameters", "equal", "difference", "low", "high", "p", "better"]
    return pd.DataFrame(rows, columns=columns)


def verdict(table: pd.DataFrame, wanted: Sequence[str]) -> str:
    """Whether any criterion beats both the paper's rule and uniform ranks at equal parameters, as a sentence.

    Args:
        table: `arms_table`.
        wanted: the arms that there should be.
    """
    missing = [arm for arm in wanted if arm not in set(table.arm)]
    lacking = f" Missing: {', '.join(missing)}." if missing else ""
    whole = table.groupby(["dataset", "arm"]).rival.transform("nunique") == len(RIVALS)
    even = table.groupby(["dataset", "arm"]).equal.transform("all").astype(bool)
    counted = table[whole & even]
    if counted.empty:
        why = "no arm has both rivals' parameters to within 1 %" if whole.any() else "no arm was run beside both"
        return f"Whether a criterion beats both the paper's rule and uniform ranks cannot be told here: {why}.{lacking}"
    if counted.low.isna().all():
        ahead = winners(counted, counted.difference < 0)
        words = f"{', '.join(ahead)}, in the mean" if ahead else "none, even in the mean"
        few = "seeds are too few to tell that from chance"
        return f"Ahead of both rivals by KID at equal parameters: {words}; {few}.{lacking}"
    alpha = LEVEL / counted.groupby("dataset").arm.nunique().max()  # Bonferroni's, over the arms; both rivals must fall
    found = winners(counted, (counted.difference < 0) & (counted.p < alpha))
    words = ", ".join(found) or "none"
    return f"Of {counted.arm.nunique()} criteria, better than both rivals by KID at equal parameters: {words}.{lacking}"


def winners(table: pd.DataFrame, wins: pd.Series) -> list[str]:
    """The arms, and where, that win against every rival."""
    whole = wins.groupby([table.dataset, table.arm], sort=False).all()
    return [f"{arm} on {dataset}" for (dataset, arm), won in whole.items() if won]
