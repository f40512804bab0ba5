"""Where a recipe's base model lies on this disk; one of the hub is downloaded if need be."""

from budgetrl.hub.layout import Need
from budgetrl.hub.pins import OnDownload, download, untold
from budgetrl.hub.repo import Repo, is_hub_id
from budgetrl.recipe.assets import local_path
from budgetrl.recipe.schema import Recipe


def model_folder(recipe: Recipe, tell: OnDownload = untold) -> str:
    """The folder that the model is loaded from: no library asks the hub for a folder.

    Args:
        recipe: names the model.
        tell: how far a download is.

    Raises:
        ModelError, HubError, RefusedError: it cannot be had.
    """
    source = local_path(recipe.model.id)
    if not is_hub_id(source):
        return source
    need = Need("model", Repo("model", source, recipe.model.revision), "model")
    return str(download(need, tell))
