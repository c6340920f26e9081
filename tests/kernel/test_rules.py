"""Every layer rule against autograd on the module alone. A new rule takes part by one line in ``RULE_CASES``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from helpers.layouts import dense_kernel, layouts
from helpers.rule_cases import LOOK_ALIKES, RULE_CASES, RuleCase, vectors
from helpers.sample_gradients import (
    Call,
    assert_entries_close,
    dense_jacobian,
    random_call,
    record_batches,
    slack,
    tensors_of,
    terms_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from ntk_lpft.classifier.rows import Batch
from ntk_lpft.kernel import contract as contract_module
from ntk_lpft.kernel.body_parameters import find_body_parameters
from ntk_lpft.kernel.capture import CaptureError, capture
from ntk_lpft.kernel.contract import Workspace, contract
from ntk_lpft.kernel.gradients import SampleGradients, has_gradient
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.rules import RULES, DenseLayer, LayerCalls, Norm, Rule, find_rule, register

few = settings(max_examples=5, deadline=None, derandomize=True)
channels, seeds = st.integers(1, 3), st.integers(0, 9999)
positions = st.integers(1, 3)
shapes = st.lists(st.tuples(st.integers(1, 3), positions), min_size=1, max_size=3)
LABELS = 3


def assert_records(
    case: RuleCase, module: nn.Module, batches: Sequence[Sequence[Call]], dtype: torch.dtype = torch.float64
) -> dict[str, list[SampleGradients]]:
    """Compare the records of every parameter with autograd's gradients, and return them."""
    records = record_batches(module, batches, dtype)
    for name, terms in terms_of(module, batches).items():
        found = dense_jacobian(records[name], terms.jacobian.shape, transposed=case.transposed)
        terms.assert_equal(found, f"{case.name}, {name}", dtype)
    return records


@pytest.mark.parametrize("case", RULE_CASES, ids=lambda case: case.name)
class TestEveryRule:
    def test_the_rule_is_the_one_for_the_layer(self, case: RuleCase) -> None:
        assert type(find_rule(case.build())) is case.rule

    @few
    @given(shapes=shapes, k=channels, seed=seeds)
    def test_batches_of_any_size_agree_with_autograd(
        self, case: RuleCase, shapes: list[tuple[int, int]], k: int, seed: int
    ) -> None:
        module, generator = case.build(), Generator().manual_seed(seed)
        assert_records(case, module, [[random_call(case, module, generator, n, t, k)] for n, t in shapes])

    @few
    @given(counts=st.lists(positions, min_size=2, max_size=3), n=st.integers(1, 3), k=channels, seed=seeds)
    def test_calls_of_a_shared_layer_add_up(self, case: RuleCase, counts: list[int], n: int, k: int, seed: int) -> None:
        module, generator = case.build(), Generator().manual_seed(seed)
        assert_records(case, module, [[random_call(case, module, generator, n, t, k) for t in counts]])

    @few
    @given(n=st.integers(1, 3), t=positions, k=channels, seed=seeds, share=st.floats(0, 1))
    def test_padded_positions_have_no_part(
        self, case: RuleCase, n: int, t: int, k: int, seed: int, share: float
    ) -> None:
        module, generator = case.build(), Generator().manual_seed(seed)
        call = random_call(case, module, generator, n, t, k)
        padded = torch.rand(n, t, generator=generator) < share
        call.grads[padded] = 0
        records = assert_records(case, module, [[call]])
        others = case.inputs(generator, n, t)
        others[~padded] = call.inputs[~padded]
        for name, others_records in record_batches(module, [[Call(others, call.grads)]]).items():
            shape = (n, k, *module.get_parameter(name).shape)
            first, second = (
                dense_jacobian(parts, shape, transposed=case.transposed) for parts in (records[name], others_records)
            )
            assert torch.equal(first, second), name

    def test_nothing_comes_from_zero_gradients(self, case: RuleCase) -> None:
        module = case.build()
        call = random_call(case, module, Generator().manual_seed(0), 3, 4, 2)
        layout = Layout(3, 0, symmetric=True, channels=2)
        for records in record_batches(module, [[Call(call.inputs, torch.zeros_like(call.grads))]]).values():
            assert not any(has_gradient(record) for record in records)
            assert not contracted(layout, records, 1 << 20).any()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_records_have_the_dtype_asked_for(self, case: RuleCase, dtype: torch.dtype) -> None:
        module, generator = case.build(), Generator().manual_seed(0)
        batches = [[random_call(case, module, generator, 3, 4, 2)]]
        records = assert_records(case, module, batches, dtype)
        held = [value for parts in records.values() for part in parts for value in tensors_of(part)]
        assert {value.dtype for value in held} == {dtype}

    @few
    @given(
        layout=layouts(most=3),
        size=st.integers(1, 3),
        counts=st.lists(positions, min_size=6, max_size=6),
        limit=st.sampled_from([1, 300, 1 << 20]),
        gram=st.booleans(),
        seed=seeds,
    )
    def test_contracted_records_are_the_gram_matrix(
        self, case: RuleCase, layout: Layout, size: int, counts: list[int], limit: int, gram: bool, seed: int
    ) -> None:
        module, generator = case.build(), Generator().manual_seed(seed)
        batches = [
            [random_call(case, module, generator, n, t, layout.channels)]
            for n, t in zip(batch_sizes(layout, size), counts, strict=False)
        ]
        records = record_batches(module, batches)
        for name, terms in terms_of(module, batches).items():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(contract_module, "use_gram", lambda *_, gram=gram: gram)
                found = contracted(layout, records[name], limit)
            expected = dense_kernel(layout, terms.jacobian.flatten(2))
            allowed = slack(dense_kernel(layout, terms.magnitude.flatten(2)))
            assert_entries_close(found, expected, allowed, f"{case.name}, {name}")

    @pytest.mark.parametrize("calls", [1, 2])
    def test_hooks_record_a_layer_inside_a_model(self, case: RuleCase, calls: int) -> None:
        assert_captured(case, calls, frozen=[])

    def test_frozen_parameters_are_not_recorded(self, case: RuleCase) -> None:
        names = [name for name, _ in case.build().named_parameters()]
        for frozen in ([name] for name in names):
            assert_captured(case, 1, frozen)
        assert_captured(case, 1, names)

    def test_the_module_and_the_arguments_are_left_alone(self, case: RuleCase) -> None:
        module = case.build()
        call = random_call(case, module, Generator().manual_seed(0), 2, 3, 2)
        state = {name: value.clone() for name, value in module.state_dict().items()}
        inputs, grads = call.inputs.clone(), call.grads.clone()
        for name, _ in module.named_parameters():
            find_rule(module).record(module, name, LayerCalls(call.inputs, call.grads, 0, torch.float64))
        assert module.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
        assert torch.equal(call.inputs, inputs)
        assert torch.equal(call.grads, grads)


def batch_sizes(layout: Layout, most: int) -> list[int]:
    """Cut the column samples, and then the others, into batches of at most so many."""
    return [min(most, part - at) for part in (layout.columns, layout.extra) for at in range(0, part, most)]


def contracted(layout: Layout, records: Sequence[SampleGradients], limit: int) -> Tensor:
    """Return the kernel of one parameter, with so many bytes for chunks."""
    out = layout.zeros(torch.float64, torch.device("cpu"))
    contract(out, layout, records, Workspace(limit))
    return layout.complete_(out)


class Classifier(nn.Module):
    """Calls one layer on equal shares of the positions, and pools what comes out."""

    def __init__(self, layer: nn.Module, width: int, calls: int) -> None:
        super().__init__()
        self.layer, self.calls = layer, calls
        self.head = nn.Linear(width, LABELS, dtype=torch.float64)

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        shares = [self.layer(share.contiguous()) for share in input_ids.chunk(self.calls, dim=1)]
        return (self.head(torch.cat(shares, dim=1).tanh().mean(dim=1)),)


def assert_captured(case: RuleCase, calls: int, frozen: Sequence[str]) -> None:
    """Compare what the hooks record in a small classifier with the gradients of its logits, sample by sample."""
    layer, generator = case.build(), Generator().manual_seed(0)
    inputs = case.inputs(generator, 3, 4)
    model = Classifier(layer, layer(inputs).shape[-1], calls)
    for parameter in model.head.parameters():
        nn.init.normal_(parameter, generator=generator)
    for name in frozen:
        layer.get_parameter(name).requires_grad_(False)
    sites = find_body_parameters(model, list(model.head.parameters()))
    trained = [name for name, _ in layer.named_parameters() if name not in frozen]
    assert [site.name for site in sites] == [f"layer.{name}" for name in trained]
    records = capture(model, sites, Batch(0, {"input_ids": inputs}), torch.eye(LABELS).double(), torch.float64)
    assert list(records) == [f"layer.{name}" for name in trained]
    for name in trained:
        record, parameter = records[f"layer.{name}"], layer.get_parameter(name)
        assert not isinstance(record, CaptureError), record
        logits = [model(sample[None])[0][0] for sample in inputs]
        expected = torch.stack(
            [torch.stack([torch.autograd.grad(f, parameter, retain_graph=True)[0] for f in row]) for row in logits]
        )
        assert expected.any()
        found = dense_jacobian([record], expected.shape, transposed=case.transposed)
        assert_entries_close(found, expected, slack(expected.abs()), f"{case.name}, {name}")


def test_every_registered_rule_has_a_case() -> None:
    missing = {type(rule) for rule in RULES} - {case.rule for case in RULE_CASES}
    assert not missing, f"add a line to RULE_CASES in tests/helpers/rule_cases.py for {missing}"


@pytest.mark.parametrize("make", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_look_alikes_have_no_rule(make: Callable[[], nn.Module]) -> None:
    assert find_rule(make()) is None


def test_a_norms_weight_may_be_zero_and_its_bias_huge() -> None:
    case = RuleCase("layer norm", lambda: nn.LayerNorm(5), vectors(5), Norm)
    module = case.build()
    with torch.no_grad():
        module.weight[1] = 0
        module.bias.fill_(1e9)
    assert_records(case, module, [[random_call(case, module, Generator().manual_seed(0), 3, 4, 2)]])


def test_later_rules_are_asked_first() -> None:
    before = list(RULES)
    try:

        @register
        class Everything(Rule):
            def matches(self, module: nn.Module) -> bool:
                return True

            def record(self, module, parameter, calls):
                raise NotImplementedError

        assert isinstance(find_rule(nn.Linear(2, 2)), Everything)
        with pytest.raises(AssertionError, match="Everything"):
            test_every_registered_rule_has_a_case()
    finally:
        RULES[:] = before
    assert isinstance(find_rule(nn.Linear(2, 2)), DenseLayer)
