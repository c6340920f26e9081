"""A progress bar that names method, stage and epoch."""

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState, TrainingArguments


class Progress(TrainerCallback):
    """Shows how far training is.

    Args:
        method: The method's name.
        stage: Such as ``stage 2 of 2, fine-tuning``.
        shown: Whether there is a bar at all.
    """

    def __init__(self, method: str, stage: str, shown: bool = True) -> None:
        self.title = f"{method}, {stage}"
        self.shown = shown
        self.bar = tqdm(disable=True)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Open the bar, where an interrupted run had left it."""
        bar_format = "{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left{postfix}"
        hidden = not (self.shown and state.is_world_process_zero)
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self._description(state),
            disable=hidden,
            bar_format=bar_format,
        )

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Name the epoch."""
        self.bar.set_description_str(self._description(state), refresh=False)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Advance."""
        self.bar.update(state.global_step - self.bar.n)

    def on_evaluate(self, args: TrainingArguments, *_: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Show the validation score."""
        name = str(args.metric_for_best_model)
        if metrics and name in metrics:
            self.bar.set_postfix_str(f"validation {name.removeprefix('eval_')} {metrics[name]:.3f}")

    def close(self) -> None:
        """Close the bar, also of a training that was broken off."""
        self.bar.close()

    def _description(self, state: TrainerState) -> str:
        epoch = min(int(state.epoch or 0) + 1, state.num_train_epochs)
        return f"{self.title}, epoch {epoch} of {state.num_train_epochs}"
