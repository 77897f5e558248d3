"""How ``grn bench`` compares: in rounds, in turn, with the time of a training step without what lies between steps."""

import pytest
import torch

from grncli.bench import alternation
from grncli.bench.alternation import LEAST_ROUNDS, Work, alternate, ratio
from grncli.bench.network_stages import _passes
from grncli.bench.speeds import Limit, MachineSpeeds, StageSpeed, figure
from grncli.bench.spent_time import kind_of
from grncli.conditions import ClassCondition
from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Unfinished
from grncli.sampling.sampler import Request, Sampler, SamplingSettings
from grncli.schedules import Fixed


@pytest.fixture
def clock(monkeypatch):
    """A clock that only works move on."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

        monotonic = perf_counter

    clock = Clock()
    monkeypatch.setattr(alternation, "time", clock)
    return clock


def test_works_take_turns_and_the_first_round_does_not_count(clock):
    turns = []

    def act(name, seconds):
        turns.append(name)
        clock.now += seconds if len(turns) > 2 else 100.0

    rates = alternate([Work(6, lambda: act("a", 2.0)), Work(1, lambda: act("b", 4.0))], seconds=0, monitor=Monitor())
    assert turns == ["a", "b"] * (1 + LEAST_ROUNDS)
    assert rates == [[3.0] * LEAST_ROUNDS, [0.25] * LEAST_ROUNDS]


def test_rounds_go_on_while_there_is_time(clock):
    def act():
        clock.now += 1.0

    assert len(alternate([Work(1, act)], seconds=7.5, monitor=Monitor())[0]) == 8 - 1


def test_a_slow_round_does_not_change_a_share():
    assert ratio([10.0, 1.0, 10.0], [20.0, 2.0, 20.0]) == 0.5


def test_a_stop_ends_it_between_two_works():
    acts = []

    class StopAfterOne(Stop):
        @property
        def reason(self):
            return "Ctrl-C" if acts else None

    with pytest.raises(Unfinished, match="before all was measured"):
        alternate([Work(1, lambda: acts.append(1))] * 2, seconds=1, monitor=Monitor(StopAfterOne()))
    assert len(acts) == 1


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "products"),
        ("mkldnn::_linear_pointwise", "products"),
        ("aten::bmm", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::mkldnn_convolution", "convolutions"),
        ("aten::copy_", "copies"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::linalg_vector_norm", "sums"),
        ("aten::silu", "element by element"),
    ],
)
def test_operators_are_told_apart(operator, kind):
    assert kind_of(operator) == kind


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (9.876, "9.88"), (99.97, "100"), (12345.6, "12346")])
def test_rates_have_three_digits_and_no_exponent(value, text):
    assert figure(value) == text


def test_the_line_has_machine_limits_and_every_stage():
    stage = StageSpeed(
        name="training", subject="x", dtype="bfloat16", value=1234.5, unit="tokens/s", share=0.612, of="products",
        expected=0.6
    )  # fmt: skip
    limit = Limit("memory copy", "GB/s", 1e9, [7e9, 9e9, 8e9])
    speeds = MachineSpeeds({"grn": "grn 1", "threads": "2 threads"}, [limit], [stage], {}, [], 1.0, 0.0)
    assert speeds.line() == "grn 1, 2 threads | memory copy 8 GB/s | training bfloat16 1234 tokens/s (61%)"
    assert not stage.is_slow


@pytest.mark.parametrize("steps", [2, 7])
@pytest.mark.parametrize("classes", [0, 3])
def test_function_evaluations_are_those_that_a_sampler_makes(steps, classes):
    config = ClassTransformerConfig(
        depth=1, width=8, heads=1, bottleneck=4, in_context_tokens=1, in_context_start=0, rounds=2, channels=2,
        classes=classes
    )  # fmt: skip
    sampler = Sampler(ClassTransformer(config).eval(), (1, 2, 2), SamplingSettings(schedule=Fixed(steps)))
    label = torch.tensor([0 if classes else -1])
    [sample] = sampler.run([Request(0, ClassCondition.of(label, config.null_class))])
    assert sample.nfe == _passes(steps, guided=classes > 0)
