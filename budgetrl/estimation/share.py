"""vLLM's share of the GPU that is here, for whoever opens an engine.

    engine = open_engine(with_share(recipe), folder)

Not kept in the run's recipe: a run that is resumed on another card gets that card's share.
"""

from budgetrl.errors import ModelError
from budgetrl.estimation.scenario import make_scenario, memory_of
from budgetrl.hardware import DetectedGpu, Gpu, detect_gpu
from budgetrl.recipe.schema import EngineName, Recipe


def with_share(recipe: Recipe) -> Recipe:
    """The recipe with the share that vLLM needs here, where it states none.

    Unchanged without a GPU, and where the model's shape is not known.
    """
    if recipe.engine.name is not EngineName.UNSLOTH or recipe.engine.gpu_memory_utilization:
        return recipe
    found = detect_gpu()
    if found is None:
        return recipe
    try:
        longest = max(recipe.parts, key=lambda part: part.sampling.max_tokens)
        memory = memory_of(make_scenario(longest, found.gpu or _unlisted(found)))
    except ModelError:
        return recipe
    return recipe.but({"engine.gpu_memory_utilization": memory.utilization})


def _unlisted(found: DetectedGpu) -> Gpu:
    """A card that the table lacks, of which only the memory is asked."""
    gib = found.total_gib
    return Gpu(found.name, gib, 1.0, 1.0, bf16=True, usable_gib_reported=gib)
