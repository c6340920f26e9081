"""Tiny random sequence classifiers, one or more for each supported architecture, built without a download.

Sizes are chosen to expose mistakes: hidden size, heads, sequence lengths, classes and samples are all different, layers
are rarely square, embeddings collide within a row and between rows, and no weight, bias or norm gain is left at 0 or 1.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import peft
import torch
import transformers
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForSequenceClassification, PreTrainedModel

Row = dict[str, list[int]]

VOCABULARY = 61
HIDDEN = 20
POSITIONS = 23


@dataclass(frozen=True)
class Entry:
    """One architecture, or one variant of it, and what a test has to know of it.

    `AutoModelForSequenceClassification` offers every architecture listed here, so all are built through it.

    Attributes:
        name: Unique name, good as a test's id.
        config: Name of the configuration class in `transformers`.
        options: Arguments of the configuration, without the number of labels.
        pad_id: The padding token, which no row contains.
        start: Token that opens every row, if any (`[CLS]`, `<s>`).
        end: Token that closes every row, if any. T5 pools there and demands equally many in every row.
        token_types: Whether rows carry `token_type_ids`.
        padding_exact: Whether logits of a row padded on the right equal those of the row alone, in float64 and with the
            form of attention that the model is built with.
        left_padding_exact: The same for padding on the left, which moves the tokens of a model that counts positions
            from the first column or pools there.
        padding_note: Why padding on the right is not exact, where it is not.
        internal_float32: Whether the forward pass computes part of the logits in float32 whatever the weights' type:
            the norms of Llama's relatives and of T5, ModernBERT's rotated queries and keys. (Constants rounded to
            float32, such as the sines of a rotary embedding, do not count: they are the same however a kernel is
            computed.)
        eager_softmax_float32: Whether the softmax of eager attention does so too. A fully masked position then turns
            into NaN in a float64 model, since the mask's value is infinite in float32.
        lora: Arguments of the LoRA adapter, where the entry has one.
    """

    name: str
    config: str
    options: Mapping[str, Any]
    pad_id: int
    start: int | None = None
    end: int | None = None
    token_types: bool = False
    padding_exact: bool = True
    left_padding_exact: bool = False
    padding_note: str = ""
    internal_float32: bool = False
    eager_softmax_float32: bool = False
    lora: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """Relative agreement to ask of two float64 computations of one kernel, at least one with eager attention.

        Relative to the whole kernel and not to one parameter's: the bias of a key projection has no influence, so that
        its kernel is nothing but rounding. Computations in float32 inside differ by up to 1e-6.
        """
        return 5e-6 if self.internal_float32 or self.eager_softmax_float32 else 1e-9

    @property
    def tolerance_sdpa(self) -> float:
        """The same for two computations with `sdpa` attention, whose softmax keeps float64."""
        return 5e-6 if self.internal_float32 else 1e-9

    def build(self, num_labels: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
        """Build the classifier with all weights random, in evaluation mode.

        Args:
            num_labels: Number of classes.
            seed: Seed of every weight. Equal seeds give equal models; the global generator is left as it was.
            dtype: Type of the weights.

        Returns:
            The model; a `PeftModel` where the entry has an adapter.
        """
        config = getattr(transformers, self.config)(
            vocab_size=VOCABULARY, pad_token_id=self.pad_id, num_labels=num_labels, **self.options
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForSequenceClassification.from_config(config)
            if self.lora:
                with warnings.catch_warnings():
                    # peft asks transformers for this name, which transformers is about to give up.
                    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                    model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", **self.lora))
        model = model.to(dtype).eval()
        randomise(model, seed)
        return model


def randomise(model: nn.Module, seed: int) -> None:
    """Give every parameter random values of a size that keeps the network far from linear and from saturation.

    Args:
        model: Changed in place. Tied parameters stay tied.
        seed: Seed of a generator of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Drawn in float64 and rounded, so that a float32 model is the rounded float64 one.
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if parameter.ndim > 1:
                value = 0.25 * noise
            elif name.endswith("bias"):
                value = 0.2 * noise
            else:
                value = 1 + 0.3 * noise
            parameter.copy_(value)


def ragged_rows(entry: Entry, n: int = 5, seed: int = 0, max_len: int = 9) -> list[Row]:
    """Draw rows of different lengths, as a tokenizer without padding would give them.

    Tokens come from a pool of eight, every row has one of them in common with all others, and repeats it where it has
    room, so that embeddings meet within rows and between them.

    Args:
        entry: The model that the rows are for.
        n: Number of rows. Lengths are all different up to `max_len - 2` rows.
        seed: Seed of lengths and tokens.
        max_len: Greatest length, at least 3, and at most 20 for the models' positions to suffice.

    Returns:
        Rows with `input_ids`, `attention_mask` and, where the model takes them, `token_type_ids`.
    """
    rng = random.Random(seed)
    lengths = [3 + i % (max_len - 2) for i in range(max_len - 3, max_len - 3 - n, -1)]
    rng.shuffle(lengths)
    special = {entry.pad_id, entry.start, entry.end}
    pool = rng.sample([token for token in range(VOCABULARY) if token not in special], 8)
    rows = []
    for length in lengths:
        start = [] if entry.start is None else [entry.start]
        end = [] if entry.end is None else [entry.end]
        body = [rng.choice(pool) for _ in range(length - len(start) - len(end))]
        body[0] = pool[0]
        if len(body) > 1:
            body[rng.randrange(1, len(body))] = pool[0]
        ids = start + body + end
        row = {"input_ids": ids, "attention_mask": [1] * length}
        if entry.token_types:
            row["token_type_ids"] = [int(position >= (length + 1) // 2) for position in range(length)]
        rows.append(row)
    return rows


def padded(rows: Sequence[Row], *, pad_id: int, side: str = "right", extra: int = 0) -> dict[str, torch.Tensor]:
    """Pad rows to one length.

    Args:
        rows: Rows as `ragged_rows` gives them.
        pad_id: Token to pad `input_ids` with; masks and token types are padded with 0.
        side: `"right"` or `"left"`.
        extra: Columns of padding beyond the longest row.

    Returns:
        Tensors of shape (rows, longest + extra).
    """
    width = max(len(row["input_ids"]) for row in rows) + extra
    batch = {}
    for key in rows[0]:
        table = []
        for row in rows:
            filler = [pad_id if key == "input_ids" else 0] * (width - len(row[key]))
            table.append(row[key] + filler if side == "right" else filler + row[key])
        batch[key] = torch.tensor(table)
    return batch


class _Widen(TorchFunctionMode):
    """Replaces every request for float32 with one for float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        kwargs = {key: torch.float64 if value is torch.float32 else value for key, value in kwargs.items()}
        return func(*args, **kwargs)


@contextmanager
def widened() -> Iterator[None]:
    """Compute in float64 what a model insists on computing in float32.

    Under it every entry built in float64, padded right or not at all, agrees with itself to 1e-9 however computed.
    Its values differ from the ordinary ones by float32 rounding, and T5's and MPNet's position buckets may differ where
    a distance lies on the edge of one, so both sides of a comparison belong under it.
    """
    with _Widen():
        yield


_BERT_LIKE = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 34,
    "max_position_embeddings": POSITIONS,
}
_ROBERTA_LIKE = {**_BERT_LIKE, "type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2}
# An explicit head size makes the query and output projections rectangular, and the two key and value heads narrower
# than the four query heads.
_LLAMA_LIKE = {
    **_BERT_LIKE,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "attention_dropout": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Gemma-2 has no form of attention but the eager one. Its window is wider than any row with its padding.
_GEMMA2_LIKE = {**_LLAMA_LIKE, "query_pre_attn_scalar": 6, "sliding_window": 16}
_DEBERTA_LIKE = {
    **_BERT_LIKE,
    "type_vocab_size": 2,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "pooler_dropout": 0.1,
}
_MODERNBERT_LIKE = {
    **_BERT_LIKE,
    # The first layer attends to everything, the second to the nearest tokens only: fewer than a row has.
    "layer_types": ["full_attention", "sliding_attention"],
    "local_attention": 4,
    "attention_dropout": 0.1,
    "embedding_dropout": 0.1,
    "bos_token_id": 57,
    "cls_token_id": 57,
    "eos_token_id": 58,
    "sep_token_id": 58,
}
_GPT2_LIKE = {
    "n_embd": HIDDEN,
    "n_layer": 2,
    "n_head": 2,
    "n_inner": 34,
    "n_positions": POSITIONS,
    "bos_token_id": 60,
    "eos_token_id": 60,
}
_OPT_LIKE = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 34,
    "max_position_embeddings": POSITIONS,
}
_FLOAT32: dict[str, Any] = {"internal_float32": True, "eager_softmax_float32": True}
# Decoders whose positions are relative, or counted by the mask.
_MOVABLE: dict[str, Any] = {"left_padding_exact": True, "eager_softmax_float32": True}
_BERT = Entry("bert", "BertConfig", _BERT_LIKE, pad_id=0, start=3, end=4, token_types=True)
_GPT2 = Entry("gpt2", "GPT2Config", _GPT2_LIKE, pad_id=59)
_LLAMA = Entry("llama", "LlamaConfig", _LLAMA_LIKE, pad_id=0, **_MOVABLE, internal_float32=True)

ENTRIES: tuple[Entry, ...] = (
    _BERT,
    Entry("roberta", "RobertaConfig", _ROBERTA_LIKE, pad_id=1, start=0, end=2),
    Entry("xlm-roberta", "XLMRobertaConfig", _ROBERTA_LIKE, pad_id=1, start=0, end=2),
    Entry(
        "distilbert",
        "DistilBertConfig",
        {"dim": HIDDEN, "n_layers": 2, "n_heads": 2, "hidden_dim": 34, "max_position_embeddings": POSITIONS},
        pad_id=0,
        start=3,
        end=4,
    ),
    Entry(
        # One layer called three times.
        "albert",
        "AlbertConfig",
        {
            **_BERT_LIKE,
            "embedding_size": 12,
            "num_hidden_layers": 3,
            "num_hidden_groups": 1,
            "hidden_dropout_prob": 0.1,
        },
        pad_id=0,
        start=2,
        end=3,
        token_types=True,
    ),
    Entry("electra", "ElectraConfig", {**_BERT_LIKE, "embedding_size": 12}, pad_id=0, start=3, end=4, token_types=True),
    # The encoder asks for 32 position buckets whatever the configuration says, so that number stays.
    Entry("mpnet", "MPNetConfig", _BERT_LIKE, pad_id=1, start=0, end=2),
    Entry("deberta-v2", "DebertaV2Config", _DEBERTA_LIKE, pad_id=0, start=3, end=4, token_types=True),
    Entry(
        # As DeBERTa-v3 has it: query and key projections applied to the normalised relative embeddings as well.
        "deberta-v2-shared",
        "DebertaV2Config",
        {
            **_DEBERTA_LIKE,
            "type_vocab_size": 0,
            "position_biased_input": False,
            "share_att_key": True,
            "position_buckets": 4,
            "norm_rel_ebd": "layer_norm",
        },
        pad_id=0,
        start=3,
        end=4,
    ),
    Entry(
        # As the largest DeBERTa-v2 has it: a convolution beside the first layer.
        "deberta-v2-convolution",
        "DebertaV2Config",
        {
            **_DEBERTA_LIKE,
            "type_vocab_size": 0,
            "position_biased_input": False,
            "share_att_key": True,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
        pad_id=0,
        start=3,
        end=4,
    ),
    Entry("modernbert", "ModernBertConfig", _MODERNBERT_LIKE, pad_id=59, start=57, end=58, **_FLOAT32),
    Entry(
        "modernbert-mean",
        "ModernBertConfig",
        {**_MODERNBERT_LIKE, "classifier_pooling": "mean", "norm_bias": True, "attention_bias": True, "mlp_bias": True},
        pad_id=59,
        start=57,
        end=58,
        left_padding_exact=True,
        **_FLOAT32,
    ),
    _GPT2,
    # Token types are looked up in the word embeddings, a second call of the same layer.
    Entry("gpt2-token-types", "GPT2Config", _GPT2_LIKE, pad_id=59, token_types=True),
    Entry("gpt-neox", "GPTNeoXConfig", {**_BERT_LIKE, "hidden_dropout": 0.1}, pad_id=59, **_MOVABLE),
    Entry("opt", "OPTConfig", _OPT_LIKE, pad_id=1, **_MOVABLE),
    Entry(
        # As OPT-350m has it: narrower embeddings, projected in and out, and norms behind the blocks.
        "opt-projected",
        "OPTConfig",
        {**_OPT_LIKE, "word_embed_proj_dim": 12, "do_layer_norm_before": False},
        pad_id=1,
        **_MOVABLE,
    ),
    _LLAMA,
    Entry("qwen2", "Qwen2Config", _LLAMA_LIKE, pad_id=0, **_MOVABLE, internal_float32=True),
    Entry("qwen3", "Qwen3Config", _LLAMA_LIKE, pad_id=0, **_MOVABLE, internal_float32=True),
    Entry("gemma2", "Gemma2Config", _GEMMA2_LIKE, pad_id=0, **_FLOAT32),
    Entry(
        "gemma2-window",
        "Gemma2Config",
        {**_GEMMA2_LIKE, "sliding_window": 4},
        pad_id=0,
        padding_exact=False,
        padding_note="Padding beyond the window attends to nothing: NaN in the float32 softmax of a float64 model.",
        **_FLOAT32,
    ),
    Entry(
        "mistral",
        "MistralConfig",
        {**_LLAMA_LIKE, "sliding_window": 4},
        pad_id=0,
        **_MOVABLE,
        internal_float32=True,
    ),
    Entry(
        "t5",
        "T5Config",
        {
            "d_model": HIDDEN,
            "d_kv": 7,
            "d_ff": 34,
            "num_layers": 2,
            "num_heads": 2,
            "decoder_start_token_id": 0,
            "classifier_dropout": 0.1,
        },
        pad_id=0,
        end=1,
        internal_float32=True,
    ),
)

_LORA = {"r": 2, "lora_alpha": 8, "lora_dropout": 0.1}
LORA_ENTRIES: tuple[Entry, ...] = (
    replace(_BERT, name="bert-lora", lora={**_LORA, "target_modules": ["query", "value"]}),
    # GPT-2's projections are `Conv1D`, which stores its weight the other way round.
    replace(_GPT2, name="gpt2-lora", lora={**_LORA, "target_modules": ["c_attn"], "fan_in_fan_out": True}),
    replace(_LLAMA, name="llama-lora", lora={**_LORA, "target_modules": ["q_proj", "v_proj"]}),
)

ZOO: dict[str, Entry] = {entry.name: entry for entry in (*ENTRIES, *LORA_ENTRIES)}
