"""Every random draw of a run follows from small integers: its seed, what is drawn (a stream), and the step.

So a checkpoint needs no generator state, a resumed run repeats an uninterrupted one, and all methods see the same
batches. A stream's number, and the order of the draws in it, are part of what determines a run: neither may change.
"""

from collections.abc import Sequence

import torch
from diffusers import SchedulerMixin

from selora.diffusion.latents import Latents

# The streams; 4 to 7 and from 9 on they are methods' own. Validation draws noise from generator(0), its timesteps from
# generator(1).
ORDER, BATCH, START, SOLVER, LOOK = 0, 1, 2, 3, 8


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator determined by a few small integers (a run's seed, a step, ...)."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(seed)


def draw_batch(
    latents: torch.Tensor | Latents,
    tokens: torch.Tensor,
    part: torch.Tensor,
    draw: torch.Generator,
    *,
    empty_tokens: torch.Tensor | None = None,
    prompt_dropout: float = 0.0,
    order: Sequence[str] = ("noise", "timesteps", "dropped"),
) -> dict[str, torch.Tensor]:
    """A batch as `loop.denoising_loss` takes it: latents and noise (B, 4, h, w), tokens (B, 77), timesteps (B,).

    Args:
        latents, tokens: of the whole set, (N, 4, h, w) and (N, 77).
        part: which samples, (B,).
        empty_tokens: the empty prompt (1, 77), which replaces a share `prompt_dropout` of the prompts.
        order: in which the parts are drawn; without 'dropped' every prompt stays.
    """
    clean, size = latents[part], (len(part),)
    ways = {
        "noise": lambda: torch.randn(clean.shape, generator=draw),
        "timesteps": lambda: torch.randint(0, 1000, size, generator=draw),
        "dropped": lambda: torch.rand(*size, 1, generator=draw) < prompt_dropout,
    }
    drawn = {name: ways[name]() for name in order}
    prompts = torch.where(drawn["dropped"], empty_tokens, tokens[part]) if "dropped" in drawn else tokens[part]
    return {"latents": clean, "tokens": prompts, "noise": drawn["noise"], "timesteps": drawn["timesteps"]}


def target(
    schedule: SchedulerMixin, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What a base has to predict: the noise, or the velocity (Salimans and Ho 2022, as Stable Diffusion 2)."""
    is_velocity = schedule.config.prediction_type == "v_prediction"
    return schedule.get_velocity(latents, noise, timesteps) if is_velocity else noise


def look_batches(
    latents: torch.Tensor | Latents, tokens: torch.Tensor, schedule: SchedulerMixin, seed: int
) -> list[dict[str, torch.Tensor]]:
    """A few noisy batches, for methods that inspect the networks first: latents, what to predict of them (target),
    timesteps and tokens of 32 samples."""
    batches = []
    for i in range(4):
        draw = generator(seed, LOOK, i)
        part = torch.randint(len(latents), (32,), generator=draw)
        batch = draw_batch(latents, tokens, part, draw, order=("timesteps", "noise"))
        parts = (batch["latents"], batch["noise"], batch["timesteps"])
        noisy = {"latents": schedule.add_noise(*parts), "target": target(schedule, *parts)}
        batches.append({**noisy, "timesteps": batch["timesteps"], "tokens": batch["tokens"]})
    return batches
