"""From a checkpoint to a net that is ready for use."""

from numnet import checkpoint
from numnet.errors import NumnetError
from numnet.models import build
from numnet.net import Net

FORMAT = 1  # of the document in a checkpoint; a larger number comes from a later numnet


def load(path) -> Net:
    """The net in a checkpoint, or in a run directory's best one, with what the file says about its use:

    net.config        the keywords of ``numnet.build``
    net.scaling       {"mean": [3 floats], "std": [3 floats]} of x/255, or None if the file has none
    net.class_names   a list with a text for each class, or None
    net.document      all that the file says beside its arrays: data set, recipe, state of the training, …
    net.path          the file itself

    ``net.save(path, input=net.scaling, classes=net.class_names)`` writes such a file again.

    Raises NumnetError, one line, for a file that is missing, damaged, no checkpoint of numnet, or of a net
    that ``numnet.build`` did not make.
    """
    path = checkpoint.find(path, "best")
    tensors, document = checkpoint.read(path)
    net = build(**_config(path, document))
    net.restore(tensors, str(path))
    net.step = document.get("step", document.get("training", {}).get("passes", 0))
    net.scaling, net.class_names = document.get("input"), document.get("classes")
    if net.class_names is not None and len(net.class_names) > net.classes:
        raise NumnetError(f"{path}: names {len(net.class_names)} classes, its net tells {net.classes} apart")
    net.document, net.path = document, path
    return net


def _config(path, document) -> dict:
    version, config = document.get("format"), document.get("config")
    if not isinstance(version, int) or version < 1:
        raise NumnetError(f"{path}: a file of numnet's, but no checkpoint of a net (it has no format number)")
    if version > FORMAT:
        raise NumnetError(
            f"{path}: has format {version}, this numnet reads up to {FORMAT}; install a newer one"
        )
    if not isinstance(config, dict) or "model" not in config:
        raise NumnetError(
            f"{path}: a net of one's own; make it as its author did, then net.restore(its arrays)"
        )
    return config
