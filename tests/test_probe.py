"""What the probe promises, in small models: its ratios are those of one backward per sample, or it says that it cannot
tell the samples apart."""

import warnings
from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.autograd import grad
from torch.utils.checkpoint import checkpoint

from selora import SeLoRA
from selora.adapters import all_lora_layers, draw_rows, linear_layers

SEED, STEP = 5, 4
HUGE = 1e9  # a threshold that nothing reaches
N, T, WIDTH = 3, 5, 6
X = torch.randn(8, 9, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.5


class Toy(nn.Module):
    """Three linear layers; how they are used is a function of the model and its inputs."""

    def __init__(self, use):
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(WIDTH, 8), nn.Linear(8, 8), nn.Linear(8, WIDTH)
        self.use = use

    def forward(self, *args, **kwargs):
        return self.use(self, *args, **kwargs)


def plain(m, x):
    return m.down(m.mid(m.up(x).tanh()).tanh())


def twice(m, x):
    return m.down(m.mid(m.mid(m.up(x).tanh()).tanh()).tanh())


def conditioned(m, x, states):
    """A denoiser, say: states of a text encoder join in the middle."""
    return m.down(m.mid(m.up(x + states)).tanh())


def adapted(model: nn.Module, **options) -> nn.Module:
    """With LoRA of rank 2 on all linear layers, scaling 1.5, B off zero, in double precision."""
    torch.manual_seed(0)
    model.requires_grad_(False)
    names = options.pop("target_modules", None) or linear_layers(model)
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=3, target_modules=names, **options), model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return model.double()


def toys(**uses) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {name: adapted(Toy(use)) for name, use in uses.items()}


def controller(networks, threshold=HUGE, **settings) -> SeLoRA:
    parameters = [p for model in networks.values() for p in model.parameters()]
    return SeLoRA(networks, torch.optim.SGD(parameters, lr=0.0), threshold, interval=1, seed=SEED, **settings)


def by_definition(networks, sample_loss, samples: int) -> dict:
    """Eq. 3 to 5 taken literally: layers really expanded, one backward per sample. `sample_loss(networks, n)`: of one
    sample, from a forward pass of its own."""
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + STEP)
    expanded = deepcopy(networks)
    for layer in all_lora_layers(expanded).values():
        A, B = layer.lora_A["default"], layer.lora_B["default"]
        A.weight = nn.Parameter(torch.cat([A.weight.data, draw_rows(A.weight, generator)]))
        B.weight = nn.Parameter(nn.functional.pad(B.weight.data, (0, 1)))

    def scores(nets) -> torch.Tensor:
        layers = all_lora_layers(nets).values()
        weights = [side["default"].weight for layer in layers for side in (layer.lora_A, layer.lora_B)]
        total = torch.zeros(len(weights), dtype=torch.float64)
        for n in range(samples):
            found = grad(sample_loss(nets, n), weights, allow_unused=True)
            total += torch.stack([torch.zeros(()) if g is None else g.square().sum() for g in found])
        return total.view(-1, 2).sum(dim=1)

    before, after = scores(networks), scores(expanded)
    ratios = torch.where(before > 0, after / before, 1.0)
    return dict(zip(all_lora_layers(networks), ratios.tolist(), strict=True))


def ratios(selora: SeLoRA) -> dict:
    return {(r["network"], r["layer"]): r["fi_ratio"] for r in selora.expand(STEP)}


def probed(networks, step, quiet=True, **probe) -> dict:
    """The ratios of a probe around `step(networks)`, which calls backward."""
    selora = controller(networks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if quiet else "error")
        with selora.probe(STEP, **probe):
            step(networks)
    return ratios(selora)


def close(found: dict, expected: dict, rel=1e-8) -> None:
    assert max(expected.values()) > 1.01
    assert found == pytest.approx(expected, rel=rel)


def per_sample(output: torch.Tensor) -> torch.Tensor:
    """A loss for each sample of an output (N, ...), with a weight each as min-SNR has."""
    return WEIGHTS[: len(output)] * (output.sin() + output**2).flatten(1).mean(dim=1)


def loss_of(output: torch.Tensor, n: int = 0) -> torch.Tensor:
    """Of sample n alone, output (1, ...)."""
    return WEIGHTS[n] * (output.sin() + output**2).mean()


def one(use_input=lambda x: x, steps=T):
    """The loss of a sample of X by itself, through a network called 'net'."""
    return lambda nets, n: loss_of(nets["net"](use_input(X[n : n + 1, :steps])), n)


# ---------------------------------------------------------------- calls and passes


@pytest.mark.parametrize("reduce", [torch.mean, torch.sum], ids=["mean", "sum"])
@pytest.mark.parametrize("samples", [1, N])
@pytest.mark.parametrize("use", [plain, twice], ids=["once", "twice"])
def test_a_layers_calls_within_a_forward_are_summed_before_they_are_squared(use, samples, reduce):
    nets = toys(net=use)
    found = probed(nets, lambda nets: reduce(per_sample(nets["net"](X[:samples, :T]))).backward())
    close(found, by_definition(nets, one(), samples))


def test_calls_of_different_shape_are_summed():
    """Tokens, and their mean; few tokens, whose gradients are kept as factors, among them."""

    def use(m, x):  # (N, T, d)
        return m.down(m.mid(m.up(x).tanh()).tanh()).mean(1) + m.down(m.mid(m.up(x.mean(1))))

    nets = toys(net=use)
    close(
        probed(nets, lambda nets: per_sample(nets["net"](X[:N, :T])).mean().backward()), by_definition(nets, one(), N)
    )


def test_a_call_without_gradient_adds_nothing():
    def use(m, x):
        with torch.no_grad():
            hint = m.mid(m.up(x))
        return m.down((m.mid(m.up(x).tanh()) + hint).tanh())

    nets = toys(net=use)
    close(
        probed(nets, lambda nets: per_sample(nets["net"](X[:N, :T])).mean().backward()), by_definition(nets, one(), N)
    )


def test_a_layer_called_by_itself_is_its_own_network():
    nets = toys(net=plain)
    found = probed(nets, lambda nets: per_sample(plain(nets["net"], X[:N, :T])).mean().backward())
    close(found, by_definition(nets, one(), N))


def test_what_dropout_left_is_what_counts():
    class Mask(nn.Module):
        def forward(self, x):
            return x * (torch.arange(x.shape[-1]) % 3 != 0) * 1.5

    nets = toys(net=twice)
    for layer in all_lora_layers(nets).values():
        layer.lora_dropout["default"] = Mask()
    close(
        probed(nets, lambda nets: per_sample(nets["net"](X[:N, :T])).mean().backward()), by_definition(nets, one(), N)
    )


def two_heads(m, x):
    hidden = m.mid(m.up(x).tanh())
    return m.down(hidden), hidden


def test_two_backward_passes_over_one_graph_are_summed():
    nets = toys(net=two_heads)

    def step(nets):
        first, second = nets["net"](X[:N, :T])
        per_sample(first).mean().backward(retain_graph=True)
        (3 * per_sample(second).mean()).backward()

    def alone(nets, n):
        first, second = nets["net"](X[n : n + 1, :T])
        return loss_of(first, n) + 3 * loss_of(second, n)

    close(probed(nets, step), by_definition(nets, alone, N))


def test_passes_that_reach_different_calls_of_a_layer_are_summed():
    """The first pass ends at the second call, whose input is detached; the second reaches the first call alone."""

    def use(m, x):
        first = m.mid(m.up(x))
        return m.down(m.mid(first.detach().tanh())), first

    nets = toys(net=use)

    def step(nets):
        late, early = nets["net"](X[:N, :T])
        per_sample(late).mean().backward()
        per_sample(early).mean().backward()

    def alone(nets, n):
        return sum(loss_of(output, n) for output in nets["net"](X[n : n + 1, :T]))

    close(probed(nets, step), by_definition(nets, alone, N))


@pytest.mark.parametrize("text_first", [True, False])
def test_a_loss_on_each_of_two_networks_joins_what_both_saw(text_first):
    nets = toys(unet=conditioned, text=plain)

    def step(nets):
        states = nets["text"](X[:N, :T] + 1)
        output = nets["unet"](X[:N, :T], states)
        losses = [per_sample(states).mean(), per_sample(output).mean()]
        for loss in losses if text_first else losses[::-1]:
            loss.backward(retain_graph=True)

    def alone(nets, n):
        states = nets["text"](X[n : n + 1, :T] + 1)
        return loss_of(states, n) + loss_of(nets["unet"](X[n : n + 1, :T], states), n)

    close(probed(nets, step), by_definition(nets, alone, N))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("passes", [1, 2])
def test_checkpointed_blocks_give_the_same_ratios(reentrant, passes):
    def use(m, x):
        def block(x):
            return m.mid(m.mid(m.up(x).tanh()).tanh()).tanh()

        return m.down(checkpoint(block, x.clone().requires_grad_(), use_reentrant=reentrant))

    nets = toys(net=use)

    def step(nets):
        loss = per_sample(nets["net"](X[:N, :T])).mean()
        for i in range(passes):
            loss.backward(retain_graph=i + 1 < passes)

    close(probed(nets, step), by_definition(toys(net=twice), one(), N))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_whole_network_may_be_checkpointed(reentrant):
    nets = toys(net=twice)

    def step(nets):
        output = checkpoint(nets["net"], X[:N, :T].clone().requires_grad_(), use_reentrant=reentrant)
        per_sample(output).mean().backward()

    close(probed(nets, step), by_definition(nets, one(), N))


def test_gradients_of_the_input_alone_do_not_count():
    """An adversarial example made inside the probe."""
    nets = toys(net=twice)

    def adversarial(nets):
        x = X[:N, :T].clone().requires_grad_()
        (toward,) = grad(per_sample(nets["net"](x)).sum(), [x])
        return X[:N, :T] + 0.1 * toward.sign()

    x = adversarial(nets)
    found = probed(nets, lambda nets: per_sample(nets["net"](adversarial(nets))).mean().backward())
    close(found, by_definition(nets, lambda nets, n: loss_of(nets["net"](x[n : n + 1]), n), N))


def test_gradients_of_gradients_are_refused():
    def step(nets):
        x = X[:N, :T].clone().requires_grad_()
        output = nets["net"](x)
        (slope,) = grad(output.sum(), [x], create_graph=True)
        (output.square().mean() + slope.square().mean()).backward()

    with pytest.raises(ValueError, match="create_graph=True.*Leave that term out"):
        probed(toys(net=plain), step)


def test_a_layer_frozen_after_all_is_not_tested_by_what_passes_through_it():
    nets = toys(net=plain)
    expected = by_definition(nets, one(), N)
    selora = controller(nets)
    nets["net"].mid.requires_grad_(False)
    with selora.probe(STEP):
        per_sample(nets["net"](X[:N, :T])).mean().backward()
    close(ratios(selora), expected | {("net", "mid"): 1.0})


# ---------------------------------------------------------------- further samples


def parts(*sizes):
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [slice(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def part_loss(nets, part):
    weighted = WEIGHTS[part] * (lambda o: (o.sin() + o**2).flatten(1).mean(1))(nets["net"](X[part, :T]))
    return weighted.mean()


@pytest.mark.parametrize("sizes", [(2, 2), (4, 1), (1, 3, 2)], ids=str)
@pytest.mark.parametrize("entries", [False, True], ids=["one probe", "a probe for each"])
def test_accumulated_parts_are_further_samples_each_weighted_by_its_size(sizes, entries):
    nets = toys(net=twice)
    selora = controller(nets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if entries:
            for part in parts(*sizes):
                with selora.probe(STEP):
                    (part_loss(nets, part) / len(sizes)).backward()
        else:
            with selora.probe(STEP):
                for part in parts(*sizes):
                    (part_loss(nets, part) / len(sizes)).backward()
    close(ratios(selora), by_definition(nets, one(), sum(sizes)))


def test_unequal_parts_are_said_to_be_read_as_means():
    nets = toys(net=plain)
    with pytest.warns(UserWarning, match="parts of 1 and 2 samples.*use equal parts"):
        probed_parts(nets, 2, 1)


def probed_parts(nets, *sizes):
    selora = controller(nets)
    with selora.probe(STEP):
        for part in parts(*sizes):
            part_loss(nets, part).backward()
    return ratios(selora)


def test_all_forward_passes_may_come_before_all_backward_passes():
    nets = toys(net=twice)

    def step(nets):
        losses = [part_loss(nets, part) for part in parts(2, 2)]
        for loss in losses:
            loss.backward()

    close(probed(nets, step), by_definition(nets, one(), 4))


def test_a_layer_used_in_one_part_only_or_more_often_in_one():
    def use(m, x, times):
        hidden = m.up(x).tanh()
        for _ in range(times):
            hidden = m.mid(hidden).tanh()
        return m.down(hidden)

    nets = toys(net=use)

    def step(nets):
        for part, times in zip(parts(2, 2), (0, 3), strict=True):
            output = nets["net"](X[part, :T], times)
            (WEIGHTS[part] * (output.sin() + output**2).flatten(1).mean(1)).mean().backward()

    def alone(nets, n):
        return loss_of(nets["net"](X[n : n + 1, :T], 3 * (n >= 2)), n)

    close(probed(nets, step), by_definition(nets, alone, 4))


def test_one_loss_over_two_halves_is_refused_since_they_could_be_two_views():
    def step(nets):
        (part_loss(nets, slice(0, 2)) + part_loss(nets, slice(2, 4))).backward()

    with pytest.raises(ValueError, match="two calls of net with different inputs.*call backward for each"):
        probed(toys(net=plain), step)


def test_a_graph_that_is_differentiated_again_later_is_refused():
    def step(nets):
        first = part_loss(nets, slice(0, 2))
        first.backward(retain_graph=True)
        part_loss(nets, slice(2, 4)).backward()
        first.backward()

    with pytest.raises(ValueError, match="reached net again.*before the next forward"):
        probed(toys(net=plain), step)


# ---------------------------------------------------------------- layouts


def flattened(m, x):
    return plain(m, x.flatten(0, 1)).unflatten(0, x.shape[:2])


def sequence_first(m, x):
    return plain(m, x.transpose(0, 1)).transpose(0, 1)


def windows(m, x):
    """Half flattened: (N * T / 2, 2, d)."""
    return plain(m, x.reshape(-1, 2, WIDTH)).reshape(x.shape)


@pytest.mark.parametrize(
    ("use", "steps"),
    [(plain, 5), (plain, N), (flattened, 5), (flattened, N), (sequence_first, 5), (sequence_first, 7), (windows, 6)],
)
def test_with_the_batch_size_layouts_inside_the_network_are_read(use, steps):
    nets = toys(net=use)
    found = probed(nets, lambda nets: per_sample(nets["net"](X[:N, :steps])).mean().backward(), False, batch_size=N)
    close(found, by_definition(nets, one(steps=steps), N))


@pytest.mark.parametrize("use", [flattened, sequence_first, windows])
def test_without_it_they_are_refused(use):
    with pytest.raises(ValueError, match=r"saw \d+ rows where net was given 3.*batch_size=N"):
        probed(toys(net=use), lambda nets: per_sample(nets["net"](X[:N, :8])).mean().backward())


@pytest.mark.parametrize("batch_size", [None, N])
def test_as_many_tokens_as_samples_are_refused_where_they_may_be_exchanged(batch_size):
    with pytest.raises(ValueError, match="another batch size"):
        step = lambda nets: per_sample(nets["net"](X[:N, :N])).mean().backward()  # noqa: E731
        probed(toys(net=sequence_first), step, batch_size=batch_size)


@pytest.mark.parametrize("inner", ["as given", "flattened", "last step"])
def test_a_network_that_is_given_the_sequence_first(inner):
    def use(m, x):  # (T, N, d)
        if inner == "flattened":
            return plain(m, x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return m.down(m.mid(m.up(x).tanh())[-1].tanh())[None] if inner == "last step" else plain(m, x)

    nets = toys(net=use)

    def step(nets):
        per_sample(nets["net"](X[:N, :T].transpose(0, 1)).transpose(0, 1)).mean().backward()

    found = probed(nets, step, quiet=False, batch_size=N)
    close(found, by_definition(nets, one(lambda x: x.transpose(0, 1)), N))


def test_what_shapes_alone_cannot_tell_is_said():
    """A network given (T, N, d), or tokens as rows, looks like one given T, or N * T, samples."""
    for x in (X[:N, :T].transpose(0, 1), X[:N, :T].flatten(0, 1)):
        with pytest.warns(UserWarning, match=f"first axis.*taken for the samples .{len(x)} here.*batch_size=N"):
            controller_step(toys(net=plain), lambda nets, x=x: nets["net"](x).square().mean().backward())


def controller_step(nets, step, **probe):
    selora = controller(nets)
    with selora.probe(STEP, **probe):
        step(nets)
    return selora


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[:N, :T].flatten(0, 1), "15 rows where batch_size is 3: tokens, or 5 copies.*axis of their own"),
        (X[:N, :6].transpose(0, 1), "2 copies of the batch, or the sequence first"),
        (X[:4, :T], "4 rows where batch_size is 3.*its own prompt"),
        (X[:1, :T], "1 rows where batch_size is 3"),
    ],
    ids=["flattened", "sequence first", "another size", "one row"],
)
def test_with_the_batch_size_what_has_no_or_two_readings_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        probed(toys(net=plain), lambda nets: nets["net"](x).square().mean().backward(), batch_size=N)


def test_modules_that_expect_sequences_first_need_the_batch_size():
    model = Toy(plain)
    model.attention = nn.MultiheadAttention(WIDTH, 1)
    nets = {"net": adapted(model, target_modules=["up", "mid", "down"])}
    x = X[:N, :6].transpose(0, 1)  # twice as long as the batch: with the module there is no doubt
    with pytest.raises(ValueError, match="batch_first=False.*batch_size=N"):
        probed(nets, lambda nets: nets["net"](x).square().mean().backward())
    found = probed(nets, lambda nets: per_sample(nets["net"](x).transpose(0, 1)).mean().backward(), False, batch_size=N)
    close(found, by_definition(nets, one(lambda x: x.transpose(0, 1), steps=6), N))


def test_rows_that_only_part_of_the_batch_sent_are_refused():
    """A mixture of experts, say."""

    def use(m, x):
        return m.down(m.up(x).tanh().index_add(0, torch.tensor([0, 2]), m.mid(m.up(x[[0, 2]]))))

    with pytest.raises(ValueError, match="2 rows where net was given 3"):
        probed(toys(net=use), lambda nets: per_sample(nets["net"](X[:N, :T])).mean().backward())


# ---------------------------------------------------------------- guidance


def guided(without: torch.Tensor, with_: torch.Tensor) -> torch.Tensor:
    return without + 3 * (with_ - without)


PROMPTS, EMPTY = X[:N, :T] + 1, X[4:5, :T].expand(N, -1, -1)


def guided_alone(nets, n):
    states = [nets["text"](p[n : n + 1]) for p in (EMPTY, PROMPTS)]
    return loss_of(guided(*(nets["unet"](X[n : n + 1, :T], s) for s in states)), n)


def in_one_call(nets):
    states = nets["text"](torch.cat([EMPTY, PROMPTS]))
    return nets["unet"](torch.cat([X[:N, :T]] * 2), states).chunk(2)


def interleaved(nets):
    states = nets["text"](torch.stack([EMPTY, PROMPTS], dim=1).flatten(0, 1))
    return nets["unet"](X[:N, :T].repeat_interleave(2, dim=0), states).unflatten(0, (N, 2)).unbind(1)


def in_two_calls(nets):
    return [nets["unet"](X[:N, :T], nets["text"](prompts)) for prompts in (EMPTY, PROMPTS)]


def text_in_one_call(nets):
    return [nets["unet"](X[:N, :T], s) for s in nets["text"](torch.cat([EMPTY, PROMPTS])).chunk(2)]


@pytest.mark.parametrize("way", [in_one_call, interleaved, in_two_calls, text_in_one_call])
def test_guidance_sums_a_samples_gradients_over_its_copies(way):
    nets = toys(unet=conditioned, text=twice)
    found = probed(nets, lambda nets: per_sample(guided(*way(nets))).mean().backward(), batch_size=N)
    close(found, by_definition(nets, guided_alone, N))


def test_guidance_in_two_calls_of_the_same_samples_needs_no_batch_size():
    nets = toys(unet=conditioned)

    def step(nets):
        return per_sample(guided(*(nets["unet"](X[:N, :T], s) for s in (EMPTY, PROMPTS)))).mean().backward()

    def alone(nets, n):
        return loss_of(guided(*(nets["unet"](X[n : n + 1, :T], s[n : n + 1]) for s in (EMPTY, PROMPTS))), n)

    close(probed(nets, step), by_definition(nets, alone, N))


@pytest.mark.parametrize("way", [in_one_call, interleaved])
def test_guidance_in_one_call_without_the_batch_size_is_said(way):
    nets = toys(unet=conditioned, text=twice)
    with pytest.warns(UserWarning, match="unet was given copies of the same 3 rows.*batch_size=3.; else batch_size=6"):
        controller_step(nets, lambda nets: per_sample(guided(*way(nets))).mean().backward())


def test_copies_that_no_input_shows_are_taken_as_cat_makes_them_and_said():
    nets = toys(net=flattened)  # inside the network each copy is flattened, too

    def step(nets):
        per_sample(guided(*nets["net"](torch.cat([EMPTY, PROMPTS])).chunk(2))).mean().backward()

    def alone(nets, n):
        return loss_of(guided(*(nets["net"](p[n : n + 1]) for p in (EMPTY, PROMPTS))), n)

    with pytest.warns(UserWarning, match="6 rows where batch_size is 3.*2 copies.*once per copy"):
        selora = controller_step(nets, step, batch_size=N)
    close(ratios(selora), by_definition(nets, alone, N))


@pytest.mark.parametrize("prompts", [PROMPTS[:2], PROMPTS[:1]], ids=["unique prompts", "one for all"])
@pytest.mark.parametrize("batch_size", [None, N])
def test_prompts_that_samples_share_are_refused(prompts, batch_size):
    def step(nets):
        states = nets["text"](prompts)
        states = states[torch.tensor([0, 1, 0])] if len(states) == 2 else states
        per_sample(nets["unet"](X[:N, :T], states)).mean().backward()

    with pytest.raises(ValueError, match="its own prompt"):
        probed(toys(unet=conditioned, text=plain), step, batch_size=batch_size)


def test_prompts_repeated_for_each_sample_are_exact():
    nets = toys(unet=conditioned, text=plain)
    prompts = PROMPTS[torch.tensor([0, 1, 0])]

    def step(nets):
        per_sample(nets["unet"](X[:N, :T], nets["text"](prompts))).mean().backward()

    def alone(nets, n):
        return loss_of(nets["unet"](X[n : n + 1, :T], nets["text"](prompts[n : n + 1])), n)

    close(probed(nets, step), by_definition(nets, alone, N))


def test_autocast_is_as_exact_as_its_numbers():
    nets = {name: model.float() for name, model in toys(net=twice).items()}

    def use(nets, x):
        with torch.autocast("cpu", torch.bfloat16):
            return nets["net"](x.float()).float()

    expected = by_definition(nets, lambda nets, n: loss_of(use(nets, X[n : n + 1, :T]), n).float(), N)
    found = probed(nets, lambda nets: per_sample(use(nets, X[:N, :T])).mean().backward())
    close(found, expected, rel=0.02)


# ---------------------------------------------------------------- what was not seen


def test_a_forward_pass_outside_the_probe_is_refused():
    nets = toys(net=plain)
    selora = controller(nets, threshold=1.0)
    loss = part_loss(nets, slice(0, N))
    with pytest.raises(ValueError, match="no LoRA layer was called inside probe.4.*forward pass belongs inside"):
        with selora.probe(STEP):
            loss.backward()
    assert selora.expand(STEP) == []


def test_a_probe_of_a_later_part_is_not_excused_by_an_earlier_one():
    nets = toys(net=plain)
    selora = controller(nets)
    with selora.probe(STEP):
        part_loss(nets, slice(0, 2)).backward()
    loss = part_loss(nets, slice(2, 4))
    with pytest.raises(ValueError, match="no LoRA layer was called"):
        with selora.probe(STEP):
            loss.backward()


def test_a_backward_pass_after_the_probe_still_counts_and_none_at_all_is_refused():
    nets = toys(net=plain)
    selora = controller(nets)
    with selora.probe(STEP):
        loss = part_loss(nets, slice(0, N))
    with pytest.raises(ValueError, match="no gradient reached a LoRA layer.*loss.backward"):
        selora.expand(STEP)
    loss.backward()
    close(ratios(selora), by_definition(nets, one(), N))


def test_a_layer_that_was_not_called_is_neither_tested_nor_grown_and_said():
    nets = toys(net=lambda m, x: m.down(m.up(x).tanh()))
    selora = controller_step(nets, lambda nets: part_loss(nets, slice(0, N)).backward())
    selora.threshold = 1.0
    with pytest.warns(UserWarning, match="1 LoRA layers were not called.*mid of net"):
        records = selora.expand(STEP)
    assert {r["layer"]: r["rank"] for r in records} == {"up": 3, "down": 3}
    assert nets["net"].mid.r["default"] == 2


def test_expand_belongs_to_the_step_that_was_probed():
    selora = controller_step(toys(net=plain), lambda nets: part_loss(nets, slice(0, N)).backward())
    with pytest.raises(ValueError, match=r"expand\(5\) after probe\(4\)"):
        selora.expand(5)


def test_a_part_that_fails_ends_the_test():
    nets = toys(net=plain)
    selora = controller(nets)
    with selora.probe(STEP):
        part_loss(nets, slice(0, 2)).backward()
    with pytest.raises(RuntimeError):
        with selora.probe(STEP):
            raise RuntimeError
    assert selora.expand(STEP) == []
    with selora.probe(STEP):  # tried again
        part_loss(nets, slice(0, N)).backward()
    close(ratios(selora), by_definition(nets, one(), N))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.conv, self.out = nn.Embedding(9, WIDTH), nn.Conv1d(WIDTH, WIDTH, 1), nn.Linear(WIDTH, 2)

    def forward(self, ids):  # (N, T)
        return self.out(self.conv(self.words(ids).transpose(1, 2)).transpose(1, 2))


def test_lora_on_other_layers_is_said_to_be_never_tested():
    nets = {"net": adapted(Mixed(), target_modules=["words", "conv", "out"])}
    with pytest.warns(
        UserWarning, match=r"never tested.*words of net \(Embedding\), conv of net \(Conv1d\).*linear_lay"
    ):
        selora = controller(nets)
    ids = torch.randint(0, 9, (N, T))
    with selora.probe(STEP):
        per_sample(nets["net"](ids)).mean().backward()
    close(ratios(selora), by_definition(nets, lambda nets, n: loss_of(nets["net"](ids[n : n + 1]), n), N))


def test_a_model_with_such_layers_alone_is_refused():
    nets = {"net": adapted(Mixed(), target_modules=["words"])}
    with pytest.raises(ValueError, match="no LoRA layers found"):
        controller(nets)


# ---------------------------------------------------------------- a saved state


def trained_steps(selora, nets, steps, save_at=None, between=False):
    """Steps of a plain loop; what is saved at one of them, before or after `expand`."""
    saved, records = None, []
    for step in steps:
        with selora.probe(step):
            part_loss(nets, slice(step, step + N)).backward()
        selora.optimizer.step()
        selora.optimizer.zero_grad()
        if step == save_at and between:
            saved = save(selora, nets)
        records += selora.expand(step)
        if step == save_at and not between:
            saved = save(selora, nets)
    return records, saved


def save(selora, nets):
    return deepcopy([selora.state_dict(), nets["net"].state_dict(), selora.optimizer.state_dict()])


def fresh(interval=2, seed=SEED, threshold=1.1, use=twice):
    nets = toys(net=use)
    optimizer = torch.optim.Adam([p for p in nets["net"].parameters() if p.requires_grad], lr=1e-2)
    return nets, SeLoRA(nets, optimizer, threshold, interval, seed)


@pytest.mark.parametrize("between", [False, True], ids=["after expand", "between probe and expand"])
def test_a_resumed_run_grows_as_one_that_went_on(between, tmp_path):
    nets, selora = fresh(seed=0)  # by whose draws some layers grow and some don't
    expected, saved = trained_steps(selora, nets, range(1, 6), save_at=2, between=between)
    assert {r["expanded"] for r in expected} == {True, False}
    torch.save(saved, tmp_path / "saved.pt")
    state, weights, moments = torch.load(tmp_path / "saved.pt", weights_only=True)

    again, resumed = fresh(seed=0)
    resumed.load_state_dict(state)
    again["net"].load_state_dict(weights)
    resumed.optimizer.load_state_dict(moments)
    found = resumed.expand(2) if between else []
    found += trained_steps(resumed, again, range(3, 6))[0]
    assert found == [r for r in expected if r["step"] > 2 or between]
    assert all(torch.equal(a, b) for a, b in zip(nets["net"].parameters(), again["net"].parameters(), strict=True))


def test_loading_alone_leaves_the_output_as_it_was():
    """Weights that are then forgotten would otherwise be noise, or dead."""
    nets, selora = fresh(threshold=1.0)
    _, (state, *_) = trained_steps(selora, nets, range(1, 3), save_at=2)
    again, resumed = fresh(threshold=1.0)
    before = again["net"](X)
    resumed.load_state_dict(state)
    torch.testing.assert_close(again["net"](X), before)
    assert all((layer.lora_A["default"].weight != 0).all() for layer in all_lora_layers(again).values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interval": 3}, "interval was 2 when this state was saved and is 3"),
        ({"seed": 6}, "seed was 5"),
        ({"threshold": 1.2}, "threshold was 1.1"),
    ],
    ids=["interval", "seed", "threshold"],
)
def test_a_state_of_other_settings_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fresh(**change)[1].load_state_dict(fresh()[1].state_dict())


def test_a_state_of_other_layers_or_lower_ranks_is_refused():
    nets, grown = fresh(threshold=1.0)
    _, (later, *_) = trained_steps(grown, nets, range(1, 3), save_at=2)
    with pytest.raises(ValueError, match="higher rank than in the saved state.*'up'"):
        grown.load_state_dict(fresh(threshold=1.0)[1].state_dict())
    del later["ranks"]["net", "up"]
    with pytest.raises(ValueError, match="not in both.*'net', 'up'"):
        fresh(threshold=1.0)[1].load_state_dict(later)


def test_a_test_that_was_never_used_is_said():
    nets, selora = fresh(interval=1)
    with pytest.warns(UserWarning, match=r"test of step 1 came to nothing: call expand\(step\)"):
        for step in (1, 2):
            with selora.probe(step):
                part_loss(nets, slice(0, N)).backward()
