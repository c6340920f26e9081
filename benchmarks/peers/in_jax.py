"""``python -m benchmarks.peers.in_jax FOLDER METHOD HEAD…``: neural-tangents on Flax BERT, apart from the rest.

Source: Novak et al., "Fast finite width neural tangent kernel", ICML 2022, and its library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import neural_tangents as nt
import numpy as np
from safetensors.numpy import load_file
from transformers import BertConfig
from transformers.models.bert.modeling_flax_bert import FlaxBertModule

from benchmarks.worker import Call, serve


def flax_parameters(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Put PyTorch's parameters of BERT under Flax's names; matrices of dense layers are transposed there."""
    tree: dict[str, Any] = {}
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        if leaf == "weight" and path[-1] == "LayerNorm":
            leaf = "scale"
        elif leaf == "weight" and path[-1].endswith("_embeddings"):
            leaf = "embedding"
        elif leaf == "weight":
            leaf, value = "kernel", value.T
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
        branch[leaf] = jnp.asarray(value)
    return tree


def prepare(folder: Path, method: str) -> Call:
    """Load MiniLM into Flax; the call computes the kernel, and compiles it the first time."""
    body = flax_parameters(load_file(folder / "body.safetensors"))
    module = FlaxBertModule(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    rows = load_file(folder / "rows.safetensors")
    if len(set(rows["lengths"].tolist())) != 1:
        raise ValueError("rows of several lengths")
    ids = jnp.asarray(rows["input_ids"].astype(np.int32))

    def logits(parameters: dict[str, Any], ids: jax.Array) -> jax.Array:
        ones, zeros = jnp.ones_like(ids), jnp.zeros_like(ids)
        positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
        states = module.apply({"params": parameters["body"]}, ids, ones, zeros, positions, None, deterministic=True)[0]
        return states[:, 0] @ parameters["weight"].T + parameters["bias"]

    implementation = nt.NtkImplementation[method.replace("-", "_").upper()]
    kernel_of = jax.jit(nt.empirical_ntk_fn(logits, trace_axes=(), vmap_axes=0, implementation=implementation))

    def call(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        parameters = {"body": body, "weight": jnp.asarray(weight), "bias": jnp.asarray(bias)}
        return np.asarray(kernel_of(ids, None, parameters)).transpose(0, 2, 1, 3)

    return call


if __name__ == "__main__":
    serve(prepare, ["neural-tangents", "jax", "jaxlib", "flax", "transformers"])
