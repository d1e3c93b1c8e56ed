"""The published results of a profile: where they are, how they are announced, and how long their runs took."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from selora.files import PUBLISHED, REPOSITORY, read_json
from selora.study.fingerprints import hash_model
from selora.study.results import Run


def published_run(run: Run) -> Run:
    """The published run of the same names, which may not be there."""
    return Run(run.profile, run.dataset, run.method, run.seed, PUBLISHED)


def banner(profile: str, own: Path, runs: Sequence[Run]) -> str:
    """What a reader must know of a notebook that shows published runs, in Markdown.

    Args:
        own: the folder in which the reader's own results would be.
        runs: published ones that are there.
    """
    results = [run.result() for run in runs]
    commits = ", ".join(sorted({result["commit"] for result in results}))
    lines = [
        f"**Published results.** None of your own runs are shown here, but those of profile `{profile}` that come with "
        f"the repository (`results/published/{profile}`, made at commit {commits}). Nothing is trained or written. "
        f"`PROFILE={profile} make run_all` makes your own, in `{relative(own)}`."
    ]
    if of_former_base(result["settings"] for result in results):
        lines.append("They were made **with a former base model**: made anew today, they would come out otherwise.")
    return "\n".join(f"> {line}\n>" for line in lines)


def of_former_base(settings: Iterable[Mapping]) -> bool:
    """Whether runs of some settings were made with another base model than lies there today under the same name."""
    bases = {(own["base_model"], own.get("base_contents")) for own in settings}
    return any(contents != hash_model(name) for name, contents in bases)


def relative(folder: Path) -> str:
    """A folder as seen from the repository, where it lies in it."""
    return (folder.relative_to(REPOSITORY) if folder.is_relative_to(REPOSITORY) else folder).as_posix()


def said_time(runs: Sequence[Run]) -> str:
    """How long runs that are to be made will take, by what the published ones of the same names took."""
    records = [read_json(other.record) for run in runs if (other := published_run(run)).done]
    seconds = [record["train_seconds"] + record["sample_seconds"] for record in records]
    words = f"{len(runs)} run{'s' * (len(runs) > 1)} to make, training and sampling"
    if not seconds:
        return f"{words}; how long that takes is not known, none of them was published."
    minutes = sum(seconds) / len(seconds) * len(runs) / 60  # those without a published run count as the mean
    devices = ", ".join(sorted({record["device"] for record in records}))
    return (
        f"{words}: about {minutes:.0f} min one after the other, if they take as long as the published did ({devices})."
    )
