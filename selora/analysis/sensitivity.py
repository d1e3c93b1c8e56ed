"""How far do lambda and t move the validation loss of SeLoRA, beside what another seed does? From records."""

import pandas as pd

from selora.study.laboratory import Study
from selora.study.sensitivity import METHOD


def seed_losses(study: Study, dataset: str) -> pd.Series:
    """The least validation losses of SeLoRA's finished runs on a data set, at the profile's own settings, by seed."""
    runs = [study.named(dataset, METHOD, seed) for seed in study.profile.seeds_of(METHOD, dataset)]
    return pd.Series({run.seed: run.result()["best_val_loss"] for run in runs if run.done}, dtype=float).dropna()


def sentence(table: pd.DataFrame, seeds: pd.Series) -> str:
    """How far the validation loss moves over the grid, and how far between seeds, in Markdown.

    Both are ranges, from least to largest, and a range grows with how many numbers it spans: so it is said of how many.

    Args:
        table: `study.sensitivity.table`. seeds: `seed_losses`.
    """
    known = table.dropna(subset="val_loss").sort_values("val_loss")
    if len(known) < 2:
        return "How sensitive the loss is cannot be told: fewer than two trainings came to an end."
    best, worst = known.iloc[0], known.iloc[-1]
    moved, sizes = worst.val_loss - best.val_loss, known.parameters
    lost = f" {len(table) - len(known)} trainings died." if len(known) < len(table) else ""
    if len(seeds) > 1:
        spread = seeds.max() - seeds.min()
        times = f", {moved / spread:.1f} times as far" if spread else ""
        beside = f"Between {len(seeds)} seeds at the profile's own settings it moves by {spread:.4f}: over the grid"
        beside += f"{times or ' further'}." if moved > spread else " no further."
    else:
        beside = "How far it moves between seeds is not known here: fewer than two were run."
    return (
        f"Over {len(known)} pairs of lambda and t on {best.dataset}, seed {best.seed}, the least validation loss moves "
        f"by {moved:.4f}, from {best.val_loss:.4f} {at(best)} to {worst.val_loss:.4f} {at(worst)}, while parameters go "
        f"from {sizes.min():,} to {sizes.max():,}.{lost} {beside}"
    )


def at(row: pd.Series) -> str:
    """The pair of a training, in words."""
    return f"(lambda {row.threshold:g}, t {row.interval:g})"
