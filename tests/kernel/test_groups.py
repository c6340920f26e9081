"""Names of parameter groups."""

from __future__ import annotations

import re

import pytest
from helpers.zoo import ENTRIES, LORA_ENTRIES, Entry

from ntk_lpft.kernel.groups import group_of, group_parameters

SHAPE = re.compile(
    r"(embeddings|pooler|other|((encoder|decoder)\.)?final_norm|((encoder|decoder)\.)?layer\.\d+\.(attention|mlp|norm))"
)


@pytest.mark.parametrize(
    ("parameter", "group"),
    [
        ("bert.embeddings.word_embeddings.weight", "embeddings"),
        ("bert.embeddings.LayerNorm.bias", "embeddings"),
        ("bert.encoder.layer.0.attention.self.query.weight", "layer.0.attention"),
        ("bert.encoder.layer.0.attention.output.dense.bias", "layer.0.attention"),
        ("bert.encoder.layer.0.attention.output.LayerNorm.weight", "layer.0.norm"),
        ("bert.encoder.layer.11.intermediate.dense.weight", "layer.11.mlp"),
        ("bert.encoder.layer.11.output.dense.weight", "layer.11.mlp"),
        ("bert.encoder.layer.11.output.LayerNorm.weight", "layer.11.norm"),
        ("bert.pooler.dense.weight", "pooler"),
        ("roberta.encoder.layer.3.attention.self.value.weight", "layer.3.attention"),
        ("classifier.dense.weight", "pooler"),
        ("distilbert.transformer.layer.1.attention.q_lin.weight", "layer.1.attention"),
        ("distilbert.transformer.layer.1.sa_layer_norm.weight", "layer.1.norm"),
        ("distilbert.transformer.layer.1.ffn.lin1.weight", "layer.1.mlp"),
        ("distilbert.transformer.layer.1.output_layer_norm.bias", "layer.1.norm"),
        ("pre_classifier.weight", "pooler"),
        ("albert.encoder.embedding_hidden_mapping_in.weight", "embeddings"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.query.weight", "layer.0.attention"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.LayerNorm.weight", "layer.0.norm"),
        ("albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight", "layer.0.mlp"),
        ("electra.embeddings_project.weight", "embeddings"),
        ("deberta.encoder.rel_embeddings.weight", "embeddings"),
        ("deberta.encoder.layer.1.attention.self.pos_key_proj.weight", "layer.1.attention"),
        ("model.embeddings.tok_embeddings.weight", "embeddings"),
        ("model.layers.1.attn.Wqkv.weight", "layer.1.attention"),
        ("model.layers.1.mlp.Wi.weight", "layer.1.mlp"),
        ("model.layers.1.mlp_norm.weight", "layer.1.norm"),
        ("model.layers.1.attn_norm.weight", "layer.1.norm"),
        ("model.final_norm.weight", "final_norm"),
        ("head.dense.weight", "pooler"),
        ("head.norm.weight", "pooler"),
        ("transformer.wte.weight", "embeddings"),
        ("transformer.wpe.weight", "embeddings"),
        ("transformer.h.0.ln_1.weight", "layer.0.norm"),
        ("transformer.h.0.attn.c_proj.weight", "layer.0.attention"),
        ("transformer.h.0.mlp.c_proj.weight", "layer.0.mlp"),
        ("transformer.ln_f.bias", "final_norm"),
        ("gpt_neox.layers.1.attention.query_key_value.weight", "layer.1.attention"),
        ("gpt_neox.final_layer_norm.weight", "final_norm"),
        ("model.decoder.layers.0.self_attn.k_proj.bias", "layer.0.attention"),
        ("model.decoder.layers.0.fc1.weight", "layer.0.mlp"),
        ("model.decoder.final_layer_norm.weight", "final_norm"),
        ("model.decoder.project_in.weight", "embeddings"),
        ("model.layers.1.self_attn.q_norm.weight", "layer.1.norm"),
        ("model.layers.1.post_feedforward_layernorm.weight", "layer.1.norm"),
        ("model.layers.1.mlp.gate_proj.weight", "layer.1.mlp"),
        ("model.norm.weight", "final_norm"),
        ("base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.default.weight", "layer.0.attention"),
        ("base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight", "layer.1.attention"),
    ],
)
def test_parameters_are_in_the_expected_group(parameter: str, group: str) -> None:
    assert group_of(parameter) == group


def test_a_norm_inside_the_body_is_no_final_norm() -> None:
    """DeBERTa's norm of its relative embeddings, and that of the convolution beside its first layer."""
    assert group_of("deberta.encoder.LayerNorm.weight") != "final_norm"
    assert group_of("deberta.encoder.conv.LayerNorm.weight") != "final_norm"


def test_encoder_and_decoder_are_told_apart_where_there_are_both() -> None:
    names = [
        "transformer.shared.weight",
        "transformer.encoder.block.0.layer.0.SelfAttention.q.weight",
        "transformer.encoder.block.0.layer.0.layer_norm.weight",
        "transformer.encoder.final_layer_norm.weight",
        "transformer.decoder.block.0.layer.1.EncDecAttention.k.weight",
        "transformer.decoder.block.0.layer.2.DenseReluDense.wi.weight",
        "transformer.decoder.final_layer_norm.weight",
        "classification_head.dense.weight",
    ]
    expected = [
        "embeddings",
        "encoder.layer.0.attention",
        "encoder.layer.0.norm",
        "encoder.final_norm",
        "decoder.layer.0.attention",
        "decoder.layer.0.mlp",
        "decoder.final_norm",
        "pooler",
    ]
    assert group_parameters(names) == {group: [name] for group, name in zip(expected, names, strict=True)}
    assert list(group_parameters(names[:4])) == ["embeddings", "layer.0.attention", "layer.0.norm", "final_norm"]


@pytest.mark.parametrize("entry", [*ENTRIES, *LORA_ENTRIES], ids=lambda e: e.name)
def test_every_model_has_attention_and_feed_forward_groups_for_each_layer(entry: Entry) -> None:
    names = [name for name, p in entry.build().named_parameters() if p.requires_grad]
    groups = group_parameters(names)
    assert [name for members in groups.values() for name in members] != []
    assert sorted(name for members in groups.values() for name in members) == sorted(names)
    assert all(SHAPE.fullmatch(group) for group in groups)
    layers = {group for group in groups if ".attention" in group}
    stacks = ("encoder.", "decoder.") if entry.name == "t5" else ("",)
    # ALBERT calls one layer several times; its parameters are in one group.
    count = 1 if entry.name == "albert" else 2
    assert layers == {f"{stack}layer.{i}.attention" for stack in stacks for i in range(count)}
    if not entry.lora:
        assert {group.replace("attention", "mlp") for group in layers} <= set(groups)
        assert {group.replace("attention", "norm") for group in layers} <= set(groups)
        assert "embeddings" in groups
