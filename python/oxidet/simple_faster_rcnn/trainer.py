"""simple-faster-rcnn's trainer: one step, and what is watched, saved and loaded around it.

For code that brings its own loop, as the original's does. The trainer with a loop is
:class:`oxidet.train.Trainer`; both minimise the same losses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from oxidet import nn
from oxidet._arrays import F32
from oxidet.detection import AnchorTargetCreator, ProposalTargetCreator
from oxidet.optim import Optimizer
from oxidet.simple_faster_rcnn.checkpoints import read_checkpoint, save_checkpoint
from oxidet.simple_faster_rcnn.config import opt
from oxidet.simple_faster_rcnn.faster_rcnn import FasterRCNN
from oxidet.simple_faster_rcnn.meters import AverageValueMeter, ConfusionMeter
from oxidet.simple_faster_rcnn.objective import I32, LossTuple, Objective, Outcome, Rng
from oxidet.simple_faster_rcnn.visualizer import Visualizer

Self = TypeVar("Self", bound="FasterRCNNTrainer")


class FasterRCNNTrainer(nn.Module):
    """Computes the losses of a :class:`FasterRCNN` on images with boxes, and trains it on them.

    Parameters
    ----------
    faster_rcnn
        The detector, in training mode.
    rpn_sigma, roi_sigma
        Where the smooth L1 losses of the two stages turn from square to linear (at 1 / sigma ** 2);
        by default those of ``opt``.
    anchor_target_creator, proposal_target_creator
        Choose what each stage trains on; by default simple-faster-rcnn's.
    rng
        Generator or RandomState that the creators draw from; NumPy's global state if None.

    Attributes
    ----------
    optimizer
        What :meth:`FasterRCNN.get_optimizer` made, with the settings of ``opt``.
    rpn_cm, roi_cm
        :class:`ConfusionMeter` of the anchors (2 classes) and of the regions (``n_class``) that
        were trained on.
    meters
        :class:`AverageValueMeter` of each loss.
    vis
        A :class:`Visualizer`, for what the loop wants to show.
    """

    rpn_sigma: float
    roi_sigma: float
    anchor_target_creator: AnchorTargetCreator
    proposal_target_creator: ProposalTargetCreator
    optimizer: Optimizer
    vis: Visualizer
    rpn_cm: ConfusionMeter
    roi_cm: ConfusionMeter
    meters: dict[str, AverageValueMeter]

    def __init__(
        self,
        faster_rcnn: FasterRCNN,
        *,
        rpn_sigma: float | None = None,
        roi_sigma: float | None = None,
        anchor_target_creator: AnchorTargetCreator | None = None,
        proposal_target_creator: ProposalTargetCreator | None = None,
        rng: Rng = None,
    ) -> None:
        super().__init__()
        self.faster_rcnn = faster_rcnn
        self.rpn_sigma = opt.rpn_sigma if rpn_sigma is None else rpn_sigma
        self.roi_sigma = opt.roi_sigma if roi_sigma is None else roi_sigma
        self.anchor_target_creator = anchor_target_creator or AnchorTargetCreator()
        self.proposal_target_creator = proposal_target_creator or ProposalTargetCreator()
        self.rng = rng
        self.optimizer = faster_rcnn.get_optimizer()
        self.vis = Visualizer(env=opt.env)
        self.rpn_cm = ConfusionMeter(2)
        self.roi_cm = ConfusionMeter(faster_rcnn.n_class)
        self.meters = {name: AverageValueMeter() for name in LossTuple._fields}

    def forward(
        self,
        imgs: Any,
        bboxes: Sequence[F32],
        labels: Sequence[I32],
        scale: float | Sequence[float] = 1.0,
    ) -> LossTuple:
        """The losses of a batch of equally large, preprocessed images.

        Parameters
        ----------
        imgs
            (N, 3, H, W) float32. The original takes N = 1 alone.
        bboxes
            (N, R, 4), or N arrays (R, 4), of (y_min, x_min, y_max, x_max) in pixels of ``imgs``; R
            may be 0.
        labels
            (N, R), or N arrays (R,), of classes from 0.
        scale
            Factor by which the original images were scaled, one for all or one for each.

        Returns
        -------
        LossTuple of tensors. The first stage's losses are averaged over images, the second's
        over all sampled regions.
        """
        return self._outcome(imgs, bboxes, labels, scale).losses

    def _outcome(self, imgs: Any, bboxes: Any, labels: Any, scale: Any) -> Outcome:
        objective = Objective(
            self.rpn_sigma,
            self.roi_sigma,
            self.anchor_target_creator,
            self.proposal_target_creator,
        )
        return objective(
            self.faster_rcnn,
            np.asarray(imgs),
            [np.asarray(bbox) for bbox in bboxes],
            [np.asarray(label) for label in labels],
            scale,
            rng=self.rng,
        )

    def train_step(
        self,
        imgs: Any,
        bboxes: Sequence[F32],
        labels: Sequence[I32],
        scale: float | Sequence[float] = 1.0,
    ) -> LossTuple:
        """One step of the optimiser; arguments and result are those of :meth:`forward`.

        The meters take in what was computed.
        """
        self.optimizer.zero_grad()
        outcome = self._outcome(imgs, bboxes, labels, scale)
        outcome.losses.total_loss.backward()
        self.optimizer.step()
        for scores, truth, meter in (
            (outcome.rpn_scores, outcome.rpn_labels, self.rpn_cm),
            (outcome.roi_scores, outcome.roi_labels, self.roi_cm),
        ):
            asked = truth >= 0
            meter.add(np.asarray(scores)[asked], truth[asked])
        self.update_meters(outcome.losses)
        return outcome.losses

    # --- what is watched

    def update_meters(self, losses: LossTuple) -> None:
        """Let the meters of the losses take in one step's."""
        for name, loss in losses._asdict().items():
            self.meters[name].add(float(loss))

    def reset_meters(self) -> None:
        """Empty every meter, the confusion meters too."""
        for meter in self.meters.values():
            meter.reset()
        self.rpn_cm.reset()
        self.roi_cm.reset()

    def get_meter_data(self) -> dict[str, float]:
        """The mean of each loss since the last reset."""
        return {name: meter.value()[0] for name, meter in self.meters.items()}

    # --- checkpoints

    def save(
        self,
        save_optimizer: bool = False,
        save_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> str:
        """Write weights, options, what ``vis`` keeps and ``kwargs`` to a file; returns its path.

        :meth:`load` and :func:`oxidet.models.detection.load_detector` read it.

        Parameters
        ----------
        save_optimizer
            Whether the optimiser's state is written, too.
        save_path
            A name ending in ``.npz``, which is appended where it is missing; by default
            ``checkpoints/fasterrcnn_MMDDHHMM`` and the values of ``kwargs``. Directories are made.
        kwargs
            Plain values to keep beside the weights (``best_map=0.7``), as ``other_info``.
        """
        if save_path is None:
            values = "".join(f"_{value}" for value in kwargs.values())
            save_path = f"checkpoints/fasterrcnn_{time.strftime('%m%d%H%M')}{values}"
        path = Path(os.fspath(save_path))
        if path.suffix != ".npz":
            path = path.with_name(f"{path.name}.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(
            path,
            self.faster_rcnn,
            config=opt._state_dict(),
            other_info=kwargs,
            vis_info=self.vis.state_dict(),
            optimizer=self.optimizer.state_dict() if save_optimizer else None,
        )
        return str(path)

    def load(
        self: Self,
        path: str | os.PathLike[str],
        load_optimizer: bool = True,
        parse_opt: bool = False,
    ) -> Self:
        """Continue from what :meth:`save`, or the original's, wrote; returns the trainer.

        Parameters
        ----------
        path
            A file of :meth:`save`, a ``.pth`` of the original, or weights alone.
        load_optimizer
            Whether the optimiser goes on from its state in the file, where that has one.
        parse_opt
            Whether the options in the file are set in ``opt``.

        Raises
        ------
        ValueError
            The file holds no such weights, or they are of another network.
        OSError
            The file cannot be opened.
        """
        checkpoint = read_checkpoint(path)
        self.faster_rcnn.load_state_dict(checkpoint.state_dict)
        if parse_opt:
            opt._parse(checkpoint.config)
        if load_optimizer and checkpoint.optimizer is not None:
            self.optimizer.load_state_dict(checkpoint.optimizer)
        return self

    def cuda(self: Self, *args: Any) -> Self:
        """The trainer itself: it computes on the CPU, wherever a loop sends it."""
        return self
