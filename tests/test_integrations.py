"""The method in other people's loops: transformers' Trainer, and the twelve lines of docs/elsewhere.md."""

import re
from collections.abc import Sequence
from copy import deepcopy

import pytest
import torch
from accelerate import Accelerator
from conftest import attach, mean_loss, random_batch, tiny_unet
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    get_cosine_schedule_with_warmup,
)

from selora import SeLoRA, linear_layers
from selora.adapters import ranks, trained_tensors
from selora.files import REPOSITORY
from selora.integrations import SeLoRACallback

STEPS, INTERVAL, THRESHOLD = 12, 2, 1.6
SIZES = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
ARGUMENTS = dict(
    max_steps=STEPS, per_device_train_batch_size=3, gradient_accumulation_steps=2, learning_rate=2e-2, seed=4,
    lr_scheduler_type="cosine", warmup_steps=2, max_grad_norm=0.02, weight_decay=0.01, save_steps=3,
    optim="adamw_torch", report_to="none", use_cpu=True, disable_tqdm=True, logging_strategy="no",
)  # fmt: skip


def words(count: int = 60) -> list[dict]:
    """Texts of a made-up language, whose label is whether their first word is among the later ones of its alphabet."""
    tokens = torch.randint(1, 40, (count, 7), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": row, "labels": int(row[0] > 20)} for row in tokens]


def classifier(layers: Sequence[str] = ()) -> PeftModel:
    """The same small text classifier each time, with LoRA on some of its linear layers, by default all."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SIZES, hidden_dropout_prob=0, attention_probs_dropout_prob=0))
    return get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules=layers or linear_layers(model)))


def callback(**changes) -> SeLoRACallback:
    return SeLoRACallback(**{"threshold": THRESHOLD, "interval": INTERVAL, "seed": 5} | changes)


def trainer(folder, *callbacks, model=None, optimizers=(None, None), **changes) -> Trainer:
    arguments = TrainingArguments(output_dir=str(folder), **ARGUMENTS | changes)
    model = model or classifier()
    data = dict(train_dataset=words(), eval_dataset=words(4))
    return Trainer(model, arguments, **data, callbacks=list(callbacks), optimizers=optimizers)


def weights(model) -> dict[str, torch.Tensor]:
    return trained_tensors({"model": model})


class Killed(Exception):
    pass


class Death(TrainerCallback):
    """Ends the process, as far as the training can tell, in the middle of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            raise Killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole training under the Trainer: its model and its callback."""
    grower = callback()
    run = trainer(tmp_path_factory.mktemp("whole"), grower)
    run.train()
    return run.model, grower


def by_hand(order) -> tuple[PeftModel, list[dict]]:
    """The same training as a plain loop: accumulation, clipping, schedule and all."""
    model = classifier()
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, STEPS)
    selora = SeLoRA([model], optimizer, threshold=THRESHOLD, interval=INTERVAL, seed=5)
    batches, records = iter(order), []
    for step in range(1, STEPS + 1):
        with selora.probe(step):
            for _ in range(2):
                model(**next(batches)).loss.backward()  # the Trainer too adds up what this model returns
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.02)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        records += selora.expand(step)
    return model, records


def seen(run: Trainer, steps: int) -> list[dict]:
    """The batches that a Trainer draws in its first steps."""
    batches = []
    while len(batches) < 2 * steps:
        loader = run.get_train_dataloader()
        loader.set_epoch(len(batches) // len(loader))
        batches += list(loader)
    return batches


def test_the_trainer_ends_with_the_ranks_of_a_plain_loop(undisturbed, tmp_path):
    model, grower = undisturbed
    plain, records = by_hand(seen(trainer(tmp_path), STEPS))
    assert ranks(model) == ranks(plain) == grower.ranks
    assert len(set(ranks(model).values())) > 1, "the ranks should be mixed"
    assert [r["fi_ratio"] for r in grower.records] == pytest.approx([r["fi_ratio"] for r in records], rel=1e-4)
    assert [(r["step"], r["layer"], r["rank"]) for r in grower.records] == [
        (r["step"], r["layer"], r["rank"]) for r in records
    ]
    ours, theirs = weights(model), weights(plain)
    worst = max((ours[name] - theirs[name]).abs().max().item() for name in theirs)
    assert worst < 1e-4  # a hundredth of a step; Adam makes rounding of small gradients larger


@pytest.mark.parametrize("at", [5, 8, 12])
def test_killed_and_resumed_it_ends_with_the_same_weights(undisturbed, tmp_path, at):
    model, grower = undisturbed
    with pytest.raises(Killed):
        trainer(tmp_path, callback(), Death(at)).train()
    again = callback()
    run = trainer(tmp_path, again)
    run.train(resume_from_checkpoint=True)
    assert ranks(run.model) == ranks(model)
    assert again.records == grower.records
    ours, theirs = weights(run.model), weights(model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_killed_again_and_again_it_ends_with_the_same_weights(undisturbed, tmp_path):
    model, _ = undisturbed
    for at in (4, 6, 7, 11):
        with pytest.raises(Killed):
            trainer(tmp_path, callback(), Death(at)).train(resume_from_checkpoint=at > 4 or None)
    run = trainer(tmp_path, callback())
    run.train(resume_from_checkpoint=True)
    ours, theirs = weights(run.model), weights(model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_its_checkpoints_are_pefts_own(undisturbed, tmp_path):
    run = trainer(tmp_path, callback(), save_steps=STEPS)
    run.train()
    bare = BertForSequenceClassification(run.model.get_base_model().config)
    bare.load_state_dict(untouched())
    loaded = PeftModel.from_pretrained(bare, tmp_path / f"checkpoint-{STEPS}").eval()
    batch = default_data_collator(words(5))
    with torch.no_grad():
        assert torch.allclose(loaded(**batch).logits, run.model.eval()(**batch).logits, rtol=0, atol=1e-6)
    assert ranks(loaded) == ranks(undisturbed[0])


def untouched() -> dict:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES)).state_dict()


def test_the_best_weights_come_back_at_the_ranks_they_had(tmp_path):
    """Which may be lower than those at the end."""
    grower = callback(threshold=1.0)
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3, "greater_is_better": False}
    run = trainer(tmp_path, grower, metric_for_best_model="eval_number", learning_rate=0.3, **best)
    run.evaluate = lambda *args, **kwargs: {"eval_number": float(run.state.global_step)}  # the first is the best
    run._evaluate = lambda *args, **kwargs: run.evaluate()
    run.train()
    assert set(ranks(run.model).values()) == {2}  # of one test, at step 2, before the checkpoint of step 3


def test_an_optimizer_of_ones_own_follows_the_ranks_of_a_checkpoint(undisturbed, tmp_path):
    def own(model):
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    def run(folder, *callbacks):
        model = classifier()
        return trainer(folder, *callbacks, model=model, optimizers=own(model))

    whole = run(tmp_path / "whole", callback())
    whole.train()
    with pytest.raises(Killed):
        run(tmp_path / "killed", callback(), Death(8)).train()
    resumed = run(tmp_path / "killed", callback())
    resumed.train(resume_from_checkpoint=True)
    ours, theirs = weights(resumed.model), weights(whole.model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    trainer(tmp_path, callback(), max_steps=3).train()
    with pytest.raises(ValueError, match="interval was 2 in the checkpoint and is 4"):
        trainer(tmp_path, callback(interval=4)).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_other_layers_is_refused(tmp_path):
    short = {"max_steps": 3, "save_only_model": True}  # else the optimizer's state would not fit
    trainer(tmp_path, callback(), model=classifier(["query", "key"]), **short).train()
    with pytest.raises(ValueError, match="not those of the checkpoint: .*value.*Make the model with"):
        trainer(tmp_path, callback(), **short).train(resume_from_checkpoint=True)


def test_several_gpus_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ValueError, match="cannot train over 1 processes of 2 GPUs"):
        callback().on_init_end(TrainingArguments(str(tmp_path), use_cpu=True), None, None, model=None, optimizer=None)


# ---- a plain loop with accelerate


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "elsewhere.md").read_text(), flags=re.DOTALL)


def test_the_twelve_lines_for_accelerate_train_and_grow_as_the_plain_loop(base):
    """Followed to the letter, beside the same loop without accelerate."""
    (lines,) = [block for block in blocks() if "Accelerator" in block]
    assert len(lines.strip().splitlines()) == 12
    torch.manual_seed(0)
    unet = tiny_unet()
    samples = [{k: v[0] for k, v in random_batch(1, seed=i).items()} for i in range(12)]
    text_encoder = deepcopy(base).text_encoder
    names = {"torch": torch, "loader": DataLoader(samples, batch_size=3), "unet": deepcopy(unet)}
    names["training_loss"] = lambda unet, batch: mean_loss({"unet": unet, "text_encoder": text_encoder}, batch)
    imports = (
        "from accelerate import Accelerator\nfrom peft import LoraConfig\nfrom selora import SeLoRA, linear_layers\n"
    )
    lines = lines.replace("threshold=1.1, interval=40", "threshold=1.3, interval=2").replace("lr=1e-4", "lr=1e-2")
    torch.manual_seed(1)
    exec(imports + lines, names)

    torch.manual_seed(1)
    attach(unet, rank=1, alpha=1)
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-2)
    selora = SeLoRA([unet], optimizer, threshold=1.3, interval=2)
    for step, batch in enumerate(DataLoader(samples, batch_size=3), start=1):
        with selora.probe(step):
            names["training_loss"](unet, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        selora.expand(step)
    assert ranks(names["unet"]) == ranks(unet) and len(set(ranks(unet).values())) > 1
    ours, theirs = weights(names["unet"]), weights(unet)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_under_accumulate_the_parts_of_a_batch_are_one_test(base):
    """As docs/elsewhere.md says: each part in a probe of the step, expand where gradients are synchronised."""
    torch.manual_seed(0)
    unet, text_encoder = tiny_unet(), deepcopy(base).text_encoder
    attach(unet, rank=1, alpha=1)
    whole = deepcopy(unet)
    samples = [{k: v[0] for k, v in random_batch(1, seed=i).items()} for i in range(12)]

    def loss(unet, batch):
        return mean_loss({"unet": unet, "text_encoder": text_encoder}, batch)

    accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-2)
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, DataLoader(samples, batch_size=2))
    selora, step = SeLoRA([unet], optimizer, threshold=1.3, interval=1), 1
    for batch in loader:
        with accelerator.accumulate(unet):
            with selora.probe(step):
                accelerator.backward(loss(unet, batch))
            accelerator.clip_grad_norm_(unet.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            if accelerator.sync_gradients:
                selora.expand(step)
                step += 1

    optimizer = torch.optim.AdamW([p for p in whole.parameters() if p.requires_grad], lr=1e-2)
    selora = SeLoRA([whole], optimizer, threshold=1.3, interval=1)
    for step, batch in enumerate(DataLoader(samples, batch_size=4), start=1):
        with selora.probe(step):
            loss(whole, batch).backward()
        torch.nn.utils.clip_grad_norm_(whole.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        selora.expand(step)
    assert ranks(unet) == ranks(whole) and len(set(ranks(whole).values())) > 1
    ours, theirs = weights(unet), weights(whole)
    worst = max((ours[name] - theirs[name]).abs().max().item() for name in theirs)
    assert worst < 1e-4  # a hundredth of a step; Adam makes rounding of small gradients larger
