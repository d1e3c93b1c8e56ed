"""SeLoRA: growing plain PEFT LoRA layers by Fisher information (Eq. 2, Eq. 5 and Algorithm 1 of the paper).

Growing a layer appends the tested row K to `lora_A.weight` and a zero column to `lora_B.weight`; the output is
unchanged, W0 x + s [B 0] [A; K] x = W0 x + s B A x, and training goes on with one rank more.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from accelerate.utils import reduce
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from selora.adapters import (
    adapter_of,
    all_lora_layers,
    append_rank,
    check_growable,
    draw_rows,
    lora_pair,
    other_lora_layers,
    record_rank,
    redraw,
)  # fmt: skip
from selora.fisher import Gradients, fi_ratio, sample_gradients, score
from selora.moments import carry_state, count_rows
from selora.probe import Key, Probe, entrances


class SeLoRA:
    """Controller that grows the LoRA layers of one or several models while a plain training loop trains them.

    Args:
        models: models with a plain PEFT LoRA adapter on their linear layers; as a mapping, its keys name the networks
            in the records, else their classes do.
        optimizer: the optimizer of the adapters; per-entry state (Adam's moments) is carried over when a layer grows.
        threshold: the paper's lambda, a layer grows where its FI-Ratio is at least this; 1 grows every layer.
        interval: the paper's t, steps between two tests.
        seed: seed of the candidate rows; with the step it determines them, so a resumed run draws the same ones.
        init: how the candidates are drawn, and A: 'kaiming' as the paper says; 'peft' as PEFT does, with a sixth of the
            variance, which gives the threshold another meaning (for adapters that were trained from PEFT's A).

    Where training has not begun (every B is zero, the optimizer without state) A is drawn anew, as the seed determines;
    A of a trained adapter stays, and so does one that `init_lora_weights` asked for.

    Warns (UserWarning) of LoRA layers that are trained and never tested: on convolutions, embeddings, quantised layers.

    Raises:
        ValueError: for a threshold below 1 (the FI-Ratio never is), an interval below 1, models without LoRA layers, or
            adapters that are not plain LoRA or not the optimizer's, or an unknown init.
    """

    def __init__(
        self,
        models: Mapping[str, nn.Module] | Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        threshold: float = 1.1,
        interval: int = 40,
        seed: int = 0,
        init: str = "kaiming",
    ):
        if not threshold >= 1:  # written so that NaN is refused too
            raise ValueError(f"threshold is {threshold}, but no FI-Ratio is below 1: choose 1 (always grow) or more")
        if interval < 1:
            raise ValueError(f"interval is {interval}: choose the number of steps between two tests, 1 or more")
        self.networks = dict(models) if isinstance(models, Mapping) else {type(m).__name__: m for m in models}
        if len(self.networks) < len(models):
            raise ValueError("two models share a class: pass them by name, SeLoRA({'first': model, ...}, ...)")
        self.layers = all_lora_layers(self.networks)
        if not self.layers:
            raise ValueError("no LoRA layers found: call model.add_adapter(LoraConfig(...)) on the models first")
        check_growable(self.layers, optimizer)
        self.optimizer, self.threshold, self.interval, self.seed, self.init = optimizer, threshold, interval, seed, init
        redraw(self.networks, seed, init, optimizer)
        count_rows(optimizer)
        self._said: set[str] = set()
        if others := other_lora_layers(self.networks):
            self._say(
                f"LoRA on other layers than nn.Linear is trained but never tested: {', '.join(others)}. Leave "
                "it out with target_modules=linear_layers(model), or give it the rank it should have"
            )
        self._doors = entrances(self.networks, self.layers)
        self._probe: Probe | None = None
        self._forget()

    def _say(self, message: str) -> None:
        """Warn, once."""
        if message not in self._said:
            self._said.add(message)
            warnings.warn(message, stacklevel=2)

    def _forget(self) -> None:
        """Drop the test that is under way, or done."""
        if self._probe:
            self._probe.live = False
        self._probe = None
        self._step: int | None = None  # under test
        self._rows: dict[Key, torch.Tensor] = {}  # the candidate K of each layer
        self._sums: dict[Key, torch.Tensor] = {}  # squared gradients seen, original and candidate
        self._called: set[Key] = set()  # layers, within the probe

    @contextmanager
    def probe(self, step: int, batch_size: int | None = None) -> Iterator[None]:
        """Watch the forward and backward passes made inside: on every `interval`-th step all layers are tested.

        The loss must be a mean (or, in equal parts, a sum) over samples, which are the first axis of each layer's input
        and of what the networks are given. One backward pass, or several over one graph, see the same samples; further
        forward passes (gradient accumulation, within one probe or with a `probe(step)` each) see further ones, each
        part's loss being the mean over its own. On other steps this does nothing.

        Args:
            step: the step, counted from 1.
            batch_size: samples of one forward pass, N, where inputs are laid out in another way: tokens flattened,
                (N * T, d), the sequence first, (T, N, d), or copies of the batch one after the other, (2 * N, ...), as
                guidance makes them.

        Raises:
            ValueError: if no layer was called inside, or rows cannot be told to be samples (the message says why).
        """
        if step != self._step:
            if self._step is not None:
                self._say(f"the test of step {self._step} came to nothing: call expand(step) after each optimizer step")
            self._forget()
        if step % self.interval:
            yield
            return
        self._step = step
        self._draw_rows()
        probe = self._probe = self._probe or Probe(self._doors, self._measure, self._settle, self._say)
        probe.seen.clear()
        handles = []
        try:
            for key, layer in self.layers.items():
                handles += self._watch(key, layer)
            handles += probe.watch_networks(batch_size)
            with torch.compiler.set_stance("force_eager"):  # compiled code does not see hooks
                yield
            if not probe.seen:
                raise ValueError(
                    f"no LoRA layer was called inside probe({step}): the forward pass belongs inside it, like the "
                    "backward pass, with adapters that are active and not merged"
                )
            probe.close()
            self._called |= probe.seen
        except BaseException:
            self._forget()  # half a test is none
            raise
        finally:
            for handle in handles:
                handle.remove()

    def _draw_rows(self) -> None:
        """The candidates of the step, which determines them with the seed."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self._step)
        for key, layer in self.layers.items():
            self._rows[key] = draw_rows(lora_pair(layer)[0].weight, generator, init=self.init)

    def _watch(self, key: Key, layer: LoraLinear) -> list[torch.utils.hooks.RemovableHandle]:
        return self._probe.watch(key, layer)

    def _measure(self, key: Key, layer: LoraLinear, x: torch.Tensor, d: torch.Tensor) -> list[Gradients]:
        A, B = (side.weight for side in lora_pair(layer))
        return sample_gradients(x, d, A, B, self._rows[key], layer.scaling[adapter_of(layer)])

    def _settle(self, gradients: dict[Key, list[Gradients]], samples: int) -> None:
        """Square what a part's samples gave; each sample's own gradient is `samples` times that of the part's mean."""
        for key, found in gradients.items():
            self._sums[key] = self._sums.get(key, 0) + samples**2 * score(found)

    def expand(self, step: int) -> list[dict]:
        """Grow every tested layer whose FI-Ratio reached the threshold; call it after the optimizer's step.

        Of several processes (torchrun, accelerate) all must call it: they share their scores and grow the same layers.
        A grown layer holds new parameters: a list of parameters kept elsewhere (for clipping, say) must be read anew,
        and DistributedDataParallel, which keeps one, would no longer average their gradients: average them by yourself
        (`diffusion.machine.average`), as the study's own loop does.

        Returns:
            One record per tested layer: step, network, layer, fi_ratio, rank (after), expanded. Empty on a step without
            a probe. A layer that was not called is not tested, which is said once.

        Raises:
            ValueError: if another step was probed, or no gradient reached any layer since.
        """
        if self._step is None:
            return []
        if step != self._step:
            raise ValueError(f"expand({step}) after probe({self._step}): call both with the same step")
        if self._probe:
            self._probe.close()  # if the backward pass came after `probe`
        home = next(iter(self._rows.values())).device
        nothing = next(iter(self._sums.values()), torch.zeros(2)).to(home).new_zeros(2)
        # stacked where they are, so that a GPU is waited for, and other processes are, once and not once a layer
        sums = torch.stack([self._sums.get(key, nothing).to(home) for key in self.layers])  # (layers, 2)
        counts = torch.tensor([[key in self._called, key in self._sums] for key in self.layers], device=home)
        rows = reduce(torch.cat([sums, counts.to(sums)], dim=1), "sum").tolist()
        if not any(reached for *_, reached in rows):
            raise ValueError(f"no gradient reached a LoRA layer since probe({step}): call loss.backward() inside it")
        tested = {key: scores for key, (*scores, called, _) in zip(self.layers, rows, strict=True) if called}
        chosen, records = self.decide(tested), []
        for key, scores in tested.items():
            if expanded := key in chosen:
                self.grow(key, self._rows[key])
            ratio, rank = fi_ratio(*scores), lora_pair(self.layers[key])[0].out_features
            records.append(dict(step=step, network=key[0], layer=key[1], fi_ratio=ratio, rank=rank, expanded=expanded))
        if unseen := [f"{key[1]} of {key[0]}" for key in self.layers if key not in tested]:
            self._say(f"{len(unseen)} LoRA layers were not called in a probing step, nor tested: {', '.join(unseen)}")
        self._forget()
        return records

    def decide(self, scores: Mapping[Key, Sequence[float]]) -> set[Key]:
        """The layers that grow, by the scores of each tested one as it is and of its candidate (`selora.criteria`)."""
        return {key for key, found in scores.items() if fi_ratio(*found) >= self.threshold}

    def state_dict(self) -> dict:
        """What a resumed run needs to go on with the same growth, beside the adapters and the optimizer: settings, the
        ranks reached, and the scores of a test that `expand` has not seen yet. Of several processes each has its own.

        For `torch.save`, it can be read with `weights_only=True`.
        """
        if self._probe:
            self._probe.close()
        return {
            **self._settings(),
            "ranks": {key: layer.r[adapter_of(layer)] for key, layer in self.layers.items()},
            "step": self._step,  # under test
            "called": sorted(self._called),
            "scores": {key: sums.cpu() for key, sums in self._sums.items()},
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Go on where another controller's `state_dict` was taken.

        Layers of a lower rank are grown to the one they had, so that the weights and the optimizer's state that were
        saved with it fit: load those afterwards.

        Raises:
            ValueError: if settings or layers are others than then, or a layer's rank is already higher.
        """
        for name, value in self._settings().items():
            if state.get(name) != value:
                raise ValueError(
                    f"{name} was {state.get(name)} when this state was saved and is {value}: make them agree"
                )
        if odd := state["ranks"].keys() ^ self.layers.keys():
            raise ValueError(f"these LoRA layers are in the saved state or here, but not in both: {sorted(odd)}")
        if high := [key for key, layer in self.layers.items() if layer.r[adapter_of(layer)] > state["ranks"][key]]:
            raise ValueError(f"these layers have a higher rank than in the saved state: {high}. Load into new adapters")
        generator = torch.Generator().manual_seed(self.seed)  # rows that the saved weights replace
        for key, layer in self.layers.items():
            for _ in range(state["ranks"][key] - layer.r[adapter_of(layer)]):
                self.grow(key, draw_rows(lora_pair(layer)[0].weight, generator, init=self.init))
        self._forget()
        self._step, self._called = state["step"], set(state["called"])
        if self._step is not None:
            self._draw_rows()
        self._sums = {key: sums.to(self._rows[key].device) for key, sums in state["scores"].items()}

    def _settings(self) -> dict:
        return {"threshold": self.threshold, "interval": self.interval, "seed": self.seed, "init": self.init}

    def grow(self, key: tuple[str, str], row: torch.Tensor) -> None:
        """Grow a layer, named (network, layer), by a row (1, d_in) of its lora_A (Eq. 2), with its optimizer state."""
        layer, (network, name) = self.layers[key], key
        for old, new in append_rank(layer, row):
            carry_state(self.optimizer, old, new)
        record_rank(self.networks[network], name, layer, [path for net, path in self.layers if net == network])
