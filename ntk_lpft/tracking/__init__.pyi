from .kernels import KernelTracker
from .measures import ProbeSet, measure_classifier
from .schedule import kernel_steps, tracking_steps
from .tracker import Tracker

__all__ = [
    "KernelTracker",
    "ProbeSet",
    "Tracker",
    "kernel_steps",
    "measure_classifier",
    "tracking_steps",
]
