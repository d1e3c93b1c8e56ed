"""Table 1 in print: its rows as words, in Markdown and in LaTeX, the paper's own numbers below."""

import re

import pandas as pd

from selora.diffusion.solvers import SOLVERS
from selora.scoring.intervals import LEVEL, SEEDS
from selora.scoring.labels import mean_auroc
from selora.study import paper
from selora.study.profiles import Profile
from selora.study.report.comparison import ENDS, mean_interval

HEADER = [
    "data set", "method", "seeds", "FID ↓", "KID x 1000 ↓", "KID x 1000 less LoRA's [95 %]", "KID x 1000 by CLIP ↓",
    "CLIP score ↑", "finding AUROC ↑", "U-Net", "text encoder", "training", "peak memory",
]  # fmt: skip
PAPER_HEADER = ["data set", "method", "FID ↓", "CLIP score ↑", "text encoder", "U-Net"]
SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$",
    "†": r"$^\dagger$", "≥": r"$\geq$",
}  # fmt: skip


def spread(mean: float, std: float = float("nan"), digits: int = 1) -> str:
    """'113.4 ± 7.9', the mean alone where one seed has no deviation, nothing where there is no number."""
    if pd.isna(mean):
        return "-"
    return f"{mean:.{digits}f}" if pd.isna(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def interval(value: float, low: float, high: float) -> str:
    """'+48.4 [40.1, 57.0]'; a dash for what there is not."""
    if pd.isna(value):
        return "-"
    return f"{value:+.1f} [-]" if pd.isna(low) else f"{value:+.1f} [{low:.1f}, {high:.1f}]"


def marked(text: str, mark: str) -> str:
    """The best bold, the tied with a dagger."""
    return {"best": f"**{text}**", "tied": f"{text} †"}.get(mark, text)


def body(table: pd.DataFrame, runs: pd.DataFrame) -> list[list[str]]:
    """The cells of Table 1 below its header: each data set's methods, then real vs real and the autoencoder limit."""
    lines = []
    for dataset, rows in table.groupby("dataset", sort=False):
        for row in rows.itertuples():
            scores = [
                spread(row.fid_mean, row.fid_std),
                marked(spread(1000 * row.kid_mean, 1000 * row.kid_std), row.kid_best),
                interval(1000 * row.kid_diff, 1000 * row.kid_diff_low, 1000 * row.kid_diff_high)
                + " *" * (row.kid_diff_p < LEVEL),
                marked(spread(1000 * row.kid_clip_mean, 1000 * row.kid_clip_std), row.kid_clip_best),
                marked(spread(row.clip_mean, row.clip_std), row.clip_best),
                marked(spread(row.auroc_mean, row.auroc_std, 3), row.auroc_best),
            ]
            sizes = [f"{row.unet_params:,} ({row.unet_pct:.2f} %)"]
            sizes += [f"{row.text_encoder_params:,} ({row.text_encoder_pct:.2f} %)"]
            costs = [f"{row.train_seconds:.0f} s", f"{row.peak_memory_mb:.0f} MB"]
            lines.append([dataset, row.method, str(row.n_seeds), *scores, *sizes, *costs])
        bounds = runs[runs.dataset == dataset].iloc[0]
        for words, distance, prompted in (
            ("real vs real", bounds["floor"], bounds["reference"]),
            ("autoencoder limit", bounds["ceiling"], bounds["ceiling"]),
        ):
            by_clip = 1000 * distance.get("kid_clip", float("nan"))  # runs made before there was one have none
            scores = [spread(distance["fid"]), spread(1000 * distance["kid"]), "", spread(by_clip)]
            scores += [spread(prompted["clip"]), spread(mean_auroc(prompted), digits=3)]
            lines.append([dataset, f"*{words}*", "", *scores, "", "", "", ""])
    return lines


def paper_body() -> list[list[str]]:
    """The cells of the paper's own table."""
    lines = []
    for dataset, methods in paper.SCORES.items():
        for method, (fid, fid_std, clip, clip_std) in methods.items():
            known = dataset == "IU X-RAY"  # the only set it gives shares for
            shares = paper.SHARES.get(method, paper.SHARES["others"]) if known else ("-", "-")
            lines.append([dataset, method, spread(fid, fid_std, 2), spread(clip, clip_std, 2), *map(str, shares)])
    return lines


def heard(runs: pd.DataFrame) -> str:
    """Whether the CLIP score tells a generated picture's own prompt from the others', by data set."""
    loras, said = runs[runs.method == "lora"], []
    seeds = loras.groupby("dataset").seed.nunique().min() >= SEEDS
    for dataset, lora in loras.groupby("dataset", sort=False):
        value, low, high = mean_interval(lora, "clip_contrast", seeds)
        if not pd.isna(value):
            reference = lora.iloc[0]["reference"]["clip_contrast"]
            said.append(f"{interval(value, low, high)} on {dataset} (reference images {reference:+.1f})")
    if not said:
        return ""
    kind = "over seeds and prompts" if seeds else "over images within seeds"
    return f"Own prompt less all others', LoRA's images [95 % {kind}]: {', '.join(said)}. "


def caption(runs: pd.DataFrame) -> str:
    """What a reader must know to read Table 1."""
    settings = runs.iloc[0]["settings"]
    counts = ", ".join(f"{rows.n.iloc[0]} for {dataset}" for dataset, rows in runs.groupby("dataset", sort=False))
    encoder = settings["encoder"] + ("" if settings["encoder"] == "inception" else ", which is not Inception")
    trained_here = ", a small CLIP trained on rendered radiographs" if settings["clip"] == "data/mini-clip" else ""
    solver = SOLVERS[settings.get("solver", Profile.solver)].title
    return (
        f"Encoder: {encoder}: numbers compare only within this table. Images: {counts}, for the "
        "first prompts of the test split, against the images they belong to. "
        f"Guidance scale {settings['guidance_scale']}, {solver} with {settings['sampling_steps']} steps, "
        f"prompt dropout {settings['prompt_dropout']}. Mean ± standard deviation over seeds; one seed has no "
        "deviation. Differences from LoRA are over the seeds that both have. Their 95 % intervals hold other seeds and "
        "other prompts: a hierarchical bootstrap draws seeds, then prompts (500 resamples, the same for every run), "
        f"paired by both. Fewer than {SEEDS} seeds carry no interval and no mark: they say too little of how far a "
        "seed moves a score, which is further than prompts do. A star: different from LoRA at 5 %, corrected for how "
        "many rows of the data set are compared (Holm). Bold: the best of the adapters (base and full fine-tuning are "
        "the two ends, and no rivals); † marks adapters not significantly worse than it, so corrected; a column whose "
        "best may be chance (AUROC 0.5) has no mark. "
        f"{unmarked(runs)}"
        "Real vs real: as many other images of the same set against the reference, both rendered in a rendered set; "
        "its CLIP score and AUROC are the reference's own. Autoencoder limit: the reference through the base's "
        "autoencoder, which no adapter can better but by chance. FID of so few images is mostly bias, to be read "
        "beside real vs real, and has neither interval nor mark; KID is unbiased and the primary score. KID by CLIP is "
        "that of the image embeddings of the CLIP below, a second encoder: what only one of the two says is that "
        "encoder's own. "
        f"CLIP score by {settings['clip']}{trained_here}: 100 x cosine, with an arbitrary zero, so to be read against "
        f"its value on the reference images (the row real vs real). {heard(runs)}"
        "Finding AUROC: mean over the findings that 8 or more of the prompts have, of a classifier's scores against "
        "what the prompts say; 0.5 is chance. U-Net and text encoder: trainable parameters of the weights scored, as a "
        "share of adapter and base together. "
        "Training: seconds by the clock, whatever else the machine was doing, the median over seeds. "
        "Peak memory: of the whole run, sampling and scoring included. "
        f"Base model: {settings['base_model']}. Runs made at commit {', '.join(sorted(set(runs.commit)))}."
    )


def unmarked(runs: pd.DataFrame) -> str:
    """Which adapters have no mark for want of seeds, as a sentence; nothing where all have as many."""
    seeds = runs[~runs.method.isin(ENDS)].groupby("method", sort=False).seed.nunique()
    fewer = list(seeds[seeds < seeds.max()].index)
    return f"Of fewer seeds than the others, and so without any mark: {', '.join(fewer)}. " if fewer else ""


def paper_caption() -> str:
    """What a reader must know of the paper's own numbers."""
    return (
        f"The paper's own numbers, as printed ({paper.SOURCE}): Stable Diffusion v1.5, mean ± standard deviation over "
        "three seeds. They do not compare with those above: encoder, CLIP, data, image size, number of images and base "
        "model all differ. Text encoder and U-Net: shares of trainable parameters, in per cent, in the order that the "
        "paper names the networks in; they fit the parameter counts only with the two networks swapped."
    )


def markdown(table: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Table 1 with its caption, then the paper's table with its own."""

    def lined(header: list[str], lines: list[list[str]]) -> str:
        return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])

    ours = [lined(HEADER, body(table, runs)), caption(runs)]
    return "\n\n".join([*ours, "## The paper's Table 1", lined(PAPER_HEADER, paper_body()), paper_caption()]) + "\n"


def escaped(text: str) -> str:
    """A Markdown cell or caption as LaTeX: special signs, minus signs, bold and italics."""
    text = re.sub(r"(?<!\w)-(?=\d)", "\0", text)  # before the signs, among which '$' would itself be escaped
    text = "".join(SIGNS.get(sign, sign) for sign in text).replace("\0", "$-$")
    return re.sub(r"\*(.+?)\*", r"\\emph{\1}", re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text))


def latex(table: pd.DataFrame, runs: pd.DataFrame) -> str:
    r"""Both tables for \input, booktabs style, a rule between data sets."""

    def floated(label: str, header: list[str], lines: list[list[str]], words: str) -> str:
        parts = [r"\begin{table}", r"\centering", rf"\caption{{{escaped(words)}}}", rf"\label{{{label}}}"]
        parts += [r"\resizebox{\textwidth}{!}{%", rf"\begin{{tabular}}{{ll{'r' * (len(header) - 2)}}}", r"\toprule"]
        for before, line in zip([None, header, *lines], [header, *lines], strict=False):
            if before and before[0] != line[0]:
                parts.append(r"\midrule")
            parts.append(" & ".join(escaped(cell) for cell in line) + r" \\")
        return "\n".join([*parts, r"\bottomrule", r"\end{tabular}}", r"\end{table}"])

    ours = floated("tab:table1", HEADER, body(table, runs), caption(runs))
    theirs = floated("tab:paper", PAPER_HEADER, paper_body(), paper_caption())
    return f"% needs \\usepackage{{booktabs, graphicx}}\n{ours}\n\n{theirs}\n"
