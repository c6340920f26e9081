"""Sums of bfloat16 products that stand for float32 ones: exact parts, and errors within the bounds that are stated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.agreement import error
from helpers.referee import referee
from helpers.zoo import ZOO, ragged_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.kernel import compute_ntk, split
from ntk_lpft.kernel.layout import Layout
from ntk_lpft.kernel.split import SUM_BOUND, TERM_BOUND, Parts, add_split_product_, split_errors

many = settings(max_examples=40, deadline=None, derandomize=True)


def numbers(rows: int, columns: int, seed: int, smallest: int = 0, largest: int = 0) -> Tensor:
    """Float32 numbers of random significand and sign, with exponents of two between the given ones."""
    generator = torch.Generator().manual_seed(seed)
    significands = torch.randint(1 << 23, 1 << 24, (rows, columns), generator=generator).double() * 2.0**-23
    exponents = torch.randint(smallest, largest + 1, (rows, columns), generator=generator).double()
    signs = torch.randint(0, 2, (rows, columns), generator=generator).double() * 2 - 1
    return (signs * significands * 2.0**exponents).float()


def test_three_parts_are_the_number_itself() -> None:
    matrix = numbers(50, 400, 0, -110, 126)
    parts = [part.double() for part in Parts.of(matrix, 6).tensors]
    assert len(parts) == 3
    for part in parts:
        assert torch.equal(part, part.to(torch.bfloat16).double())
    assert torch.equal(sum(parts), matrix.double())
    assert (parts[1].abs() <= 2.0**-8 * matrix.double().abs()).all()
    assert (parts[2].abs() <= 2.0**-17 * matrix.double().abs()).all()


@many
@given(products=st.sampled_from([3, 6]), seed=st.integers(0, 999), scale=st.integers(-30, 30))
def test_errors_of_single_products(products: int, seed: int, scale: int) -> None:
    """What is left out, and one rounding; six products are as exact as two roundings of float32."""
    left, right = numbers(40, 1, seed, -scale, -scale), numbers(30, 1, seed + 1000, scale, scale)
    out = torch.zeros(40, 30)
    add_split_product_(out, left, right, products)
    exact = left.double() @ right.double().T
    bound = {3: 2.0**-15 * (1 + 2.0**-6), 6: 2.0**-23 * (1 + 2.0**-4)}[products]
    worst = float(((out.double() - exact) / exact).abs().max())
    assert worst <= bound <= TERM_BOUND[products]


SCALES: dict[str, Callable[[int, int], tuple[Tensor, Tensor]]] = {
    "plain": lambda n, seed: (numbers(20, n, seed), numbers(30, n, seed + 1)),
    "tiny times huge": lambda n, seed: (1e-20 * numbers(20, n, seed), 1e20 * numbers(30, n, seed + 1)),
    "both kinds in a row": lambda n, seed: (numbers(20, n, seed, -60, 60), numbers(30, n, seed + 1)),
    "columns of their own size": lambda n, seed: (
        numbers(20, n, seed) * 10.0 ** torch.linspace(-18, 18, n),
        numbers(30, n, seed + 1) * 10.0 ** torch.linspace(18, -18, n),
    ),
    # The second half of a row undoes the first, but for a ten-millionth.
    "cancellation": lambda n, seed: (
        torch.cat([(half := numbers(20, n - n // 2, seed)), -half[:, : n // 2] * (1 + 2.0**-23)], dim=1),
        torch.cat([(other := numbers(30, n - n // 2, seed + 1)), other[:, : n // 2]], dim=1),
    ),
    "zeros": lambda n, seed: (numbers(20, n, seed) * (torch.arange(n) % 7 == 0), torch.zeros(30, n)),
}


@pytest.mark.parametrize("products", [3, 6])
@pytest.mark.parametrize("terms", [1, 255, 256, 700, 1 << 14])
@pytest.mark.parametrize("name", list(SCALES))
def test_errors_of_sums_on_adversarial_scales(name: str, terms: int, products: int) -> None:
    left, right = SCALES[name](terms, terms)
    out = torch.zeros(20, 30)
    add_split_product_(out, left, right, products)
    difference = (out.double() - left.double() @ right.double().T).abs()
    assert (difference <= SUM_BOUND[products] * (left.double().abs() @ right.double().abs().T)).all()


@many
@given(
    rows=st.integers(1, 9), columns=st.integers(1, 9), terms=st.integers(0, 600), products=st.sampled_from([3, 6]),
    held=st.integers(1, 3000), seed=st.integers(0, 99),
)  # fmt: skip
def test_sizes_of_pieces_change_nothing_but_rounding(
    rows: int, columns: int, terms: int, products: int, held: int, seed: int
) -> None:
    left, right = numbers(rows, terms, seed), numbers(columns, terms, seed + 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_ENTRIES", {"cpu": held})
        out = torch.ones(rows, columns)
        add_split_product_(out, left, right, products)
    exact = 1 + left.double() @ right.double().T
    allowed = SUM_BOUND[products] * (1 + left.double().abs() @ right.double().abs().T)
    assert ((out.double() - exact).abs() <= allowed).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_symmetric_products_beyond_one_block(symmetric: bool) -> None:
    layout = Layout(600, 40, symmetric, channels=1, products=6)
    jacobian = numbers(640, 300, 5)
    out = layout.zeros(torch.float32, torch.device("cpu"))
    layout.add_gram_(out, jacobian)
    expected = (jacobian.double() @ jacobian.double().T)[0 if symmetric else 600 :, :600]
    assert error(layout.complete_(out).double(), expected) <= 1e-6


def test_measured_errors_see_what_is_left_out() -> None:
    """Three products in the place of six, or one, exceed the bound of six; six keep it."""
    factor = numbers(4, 5000, 0)
    sums, single = split_errors(factor, 6).tolist()
    assert sums <= SUM_BOUND[6] / 30
    assert single <= TERM_BOUND[6]
    assert TERM_BOUND[6] < float(split_errors(factor, 3)[1]) <= TERM_BOUND[3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "_CORRECTIONS", {6: ()})
        assert float(split_errors(factor, 6)[1]) > TERM_BOUND[3]


@pytest.mark.parametrize("outputs", ["full", "class_trace", "pseudo"])
@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "deberta-v2", "gpt2", "modernbert", "t5", "gpt2-lora"])
def test_six_products_are_as_exact_as_float32(name: str, outputs: str) -> None:
    """Against float64, and beside float32 and what is coarser."""
    model, rows = ZOO[name].build(), ragged_rows(ZOO[name], n=6)
    exact = compute_ntk(model, rows, outputs=outputs, precision="float64").ft_effective
    found = {
        precision: compute_ntk(model, rows, outputs=outputs, precision=precision).ft_effective.double()
        for precision in ("float32", "bfloat16x6", "bfloat16x3", "bfloat16")
    }
    far = {precision: error(kernel, exact) for precision, kernel in found.items()}
    # What the model itself rounds in float32 is in all of them.
    assert far["bfloat16x6"] <= far["float32"] + 1e-6
    assert far["bfloat16x3"] <= far["float32"] + 2.0**-14
    assert far["bfloat16x6"] < far["bfloat16"] / 10
    beside = {precision: error(kernel, found["float32"]) for precision, kernel in found.items()}
    assert beside["bfloat16x6"] < beside["bfloat16x3"] < beside["bfloat16"]


@pytest.mark.parametrize("engine", ["structured", "functional", "per_example"])
def test_against_the_referee_and_recorded(engine: str) -> None:
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    said: list[str] = []
    ntk = compute_ntk(model, rows, engine=engine, precision="bfloat16x6", report=said.append)
    assert error(ntk.total.double(), sum(referee(model, rows).values())) < 2e-6
    about = ntk.metadata
    assert about["precision"] == "bfloat16x6"
    assert about["rounding"] == {"P": "float32", "F": "float32"}
    if engine == "structured":
        found = about["self_check"]["split"]
        assert 0 < found["sum_error"] <= found["sum_bound"] == SUM_BOUND[6]
        assert 0 < found["term_error"] <= found["term_bound"] == TERM_BOUND[6]
        assert any("bfloat16x6 products" in line for line in said)
    coarse = compute_ntk(model, rows, precision="bfloat16x3")
    assert coarse.metadata["rounding"] == {"P": "float32", "F": "float16"}
    assert compute_ntk(model, rows, precision="float32").metadata["self_check"]["split"] is None


def test_products_beyond_their_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that leaves terms out, or sums in bfloat16."""
    monkeypatch.setattr(split, "_CORRECTIONS", {6: ((0, 1), (1, 0))})
    model, rows = ZOO["bert"].build(), ragged_rows(ZOO["bert"])
    with pytest.raises(InputError, match=r"precision bfloat16x6: products .* err here by .*; use precision float32"):
        compute_ntk(model, rows, precision="bfloat16x6")
