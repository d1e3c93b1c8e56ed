"""What a finished run makes of any prompt, the paper's own above all."""

from PIL import Image

from selora.diffusion.base import load_base
from selora.diffusion.merge import FULL, load_full
from selora.export.tensors import WEIGHTS
from selora.study.results import Run
from selora.study.stages import sampler


def sample_run(run: Run, prompt: str, count: int) -> list[Image.Image] | None:
    """What a finished run makes of any prompt, from noises that are the same for every run.

    None for a run whose weights are in another format than diffusers' LoRA or the full fine-tune's own, or belong to
    a base of four bits.
    """
    profile, folder = run.profile, run.folder
    if run.method == "qlora":
        return None
    pipe = load_base(profile.base_model, profile.precision)
    if (folder / WEIGHTS).exists():
        pipe.load_lora_weights(folder)
    elif (folder / FULL).exists():
        load_full(pipe, folder)
    elif (folder / "history.csv").exists():  # it was trained
        return None
    images = sampler(profile, pipe, profile.seeds[0])([prompt] * count)
    return [Image.fromarray(image) for image in images]
