from .encoding import EncodedSplit
from .local import load_files
from .named import TASK_NAMES, load_task
from .task import Split, Task

__all__ = ["TASK_NAMES", "EncodedSplit", "Split", "Task", "load_files", "load_task"]
