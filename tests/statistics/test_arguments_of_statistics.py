"""Every statistic takes numpy arrays for tensors, and refuses what is neither in one line that names it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor

from ntk_lpft import statistics
from ntk_lpft.errors import InputError

N, C, H = 4, 2, 3
_GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn((N, H), generator=_GENERATOR)
JACOBIAN = torch.randn((N * C, 9), generator=_GENERATOR)
K = FEATURES @ FEATURES.T + 1
F = (JACOBIAN @ JACOBIAN.T).view(N, C, N, C)
F = (F + F.permute(2, 3, 0, 1)) / 2
Y = torch.tensor([0, 1, 0, 1])
DELTA = torch.randn((N, C), generator=_GENERATOR)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "alignment": {"kernel": F, "labels": Y},
    "as_matrix": {"kernel": F},
    "block_trace_norms": {"kernel": F},
    "centred_alignment": {"kernel": F, "labels": Y},
    "class_boundaries": {"labels": Y},
    "class_order": {"labels": Y},
    "feature_difference": {"features": FEATURES, "reference": FEATURES + 1},
    "feature_norm": {"features": FEATURES},
    "fisher_discriminant_ratio": {"features": FEATURES, "labels": Y},
    "frobenius_shares": {"groups": {"a": F, "b": 2 * F}},
    "ft_effective_spectrum": {"reduced": F, "num_classes": C},
    "ft_ratio": {"feature_kernel": K, "ft_effective": F, "residual": DELTA},
    "initial_residual": {"logits": DELTA, "labels": Y},
    "kernel_classifier": {"train_kernel": F, "train_labels": Y, "eval_kernel": F, "eval_labels": Y},
    "kernel_spectrum": {"kernel": F},
    "linear_cka": {"features": FEATURES, "reference": FEATURES.square()},
    "mean_cosines": {"features": FEATURES},
    "measure_features": {"features": FEATURES, "reference": FEATURES + 1, "labels": Y},
    "numerical_rank_tolerance": {},
    "one_step_logit_change": {"feature_kernel": K, "ft_effective": F, "residual": DELTA},
    "pretrain_effective": {"feature_kernel": K, "num_classes": C},
    "pretrain_effective_alignment": {"feature_kernel": K, "labels": Y, "num_classes": C},
    "pretrain_effective_block_trace_norms": {"feature_kernel": K, "num_classes": C},
    "pretrain_effective_centred_alignment": {"feature_kernel": K, "labels": Y, "num_classes": C},
    "pretrain_effective_spectrum": {"feature_kernel": K, "num_classes": C},
    "projection_shares": {"groups": {"a": F, "b": 2 * F}},
    "reference_cosine_similarity": {"features": FEATURES, "reference": FEATURES + 1},
    "sample_cosine_similarity": {"features": FEATURES},
    "sample_feature_differences": {"features": FEATURES, "reference": FEATURES + 1},
    "sample_ft_ratios": {"feature_kernel": K, "ft_effective": F, "residual": DELTA},
    "statistics_table": {},
    "sum_spectrum": {},
    "summarise": {"feature_kernel": K, "ft_effective": F, "labels": Y, "residual": DELTA, "kernel_classifier": False},
    "total_spectrum": {"feature_kernel": K, "reduced": F, "num_classes": C},
    "trace_ratio": {"features": FEATURES, "labels": Y},
    "trace_shares": {"groups": {"a": F, "b": 2 * F}},
    "transposed": {"kernel": F},
}
FUNCTIONS = sorted(name for name in statistics.__all__ if inspect.isfunction(getattr(statistics, name)))
WITH_TENSORS = [
    name for name in FUNCTIONS if any(isinstance(v, Tensor | dict) for v in ARGUMENTS.get(name, {}).values())
]
pytestmark = [pytest.mark.unchecked, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]


def to_numpy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: to_numpy(part) for key, part in value.items()}
    return value.numpy() if isinstance(value, Tensor) else value


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif hasattr(expected, "__dict__"):
        assert_same(list(vars(found).values()), list(vars(expected).values()))
    else:
        assert np.array_equal(found, expected)


def test_every_statistic_is_listed() -> None:
    assert set(FUNCTIONS) == set(ARGUMENTS)


@pytest.mark.parametrize("name", WITH_TENSORS)
def test_numpy_arrays_give_the_same_values(name: str) -> None:
    function, given = getattr(statistics, name), ARGUMENTS[name]
    assert_same(function(**to_numpy(given)), function(**given))


@pytest.mark.parametrize("name", WITH_TENSORS)
@pytest.mark.parametrize(
    "wrong",
    [None, [[1.0]], "x", object(), torch.ones(2, 2, device="meta"), {}],
    ids=["None", "list", "text", "object", "meta", "empty mapping"],
)
def test_what_is_no_array_is_refused_by_name(name: str, wrong: Any) -> None:
    function, given = getattr(statistics, name), ARGUMENTS[name]
    for argument, value in given.items():
        if not isinstance(value, Tensor | dict):
            continue
        if wrong is None and type(None) in getattr(get_type_hints(function)[argument], "__args__", ()):
            continue
        with pytest.raises(InputError) as refusal:
            function(**given | {argument: {"a": wrong} if isinstance(value, dict) and wrong != {} else wrong})
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("kernel_classifier", {"max_iter": "x"}, "max_iter is 'x'; pass a whole number"),
        ("pretrain_effective", {"num_classes": "2"}, "num_classes is '2'; pass a whole number"),
        ("kernel_spectrum", {"computed_in": "float32"}, "computed_in is 'float32'; pass a torch dtype"),
        ("kernel_spectrum", {"rank_tolerance": "x"}, "rank_tolerance is 'x'; pass a number"),
        ("one_step_logit_change", {"learning_rate": None}, "learning_rate is None; pass a number"),
        ("trace_shares", {"groups": [F]}, "groups is of type list; pass a mapping from names"),
        ("summarise", {"progress": "yes"}, "progress is 'yes'; pass True or False"),
    ],
)
def test_other_arguments(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        getattr(statistics, name)(**ARGUMENTS[name] | change)


def test_a_table_of_something_else_is_refused() -> None:
    for wrong in (None, 5, [None], "ab"):
        with pytest.raises(InputError, match="rows"):
            statistics.statistics_table(wrong)


@pytest.mark.parametrize("change", [lambda k: 0 * k, lambda k: -k, lambda k: k.half(), lambda k: k.requires_grad_()],
                         ids=["zeros", "negative", "half", "requires grad"])  # fmt: skip
def test_kernels_that_look_odd_have_their_statistics(change: Any) -> None:
    rows = statistics.summarise(change(K.clone()), change(F.clone()), Y, kernel_classifier=False)
    table = statistics.statistics_table(rows)
    assert list(table["kernel"]) == ["P", "F", "P+F"]
    assert table["rank"].ge(0).all()
