"""The README's results: a table and what it says, made of the records kept there alone, so that no number is typed."""

from pathlib import Path

import pandas as pd

from selora.files import REPOSITORY, RESULTS, write_text
from selora.scoring.intervals import LEVEL, SEEDS
from selora.scoring.labels import mean_auroc
from selora.study.report.comparison import ENDS, difference, mean_interval
from selora.study.report.table1 import collect, table1
from selora.study.report.table1_text import interval, spread

README = REPOSITORY / "README.md"
NAMES = {"base": "base, not fine-tuned", "full": "full fine-tune", "lora": "LoRA r 4", "dylora": "DyLoRA",
         "adalora": "AdaLoRA 6 to 4", "selora": "SeLoRA"}  # fmt: skip
OTHERS = {"lora": "LoRA", "lora-matched": "LoRA of even ranks with as many", "selora-random": "random layers' growth"}
HEADINGS = ("KID x 1000 ↓", "CLIP score ↑", "finding AUROC ↑", "parameters")


def fill_readme(kept: str, path: Path = README, results: Path = RESULTS) -> None:
    """Put what some kept records give between their marks in a README; nothing for records without a block.

    Args:
        kept: which, by their folder in `results`: 'published/quick', say.

    Raises:
        ValueError: where the marks are missing.
    """
    if kept in BLOCKS:
        text = path.read_text(encoding="utf-8")
        before, old, after = parts(text, kept)
        write_text(path, before + BLOCKS[kept](results / kept) + after)


def parts(text: str, kept: str) -> tuple[str, str, str]:
    """A README's text up to what stands between the marks of some kept records, that, and the rest."""
    start, end = f"<!-- from the records of results/{kept}: -->", f"<!-- end of {kept}'s records -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"the README has not both marks once, '{start}' and '{end}': put them round the results")
    before, rest = text.split(start)
    inside, after = rest.split(end)
    return before + start, inside, end + after


def results_block(folder: Path) -> str:
    """A profile's results in Markdown: scores of each method on each data set, and the verdicts on them."""
    runs = collect(folder)
    table = table1(runs)
    return "\n" + "\n\n".join([scores_table(table, runs), caption(runs), listed(verdicts(table, runs))]) + "\n"


def verdicts_block(folder: Path) -> str:
    """The verdicts alone."""
    runs = collect(folder)
    return "\n" + listed(verdicts(table1(runs), runs)) + "\n"


BLOCKS = {"published/quick": results_block, "published/mini": verdicts_block, "begun/mini": results_block}


def listed(sentences: list[str]) -> str:
    """Sentences as a Markdown list."""
    return "\n".join(f"- {words}" for words in sentences)


def scores_table(table: pd.DataFrame, runs: pd.DataFrame) -> str:
    """A row for each method, then the autoencoder's limit and real vs real; columns for each data set."""
    columns = {}
    for dataset, rows in table.groupby("dataset", sort=False):
        cells = {row.method: scores(row) for row in rows.itertuples()}
        bounds = runs[runs.dataset == dataset].iloc[0]
        for name, distance, prompted in (
            ("*autoencoder limit*", bounds["ceiling"], bounds["ceiling"]),
            ("*real vs real*", bounds["floor"], bounds["reference"]),
        ):
            auroc = spread(mean_auroc(prompted), digits=3)
            cells[name] = [spread(1000 * distance["kid"]), spread(prompted["clip"]), auroc, ""]
        for place, heading in enumerate(HEADINGS):
            column = {name: own[place] for name, own in cells.items()}
            if set(column.values()) - {"-", ""}:  # else no finding has enough images
                columns[f"{dataset}: {heading}"] = column
    body = pd.DataFrame(columns).fillna("-").rename(index=NAMES)
    lines = [["", *body.columns], ["---"] * (1 + len(columns)), *([name, *row] for name, *row in body.itertuples())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def scores(row) -> list[str]:
    """The cells of a row of Table 1 under `HEADINGS`."""
    return [
        spread(1000 * row.kid_mean, 1000 * row.kid_std),
        spread(row.clip_mean, row.clip_std),
        spread(row.auroc_mean, row.auroc_std, 3),
        f"{row.unet_params + row.text_encoder_params:,}",
    ]


def caption(runs: pd.DataFrame) -> str:
    """What a reader must know of the table."""
    settings = runs.iloc[0].settings
    images = " and ".join(f"{own.n.iloc[0]} images of {name}" for name, own in runs.groupby("dataset", sort=False))
    return (
        f"{over(runs)}, {images}, guidance "
        f"{settings['guidance_scale']}, {settings['sampling_steps']} sampling steps, commit "
        f"{', '.join(sorted(set(runs.commit)))}. KID is of {settings['encoder']} features, not Inception; finding "
        "AUROC is the mean over findings of the classifier's on the generated pictures against what their prompts say, "
        "0.5 is chance. *Autoencoder limit*: the reference images through the base's autoencoder. *Real vs real*: as "
        "many other images of the set, both sides rendered here."
    )


def over(runs: pd.DataFrame) -> str:
    """Over how many seeds the table's means are; of each method, where they differ."""
    counts = runs.groupby(["dataset", "method"], sort=False).seed.nunique()
    if counts.nunique() == 1:
        return "One seed" if counts.iloc[0] == 1 else f"Mean ± standard deviation over {counts.iloc[0]} seeds"
    own = (
        f"on {dataset} {', '.join(f'{count} of {NAMES.get(method, method)}' for (_, method), count in some.items())}"
        for dataset, some in counts.groupby("dataset", sort=False)
    )
    return f"Mean ± standard deviation over seeds ({'; '.join(own)})"


def verdicts(table: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """What the table says, a sentence for each data set and question, with the kind of its interval."""
    found = []
    for dataset, rows in table.groupby("dataset", sort=False):
        own, rows = runs[runs.dataset == dataset], rows.set_index("method")
        if "selora" in rows.index:
            said = [versus(own, other) for other in OTHERS if other in rows.index]
            found.append(
                f"**{dataset}**, KID x 1000 of SeLoRA: {'; '.join(said)}. In brackets 95 % intervals over seeds "
                f"and prompts; fewer than {SEEDS} seeds have none, and nothing is told from them."
            )
        adapters = rows.drop(index=[*ENDS], errors="ignore")
        adapters = adapters[adapters.n_seeds == adapters.n_seeds.max()]  # the mean of fewer is luckier
        if adapters.auroc_mean.notna().any():
            best = adapters.auroc_mean.idxmax()
            value, low, high = mean_interval(own[own.method == best], "auroc", seeds=True)
            said, kind = f"{value:.3f} [{low:.3f}, {high:.3f}]", "In brackets its 95 % interval over seeds and prompts."
            if pd.isna(low):
                said, kind = f"{value:.3f}", "These means over findings have no interval."
            found.append(
                f"**{dataset}**, do pictures show what their prompts say? Of the adapters {NAMES.get(best, best)} has "
                f"the highest finding AUROC, {said}; the reference has {mean_auroc(own.iloc[0]['reference']):.3f}, "
                f"chance 0.5. {kind}"
            )
    return found


def versus(runs: pd.DataFrame, other: str) -> str:
    """How SeLoRA compares with another method by KID, over the seeds that both have."""
    pair = runs[runs.method == "selora"], runs[runs.method == other]
    value, low, high, p = difference(*pair, "kid")
    word = "not told from" if not p < LEVEL else "worse than" if value > 0 else "better than"
    common = set(pair[0].seed) & set(pair[1].seed)
    own, its = (
        runs[runs.seed.isin(common)][["unet_params", "text_encoder_params"]].sum(axis=1).mean() for runs in pair
    )
    seeds = len(common)
    return (
        f"{word} {OTHERS[other]} ({interval(1000 * value, 1000 * low, 1000 * high)}, {seeds} "
        f"seed{'s' * (seeds > 1)}, {own / its:.0%} of its parameters)"
    )
