"""How a recipe's batch is cut over the GPUs of verl: the update stays the recipe's.

Only what each GPU does at a time changes: completions per pass, and over how many GPUs one copy of
vLLM is spread. A number of GPUs that would cut a batch unevenly is refused.
"""

from typing import NamedTuple

from budgetrl.errors import BudgetRLError, RecipeError
from budgetrl.estimation.shapes import find_shape
from budgetrl.hardware import find_gpu
from budgetrl.recipe.schema import Recipe

PER_NODE = 8
"""GPUs of one machine; more are several machines of so many."""
_WEIGHTS_SHARE = 0.4
"""Of a GPU's memory that one piece of the weights may take, as the trainer's shards lie beside."""
_MEMORY_GIB = 80.0
"""Of a GPU where the recipe names none."""


class Layout(NamedTuple):
    """What each GPU does."""

    gpus: int
    nodes: int
    micro_batch: int
    """Completions of one pass on one GPU."""
    tensor_parallel: int
    """GPUs that one copy of vLLM is spread over."""

    @property
    def per_node(self) -> int:
        """GPUs of one machine."""
        return self.gpus // self.nodes


def layout_for(recipe: Recipe, gpus: int) -> Layout:
    """The pieces of a recipe's batch on so many GPUs.

    Raises:
        RecipeError: the batch cannot be divided among them.
    """
    nodes = _nodes(gpus)
    total = recipe.completions_per_update
    if gpus % nodes or total % gpus:
        fitting = [n for n in range(1, 65) if not (total % n or n % _nodes(n))]
        raise RecipeError(
            f"--gpus {gpus}: an optimiser step of {total} completions "
            "cannot be cut into equal parts for so many.",
            hint=f"Possible are {', '.join(map(str, fitting[:12]))}; or change "
            "batch.prompts_per_step.",
        )
    share = total // gpus
    most = min(recipe.batch.micro_batch, share)
    micro = next(size for size in range(most, 0, -1) if share % size == 0)
    return Layout(gpus, nodes, micro, _tensor_parallel(recipe, gpus // nodes))


def _nodes(gpus: int) -> int:
    """Machines for so many GPUs."""
    return max(1, -(-gpus // PER_NODE))


def _tensor_parallel(recipe: Recipe, per_node: int) -> int:
    """The fewest GPUs of a machine, a power of two, that hold the weights with room to spare."""
    try:
        weights_gib = 2.0 * find_shape(recipe.model.id, recipe.model.revision).params / 2**30
        card = find_gpu(recipe.budget.gpu).usable_gib if recipe.budget.gpu else _MEMORY_GIB
    except BudgetRLError:  # a model or a card that nobody knows the size of
        return 1
    pieces = 1
    while weights_gib / pieces > _WEIGHTS_SHARE * card and per_node % (2 * pieces) == 0:
        pieces *= 2
    return pieces
