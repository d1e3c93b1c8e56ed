"""Costs as ratios to LoRA's, the time to a fixed validation loss, what a run of SeLoRA costs: from records."""

import pandas as pd

from selora.study.laboratory import Study

INTERVAL = 40  # steps from one test to the next: the paper's t, for which the bars were set
BARS = {"probe": 1.20, "own": 1.02}  # a step with a probe over a plain one; a whole run over LoRA's at the same ranks


def steps_to_loss(study: Study) -> pd.DataFrame:
    """The first step at which the validation loss of a finished run is at or below a fixed value, on the first data set
    of a profile; one row per method.

    The value is the worst of the least losses of LoRA's runs: the lowest that all of them reach. Losses are measured
    once an epoch, so steps are multiples of that.

    Returns:
        method, loss (the value), seeds, reached (how many of these), steps (their mean; nan where none is). No rows
        where LoRA has no run with a validation loss.
    """
    dataset, profile = study.profile.datasets[0], study.profile
    losses = {}
    for method in dict.fromkeys(["lora", *profile.methods]):
        runs = [study.named(dataset, method, seed) for seed in profile.seeds_of(method, dataset)]
        tables = [run.table("history").set_index("step").val_loss.dropna() for run in runs if run.rows("history")]
        losses[method] = [found for found in tables if len(found)]
    rows = []
    if losses["lora"]:
        value = max(found.min() for found in losses["lora"])
        for method, seeds in losses.items():
            steps = pd.Series([found.index[found <= value][0] for found in seeds if found.min() <= value], dtype=float)
            if seeds:
                rows.append((method, value, len(seeds), len(steps), steps.mean()))
    return pd.DataFrame(rows, columns=["method", "loss", "seeds", "reached", "steps"])


def whole(table: pd.DataFrame, interval: float | pd.Series) -> pd.Series:
    """A run's mean step over a plain one: 1 without probes, with one in `interval` steps more by its share."""
    return (1 + (table.probe - 1) / interval).fillna(1.0)


def ratios(table: pd.DataFrame, reached: pd.DataFrame) -> pd.DataFrame:
    """All costs as ratios to LoRA's, a row per method.

    Args:
        table: `cost.measure_all`, with LoRA among its rows. reached: `steps_to_loss`.

    Returns:
        ranks; step, p95 (LoRA's own row: two equal steps); probe (over the method's own plain step); run (the mean step
        of a run, probes included); flop, memory, parameters, optimizer, file; to loss (time until the fixed loss: the
        mean of the seeds that reach it), and reached, how many those are, '' where there is no run.
    """
    own = table.set_index("method")
    counted = {"flop": "gflop", "memory": "memory_mb", "parameters": "parameters"}
    counted |= {"optimizer": "optimizer_mb", "file": "file_mb"}
    found = own[["ranks", "step", "p95", "probe"]].assign(run=own.step * whole(own, own.interval))
    for words, column in counted.items():
        found[words] = own[column].astype(float) / float(own[column]["lora"] or "nan")
    steps = reached.set_index("method").reindex(own.index)
    found["to loss"] = steps.steps / steps.steps.get("lora") * found.run / found.run["lora"]
    words = steps.reached.map("{:.0f}".format) + " of " + steps.seeds.map("{:.0f}".format)
    found["reached"] = words.where(steps.seeds.notna(), "").mask(steps.reached == 0, "never")
    return found


def sentence(table: pd.DataFrame, method: str = "selora") -> str:
    """What a whole run of a growing method costs, over its own ranks without growth and over LoRA's, in Markdown.

    Args:
        table: `cost.measure_all`.
    """
    rows = table[(table.method == method) & table.probe.notna()]
    if rows.empty:
        return f"What growing costs is not known here: no probe of {method} was measured."
    row, twin = rows.iloc[0], table[table.method == "lora"].step.iloc[0]
    figures = {"probe": row.probe, "own": row.own * whole(rows, INTERVAL).iloc[0]}
    kept = {name: "within" if figures[name] <= bar else "**above**" for name, bar in BARS.items()}
    return (
        f"A step of {method} with a probe takes {row.probe:.2f} of its plain step, {kept['probe']} the bar of "
        f"{BARS['probe']:.2f}. With a probe every {INTERVAL} steps a run takes {figures['own']:.3f} of what plain LoRA "
        f"takes at the same ranks ({row['ranks']} ones), {kept['own']} the bar of {BARS['own']:.2f}; with one every "
        f"{row.interval:.0f}, as here, it takes {row.step * whole(rows, row.interval).iloc[0]:.3f} of LoRA's time a "
        f"step. Medians of {row.rounds:.0f} steps on {row.device}; two equal LoRAs came out at {twin:.3f}, and nothing "
        f"closer than that can be told apart."
    )
