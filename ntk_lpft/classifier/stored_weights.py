"""The weights of a model as they are stored: narrow, quantised, or outside of its modules."""

from collections.abc import Collection, Iterator, Mapping

from torch import Tensor, nn

from ntk_lpft.classifier.offloaded import offloaded_weights
from ntk_lpft.classifier.quantised import is_quantised, scales


class StoredWeights(Mapping[str, Tensor]):
    """The weights of a model by name; those that are offloaded are read when they are asked for, one at a time.

    The scales of a quantised weight stand beside it, under its name and theirs.

    Args:
        model: The model.
        without: Names to leave out; tied weights are then listed under each of their names.
    """

    def __init__(self, model: nn.Module, without: Collection[str] | None = None) -> None:
        named = model.named_parameters(remove_duplicate=without is None)
        self._held: dict[str, Tensor] = {name: weight for name, weight in named if name not in (without or ())}
        for prefix, module in model.named_modules():
            if is_quantised(module):
                self._held |= {f"{prefix}.weight.{name}": value for name, value in scales(module).items()}
        self._offloaded = offloaded_weights(model)

    def __getitem__(self, name: str) -> Tensor:
        """Return a weight."""
        held, elsewhere = self._held[name], self._offloaded.get(name)
        return held.detach() if elsewhere is None else elsewhere.load()

    def __iter__(self) -> Iterator[str]:
        """Names of all weights."""
        return iter(self._held)

    def __len__(self) -> int:
        """Count them."""
        return len(self._held)
