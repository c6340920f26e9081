from .calibration import CalibrationRun
from .finetuning import FinetuneRun, HeadScaleGrid
from .folder import RunFolder
from .kernel import KernelRun
from .tracking_log import Measurement, TrackingLog, read_tracking

__all__ = [
    "CalibrationRun",
    "FinetuneRun",
    "HeadScaleGrid",
    "KernelRun",
    "Measurement",
    "RunFolder",
    "TrackingLog",
    "read_tracking",
]
