"""``python -m benchmarks.peers.in_nngeometry FOLDER METHOD HEAD…``: nngeometry, apart from the rest.

``all-layers`` asks for the Gram matrix of the model as it is; ``known-layers`` leaves out what it has no rule for, the
embeddings, and feeds their output.

Source: George, "NNGeometry: easy and fast Fisher information matrices and neural tangent kernels in PyTorch", 2021.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from nngeometry import GramMatrix
from nngeometry.layercollection import LayerCollection
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from benchmarks.worker import Call, serve


class Classifier(nn.Module):
    """A linear layer on the first token of BERT, by token ids or by their embeddings."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        config = BertConfig.from_pretrained(folder)
        self.body = BertModel(config, add_pooling_layer=False)
        self.body.load_state_dict(load_file(folder / "body.safetensors"))
        self.body.set_attn_implementation("eager")
        self.classifier = nn.Linear(config.hidden_size, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, (N, C)."""
        named = {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}
        return self.classifier(self.body(**named).last_hidden_state[:, 0])


def prepare(folder: Path, method: str) -> Call:
    """Load MiniLM; the call computes the kernel."""
    model = Classifier(folder).eval()
    ids = load_file(folder / "rows.safetensors")["input_ids"]
    known = method == "known-layers"
    inputs = model.body.embeddings.word_embeddings(ids).detach() if known else ids

    def call(weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(weight))
            model.classifier.bias.copy_(torch.from_numpy(bias))
        layers = LayerCollection.from_model(model, ignore_unsupported_layers=known)
        gram = GramMatrix(model, (inputs,), layer_collection=layers).to_torch()
        return gram.permute(1, 0, 3, 2).detach().numpy()

    return call


if __name__ == "__main__":
    serve(prepare, ["nngeometry", "torch", "transformers"])
