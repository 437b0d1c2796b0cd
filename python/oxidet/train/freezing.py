"""Parts of a model that training leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

from oxidet import nn


def freeze(
    model: nn.Module, prefixes: str | Sequence[str] = (), *, batch_norm: bool = False
) -> list[nn.BatchNorm2d]:
    """Take parameters out of training.

    Parameters
    ----------
    model
        Whose parameters are changed: they no longer require gradients.
    prefixes
        Names of parameters or of modules, such as ``"backbone.body.conv1"``, with all below them.
    batch_norm
        Freeze every batch norm.

    Returns
    -------
    The batch norms that are frozen. In evaluation mode they normalise by their running statistics
    and do not follow the data; :func:`hold` puts them into it.

    Raises
    ------
    ValueError
        Nothing has a name that begins so.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    >>> freeze(net, ["0"], batch_norm=True)
    [BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)]
    >>> [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    ['2.weight', '2.bias']
    """
    chosen = (prefixes,) if isinstance(prefixes, str) else tuple(prefixes)
    found = set()
    norms: dict[int, nn.BatchNorm2d] = {}
    for name, module in model.named_modules():
        matching = {prefix for prefix in chosen if _below(name, prefix)}
        found |= matching
        if isinstance(module, nn.BatchNorm2d) and (batch_norm or matching):
            norms[id(module)] = module
    for name, parameter in model.named_parameters():
        matching = {prefix for prefix in chosen if _below(name, prefix)}
        found |= matching
        if matching:
            parameter.requires_grad = False
    for norm in norms.values():
        for parameter in norm.parameters():
            parameter.requires_grad = False
    for prefix in chosen:
        if prefix not in found:
            raise ValueError(
                f"freeze: expected names of modules or parameters, got {prefix!r}, which none has"
            )
    return list(norms.values())


def hold(norms: Sequence[nn.BatchNorm2d]) -> None:
    """Put frozen batch norms into evaluation mode, as after ``model.train()``."""
    for norm in norms:
        norm.eval()


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix.removesuffix('.')}.")
