"""What the kernel says of one step, against dense Jacobians of single samples."""

from __future__ import annotations

import pytest
import torch
from helpers.prediction_cases import NAMES, Case, case, copies, dense_jacobian, relative, single
from helpers.zoo import ZOO, Row, ragged_rows
from torch import Tensor, nn

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk
from ntk_lpft.prediction.one_step import compute_kernels, predict_step
from ntk_lpft.prediction.real_step import step_errors

# An architecture for each way in which a forward pass is unlike BERT's.
MECHANISMS = (
    "distilbert", "albert", "mpnet", "deberta-v2-shared", "deberta-v2-convolution", "modernbert-mean", "gpt-neox",
    "opt-projected", "llama", "gemma2-window", "t5", "gpt2-lora", "llama-lora",
)  # fmt: skip
every_case = pytest.mark.parametrize("name", NAMES)


def residuals(of: Case) -> Tensor:
    rows = [single(of, row)[1].detach() for row in of.train]
    return torch.stack([torch.eye(3).to(f)[y] - f.softmax(0) for f, y in zip(rows, of.labels, strict=True)])


@every_case
def test_the_predictions_are_those_of_the_papers_formulas(name: str) -> None:
    of = case(name, train=3, evaluation=1)
    parameters = list(of.head.parameters()), of.body

    def jacobians(row: Row) -> tuple[Tensor, Tensor, Tensor]:
        features, logits = single(of, row)
        return dense_jacobian(features, parameters[1]), *(dense_jacobian(logits, part) for part in parameters)

    delta, weight = residuals(of), of.head.weight.detach()
    train, evaluation = ([jacobians(row) for row in rows] for rows in (of.train, of.evaluation))
    prediction = predict_step(of.model, of.train, of.labels, of.evaluation)
    assert relative(prediction.residual, delta) < 1e-10
    assert torch.equal(prediction.head_weight, weight)
    for rate, rows in ((prediction.rates["train"], train), (prediction.rates["eval"], evaluation)):
        for place, (features, head, body) in enumerate(rows):
            pairs = list(zip(train, delta, strict=True))
            # Θ^φ(x, x_i) is h × h; P and F are C × C.
            expected = sum(features @ theirs[0].T @ weight.T @ d for theirs, d in pairs)
            assert relative(rate.features[place], expected) < 1e-9
            assert relative(rate.pretrain[place], sum(head @ theirs[1].T @ d for theirs, d in pairs)) < 1e-9
            assert relative(rate.ft[place], sum(body @ theirs[2].T @ d for theirs, d in pairs)) < 1e-9


@pytest.mark.parametrize("name", MECHANISMS)
def test_features_times_the_head_are_what_the_kernel_says_of_the_body(name: str) -> None:
    # F δ = V0 J_φ g: the kernel's engine and forward-mode differentiation share no code.
    entry = ZOO[name]
    rows = ragged_rows(entry, n=2, max_len=6)
    prediction = predict_step(entry.build(), rows, torch.tensor([0, 2]))
    assert prediction.rates["train"].ft.norm() > 1e-6
    assert prediction.kernel_against_features() < entry.tolerance_sdpa * 10


def test_a_change_is_the_rate_times_the_learning_rate() -> None:
    of = case("bert")
    prediction = predict_step(of.model, of.train, of.labels)
    assert set(prediction.rates) == {"train"}
    rate, change = prediction.rates["train"], prediction.change(0.25)
    for one, other in zip(rate, change, strict=True):
        torch.testing.assert_close(other, one / 4)
    torch.testing.assert_close(change.logits, change.pretrain + change.ft)
    norms = prediction.norms()
    assert norms["head_norm"] == pytest.approx(float(of.head.weight.detach().square().sum().sqrt()))
    assert norms["residual_norm"] == pytest.approx(float(residuals(of).square().sum().sqrt()))
    assert norms["change_norms"]["train"]["features"] == pytest.approx(float(rate.features.square().sum().sqrt()))


def test_the_usual_learning_rates_follow_the_largest_eigenvalue() -> None:
    of = case("bert")
    prediction = predict_step(of.model, of.train, of.labels)
    matrix = compute_ntk(of.model, of.train, precision="float64").total.reshape(15, 15)
    top = float(torch.linalg.eigvalsh(matrix)[-1])
    assert prediction.largest_eigenvalue == pytest.approx(top, rel=1e-6)
    rates = prediction.learning_rates()
    assert len(rates) == 9
    assert rates[0] * top == pytest.approx(1e-4, rel=1e-3)
    assert rates[-1] * top == pytest.approx(1, rel=1e-3)


def test_neither_order_nor_the_split_of_a_sample_matters() -> None:
    of = case("gpt2")
    order = [3, 0, 4, 2, 1]
    prediction = predict_step(of.model, of.train, of.labels, of.train)
    turned = predict_step(of.model, [of.train[i] for i in order], of.labels[order])
    for part in ("pretrain", "ft", "features"):
        train, evaluation = (getattr(prediction.rates[split], part) for split in ("train", "eval"))
        assert relative(evaluation, train) < 1e-10
        assert relative(getattr(turned.rates["train"], part), train[order]) < 1e-10


def test_a_frozen_body_moves_no_features() -> None:
    of = case("bert")
    for parameter in of.body:
        parameter.requires_grad_(False)
    rate = predict_step(of.model, of.train, of.labels, of.evaluation).rates["eval"]
    assert rate.features.shape == (3, 20)
    assert not rate.features.any()
    assert not rate.ft.any()
    assert rate.pretrain.all()


def test_a_frozen_head_leaves_the_bodys_prediction() -> None:
    of = case("bert")
    before = predict_step(of.model, of.train, of.labels).rates["train"]
    of.head.requires_grad_(False)
    after = predict_step(of.model, of.train, of.labels).rates["train"]
    assert not after.pretrain.any()
    assert relative(after.ft, before.ft) < 1e-12
    assert relative(after.features, before.features) < 1e-12


def test_the_model_stays_as_it_was() -> None:
    of = case("bert-lora", dtype=torch.float32)
    of.model.train()
    before = copies(of.model)
    predict_step(of.model, of.train, of.labels, of.evaluation)
    after = of.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in of.model.parameters())
    assert of.model.training


def test_kernels_at_hand_are_used_and_others_refused() -> None:
    of, other = case("bert"), case("roberta")
    kernels = compute_kernels(of.model, of.train, of.evaluation)
    given = predict_step(of.model, of.train, of.labels, of.evaluation, kernels=kernels)
    computed = predict_step(of.model, of.train, of.labels, of.evaluation)
    assert torch.equal(given.rates["eval"].logits, computed.rates["eval"].logits)
    with pytest.raises(InputError, match="no kernel of the eval samples"):
        predict_step(of.model, of.train, of.labels, of.evaluation, kernels={"train": kernels["train"]})
    with pytest.raises(InputError, match="another model or of other samples"):
        predict_step(of.model, of.evaluation, of.labels[:3], of.train, kernels=kernels)
    with pytest.raises(InputError, match="another model or of other samples"):
        predict_step(other.model, other.train, other.labels, other.evaluation, kernels=kernels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2, 3, 0], "labels run from 0 to 3"),
        ([0, 1, -1, 2, 0], "labels run from -1 to 2"),
        ([0, 1, 2], r"labels have shape \(3,\); expected \(5,\)"),
        pytest.param([0.0, 1.0, 2.0, 0.0, 1.0], "labels have dtype", marks=pytest.mark.unchecked),
    ],
)
def test_labels_that_do_not_fit(labels: list, words: str) -> None:
    of = case("bert")
    with pytest.raises(InputError, match=words) as caught:
        predict_step(of.model, of.train, torch.tensor(labels))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("learning_rate", [0.0, -1.0, float("nan"), float("inf")])
def test_learning_rates_that_make_no_sense(learning_rate: float) -> None:
    of = case("bert")
    prediction = predict_step(of.model, of.train[:1], of.labels[:1])
    with pytest.raises(InputError, match="not a positive number"):
        prediction.change(learning_rate)


def test_samples_that_do_not_fit_each_other() -> None:
    of = case("bert")
    bare = [{"input_ids": row["input_ids"]} for row in of.evaluation]
    message = r"train has columns .*'token_type_ids'\], evaluation \['input_ids'\]; give both alike"
    with pytest.raises(InputError, match=message):
        predict_step(of.model, of.train, of.labels, bare)


class _Opaque(torch.autograd.Function):
    """An operator that knows its backward pass alone."""

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def test_an_operator_without_forward_mode_is_named() -> None:
    class Wrapped(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return _Opaque.apply(values)

    of = case("roberta")
    of.model.classifier.dropout = Wrapped()
    with pytest.raises(InputError, match="change of the features cannot be predicted"):
        predict_step(of.model, of.train, of.labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["bert", "gpt2", "bert-lora"])
def test_cuda_agrees_with_the_cpu(name: str) -> None:
    of = case(name)
    expected = predict_step(of.model, of.train, of.labels, of.evaluation)
    prediction = predict_step(of.model, of.train, of.labels, of.evaluation, device="cuda")
    for split, rate in expected.rates.items():
        for part, value in rate._asdict().items():
            assert relative(getattr(prediction.rates[split], part), value) < 1e-9
    errors = step_errors(of.model, of.train, of.labels, of.evaluation, [1e-6], prediction=expected, device="cuda")
    assert errors["relative_error"].max() < 1e-2
    assert all(parameter.device.type == "cpu" for parameter in of.model.parameters())
