"""The paper's classifier: dropout and ONE linear layer on a pooled feature of any Transformer body."""

from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ntk_lpft.choices import POOLINGS, choose
from ntk_lpft.classifier.prepare import plain_arithmetic, prepared


def pool(states: Float[Tensor, "n t h"], mask: Int[Tensor, "n t"], pooling: str) -> Float[Tensor, "n h"]:
    """Make one feature of a sample's hidden states.

    Args:
        states: Last hidden states.
        mask: 1 for tokens, 0 for padding.
        pooling: ``first`` or ``last`` token that is no padding, or the ``mean`` over them.

    Returns:
        φ, (n, h).
    """
    if pooling == "mean":
        weights = mask.to(states.dtype)
        return torch.einsum("nth,nt->nh", states, weights) / weights.sum(dim=1, keepdim=True)
    length = mask.shape[1]
    # Padding may stand on either side.
    place = mask.argmax(dim=1) if pooling == "first" else length - 1 - mask.flip(1).argmax(dim=1)
    # Choosing by a product keeps every shape free of the data, which torch.func needs.
    chosen = nn.functional.one_hot(place, length).to(states.dtype)
    return torch.einsum("nth,nt->nh", states, chosen)


class LinearHeadClassifier(nn.Module):
    """f = Vφ + b on a Transformer body, φ the pooled last hidden state.

    Source: Tomihari and Sato, NeurIPS 2024: the feature of RoBERTa is the last layer's first token and the head one
    linear layer, unlike the two-layer heads of transformers.

    Args:
        body: A model of transformers that returns hidden states.
        num_labels: C.
        pooling: ``first``, ``last`` or ``mean``.
        dropout: Probability of dropout in front of the head; None takes the body's.

    Attributes:
        body: The Transformer.
        classifier: The head, V (C, h) and b (C).
        config: The body's config.
    """

    def __init__(self, body: PreTrainedModel, num_labels: int, pooling: str, dropout: float | None = None) -> None:
        super().__init__()
        self.body = body
        self.config = body.config
        self.config.num_labels = num_labels
        self.pooling = pooling
        rates = (getattr(body.config, n, None) for n in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
        probability = next((p for p in rates if isinstance(p, float)), 0.0) if dropout is None else dropout
        self.dropout = nn.Dropout(probability)
        # OPT projects its last hidden states to the width of its embeddings.
        width = getattr(body.config, "word_embed_proj_dim", None) or body.config.hidden_size
        self.classifier = nn.Linear(width, num_labels)

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings of the body."""
        return self.body.get_input_embeddings()

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Recompute the body's activations in the backward pass instead of keeping them, as ``Trainer`` may ask."""
        self.body.activation_checkpointing_enable(**settings)

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Do the same, under the name that earlier versions of transformers 5 call it by."""
        self.body.gradient_checkpointing_enable(**settings)

    def forward(
        self,
        input_ids: Int[Tensor, "n t"],
        attention_mask: Int[Tensor, "n t"] | None = None,
        token_type_ids: Int[Tensor, "n t"] | None = None,
        position_ids: Int[Tensor, "n t"] | None = None,
        labels: Int[Tensor, " n"] | None = None,
    ) -> SequenceClassifierOutput:
        """Logits, and the cross-entropy loss where labels are given.

        Args:
            input_ids: Tokens.
            attention_mask: 1 for tokens, 0 for padding; all ones by default.
            token_type_ids: Segments, for bodies that have them.
            position_ids: Positions, for bodies that take them.
            labels: Classes, 0…C−1.

        Returns:
            ``logits`` (n, C), and ``loss``.
        """
        given: dict[str, Any] = {"token_type_ids": token_type_ids, "position_ids": position_ids}
        given = {name: value for name, value in given.items() if value is not None}
        states = self.body(input_ids=input_ids, attention_mask=attention_mask, **given).last_hidden_state
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        features = pool(states, mask, self.pooling)
        # A head that is trained is wider than a body that is not, where that is held in few bits.
        logits = self.classifier(self.dropout(features.to(self.classifier.weight.dtype)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def resolve_pooling(body: PreTrainedModel, pooling: str) -> str:
    """Turn ``auto`` into the last token for bodies in which tokens see only what stands before them, else the first.

    Which of the two it is, is found by trying: whether the first token's state changes with the last token.

    Args:
        body: The model without a head; its mode is left as it was.
        pooling: One of ``POOLINGS``.

    Returns:
        ``pooling`` itself, or for ``auto`` ``first`` or ``last``.

    Raises:
        InputError: Unknown name.
    """
    choose("pooling", pooling, POOLINGS)
    if pooling != "auto":
        return pooling
    device = next(body.parameters()).device
    size = body.get_input_embeddings().num_embeddings
    tokens = torch.tensor([[size // 2, size // 3, size // 4], [size // 2, size // 3, size // 5]], device=device)
    training = body.training
    body.eval()
    with ExitStack() as stack:
        if body.dtype in (torch.bfloat16, torch.float16):  # in which a small difference may be rounded away
            trained = [parameter for parameter in body.parameters() if parameter.requires_grad]
            stack.callback(lambda: [parameter.requires_grad_() for parameter in trained])
            stack.enter_context(prepared(body.requires_grad_(False), torch.float32, device))
        stack.enter_context(plain_arithmetic(device))
        stack.enter_context(torch.no_grad())
        first = body(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state[:, 0]
    body.train(training)
    return "last" if torch.equal(first[0], first[1]) else "first"
