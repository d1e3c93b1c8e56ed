"""In it: profiles, the sizes of the study, and the checks that they can work.
May enter: a profile, one small YAML file beside this one that says why each value was chosen.
"""

import math
import os
import reprlib
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path

import yaml

from selora.data import DATASETS
from selora.diffusion.solvers import SOLVERS
from selora.methods import BUILDS_ON, METHODS, named
from selora.study.profiles.checks import StrictLoader, check_choices, fits, kind_name

FOLDER = Path(__file__).parent
NOT_OF_A_RUN = {
    *("name", "datasets", "methods", "seeds", "fewer"),  # which runs there are
    *("ablation", "ablation_datasets", "sensitivity", "lengths"),
    *("accumulation", "gradient_checkpointing", "compile", "checkpoint_interval"),  # how a machine gets there
    *("data_root", "method_settings", "audit_steps", "timed_steps", "utility", "file"),
}
INITS = ("kaiming", "peft")  # of `expansion.SelfExpandingLoRA`
TIMESTEPS = 1000  # of the noise schedule of every base model: more steps of sampling would go over some twice
FEWEST = 6  # images, for precision and recall: they look at the five nearest neighbours


@dataclass(frozen=True)
class Profile:
    """All settings of a study; the YAML files say why each value was chosen.

    Raises:
        ValueError: for a value that cannot work, with the choices.
    """

    name: str
    base_model: str  # a folder of the repository, or a hub id
    resolution: int  # pixels
    datasets: list[str]
    methods: list[str]
    seeds: list[int]
    steps: dict[str, int]  # training steps per data set, and under 'other' of those that are not named
    batch_size: int
    learning_rate: float
    prompt_dropout: float
    validation_images: int
    checkpoint_interval: int  # steps
    images: int  # scored per run, at most; the first of the test split
    sampling_steps: int
    guidance_scale: float
    sampling_batch: int
    encoder: str  # of FID, KID and their kin
    clip: str  # of the CLIP score: a folder of the repository, or a hub id
    classifier: str  # of the findings
    ablation: list[float] = field(default_factory=list)  # thresholds of SeLoRA tried beside its own, on one seed
    ablation_datasets: list[str] | None = None  # where; without it, all of the profile's
    # of SeLoRA's 'threshold' and 'interval' the values that are tried with one another, by validation loss alone
    sensitivity: dict[str, list[float]] = field(default_factory=dict)
    # of some methods how many of the seeds, per data set and under 'other' of those that are not named; without it all
    fewer: dict[str, dict[str, int]] = field(default_factory=dict)
    lengths: dict[str, list[int]] = field(default_factory=dict)  # steps of further runs, per data set
    method_settings: dict[str, dict] = field(default_factory=dict)
    train_images: int | None = None  # that runs are trained on, a fixed choice of them; without it all
    utility: dict[str, list[int]] = field(default_factory=dict)  # methods to be trained on few images too: on how many
    audit_steps: int = 60  # of each of the audit's short trainings, probed six times, or at each of fewer steps
    timed_steps: int = 8  # of each method, in turns with LoRA's; more make all steadier, 95th percentiles above all
    data_root: str | None = None  # folder of the real data sets; without it SELORA_DATA, else data/raw
    precision: str = "fp32"  # of the frozen weights and of the arithmetic: fp32 or bf16; what is trained is fp32 always
    solver: str = "sde-dpmsolver++"  # of SOLVERS
    accumulation: int = 1  # parts of a batch that go through the networks one after the other
    gradient_checkpointing: bool = False  # a third more time for far less memory
    file: str | None = None  # of the user's own; the study's profiles have none
    compile: bool = False  # torch.compile; pays on a GPU, in runs of thousands of steps

    def __post_init__(self):
        self.check_rate("learning_rate", self.learning_rate)
        for f in fields(self):
            if not fits(getattr(self, f.name), f.type):
                self.refuse(f.name, getattr(self, f.name), f"be of the kind {kind_name(f.type)}")
            self.check_once(f.name, getattr(self, f.name))
        check_choices("data set", [*self.datasets, *(self.ablation_datasets or []), *self.lengths], DATASETS)
        check_choices("data set in steps", list(self.steps), [*DATASETS, "other"])
        check_choices("method", [*self.methods, *self.fewer, *self.method_settings, *self.utility], METHODS)
        for method, counts in self.fewer.items():
            check_choices(f"data set in fewer of {method}", list(counts), [*DATASETS, "other"])
            for name, count in counts.items():
                if count < 0:
                    self.refuse(f"fewer of {method} on {name}", count, "be a number of seeds, 0 or more")
        for method, settings in self.method_settings.items():
            check_choices(f"setting of {method}", list(settings), {**METHODS[method][1], "learning_rate": None})
            self.check_rate(f"{method}'s learning_rate", settings.get("learning_rate", self.learning_rate))
            for name, value in settings.items():
                default = METHODS[method][1].get(name, self.learning_rate)
                kind = type(default)
                if not fits(value, kind) or kind is int and value < 1:
                    more = ", 1 or more" if kind is int else ""
                    self.refuse(f"{method}'s {name}", value, f"be of the kind {kind_name(kind)}{more}")
                if name == "init":
                    check_choices(f"init of {method}", [value], INITS)
                elif name == "threshold":
                    self.check_threshold(f"{method}'s threshold", value)
                elif kind is str and value != default or kind is dict and not default.items() <= value.items():
                    self.refuse(f"{method}'s {name}", value, f"hold {default!r}, by which the method has its name")
        for threshold in self.ablation:
            named(f"selora@{threshold}")
            self.check_threshold("a threshold of ablation", threshold)
        if self.sensitivity and ({*self.sensitivity} != {"threshold", "interval"} or [] in self.sensitivity.values()):
            self.refuse("sensitivity", self.sensitivity, "give values of threshold and of interval, or be left out")
        for threshold in self.sensitivity.get("threshold", []):
            self.check_threshold("a threshold of sensitivity", threshold)
        for interval in self.sensitivity.get("interval", []):
            if type(interval) is not int or interval < 1:
                self.refuse("an interval of sensitivity", interval, "be a number of steps, 1 or more")
        check_choices("precision", [self.precision], ("fp32", "bf16"))
        check_choices("solver", [self.solver], SOLVERS)
        for name in ("datasets", "methods", "seeds", "ablation_datasets"):
            if getattr(self, name) == []:
                self.refuse(name, [], "name at least one")
        for seed in self.seeds:
            if not 0 <= seed < 2**32:  # draws multiply it by a million, in 64 bits
                self.refuse("a seed", seed, "be a whole number from 0 to 4294967295")
        for name in self.datasets:
            if name not in self.steps and "other" not in self.steps:
                raise ValueError(f"profile {self.name} gives no steps for data set '{name}': add it under 'steps'")
        for name in ("resolution", "batch_size", "validation_images", "checkpoint_interval", "images", "sampling_steps",
                     "sampling_batch", "accumulation", "audit_steps", "timed_steps"):  # fmt: skip
            if getattr(self, name) < 1:
                self.refuse(name, getattr(self, name), "be 1 or more")
        for method, counts in self.utility.items():
            if min(counts, default=0) < FEWEST:
                self.refuse(f"utility of {method}", counts, f"name numbers of images, each {FEWEST} or more")
        if self.train_images is not None and self.train_images < FEWEST:
            self.refuse("train_images", self.train_images, f"be {FEWEST} or more")
        for name, steps in self.steps.items():
            if steps < 1:
                self.refuse(f"steps of {name}", steps, "be 1 or more")
        for name, lengths in self.lengths.items():
            for steps in lengths:
                if steps < 1:
                    self.refuse(f"lengths of {name}", steps, "be a number of steps, 1 or more")
        if self.sampling_steps > TIMESTEPS:
            self.refuse("sampling_steps", self.sampling_steps, f"be {TIMESTEPS} or fewer: a noise schedule has no more")
        if self.guidance_scale != 0 and self.guidance_scale < 1:  # diffusers guides by more than 1 alone, and is silent
            self.refuse("guidance_scale", self.guidance_scale, "be more than 1, or 1 (or 0) for none")
        if not 0 <= self.prompt_dropout <= 1:
            self.refuse("prompt_dropout", self.prompt_dropout, "be a share, from 0 to 1")
        if self.resolution % 8:
            raise ValueError(
                f"profile {self.name}: resolution is {self.resolution}, but the autoencoder halves pictures three "
                "times: choose a multiple of 8"
            )
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"profile {self.name}: batch_size {self.batch_size} cannot be cut into {self.accumulation} equal "
                "parts: choose an accumulation that divides it"
            )

    def check_rate(self, what: str, value: object) -> None:
        """Raise ValueError for a learning rate that YAML reads as text, as it does 1e-4, or that is not positive."""
        if not isinstance(value, float) or not 0 < value < math.inf:
            raise ValueError(f"profile {self.name}: {what} is {value!r}; write it as 3.0e-3")

    def check_once(self, what: str, value: object) -> None:
        """Raise ValueError for a list, or one of a mapping's, that has a value twice: its run would count twice."""
        if isinstance(value, dict):
            for key, items in value.items():
                self.check_once(f"{what} of {key}", items if isinstance(items, list) else None)
        if isinstance(value, list) and (twice := [item for item in value if value.count(item) > 1]):
            self.refuse(what, value, f"have each value once: {twice[0]!r} stands there {value.count(twice[0])} times")

    def check_threshold(self, what: str, value: float) -> None:
        """Raise ValueError for a threshold that every FI-Ratio reaches by far."""
        if value < 1:
            self.refuse(what, value, "be 1 (every layer grows) or more: no FI-Ratio is below 1")

    def refuse(self, what: str, value: object, must: str) -> None:
        """Raise ValueError for a value, with what it must be."""
        raise ValueError(f"profile {self.name}: {what} is {reprlib.repr(value)}, but must {must}")

    def seeds_of(self, method: str, dataset: str) -> list[int]:
        """The seeds that a method is run with on a data set; the ablation's runs have the first alone."""
        counts = {"other": 1} if "@" in method else self.fewer.get(method, {})
        return self.seeds[: counts.get(dataset, counts.get("other", len(self.seeds)))]

    def run_settings(self, dataset: str, method: str) -> dict:
        """What determines the outcome of one run, besides data set, method and seed.

        A setting of the profile's own default is not named: so a new one leaves finished runs finished.
        """
        settings = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in NOT_OF_A_RUN and getattr(self, f.name) != f.default
        }
        base, changed = named(method)
        steps = self.steps_of(dataset)
        own = METHODS[base][1] | self.method_settings.get(base, {}) | changed
        if own.get("interval", 1) > steps:
            raise ValueError(
                f"profile {self.name}: {base} would never grow: its interval is {own['interval']}, and {dataset} gets "
                f"{steps} steps"
            )
        needs = {other: self.run_settings(dataset, other)["method"] for other in BUILDS_ON.get(base, ())}
        if len(needs) == 1:  # as finished runs have it
            (needs,) = needs.values()
        return settings | ({"needs": needs} if needs else {}) | {"steps": steps, "method": own}

    def steps_of(self, dataset: str) -> int:
        """The training steps of a run on a data set."""
        return self.steps[dataset if dataset in self.steps else "other"]


def profile_names() -> list[str]:
    """The profiles there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_profile(name: str, datasets: str = "", methods: str = "", data_root: str = "") -> Profile:
    """Read a profile; comma-separated `datasets` and `methods` narrow it, `data_root` says where real data is.

    name: one of the study's, or the path of a YAML file of the user's own, which is named by it without its ending.

    Raises:
        ValueError: for an unknown profile, data set, method or setting, with the choices, or a file that is no profile.
    """
    own = Path(os.path.expanduser(name)).resolve() if name.endswith((".yaml", ".yml")) else None
    if not own:
        check_choices("profile", [name], profile_names())
    path = own or FOLDER / f"{name}.yaml"
    if path.stem == "published":
        raise ValueError(f"profile {path} would have its results where published ones are: call it otherwise")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # ValueError: of a date that is none, say
        raise ValueError(f"profile {path} cannot be read: {' '.join(str(error).split())}") from error
    known = {f.name: f for f in fields(Profile) if f.name not in ("name", "file")}
    if not isinstance(values, dict):
        raise ValueError(f"profile {path} holds no settings: write them as in {FOLDER / 'quick.yaml'}")
    check_choices(f"setting in profile {name}", list(values), known)
    missing = [n for n, f in known.items() if n not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise ValueError(f"profile {path} lacks {', '.join(missing)}: copy them from {FOLDER / 'quick.yaml'}")
    profile = Profile(name=path.stem, file=str(own) if own else None, **values)
    if others := [name for name in profile.ablation_datasets or [] if name not in profile.datasets]:
        profile.refuse("ablation_datasets", others, "be among its datasets, or be left out for all of them")
    narrowed = {"datasets": datasets, "methods": methods}
    narrowed = {key: [n.strip() for n in value.split(",")] for key, value in narrowed.items() if value}
    return replace(profile, **narrowed, **({"data_root": data_root} if data_root else {}))
