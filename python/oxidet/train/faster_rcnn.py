"""Training simple-faster-rcnn's detectors: their losses as a module, and their optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oxidet import nn
from oxidet._arrays import F32
from oxidet.detection import AnchorTargetCreator, ProposalTargetCreator
from oxidet.optim import SGD
from oxidet.simple_faster_rcnn import FasterRCNN
from oxidet.simple_faster_rcnn.objective import I32, LossTuple, Objective, Rng


class FasterRCNNTrainer(nn.Module):
    """Computes the losses of a :class:`FasterRCNN` on pictures with boxes, and trains it on them.

    Parameters
    ----------
    faster_rcnn
        The detector, in training mode.
    rpn_sigma, roi_sigma
        Where the smooth L1 losses of the two stages turn from square to linear (at 1 / sigma ** 2).
    anchor_target_creator, proposal_target_creator
        Choose what each stage trains on; by default simple-faster-rcnn's.
    rng
        Generator or RandomState that the creators draw from; NumPy's global state if None.
    """

    def __init__(
        self,
        faster_rcnn: FasterRCNN,
        *,
        rpn_sigma: float = 3.0,
        roi_sigma: float = 1.0,
        anchor_target_creator: AnchorTargetCreator | None = None,
        proposal_target_creator: ProposalTargetCreator | None = None,
        rng: Rng = None,
    ) -> None:
        super().__init__()
        self.faster_rcnn = faster_rcnn
        self.objective = Objective(
            rpn_sigma,
            roi_sigma,
            anchor_target_creator or AnchorTargetCreator(),
            proposal_target_creator or ProposalTargetCreator(),
        )
        self.rng = rng

    def forward(
        self,
        imgs: Any,
        bboxes: Sequence[F32],
        labels: Sequence[I32],
        scale: float | Sequence[float] = 1.0,
    ) -> LossTuple:
        """The losses of a batch of equally large, preprocessed pictures.

        Parameters
        ----------
        imgs
            (N, 3, H, W) float32.
        bboxes
            N arrays (R, 4) float32 (y_min, x_min, y_max, x_max) in pixels of ``imgs``; R may be 0.
        labels
            N arrays (R,) of classes from 0.
        scale
            Factor by which the original pictures were scaled, one for all or one for each.

        Returns
        -------
        LossTuple of tensors. The first stage's losses are averaged over pictures, the second's
        over all sampled regions.
        """
        return self.objective(self.faster_rcnn, imgs, bboxes, labels, scale, rng=self.rng).losses


def faster_rcnn_optimizer(
    model: nn.Module, lr: float = 1e-3, momentum: float = 0.9, weight_decay: float = 0.0005
) -> SGD:
    """SGD with simple-faster-rcnn's parameter groups.

    One group per trainable parameter: biases learn at twice the rate and do not decay.
    """
    groups = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            bias = "bias" in name
            groups.append(
                {
                    "params": [parameter],
                    "lr": lr * 2 if bias else lr,
                    "weight_decay": 0.0 if bias else weight_decay,
                }
            )
    return SGD(groups, lr=lr, momentum=momentum)
