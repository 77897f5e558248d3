"""How a state is laid out in processes: what a recipe asks for, what fits, and who has memory for first weights."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from grncli.models.class_transformer import ClassTransformerConfig
from grncli.runs.generator_recipe import BitData, Bits, GeneratorRecipe, GeneratorTraining
from grncli.runs.rundir import DataRecord
from grncli.runs.tokenizer_recipe import Optimization, TokenizerRecipe, Training
from grncli.runtime.errors import RecipeError
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.training import sharding
from grncli.training.estimate import estimate
from grncli.training.loop import TrainingContext
from grncli.training.sharding import WHOLE, Sharding, choose_sharding
from grncli.training.training_run import TrainingRun

CPU = torch.device("cpu")
GB = 10**9


@dataclass(frozen=True)
class Machines(Processes):
    """Processes of machines that are called by letters, with so many bytes each."""

    names: str = ""
    memory: int = 0

    def gather_json(self, document):
        return [[name, self.memory] for name in self.names]


def chosen(asked, names, *, memory=10 * GB, state=0, device=CPU):
    return choose_sharding(asked, state, Machines(0, len(names), names=names, memory=memory), device)


def test_a_single_process_keeps_all_of_it_whatever_the_recipe_says():
    for asked in ("auto", "none", "ddp", "fsdp", "hsdp"):
        alone = choose_sharding(asked, 10**15, SINGLE_PROCESS, CPU)
        assert (alone.kind, alone.shards) == ("none", 1)


@pytest.mark.parametrize(
    ("names", "gigabytes", "kind", "shards"),
    [
        ("aa", 2.9, "ddp", 1),  # two of a machine's processes have half its memory each, 60 % of it for their state
        ("aa", 3.1, "fsdp", 2),
        ("ab", 5.9, "ddp", 1),
        ("ab", 6.1, "fsdp", 2),
        ("aaaabbbb", 2.9, "hsdp", 4),  # a machine holds it twice: a save copies it
        ("aaaabbbb", 3.1, "fsdp", 8),
        ("aaab", 2.1, "fsdp", 4),
    ],
)
def test_the_state_is_sharded_where_it_fits_no_process_and_in_a_machine_where_it_fits_that(
    names, gigabytes, kind, shards
):
    found = chosen("auto", names, state=int(gigabytes * GB))
    assert (found.kind, found.shards) == (kind, shards)


def test_every_process_has_the_memory_of_its_own_gpu(monkeypatch):
    monkeypatch.setattr(sharding, "memory_of", lambda device: 10 * GB)
    on_gpus = chosen("auto", "aaaa", state=int(5.9 * GB), device=torch.device("cuda:0"))
    assert (on_gpus.kind, on_gpus.memory) == ("ddp", 10 * GB)


def test_a_save_of_what_lies_on_gpus_takes_none_of_their_memory(monkeypatch):
    monkeypatch.setattr(sharding, "memory_of", lambda device: 10 * GB)
    assert chosen("auto", "aabb", state=int(11.9 * GB), device=torch.device("cuda:0")).kind == "hsdp"


def test_machines_have_the_ranks_of_their_processes_however_these_are_counted():
    assert chosen("hsdp", "abab").machines == ((0, 2), (1, 3))


@pytest.mark.parametrize(
    ("asked", "names", "words"),
    [
        ("none", "aa", "training.parallel is none, and 2 processes were started"),
        ("hsdp", "aaa", "there are 3 processes on 1 machine, expected several machines"),
        ("hsdp", "aab", "there are 2 and 1 processes on 2 machines, expected several machines with the same number"),
        ("hsdp", "ab", "there are 1 and 1 processes on 2 machines"),
    ],
)
def test_what_does_not_fit_the_processes_is_refused(asked, names, words):
    with pytest.raises(RecipeError, match=words):
        chosen(asked, names)


@pytest.mark.parametrize(
    ("kind", "pieces", "copies"),
    [("ddp", 1, 6), ("fsdp", 1, 6 / 4), ("hsdp", 1, 6 / 2), ("fsdp", 2, 1 + 5 / 4)],
    ids=["ddp", "fsdp", "hsdp", "accumulated"],
)
def test_a_process_keeps_its_share_and_pieces_add_up_whole_gradients(kind, pieces, copies):
    settings = Optimization(ema=(0.9, 0.5), gradient_accumulation=pieces)
    laid_out = Sharding(kind=kind, machines=((0, 1), (2, 3)))
    assert laid_out.bytes_of(1000, settings) == 4 * 1000 * copies


def prepared(recipe, processes):
    return TrainingRun(
        None, recipe, DataRecord("", 0, "sources"), TrainingContext(device=CPU, processes=processes), False, 0
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_has_memory_for_first_weights_that_are_to_be_sharded(rank):
    make = lambda: nn.Linear(3, 2)  # noqa: E731
    run = prepared(TokenizerRecipe(), Machines(rank, 2, names="aa", memory=GB))
    whole = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    for parallel, is_empty in (("ddp", False), ("fsdp", rank > 0)):
        asked = replace(run, recipe=replace(run.recipe, training=Training(parallel=parallel)))
        network = asked.spread(make).build("train", make, whole)
        assert network.weight.is_meta == is_empty
        assert is_empty or torch.equal(network.weight, whole["weight"])


@pytest.mark.parametrize(
    ("parallel", "memory", "words"),
    [
        ("ddp", 10**6, "each of 4 processes on cpu has 0.00025 GB: say training.parallel=fsdp, or make it smaller"),
        ("fsdp", 10**6, r"takes 0.001 GB .* each of 4 processes on cpu has 0.00025 GB: make it smaller"),
        (
            "fsdp",
            7 * 10**6,
            r"takes 0.001 GB .*, moments and averages and 0.0008 GB for the copy that is saved; each of 4",
        ),
    ],
)
def test_a_state_that_exceeds_the_memory_of_its_processes_is_refused(parallel, memory, words):
    run = prepared(TokenizerRecipe(training=Training(parallel=parallel)), Machines(0, 4, names="aaaa", memory=memory))
    with pytest.raises(RecipeError, match=words):
        run.spread(lambda: nn.Linear(200, 1000, bias=False))


def test_a_dry_run_counts_the_shards_of_one_process():
    sizes = {"depth": 1, "width": 16, "heads": 2, "bottleneck": 8, "in_context_start": 0}
    network = ClassTransformerConfig(**sizes, rounds=2, channels=4, classes=3)
    bits = Bits(tokenizer={}, stride=(1, 4, 4), labels=("ant", "bee", "cat"), grids={"1x2x2": 8})
    recipe = GeneratorRecipe(network=network, data=BitData(batch=4), bits=bits)
    recipe = replace(recipe, training=GeneratorTraining(dtype="float32"))
    whole, parts = (
        estimate(recipe, 4, laid_out)["memory"] for laid_out in (WHOLE, Sharding(kind="fsdp", machines=((0, 1, 2, 3),)))
    )
    assert parts["weights"] == pytest.approx(whole["weights"] / 4, rel=1e-3)
    assert parts["activations"] == whole["activations"]
