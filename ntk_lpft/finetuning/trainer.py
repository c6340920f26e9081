"""Hugging Face's ``Trainer`` for classifiers: cross-entropy, a stop at NaN, checkpoints without pickles."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.metrics import accuracy_score, matthews_corrcoef
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from ntk_lpft.classifier.classifier import Classifier
from ntk_lpft.classifier.rows import collate
from ntk_lpft.errors import InputError
from ntk_lpft.finetuning.checkpoint import (
    OPTIMIZER,
    SCALER,
    SCHEDULE,
    TRAINER_STATE,
    WEIGHTS,
    check_checkpoint,
    load_state,
    load_weights,
    random_file,
    random_state,
    remove_oldest,
    save_state,
    save_weights,
    seal_checkpoint,
    set_random_state,
    unseal_checkpoint,
)
from ntk_lpft.json_files import read_json
from ntk_lpft.tasks import EncodedSplit


def labelled_rows(split: EncodedSplit) -> list[dict[str, Any]]:
    """Tokenised rows with their labels, as ``Trainer`` wants them."""
    return [{**row, "labels": int(label)} for row, label in zip(split, split.labels, strict=True)]


def padded_batch(rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, Tensor]:
    """Pad labelled rows to their longest with a token's id; returns (n, T) tensors and the labels, (n,)."""
    inputs = [{name: row[name] for name in row if name not in ("labels", "attention_mask")} for row in rows]
    tensors = dict(collate(inputs, pad_id, torch.device("cpu")).tensors)
    return tensors | {"labels": torch.tensor([row["labels"] for row in rows])}


def _pad_id(classifier: Classifier, arguments: TrainingArguments) -> int:
    """Token to pad with; any where rows are trained on one by one.

    Args:
        classifier: The classifier to train.
        arguments: Settings of ``Trainer``, for their batch sizes.

    Returns:
        The token's id.

    Raises:
        InputError: The model knows no padding token, and is to be given batches.
    """
    if classifier.pad_id is None and max(arguments.train_batch_size, arguments.eval_batch_size) > 1:
        raise InputError(
            "the model knows no padding token, so that it cannot be given batches; set model.config.pad_token_id, or "
            "give --per-device-train-batch-size 1 --per-device-eval-batch-size 1"
        )
    return 0 if classifier.pad_id is None else classifier.pad_id


def score(metric: str, labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]) -> float:
    """Accuracy, or Matthews correlation, from 0 (−1) to 1."""
    return float(matthews_corrcoef(labels, predicted) if metric == "matthews" else accuracy_score(labels, predicted))


class _BestOfThisRun(TrainerCallback):
    """Lets a run that goes on find its best checkpoint where it lies now: the run's folder may have been moved.

    Attributes:
        resumed: The checkpoint that training goes on from.
    """

    def __init__(self) -> None:
        self.resumed: Path | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Find it beside the one that training goes on from."""
        best = None if self.resumed is None else read_json(self.resumed / TRAINER_STATE).get("best_model_checkpoint")
        if self.resumed is not None and best is not None:
            path = self.resumed.with_name(Path(best).name)
            state.best_model_checkpoint = str(path) if path.is_dir() else None


class ClassifierTrainer(Trainer):
    """``Trainer`` with the mean cross-entropy of logits as loss.

    Differences: a loss that is not finite stops training; checkpoints hold trainable parameters and training state as
    safetensors and JSON, where ``Trainer`` would pickle; nothing is printed.

    Args:
        classifier: The classifier.
        arguments: Settings; DeepSpeed and FSDP are refused.
        train: Training split.
        validation: Validation split, which chooses the best epoch.
        metric: ``accuracy`` or ``matthews``.
        callbacks: Further callbacks.

    Raises:
        InputError: DeepSpeed or FSDP is asked for, or batches of a model that knows no padding.
    """

    def __init__(
        self,
        classifier: Classifier,
        arguments: TrainingArguments,
        train: EncodedSplit,
        validation: EncodedSplit,
        *,
        metric: str,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        smoothing = arguments.label_smoothing_factor

        def loss(outputs: Any, labels: Int[Tensor, " n"], num_items_in_batch: Tensor | int | None = None) -> Tensor:
            logits: Float[Tensor, "n c"] = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
            total = nn.functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)
            # The mean over all that one optimizer step sees, however it is cut into batches.
            return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

        def metrics(prediction: EvalPrediction) -> dict[str, float]:
            predicted = np.argmax(prediction.predictions, axis=1)
            return {name: score(name, prediction.label_ids, predicted) for name in {"accuracy", metric}}

        super().__init__(
            model=classifier.module,
            args=arguments,
            train_dataset=labelled_rows(train),
            eval_dataset=labelled_rows(validation),
            data_collator=partial(padded_batch, pad_id=_pad_id(classifier, arguments)),
            compute_loss_func=loss,
            compute_metrics=metrics,
            # Encoder-decoder models return hidden states besides.
            preprocess_logits_for_metrics=lambda logits, _: logits[0] if isinstance(logits, tuple) else logits,
            callbacks=list(callbacks),
        )
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:  # by a flag, or by the launcher's environment
            raise InputError("DeepSpeed and FSDP are not supported; use torchrun or accelerate launch without them")
        self.remove_callback(PrinterCallback)
        self._best = _BestOfThisRun()
        self.add_callback(self._best)
        # Trainer would remove old checkpoints before the new one is whole.
        self._kept_checkpoints, self.args.save_total_limit = self.args.save_total_limit, None

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass.

        Args:
            *args: As ``Trainer.training_step`` takes them.
            **kwargs: As ``Trainer.training_step`` takes them.

        Returns:
            The loss of the batch, a scalar, as ``Trainer.training_step`` returns it.

        Raises:
            InputError: The loss is NaN or infinite.
        """
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise InputError(
                f"the loss is {float(loss)} at step {self.state.global_step + 1}; lower --learning-rate (it is "
                f"{self.args.learning_rate:g}); what was measured until then is in {Path(self.args.output_dir).parent}"
            )
        return loss

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        checkpoints = Path(self.args.output_dir)
        checkpoint = checkpoints / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            unseal_checkpoint(checkpoint)
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process has written the state of its generators
        if self.args.should_save:
            seal_checkpoint(checkpoint)
            remove_oldest(checkpoints, self._kept_checkpoints, self.state.best_model_checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / WEIGHTS, self.accelerator.unwrap_model(self.model))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.args.should_save:
            return
        save_state(Path(output_dir) / OPTIMIZER, self.optimizer.state_dict())
        save_state(Path(output_dir) / SCHEDULE, self.lr_scheduler.state_dict())

    def _save_scaler(self, output_dir: str) -> None:
        if self.args.should_save and self.accelerator.scaler is not None:
            save_state(Path(output_dir) / SCALER, self.accelerator.scaler.state_dict())

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_state(random_file(Path(output_dir), self.args.process_index), random_state())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        check_checkpoint(Path(resume_from_checkpoint))
        self._best.resumed = Path(resume_from_checkpoint)
        target = self.accelerator.unwrap_model(self.model if model is None else model)
        load_weights(Path(resume_from_checkpoint) / WEIGHTS, target)

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.optimizer.load_state_dict(load_state(Path(checkpoint) / OPTIMIZER))
            self.lr_scheduler.load_state_dict(load_state(Path(checkpoint) / SCHEDULE))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(load_state(Path(checkpoint) / SCALER))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Another number of processes than before has no states to go on from.
        if checkpoint is not None and check_checkpoint(Path(checkpoint)) == self.args.world_size:
            set_random_state(load_state(random_file(Path(checkpoint), self.args.process_index)))
