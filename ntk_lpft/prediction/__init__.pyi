from .comparison import Comparison, compare_with_training
from .gradient_flow import (
    Trajectory,
    compare_trajectories,
    kernel_gradient_descent,
    kernel_gradient_flow,
    real_gradient_descent,
)
from .one_step import StepPrediction, predict_step
from .operator import KernelOperator, kernel_operator, largest_eigenvalue
from .real_step import Step, error_slopes, step_errors, take_step

__all__ = [
    "Comparison",
    "KernelOperator",
    "Step",
    "StepPrediction",
    "Trajectory",
    "compare_trajectories",
    "compare_with_training",
    "error_slopes",
    "kernel_gradient_descent",
    "kernel_gradient_flow",
    "kernel_operator",
    "largest_eigenvalue",
    "predict_step",
    "real_gradient_descent",
    "step_errors",
    "take_step",
]
