"""``python -m ntk_lpft.compute``: the NTK of a classifier on a data set, split into P and F."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ntk_lpft import report
from ntk_lpft.classifier import (
    apply_lora,
    find_head,
    load_classifier,
    load_tokenizer,
    scale_head,
    set_head,
)
from ntk_lpft.classifier.head_file import head_from_file
from ntk_lpft.classifier.linear_head import POOLINGS
from ntk_lpft.classifier.loading import HEADS, initialise_head
from ntk_lpft.classifier.rows import check_rows, collate, padding_id, to_rows
from ntk_lpft.classifier.saving import run_model_folder
from ntk_lpft.command import open_output, parse_options, run_command, write_json
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.probe_cache import cached_logistic_head
from ntk_lpft.kernel import KernelSettings, compute_train_eval_ntk
from ntk_lpft.kernel.engine import resolve_device
from ntk_lpft.kernel.identity import versions
from ntk_lpft.kernel.storage import save_parts
from ntk_lpft.tasks import EncodedSplit, Task, load_files, load_task

DESCRIPTION = (
    "Compute the empirical neural tangent kernel of a Transformer classifier's logits, split it into the "
    "pre-train-effective component P (linear head) and the FT-effective component F (body), and say what it means."
)
HEAD_INITS = ("auto", "lp", "random", "keep")
CHECKPOINT = "partial.safetensors"


def _option(default: Any, text: str) -> Any:
    """Dataclass field with a help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class ComputeOptions:
    """Options of ``python -m ntk_lpft.compute``."""

    model: str = _option("minilm", "model: a Hub name, a folder, also that of a finetune run, or the bundled 'minilm'")
    dataset: str = _option("amazon-snippets", "task by name; see --train-file for your own data")
    data_dir: str | None = _option(None, "folder with original releases (default: $NTK_LPFT_DATA, else the Hub)")
    train_file: str | None = _option(None, "your own training data: csv, tsv, jsonl or parquet, instead of --dataset")
    eval_file: str | None = _option(None, "your own evaluation data")
    text_columns: list[str] = field(
        default_factory=lambda: ["text"], metadata={"help": "one or two text columns of your own data"}
    )
    label_column: str = _option("label", "label column of your own data")
    eval_split: str = _option("test", "evaluation split: test, validation, or the name of an OOD test")
    n_train: int = _option(250, "training samples in the kernel")
    n_eval: int = _option(250, "evaluation samples in the kernel")
    balanced: bool = _option(False, "draw equally many samples of each class, instead of uniformly")
    max_length: int = _option(128, "longest row in tokens")
    seed: int = _option(0, "seed of samples, new head and LoRA")
    head: str = _option("linear", "'linear': one layer on the pooled feature (the paper's); 'native': the model's own")
    pooling: str = _option("auto", "feature of a linear head: first, last, mean, or auto (last for decoders)")
    head_init: str = _option("auto", "V: 'lp' (logistic regression on all training data), 'random', 'keep' (as saved), "
                                     "a file that a linear probe wrote, or 'auto' ('keep' for a finetune run's "
                                     "folder, else 'lp')")  # fmt: skip
    head_scale: float = _option(1.0, "factor on V")
    scale_bias: bool = _option(False, "whether --head-scale multiplies b as well")
    lora: bool = _option(False, "train LoRA adapters instead of the body")
    lora_rank: int = _option(8, "rank r of the adapters")
    lora_alpha: float = _option(8.0, "α; adapters are scaled by α / r")
    lora_targets: list[str] = field(
        default_factory=list, metadata={"help": "layers to adapt (default: peft's choice, mostly query and value)"}
    )
    engine: str = _option("structured", "structured, functional (torch.func) or per_example (plain autograd)")
    precision: str = _option("float32", "float32, float64, tf32 (CUDA) or bfloat16")
    outputs: str = _option("full", "full, class_trace or pseudo (kernel of the sum of logits), for many classes")
    groups: bool = _option(True, "split F by parameter group")
    memory_budget: str | None = _option(
        None, "memory besides the model, such as 4GiB (default: a share of what is free)"
    )
    device: str | None = _option(None, "cpu, cuda, cuda:1 (default: cuda where there is one)")
    kernel_classifier: bool = _option(True, "fit the paper's kernel classifier")
    max_iter: int = _option(10_000, "most iterations of a kernel classifier's fit")
    trust_remote_code: bool = _option(False, "run code that the model's repository ships")
    output_dir: str | None = _option(None, "folder for the results (default: runs/MODEL-DATASET-HEAD_INIT)")
    overwrite: bool = _option(False, "replace results in the output folder, and start an interrupted run anew")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without loading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        if self.head_init not in HEAD_INITS and not Path(self.head_init).is_file():
            raise InputError(
                f"unknown --head-init {self.head_init!r}; choose one of {', '.join(HEAD_INITS)}, or a file that exists"
            )
        if self.n_train < 2 or self.n_eval < 1:
            raise InputError(f"--n-train {self.n_train} and --n-eval {self.n_eval} must be at least 2 and 1")
        if self.max_iter < 1:
            raise InputError(f"--max-iter {self.max_iter} is not positive")
        for flag, value in (("--head-scale", self.head_scale), ("--lora-alpha", self.lora_alpha)):
            if not np.isfinite(value):
                raise InputError(f"{flag} {value} is not a finite number")
        if self.lora_rank < 1:
            raise InputError(f"--lora-rank {self.lora_rank} is not positive")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is not from 0 to 2**63 - 1")
        for flag, choice, known in (("--head", self.head, HEADS), ("--pooling", self.pooling, POOLINGS)):
            if choice not in known:
                raise InputError(f"unknown {flag} {choice!r}; choose one of {', '.join(known)}")
        if self.train_file is None and self.eval_file is not None:
            raise InputError("--eval-file needs --train-file")
        if self.outputs == "pseudo" and self.starting_head() == "lp":
            raise InputError(
                "--outputs pseudo says nothing with --head-init lp, whose logits always sum to the same; "
                "use --outputs class_trace, or another --head-init"
            )
        self.kernel_settings().check()

    def starting_head(self) -> str:
        """``head_init``, with ``auto`` made out."""
        if self.head_init != "auto":
            return self.head_init
        folder = Path(self.model).expanduser()
        return "keep" if run_model_folder(folder) != folder else "lp"

    def kernel_settings(self) -> KernelSettings:
        """How the kernel is computed."""
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return KernelSettings(self.engine, self.precision, self.outputs, self.groups, self.memory_budget, device)

    def folder(self) -> Path:
        """Where the results go."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        data = Path(self.train_file).stem if self.train_file else self.dataset
        parts = [Path(self.model).name, data, Path(self.starting_head()).stem] + (["lora"] if self.lora else [])
        return Path("runs") / "-".join(parts)


@dataclass(frozen=True)
class Data:
    """What the kernel is computed on.

    Attributes:
        task: Where it comes from.
        train: Columns of the kernel.
        evaluation: Rows of the second part.
        whole_train: All training samples, for the LP head.
    """

    task: Task
    train: EncodedSplit
    evaluation: EncodedSplit
    whole_train: EncodedSplit | None


def read_data(options: ComputeOptions) -> Data:
    """Read, sample and tokenise.

    Raises:
        InputError: Anything wrong with the data.
    """
    if options.train_file is not None:
        task = load_files(
            options.train_file,
            test=options.eval_file,
            text_columns=tuple(options.text_columns),
            label_column=options.label_column,
        )
    else:
        task = load_task(options.dataset, options.data_dir)
    train = task.split("train")
    if options.eval_split in task.ood:
        evaluation = task.ood_split(options.eval_split)
    else:
        evaluation = task.split(options.eval_split)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    whole = train.encode(tokenizer, options.max_length) if options.starting_head() == "lp" else None
    return Data(
        task,
        train.subsample(options.n_train, options.seed, options.balanced).encode(tokenizer, options.max_length),
        evaluation.subsample(options.n_eval, options.seed, options.balanced).encode(tokenizer, options.max_length),
        whole,
    )


def build_model(options: ComputeOptions, data: Data, say: Any = print) -> nn.Module:
    """Load the classifier, make its head, and adapt it.

    Raises:
        InputError: Anything wrong with the model.
    """
    device = resolve_device(options.kernel_settings().device, torch.device("cpu"))
    model = load_classifier(
        options.model,
        data.task.num_labels,
        head=options.head,
        pooling=options.pooling,
        seed=options.seed,
        keep_head=options.starting_head() == "keep",
        device=device,
        trust_remote_code=options.trust_remote_code,
    )
    rows = to_rows(data.train, model, "training data")
    check_rows(rows, model, "training data")
    head = find_head(model, collate(rows[:1], padding_id(model, rows), device).tensors)
    start = options.starting_head()
    if start == "lp":
        assert data.whole_train is not None
        fitted = cached_logistic_head(model, data.whole_train, data.task.num_labels, progress=True, say=say)
        set_head(head, fitted.weight, fitted.bias)
        say(
            f"head:   logistic regression on {len(data.whole_train)} training samples, {fitted.folds} folds, "
            f"C = {fitted.strength:.3g}, training accuracy {fitted.train_accuracy:.3f}"
            + ("" if fitted.converged else " (some fits did not converge)")
        )
    elif start == "random":
        initialise_head(head, options.seed)
    elif start != "keep":
        head_from_file(head, start)
    scale_head(head, options.head_scale, bias=options.scale_bias)
    if options.lora:
        model = apply_lora(
            model,
            head,
            rank=options.lora_rank,
            alpha=options.lora_alpha,
            targets=options.lora_targets or None,
            seed=options.seed,
        )
    return model.to(device)


def compute(options: ComputeOptions) -> Path:
    """Run the command.

    Args:
        options: What to do.

    Returns:
        The folder with the results.

    Raises:
        InputError: Anything wrong with the options, the data or the model.
    """
    options.check()
    folder = options.folder()
    checkpoint = folder / CHECKPOINT
    # An interrupted run leaves its checkpoint, to the very end; what else is there it will write again.
    open_output(folder, report.RESULT_FILES, overwrite=options.overwrite or checkpoint.exists())
    data = read_data(options)
    print(f"data:   {data.task.name} from {data.task.source}; {report.describe(data.train)} × itself and "
          f"× {report.describe(data.evaluation)}")  # fmt: skip
    model = build_model(options, data)
    print(f"model:  {report.describe_model(options.model, model)}")
    if options.overwrite:
        checkpoint.unlink(missing_ok=True)
    parts = compute_train_eval_ntk(
        model,
        data.train,
        data.evaluation,
        settings=options.kernel_settings(),
        checkpoint=checkpoint,
        progress=True,
        report=lambda line: print(f"kernel: {line}"),
    )
    config = {
        "command": "python -m ntk_lpft.compute",
        "options": {k: v for k, v in dataclasses.asdict(options).items() if k != "overwrite"},
        "versions": versions(),
        "data": {
            part: {
                "fingerprint": split.fingerprint,
                "indices": split.indices.tolist(),
                "labels": split.labels.tolist(),
                "truncated": split.n_truncated,
            }
            for part, split in (("train", data.train), ("eval", data.evaluation))
        },
        "label_names": list(data.task.label_names),
        "source": data.task.source,
    }
    for name in report.RESULT_FILES:  # of an earlier run; not each of them is written again
        (folder / name).unlink(missing_ok=True)
    save_parts(folder, parts)
    write_json(folder / "config.json", config)
    results = report.analyse(
        parts,
        torch.tensor(data.train.labels),
        torch.tensor(data.evaluation.labels),
        kernel_classifier=options.kernel_classifier,
        max_iter=options.max_iter,
    )
    head = model.get_parameter(f"{parts['train'].metadata['head']}.weight")
    labels = torch.tensor(data.train.labels)
    report.write(folder, results, parts, labels, data.task.label_names, head_norm=float(head.detach().double().norm()))
    checkpoint.unlink(missing_ok=True)
    report.show(folder, results, parts)
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_command(
        lambda: compute(parse_options(ComputeOptions, DESCRIPTION, arguments, "python -m ntk_lpft.compute"))
    )


if __name__ == "__main__":
    sys.exit(main())
