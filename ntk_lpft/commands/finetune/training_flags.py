"""Names of the options of transformers' ``TrainingArguments``, read from its source: importing it takes seconds."""

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ntk_lpft.commands.finetune.options import FinetuneOptions

_DECIDED = "is decided by this command"
_NO_HUB = "does nothing, as nothing is pushed to the Hub"
_SCORES = "would change what is measured in evaluation"
# Options of TrainingArguments that this command refuses, and why.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("remove_unused_columns", "disable_tqdm", "do_train", "do_eval", "do_predict",
         "resume_from_checkpoint", "push_to_hub", "save_only_model"),
        _DECIDED,
    ),
    **dict.fromkeys(("hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"), _NO_HUB),
    **dict.fromkeys(
        ("prediction_loss_only", "batch_eval_metrics", "include_for_metrics", "eval_do_concat_batches",
         "eval_use_gather_object", "dataloader_drop_last"),
        _SCORES,
    ),
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"),
                    "cannot be given, as DeepSpeed and FSDP are not supported; use torchrun or accelerate launch"),
    "debug": "fails on attention masks, as transformers looks for overflows in them",
    "enable_jit_checkpoint": "would write checkpoints at other steps than those that --resume knows",
}  # fmt: skip


def describe_training(defaults: Mapping[str, object]) -> str:
    """Say which options of ``TrainingArguments`` are taken, and which of them this command gives another default.

    Args:
        defaults: The command's own defaults.

    Returns:
        Two paragraphs for the end of ``--help``.
    """
    own = [f"--{name.replace('_', '-')} {value}" for name, value in defaults.items()]
    others = [f"--{name.replace('_', '-')}" for name in training_flags()
              if name not in {*defaults, *REFUSED, *FinetuneOptions.__dataclass_fields__}]  # fmt: skip
    return (
        f"Options of transformers' TrainingArguments, with this command's defaults: {', '.join(own)}. Learning rate, "
        "batch size and epochs are the paper's for the method and the data set; those above are of lp-ft on the "
        f"default data. Also taken, with transformers' own defaults: {', '.join(others)}."
    )


@cache
def training_flags() -> tuple[str, ...]:
    """Return the names of the fields of ``TrainingArguments``, in its order; none where its source is not to be had."""
    package = importlib.util.find_spec("transformers")
    if package is None or package.origin is None:
        return ()
    file = Path(package.origin).with_name("training_args.py")
    if not file.is_file():
        return ()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments":
            fields = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
            return tuple(each.id for each in fields if isinstance(each, ast.Name) and not each.id.startswith("_"))
    return ()
