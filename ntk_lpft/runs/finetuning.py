"""The folder of ``python -m ntk_lpft.finetune``: a trained classifier, its predictions, and what was tracked."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from ntk_lpft.errors import InputError
from ntk_lpft.json_files import read_json
from ntk_lpft.runs.folder import Inputs, RunFolder
from ntk_lpft.runs.tracking_log import read_tracking
from ntk_lpft.storage import read_table, read_tensors, write_json, write_table, write_tensors


@dataclass(frozen=True)
class TestedRows:
    """What a run kept of each row of a split.

    Attributes:
        logits: f, (N, C).
        labels: Classes, (N,).
        feature_difference: ‖φ(x) − φ_ref(x)‖, (N,); None in runs of earlier versions.
        cosine_similarity: Mean cosine of φ(x) with the features of the other rows, (N,); likewise.
    """

    logits: Float[Tensor, "n c"]
    labels: Int[Tensor, " n"]
    feature_difference: Float[Tensor, " n"] | None
    cosine_similarity: Float[Tensor, " n"] | None


_MEASURES = ("feature_difference", "cosine_similarity")


class FinetuneRun(RunFolder):
    """One run of LP, FT, LP-FT, LoRA or LP-LoRA."""

    METRICS: ClassVar[str] = "metrics.json"
    PREDICTIONS: ClassVar[str] = "predictions.safetensors"
    TRACKING: ClassVar[str] = "tracking.csv"
    REFERENCE_FEATURES: ClassVar[str] = "reference_features.safetensors"
    TRACKED_KERNEL: ClassVar[str] = "tracked_kernel.safetensors"
    PROBE_PATH: ClassVar[str] = "probe.csv"
    PROBE_HEAD: ClassVar[str] = "probe_head.safetensors"
    ONE_STEP: ClassVar[str] = "prediction.csv"
    GRADIENT_FLOW: ClassVar[str] = "gradient_flow.csv"
    TRAINING_PICTURE: ClassVar[str] = "training.png"
    DIFFERENCE_PICTURE: ClassVar[str] = "feature_difference.png"
    DISCRIMINANT_PICTURE: ClassVar[str] = "fisher_discriminant_ratio.png"
    ONE_STEP_PICTURE: ClassVar[str] = "prediction.png"
    FLOW_PICTURE: ClassVar[str] = "gradient_flow.png"
    MODEL: ClassVar[str] = "model"
    ADAPTER: ClassVar[str] = "adapter"
    CHECKPOINTS: ClassVar[str] = "checkpoints"
    RESULTS = (
        RunFolder.CONFIG,
        METRICS,
        PREDICTIONS,
        TRACKING,
        REFERENCE_FEATURES,
        TRACKED_KERNEL,
        PROBE_PATH,
        PROBE_HEAD,
        ONE_STEP,
        GRADIENT_FLOW,
        TRAINING_PICTURE,
        DIFFERENCE_PICTURE,
        DISCRIMINANT_PICTURE,
        ONE_STEP_PICTURE,
        FLOW_PICTURE,
    )
    FOLDERS = (MODEL, ADAPTER, CHECKPOINTS)
    SCRATCH = (CHECKPOINTS,)
    MARKER = METRICS
    COMMAND = "python -m ntk_lpft.finetune"

    def written(self) -> list[str]:
        """Names of the results that are there, the folders of the model first."""
        return [f"{name}/" for name in (self.MODEL, self.ADAPTER) if self.file(name).is_dir()] + super().written()

    @contextmanager
    def opened_to_train(
        self, *, overwrite: bool, resume: bool, inputs: Inputs = (), options: Mapping[str, Any] | None = None
    ) -> Iterator[None]:
        """Make the folder, as ``opened`` does, and refuse one whose run would get lost, or with none to go on with.

        Args:
            overwrite: Whether results of an earlier run may be replaced.
            resume: Whether an interrupted run is to go on.
            inputs: What the run reads, each with the name of its option.
            options: Those of the run; a finished run of the same is let be, for the caller to look at.

        Yields:
            Nothing.

        Raises:
            InputError: As for ``opened``; or the folder holds an interrupted run, or no run to go on with.
        """
        replaces = overwrite or resume or self._interrupted
        with self.opened(overwrite=replaces, inputs=inputs, options=options):
            self._check_begun(overwrite=overwrite, resume=resume)
            yield

    def check_to_train(
        self, *, overwrite: bool, resume: bool, inputs: Inputs = (), options: Mapping[str, Any] | None = None
    ) -> None:
        """Refuse what ``opened_to_train`` would refuse, but for the lock; nothing is made.

        Args:
            overwrite: As there.
            resume: As there.
            inputs: As there.
            options: As there.

        Raises:
            InputError: As there.
        """
        self.check(overwrite=overwrite or resume or self._interrupted, inputs=inputs, options=options)
        self._check_begun(overwrite=overwrite, resume=resume)

    def _check_begun(self, *, overwrite: bool, resume: bool) -> None:
        if self._interrupted and not (resume or overwrite):
            raise InputError(
                f"output folder {self.path} holds an interrupted run; give --resume to go on, --overwrite to start "
                "anew, or another --output-dir"
            )
        if resume and not self.begun:
            raise InputError(f"--resume: {self.path} holds no run to go on with; leave --resume out")

    @property
    def _interrupted(self) -> bool:
        return self.begun and not self.finished

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write what was measured, and mark the run as complete."""
        write_json(self.file(self.METRICS), metrics)
        self.seal()

    def sealed_files(self) -> list[str]:
        """Paths, from the folder, of the files that get a checksum, those of the model among them."""
        folders = (self.file(name) for name in (self.MODEL, self.ADAPTER))
        below = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
        return [*super().sealed_files(), *(path.relative_to(self.path).as_posix() for path in below)]

    def metrics(self) -> dict[str, Any]:
        """Read what was measured at the end.

        Returns:
            ``method``, ``dataset``, ``model``, ``seed``, ``head`` (norms of V), ``splits`` (measures) and more.

        Raises:
            InputError: The run is not complete, or the file is damaged.
        """
        if not self.path.is_dir():
            raise InputError(f"run folder {self.path} does not exist")
        if not self.file(self.METRICS).is_file():
            raise InputError(f"{self.path} holds no finished run (it has no {self.METRICS}); finish it with --resume")
        path = self.believed(self.METRICS)
        content = read_json(path)
        texts = all(isinstance(content.get(name), str) for name in ("method", "model", "dataset"))
        if not texts or not isinstance(content.get("seed"), int):
            raise InputError(f"{path} is damaged, or was not written by `{self.COMMAND}`")
        return content

    def write_predictions(
        self,
        logits: Mapping[str, Tensor],
        labels: Mapping[str, Tensor],
        description: Mapping[str, Any],
        measures: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        """Write logits (float32) and labels (int64) of every split, as ``SPLIT/logits`` and ``SPLIT/labels``.

        Args:
            logits: By split.
            labels: By split.
            description: Of the run.
            measures: By split, ``feature_difference`` and ``cosine_similarity`` of each row (see `TestedRows`).
        """
        tensors = {f"{name}/logits": value.float() for name, value in logits.items()}
        tensors |= {f"{name}/labels": value for name, value in labels.items()}
        tensors |= {f"{name}/{key}": value for name, each in (measures or {}).items() for key, value in each.items()}
        write_tensors(self.file(self.PREDICTIONS), tensors, description)

    def predictions(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Read logits, (N, C), and labels, (N,), of every split.

        Returns:
            Logits (float32) and labels (int64) by split.

        Raises:
            InputError: The file is missing, damaged, altered, or lacks labels.
        """
        path = self.file(self.PREDICTIONS)
        if not path.is_file():
            raise InputError(
                f"run folder {self.path} has no {self.PREDICTIONS}, so no logits; give a folder of a finished "
                f"`{self.COMMAND}`, or files by --logits and --labels"
            )
        tensors, _ = read_tensors(self.believed(self.PREDICTIONS))
        names = [name.removesuffix("/logits") for name in sorted(tensors) if name.endswith("/logits")]
        if not names:
            raise InputError(f"{path} holds no logits (tensors SPLIT/logits); train the run again")
        lacking = [name for name in names if f"{name}/labels" not in tensors]
        if lacking:
            raise InputError(f"{path} has logits of {lacking[0]} but no labels; train the run again")
        return {name: (tensors[f"{name}/logits"], tensors[f"{name}/labels"]) for name in names}

    def tested_rows(self) -> dict[str, TestedRows]:
        """Read what was kept of each row of every split.

        Returns:
            The rows by split.

        Raises:
            InputError: As for ``predictions``; also measures that do not fit the rows.
        """
        predictions = self.predictions()
        tensors, _ = read_tensors(self.believed(self.PREDICTIONS))
        rows = {}
        for name, (logits, labels) in predictions.items():
            measures = [tensors.get(f"{name}/{measure}") for measure in _MEASURES]
            if any(measure is not None and measure.shape != labels.shape for measure in measures):
                raise InputError(f"{self.file(self.PREDICTIONS)} has measures of {name} that do not fit its rows")
            rows[name] = TestedRows(logits, labels, *measures)
        return rows

    def tracking(self) -> pd.DataFrame | None:
        """Read what was tracked during training.

        Returns:
            Columns ``step``, ``epoch``, ``split``, ``measure`` and ``value``; None where nothing was tracked.

        Raises:
            InputError: The log is damaged.
        """
        return self._log(self.TRACKING)

    def probe_path(self) -> pd.DataFrame | None:
        """Read the iterations of a linear probe by gradient.

        Returns:
            Columns as of ``tracking``, ``step`` being the iteration; None where there was no such probe.

        Raises:
            InputError: The log is damaged.
        """
        return self._log(self.PROBE_PATH)

    def _log(self, name: str) -> pd.DataFrame | None:
        if not self.file(name).is_file() and not self.sealed(name):
            return None
        return read_tracking(self.believed(name))

    def write_comparison(self, one_step: pd.DataFrame, flow: pd.DataFrame) -> None:
        """Write how far predictions of single steps, and of many, are from the real ones."""
        write_table(self.file(self.ONE_STEP), one_step)
        write_table(self.file(self.GRADIENT_FLOW), flow)


class HeadScaleGrid(RunFolder):
    """A run for each of several factors on the head, and a table of all."""

    GRID: ClassVar[str] = "head_scale.csv"
    PICTURE: ClassVar[str] = "head_scale.png"
    COLUMNS: ClassVar[Sequence[str]] = ("head_scale", "norm_at_start", "split", "feature_difference", "accuracy")
    RESULTS = (RunFolder.CONFIG, GRID, PICTURE)
    MARKER = GRID
    COMMAND = FinetuneRun.COMMAND
    WRITER = f"{COMMAND} --head-scale"
    MEMBER: ClassVar[str] = "head-scale-"  # how the folders of its runs begin

    def member(self, factor: float) -> FinetuneRun:
        """Return the run with one factor."""
        return FinetuneRun(self.path / f"{self.MEMBER}{factor:g}")

    @property
    def begun(self) -> bool:
        """Whether there is anything to go on with; each run within says for itself whether it has begun."""
        return any(self.path.glob(f"{self.MEMBER}*"))

    def _adopted(self) -> list[str]:
        return [self.GRID, self.PICTURE]  # the rest had another owner

    def _proves_itself(self) -> bool:
        return any(FinetuneRun(path)._proves_itself() for path in self.path.glob(f"{self.MEMBER}*"))

    def write_grid(self, grid: pd.DataFrame) -> None:
        """Write one row for each factor and split; `seal` marks the grid as complete."""
        write_table(self.file(self.GRID), grid)

    def grid(self) -> pd.DataFrame:
        """Read one row for each factor and split.

        Returns:
            A table with ``COLUMNS`` and further measures.

        Raises:
            InputError: The table is missing, damaged or altered.
        """
        numbers = [name for name in self.COLUMNS if name != "split"]
        return read_table(self.believed(self.GRID), self.COLUMNS, numbers)
