"""Text classification data: x and y, tokenised, with a fingerprint."""

from ntk_lpft.tasks.encoding import EncodedSplit
from ntk_lpft.tasks.local import load_files
from ntk_lpft.tasks.named import TASK_NAMES, load_task
from ntk_lpft.tasks.task import Split, Task

__all__ = ["TASK_NAMES", "EncodedSplit", "Split", "Task", "load_files", "load_task"]
