"""What a finished run makes of any prompt, the paper's own above all."""

from PIL import Image

from selora.diffusion.base import load_base
from selora.diffusion.checkpoint import load_checkpoint
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
    if (folder / "pytorch_lora_weights.safetensors").exists():
        pipe.load_lora_weights(folder)
    elif (folder / "linear_layers.safetensors").exists():
        for name, tensor in load_checkpoint(folder / "linear_layers.safetensors")[0].items():
            network, _, parameter = name.partition(".")
            getattr(pipe, network).get_parameter(parameter).data = tensor.to(pipe.device)  # as scored: in fp32
    elif (folder / "history.csv").exists():  # it was trained
        return None
    images = sampler(profile, pipe, profile.seeds[0])([prompt] * count)
    return [Image.fromarray(image) for image in images]
