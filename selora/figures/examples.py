"""Pictures to look at (the paper's Fig. 2): which prompts, and what finished runs make of the paper's own."""

import re
from pathlib import Path

from PIL import Image

from selora.data.example import Example
from selora.data.iu_drr import read_cases
from selora.files import DATA
from selora.study.profiles import Profile

PAPER_PROMPT = (  # of Fig. 2, to the letter; a report of IU X-Ray
    "Heart size and vascularity normal. These contour normal. Lungs clear. No pleural effusions or pneumothoraces."
)
# What can be seen at this size.
TO_SHOW = ("cardiomegaly", "pleural effusion", "nodule", "scoliosis", "cavity", "normal")


def nearest_prompts(prompt: str, examples: list[Example], count: int) -> list[Example]:
    """The examples whose prompts share most words with a prompt: the share of the words of both."""

    def distance(example: Example) -> float:
        words, own = (set(re.findall("[a-z]+", text.lower())) for text in (prompt, example.prompt))
        return -len(words & own) / len(words | own)

    return sorted(examples, key=distance)[:count]


def clearest(dataset: str, examples: list[Example]) -> dict[str, Example]:
    """For each finding to show another example: where it is largest, then with the fewest others; those there are.

    How large a finding was rendered stands in the data set's table; a real set has none, and severities count alike.
    """
    table = DATA / dataset
    cases = {next(iter(row.values())): row for row in read_cases(table)} if table.is_dir() else {}

    def order(example: Example, finding: str) -> tuple[int, int]:
        severities = cases.get(example.id, {}).get("severity", "").split(";")
        given = dict(zip(example.findings, severities, strict=False)).get(finding)
        return -int(given or 0), len(example.findings)

    shown = {}
    for finding in TO_SHOW:
        if having := [e for e in examples if finding in e.findings and e not in shown.values()]:
            shown[finding] = min(having, key=lambda e: order(e, finding))
    return shown


def sample_run(profile: Profile, folder: Path, prompt: str, count: int) -> list[Image.Image] | None:
    """What a finished run makes of any prompt, from noises that are the same for every run.

    None for a run whose weights are in another format than diffusers' LoRA or the full fine-tune's own, or belong to
    a base of four bits.
    """
    from selora.diffusion.base import load_base
    from selora.diffusion.checkpoint import load_checkpoint
    from selora.diffusion.sampling import sample

    if folder.parent.name == "qlora":
        return None
    pipe = load_base(profile.base_model, profile.precision)
    if (folder / "pytorch_lora_weights.safetensors").exists():
        pipe.load_lora_weights(folder)
    elif (folder / "linear_layers.safetensors").exists():
        for name, tensor in load_checkpoint(folder / "linear_layers.safetensors")[0].items():
            network, _, parameter = name.partition(".")
            getattr(pipe, network).get_parameter(parameter).data = tensor.to(pipe.device)  # as scored: in fp32
    elif (folder / "history.csv").exists():  # it was trained
        return None
    images = sample(
        pipe,
        [prompt] * count,
        size=profile.resolution,
        steps=profile.sampling_steps,
        guidance_scale=profile.guidance_scale,
        batch_size=profile.sampling_batch,
        seed=profile.seeds[0],
        solver=profile.solver,
    )
    return [Image.fromarray(image) for image in images]
