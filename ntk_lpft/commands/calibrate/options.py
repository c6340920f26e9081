"""Options of ``python -m ntk_lpft.calibrate``."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ntk_lpft.calibration.settings import check_bins, check_resamples
from ntk_lpft.errors import InputError
from ntk_lpft.options import OutputOptions, SeedOptions, check_file, check_filled, check_seed, flag_of, option

PROG = "python -m ntk_lpft.calibrate"
DESCRIPTION = (
    "Fit a temperature on validation logits, and report calibration before and after it on the test split and on each "
    "OOD test: of run folders that `finetune` wrote (several are put together by method, over seeds), or of files of "
    "logits and labels from anywhere. Files are safetensors (tensors 'logits' and 'labels', or a single one), npy, "
    "or csv and tsv with or without a header (one column a class, no index; labels: one column of 0 … C-1, or of the "
    "names that head the columns). Example: "
    "--logits val.npy --labels val_labels.npy --test-logits test.npy --test-labels test_labels.npy"
)


def named_file(given: str) -> tuple[str, str]:
    """Split NAME=FILE; a file whose own name has the sign is taken as it is, and names itself."""
    name, sign, file = given.partition("=")
    if not sign or not name or Path(given).expanduser().is_file():
        return Path(given).stem, given
    return name, file


@dataclass(frozen=True)
class CalibrateOptions(OutputOptions, SeedOptions):
    """Options of ``python -m ntk_lpft.calibrate``."""

    TITLE: ClassVar[str] = "what to calibrate"
    INPUTS: ClassVar[tuple[str, ...]] = (
        "runs",
        "logits",
        "labels",
        "test_logits",
        "test_labels",
        "ood_logits",
        "ood_labels",
    )

    runs: list[str] = option([], "run folders of `finetune`; the same as the words without a flag")
    logits: str | None = option(None, "file of validation logits (N, C), instead of run folders")
    labels: str | None = option(None, "file of validation labels; not needed beside a safetensors that has both")
    test_logits: str | None = option(None, "file of test logits")
    test_labels: str | None = option(None, "file of test labels")
    ood_logits: list[str] = option([], "files of logits of OOD tests, each FILE or NAME=FILE")
    ood_labels: list[str] = option([], "files of labels of OOD tests, in the same order")
    bins: int = option(15, "bins of ECE, MCE and the other measures with bins")
    resamples: int = option(1000, "bootstrap resamples for intervals; 0 for none")
    level: float = option(0.95, "confidence level of the intervals")
    compare: bool = option(False, "fit vector scaling and isotonic regression as well")

    def check(self) -> None:
        """Refuse what can be seen to be wrong without reading anything.

        Raises:
            InputError: Some option makes no sense.
        """
        self.check_output()
        check_filled(self, "runs")
        files = [self.logits, self.labels, self.test_logits, self.test_labels, *self.ood_logits, *self.ood_labels]
        if self.runs and any(name is not None for name in files):
            raise InputError("give run folders or files of logits, not both")
        if not self.runs and self.logits is None:
            raise InputError("nothing to calibrate: give run folders of `finetune`, or --logits and --labels")
        if self.test_labels is not None and self.test_logits is None:
            raise InputError("--test-labels needs --test-logits")
        if self.ood_labels and len(self.ood_labels) != len(self.ood_logits):
            raise InputError(
                f"--ood-logits names {len(self.ood_logits)} files and --ood-labels {len(self.ood_labels)}; give one of "
                "labels for each of logits"
            )
        missing = [run for run in self.runs if not Path(run).expanduser().is_dir()]
        if missing:
            raise InputError(f"run folder {missing[0]} does not exist")
        for name in ("logits", "labels", "test_logits", "test_labels"):
            check_file(flag_of(name), getattr(self, name))
        for given in self.ood_logits:
            check_file("--ood-logits", named_file(given)[1])
        for given in self.ood_labels:
            check_file("--ood-labels", given)
        check_bins(self.bins)
        check_resamples(self.resamples, self.level)
        check_seed(self.seed)

    def idle(self) -> dict[str, str]:
        """Options that do nothing as the others are, with the reason."""
        return {} if self.resamples else {"level": "with --resamples 0, which makes no intervals"}

    def folder(self) -> Path:
        """Where the results go: by default ``RUN_FOLDER/calibration`` for one run, else ``runs/calibration``."""
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        return Path(self.runs[0]).expanduser() / "calibration" if len(self.runs) == 1 else Path("runs/calibration")
