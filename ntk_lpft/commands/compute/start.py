"""The samples and the classifier of a kernel, as options ask for them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ntk_lpft.choices import LOGISTIC
from ntk_lpft.class_names import listed
from ntk_lpft.classifier import Classifier, load_tokenizer
from ntk_lpft.classifier.head_file import head_from_file
from ntk_lpft.classifier.head_weights import initialise_head, scale_head, set_head, widen_head
from ntk_lpft.classifier.lora import adapt
from ntk_lpft.classifier.trained_head import trained_head
from ntk_lpft.commands.compute.options import ComputeOptions
from ntk_lpft.commands.data import model_of
from ntk_lpft.devices import command_device
from ntk_lpft.probing import FoldSpread, cached_logistic_heads
from ntk_lpft.tasks import EncodedSplit, Task


@dataclass(frozen=True)
class KernelSamples:
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


@dataclass(frozen=True)
class KernelStart:
    """The point at which the kernel is computed.

    Attributes:
        classifier: The classifier, on its device, with LoRA adapters where they were asked for.
        probe: What is known of the linear probe that made its head; None where no probe did.
    """

    classifier: Classifier
    probe: dict[str, Any] | None


def settle_head(options: ComputeOptions, task: Task) -> ComputeOptions:
    """Make out what ``auto`` stands for: a trained classification head is kept, unless something else is asked for.

    Args:
        options: Resolved options.
        task: The data, whose number of classes the head must have.

    Returns:
        The options, in which neither ``head`` nor ``head_init`` is ``auto``.

    Raises:
        InputError: There is no such model, or the options then make no sense.
    """
    if "auto" not in (options.head, options.head_init):
        return options
    found = trained_head(options.model)
    init, head = options.head_init, options.head
    if init == "auto":
        init = "lp"
        if found is not None and head in ("auto", found.kind):
            init = "keep" if found.fits(task.label_names) else "lp"
            if init == "lp":
                classes = f" ({listed(found.names)})" if found.names else ""
                print(
                    f"notice: the head of {options.model} has {found.num_labels} classes{classes}, the data "
                    f"{task.num_labels} ({listed(task.label_names)}); a linear probe takes its place"
                )
    if head == "auto":
        head = found.kind if found is not None and init == "keep" else "linear"
    settled = dataclasses.replace(options, head=head, head_init=init)
    settled.check()
    return settled


def read_samples(options: ComputeOptions, task: Task) -> KernelSamples:
    """Sample and tokenise.

    Args:
        options: Settled options.
        task: The data.

    Returns:
        The tokenised samples; the whole training split only where the head is to be fitted on it.

    Raises:
        InputError: Anything wrong with the data.
    """
    train = task.split("train")
    if options.eval_split in task.ood:
        evaluation = task.ood_split(options.eval_split)
    else:
        evaluation = task.split(options.eval_split)
    tokenizer = load_tokenizer(options.model, trust_remote_code=options.trust_remote_code)
    whole = train.encode(tokenizer, options.max_length) if options.head_init == "lp" else None
    return KernelSamples(
        task,
        train.subsample(options.n_train, options.seed, options.balanced).encode(tokenizer, options.max_length),
        evaluation.subsample(options.n_eval, options.seed, options.balanced).encode(tokenizer, options.max_length),
        whole,
    )


def build_classifier(options: ComputeOptions, samples: KernelSamples) -> KernelStart:
    """Load the classifier, make its head, and adapt it.

    Args:
        options: Settled options.
        samples: What it is to be run on.

    Returns:
        The classifier, and what is known of its head.

    Raises:
        InputError: Anything wrong with the model.
    """
    device = command_device(options.device)
    start = options.head_init
    # A body that is trained is float32 at least.
    dtype = options.weights_dtype if options.lora else None
    model = model_of(options, samples.task.label_names, options.seed, device, keep_head=start == "keep", dtype=dtype)
    if options.lora:
        model.requires_grad_(False)  # as the adapters will have it, so that nothing before them widens it either
    classifier = Classifier.of(model, samples.train, what="training data")
    classifier.rows(samples.train, "training data")
    widen_head(classifier.head)
    probe = None
    if start == "lp":
        probe = _probe(classifier, samples, options)
    elif start == "random":
        initialise_head(classifier.head, options.seed)
    elif start == "keep":
        print(f"head:   the trained one of {options.model} ({options.head})")
    else:
        head_from_file(classifier.head, start, samples.task.label_names)
    scale_head(classifier.head, options.head_scale, bias=options.scale_bias)
    if not options.lora:
        return KernelStart(classifier, probe)
    adapted = adapt(model, classifier.head, options, options.seed).to(device)
    return KernelStart(Classifier.of(adapted, samples.train), probe)


def _probe(classifier: Classifier, samples: KernelSamples, options: ComputeOptions) -> dict[str, Any]:
    """Fit the paper's linear probe on all training samples, make it the head, and return what is known of it."""
    assert samples.whole_train is not None
    heads = cached_logistic_heads(
        classifier,
        samples.whole_train,
        samples.task.num_labels,
        range(options.seed, options.seed + options.fold_draws),
        solver=options.lp_solver,
        progress=True,
    )
    fitted, spread = heads[0], FoldSpread.of(heads)
    set_head(classifier.head, fitted.weight, fitted.bias)
    published = "" if fitted.solver == LOGISTIC else " as published"
    intercept = "" if fitted.bias is not None else ", without intercept"
    print(
        f"head:   logistic regression{published} on {len(samples.whole_train)} training samples, {fitted.folds} folds, "
        f"C = {fitted.strength:.3g}{intercept}, ‖V‖ {fitted.head_norm:.3f}, "
        f"training accuracy {fitted.train_accuracy:.3f}, gradient norm {fitted.gradient_norm:.1g}"
    )
    print(f"folds:  {spread}")
    if fitted.shortfall() is not None:
        print(f"notice: {fitted.shortfall()}")
    return {**fitted.facts(), "samples": len(samples.whole_train), "fold_draws": spread.facts()}
