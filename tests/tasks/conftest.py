"""What the tests of the tasks share: the data folder, the bundled model, and a tokenizer small enough to read."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from ntk_lpft import bundled
from ntk_lpft.errors import InputError


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("NTK_LPFT_DATA")
    if not folder:
        pytest.skip("NTK_LPFT_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def minilm() -> Path:
    try:
        return bundled.model_folder("minilm")
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def vader() -> Path:
    try:
        return bundled.data_folder("vader")
    except InputError as error:
        pytest.skip(str(error))


def word_tokenizer(words: str = "a b c d e f", special: bool = True, **options: Any) -> Any:
    """One token a word: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, then the words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words.split()]
    backend = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    if special:
        backend.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**tokens, **options})


@pytest.fixture
def make_tokenizer() -> Any:
    return word_tokenizer


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Let values of a wrong shape or type reach the code, as they do in use, even where the run checks annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
