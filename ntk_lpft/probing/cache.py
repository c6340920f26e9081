"""Features and logistic heads of a body on data, computed once and kept in the cache folder.

A file is found by all that its content depends on: the body's weights and structure (pooling among it), the token rows,
the dtype, the kind of device and the versions of the libraries; for a head also the labels and the solver's settings.
The head's own weights do not count for features, so that models that differ in their last layer share one file. The
files lie in ``features`` and ``heads`` below ``NTK_LPFT_FEATURE_CACHE``, or else below the cache folder
(``NTK_LPFT_CACHE``), and may be deleted at any time.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm import tqdm

from ntk_lpft.bundled import cache_folder
from ntk_lpft.choices import LOGISTIC
from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.features import Features
from ntk_lpft.classifier.head_file import load_head, save_head
from ntk_lpft.classifier.prepare import plain_arithmetic
from ntk_lpft.classifier.rows import fingerprint_rows
from ntk_lpft.classifier.stored_weights import StoredWeights
from ntk_lpft.errors import InputError
from ntk_lpft.probing.logistic import LogisticHead, fit_logistic_head
from ntk_lpft.provenance import structure_digest, versions
from ntk_lpft.storage import read_tensors, tensor_digest, write_tensors
from ntk_lpft.tasks import EncodedSplit
from ntk_lpft.tasks.fingerprint import digest

FEATURES = "ntk_lpft features 2"
HEADS = "ntk_lpft logistic head 4"

Say = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class FeatureKey:
    """What the features of a body on data depend on.

    Attributes:
        identity: The digests, dtype, device and versions.
        classifier: Whose features they are; the weights of its head do not count.
        samples: N.
    """

    identity: dict[str, str]
    classifier: Classifier
    samples: int

    @property
    def name(self) -> str:
        """A sha256 over the identity."""
        return digest([self.identity])


def cached_features(
    model: nn.Module | Classifier,
    inputs: Any,
    *,
    dtype: torch.dtype | None = None,
    cache: Path | None = None,
    progress: bool = False,
    say: Say = print,
) -> Features:
    """Return φ of a data set, from the cache if it is there, and the logits that the model's head makes of it.

    A file that is damaged is computed again, with a notice; so is one that cannot be written: the features are
    returned all the same.

    Args:
        model: The classifier; it is not changed.
        inputs: An ``EncodedSplit``, or anything else that ``compute_ntk`` takes.
        dtype: What to compute in; None takes float32, or float64 for a model of that dtype.
        cache: The cache folder; None takes ``NTK_LPFT_FEATURE_CACHE``, or that of the bundled files.
        progress: Whether to show a progress bar.
        say: Called with each notice, one line.

    Returns:
        φ, (N, h), in the order of the inputs, and f = φ Vᵀ + b, (N, C), on the CPU.

    Raises:
        InputError: Bad inputs, a model without a linear head, or features that are not finite.
    """
    key = feature_key(model, inputs, dtype)
    features = _features(inputs, key, _folder(cache), progress, say)
    head = key.classifier.head
    weight = head.module.weight.detach().to("cpu", features.dtype)
    bias = None if head.module.bias is None else head.module.bias.detach().to("cpu", features.dtype)
    # Not the logits of the forward pass, so that they do not depend on whether the cache was hit.
    with plain_arithmetic(features.device), torch.no_grad():
        return Features(features, nn.functional.linear(features, weight, bias), head)


def cached_logistic_head(
    model: nn.Module | Classifier,
    split: EncodedSplit,
    num_labels: int,
    *,
    solver: str = LOGISTIC,
    fold_seed: int = 0,
    max_iter: int = 5000,
    dtype: torch.dtype | None = None,
    cache: Path | None = None,
    progress: bool = False,
    say: Say = print,
) -> LogisticHead:
    """Return ``fit_logistic_head`` of a model's features, from the cache if it is there.

    b is fitted where the model's head has one.

    Args:
        model: The classifier; it is not changed.
        split: The whole training split.
        num_labels: C.
        solver: ``logistic`` or ``logistic-published``.
        fold_seed: What shuffles samples into the folds of the cross-validation.
        max_iter: Most iterations of a fit.
        dtype: What to compute the features in; None takes float32, or float64 for a model of that dtype.
        cache: As for ``cached_features``.
        progress: Whether to show a progress bar.
        say: Called with each notice, one line.

    Returns:
        The head, float64.

    Raises:
        InputError: Bad inputs, a model without a linear head, an unknown solver, or too few samples of some class.
    """
    return cached_logistic_heads(
        model,
        split,
        num_labels,
        [fold_seed],
        solver=solver,
        max_iter=max_iter,
        dtype=dtype,
        cache=cache,
        progress=progress,
        say=say,
    )[0]


def cached_logistic_heads(
    model: nn.Module | Classifier,
    split: EncodedSplit,
    num_labels: int,
    fold_seeds: Sequence[int],
    *,
    solver: str = LOGISTIC,
    max_iter: int = 5000,
    dtype: torch.dtype | None = None,
    cache: Path | None = None,
    progress: bool = False,
    say: Say = print,
) -> list[LogisticHead]:
    """Return ``cached_logistic_head`` of several seeds of the folds.

    Args:
        model: The classifier; it is not changed.
        split: The whole training split.
        num_labels: C.
        fold_seeds: What shuffles samples into the folds of the cross-validation, a head each.
        solver: As for ``cached_logistic_head``, as are all that follow.
        max_iter: Most iterations of a fit.
        dtype: What to compute the features in; None takes float32, or float64 for a model of that dtype.
        cache: The cache folder.
        progress: Whether to show a progress bar.
        say: Called with each notice, one line.

    Returns:
        The heads, float64, in the order of the seeds.

    Raises:
        InputError: As for ``cached_logistic_head``.
    """
    key, folder = feature_key(model, split, dtype), _folder(cache)
    intercept = key.classifier.head.module.bias is not None
    settings: dict[str, Any] = {"solver": solver, "intercept": intercept, "max_iter": max_iter}
    identity = {**key.identity, "format": HEADS, "num_labels": str(num_labels), **_solver_versions()}
    identity |= {name: str(value) for name, value in settings.items()} | {"labels": _label_digest(split.labels)}
    owns = {fold_seed: {**identity, "fold_seed": str(fold_seed)} for fold_seed in fold_seeds}
    paths = {fold_seed: folder / "heads" / f"{digest([own])}.safetensors" for fold_seed, own in owns.items()}
    heads = {fold_seed: _read_logistic(paths[fold_seed], own, say) for fold_seed, own in owns.items()}
    missing = [fold_seed for fold_seed, head in heads.items() if head is None]
    features = _features(split, key, folder, progress, say) if missing else None
    for fold_seed in tqdm(missing, desc="linear probe", unit="shuffle", delay=1, disable=not progress):
        assert features is not None
        head = fit_logistic_head(features, split.labels, num_labels, fold_seed=fold_seed, **settings)
        heads[fold_seed] = head
        metadata = {**owns[fold_seed], "facts": json.dumps(head.facts(), sort_keys=True)}
        _write(paths[fold_seed], partial(save_head, paths[fold_seed], head.weight, head.bias, metadata), say)
    return [head for head in heads.values() if head is not None]


def feature_key(model: nn.Module | Classifier, inputs: Any, dtype: torch.dtype | None = None) -> FeatureKey:
    """Return what the features of a model on data depend on.

    Of the model these are all its weights but those of the head, its buffers and its structure; of the data the token
    rows, in order, as the model sees them: neither labels nor padding.

    Args:
        model: The classifier.
        inputs: As for ``cached_features``.
        dtype: What the features are computed in; None takes float32, or float64 for a model of that dtype.

    Returns:
        The key, whose name is that of the file in the cache.

    Raises:
        InputError: Bad inputs, or a model without a linear head.
    """
    classifier = Classifier.of(model, inputs, dtype=dtype)
    rows = classifier.rows(inputs)
    # With duplicates: a head whose weight the body uses as well is then counted under its name in the body.
    body = StoredWeights(classifier.module, without=classifier.head_parameters)
    identity = {
        "format": FEATURES,
        "body": tensor_digest(body),
        "structure": structure_digest(classifier.module),  # of which buffers are a part
        "head": classifier.head.name,
        "rows": fingerprint_rows(rows),
        "dtype": str(classifier.dtype),
        "device": classifier.device.type,
        **{name: value for name, value in versions().items() if name != "python"},
    }
    return FeatureKey(identity, classifier, len(rows))


def _folder(cache: Path | None) -> Path:
    if cache is not None:
        return Path(cache)
    own = os.environ.get("NTK_LPFT_FEATURE_CACHE")
    return Path(own).expanduser() if own else cache_folder()


def _features(inputs: Any, key: FeatureKey, folder: Path, progress: bool, say: Say) -> Float[Tensor, "n h"]:
    path = folder / "features" / f"{key.name}.safetensors"
    features = _read_features(path, key, say)
    if features is not None:
        return features
    features = key.classifier.run(inputs, progress=progress).features
    if not torch.isfinite(features).all():
        raise InputError("the model's features are NaN or infinite on some sample; check its weights")
    _write(path, lambda: write_tensors(path, {"features": features}, _description(key)), say)
    return features


def _description(key: FeatureKey) -> dict[str, Any]:
    return {"format": FEATURES, "identity": key.identity}


def _read_features(path: Path, key: FeatureKey, say: Say) -> Float[Tensor, "n h"] | None:
    if not os.path.isfile(path):
        return None
    try:
        tensors, description = read_tensors(path)
    except InputError as error:
        say(f"notice: {error}; the features are computed again")
        return None
    features = tensors.get("features")
    shape = (key.samples, key.classifier.head.module.in_features)
    if description != _description(key) or features is None or tuple(features.shape) != shape:
        say(f"notice: {path} does not hold the features that its name stands for; they are computed again")
        return None
    # A copy, since a tensor of a file may lie unaligned, and products then round otherwise.
    return features.clone()


def _read_logistic(path: Path, identity: Mapping[str, str], say: Say) -> LogisticHead | None:
    if not os.path.isfile(path):
        return None
    try:
        saved = load_head(path)
    except InputError as error:
        say(f"notice: {error}; the head is fitted again")
        return None
    facts = saved.metadata
    if (saved.bias is not None) != (identity["intercept"] == "True") or any(
        facts.get(name) != value for name, value in identity.items()
    ):
        say(f"notice: {path} does not hold the head that its name stands for; it is fitted again")
        return None
    return LogisticHead.of_facts(saved.weight, saved.bias, json.loads(facts["facts"]))


def _write(path: Path, write: Callable[[], object], say: Say) -> None:
    """Write to the cache; a cache that cannot be written costs time later, not the result now."""
    try:
        write()
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        say(f"notice: {path} cannot be written ({reason}), so it is not kept; set NTK_LPFT_FEATURE_CACHE to another")


def _label_digest(labels: Int[np.ndarray, " n"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").tobytes()).hexdigest()


def _solver_versions() -> dict[str, str]:
    return {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__, "numpy": np.__version__}
