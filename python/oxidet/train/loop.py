"""The loop around a training step, the same for detectors and classifiers.

It owns what a run consists of: the model, the optimiser and its schedule, every random stream and
the position in the data. All of that is in a checkpoint, and a run that is stopped at any moment
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oxidet import _random, nn
from oxidet.data import DataLoader, ItemError
from oxidet.optim.lr_scheduler import ReduceLROnPlateau
from oxidet.train.average import AveragedModel
from oxidet.train.checkpoint import load_checkpoint, save_checkpoint
from oxidet.train.interrupt import SafeInterrupt
from oxidet.train.log import JsonLog
from oxidet.train.progress import Progress

LAST, BEST, LOG = "last.npz", "best.npz", "log.jsonl"


class NonFiniteError(ArithmeticError):
    """A loss or a gradient became infinite or NaN. The message names the iteration and images."""


class Score(NamedTuple):
    """How good a model is on the validation data: one number to compare, and what to log."""

    value: float
    record: dict[str, Any]


class TrainingLoop(ABC):
    """Epochs of training steps with log, progress, checkpoints and resume.

    A subclass says what the losses of a batch are (:meth:`losses`), how the model is scored
    (:meth:`score`), how the best model is written (:meth:`save_best`), and, where it draws random
    numbers of its own, :meth:`random_state` and :meth:`set_random_state`.

    Attributes
    ----------
    epoch, batch, iteration
        The position: epochs finished, batches taken of the current one, steps taken in all.
    seconds
        Time spent in steps.
    best
        Highest score so far, or None.
    average
        The running average of the model, where ``average_decay`` asks for one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        loader: DataLoader,
        out: str | os.PathLike[str],
        *,
        epochs: int,
        schedule: Any = None,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        after_step: Callable[[nn.Module], Any] | None = None,
        average_decay: float | None = None,
        evaluate_every: int = 1,
        checkpoint_every: int | None = 500,
        log_every: int = 1,
        resume: str | os.PathLike[str] | bool = False,
        overwrite: bool = False,
        quiet: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        counts = {"epochs": epochs, "evaluate_every": evaluate_every, "log_every": log_every}
        if checkpoint_every is not None:
            counts["checkpoint_every"] = checkpoint_every
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm: expected a positive number, got {max_grad_norm}")
        if max_grad_value is not None and not max_grad_value > 0:
            raise ValueError(f"max_grad_value: expected a positive number, got {max_grad_value}")
        if len(loader) == 0:
            raise ValueError("dataset: expected at least one batch, got none")
        check_optimizer(optimizer, model)
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.loader = loader
        self.out = Path(out)
        self.epochs = epochs
        self.max_grad_norm = max_grad_norm
        self.max_grad_value = max_grad_value
        self.after_step = after_step
        self.average = None if average_decay is None else AveragedModel(model, average_decay)
        self.evaluate_every = evaluate_every
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.quiet = quiet
        settings = {
            "seed": loader.seed,
            "batch_size": loader.batch_size,
            "items": len(loader.dataset),
            "max_grad_norm": max_grad_norm,
            "max_grad_value": max_grad_value,
            "after_step": after_step,
            "average_decay": average_decay,
            **_optimizer_settings(optimizer),
            "schedule": None if schedule is None else type(schedule).__name__,
            # A schedule goes from the first step to the last; without one, a run can be prolonged.
            "epochs": None if schedule is None else epochs,
            **(config or {}),
        }
        # As it comes back from a checkpoint: lists for tuples.
        self.config: dict[str, Any] = json.loads(json.dumps(settings, default=_described))
        self.epoch = self.batch = self.iteration = 0
        self.seconds = 0.0
        self.best: float | None = None
        self._replaces = overwrite and not resume
        if resume:
            self.resume(self.out / LAST if resume is True else resume)
        elif (self.out / LAST).exists() and not overwrite:
            raise FileExistsError(
                f"out: expected a directory without {LAST} (or resume=True to continue that run, "
                f"overwrite=True to start another), got {os.fspath(out)}"
            )

    # --- what a subclass defines

    @abstractmethod
    def losses(self, batch: list[Any]) -> Mapping[str, Any]:
        """The losses of a batch, as tensors; the one named "total_loss" is minimised."""

    @abstractmethod
    def score(self) -> Score | None:
        """Evaluate the model; None where there is nothing to evaluate it on."""

    @abstractmethod
    def save_best(self, path: Path) -> None:
        """Write the model, as the one with the highest score so far."""

    @property
    def judged(self) -> nn.Module:
        """What is scored and kept as the best: the average if there is one, else the model."""
        return self.model if self.average is None else self.average.model

    def describe(self, batch: list[Any]) -> str:
        """Name the items of a batch, for messages."""
        return f"batch {self.batch} of epoch {self.epoch}"

    def random_state(self) -> dict[str, Any]:
        """State of random streams other than the package's own and the loader's."""
        return {}

    def set_random_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027  (optional: a loop may draw nothing)
        """Continue from what :meth:`random_state` returned."""

    # --- the loop

    def run(self) -> float | None:
        """Train to the end of the last epoch; returns the best score, if there is one.

        Ctrl-C finishes the step under way, writes a checkpoint and raises KeyboardInterrupt.

        Raises
        ------
        ItemError
            An item of the data cannot be prepared. A checkpoint of that moment is written first.
        NonFiniteError
            A loss or gradient is infinite or NaN. The last checkpoint is of before.
        OSError
            A checkpoint cannot be written, and the previous one is intact; or another process is
            training in the same directory.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        steps = self.epochs * len(self.loader)
        with (
            self.loader,
            contextlib.closing(JsonLog(self.out / LOG, self.iteration)) as self._log,
            Progress(
                steps, self._title(), initial=self.iteration, unit="step", quiet=self.quiet
            ) as self._progress,
            SafeInterrupt() as self._interrupt,
        ):
            if self._replaces:  # or a resume would continue the old run
                for name in (LAST, BEST):
                    (self.out / name).unlink(missing_ok=True)
                self._replaces = False
            try:
                while self.epoch < self.epochs:
                    self._train_epoch()
                    self._finish_epoch()
            except (KeyboardInterrupt, ItemError):
                if not self._interrupt.torn:
                    self.save()
                raise
        return self.best

    def _title(self) -> str:
        return f"epoch {min(self.epoch + 1, self.epochs)}/{self.epochs}"

    def _train_epoch(self) -> None:
        self.model.train()
        self.loader.set_epoch(self.epoch, start=self.batch)
        self._mark = time.monotonic()
        self._items_since_line, self._seconds_since_line = 0, 0.0
        for batch in self.loader:
            with self._interrupt.hold():
                self._step(batch)
            every = self.checkpoint_every
            # The end of the epoch has a checkpoint of its own.
            if every and self.iteration % every == 0 and self.batch < len(self.loader):
                self.save()

    def _step(self, batch: list[Any]) -> None:
        """One step: all state advances together."""
        losses = self.losses(batch)
        values = {name: float(loss) for name, loss in losses.items()}
        self._check_finite(values, batch)
        self.optimizer.zero_grad()
        losses["total_loss"].backward()
        limit = np.inf if self.max_grad_norm is None else self.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self._check_finite({"gradient norm": norm}, batch)
        if self.max_grad_value is not None:  # after the norm, which shows what is not finite
            nn.utils.clip_grad_value_(self.model.parameters(), self.max_grad_value)
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model)
        if self.average is not None:
            self.average.update(self.model)
        if self.schedule is not None and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        self.iteration += 1
        self.batch += 1

        now = time.monotonic()
        self.seconds += now - self._mark
        self._seconds_since_line += now - self._mark
        self._items_since_line += len(batch)
        self._mark = now
        if self.iteration % self.log_every == 0:
            self._log.write(
                {
                    "event": "step",
                    "iteration": self.iteration,
                    "epoch": self.epoch,
                    "lr": rate,
                    **values,
                    "gradient_norm": norm,
                    "images_per_second": self._items_since_line / self._seconds_since_line,
                    "seconds": self.seconds,
                }
            )
            self._items_since_line, self._seconds_since_line = 0, 0.0
        self._progress.step(values, self._title())

    def _finish_epoch(self) -> None:
        evaluate = (self.epoch + 1) % self.evaluate_every == 0 or self.epoch + 1 == self.epochs
        score = self.score() if evaluate else None
        with self._interrupt.hold():
            if score is not None:
                if isinstance(self.schedule, ReduceLROnPlateau):
                    self.schedule.step(score.value)
                self._log.write(
                    {
                        "event": "evaluation",
                        "iteration": self.iteration,
                        "epoch": self.epoch,
                        **score.record,
                        "seconds": self.seconds,
                    }
                )
                # NaN, the score of data without objects, is not better than anything.
                best = score.value > (-np.inf if self.best is None else self.best)
                if best:
                    self.best = score.value
                    self.save_best(self.out / BEST)
                self._progress.note(
                    f"{self._title()}: {_brief(score.record)}{' (best so far)' if best else ''}"
                )
            self.epoch += 1
            self.batch = 0
            self.save()

    def _check_finite(self, values: Mapping[str, float], batch: list[Any]) -> None:
        wrong = [f"{name} = {value}" for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            raise NonFiniteError(
                f"iteration {self.iteration + 1}, {self.describe(batch)}: expected finite losses "
                f"and gradients, got {', '.join(wrong)}; a lower learning rate, a warm-up or "
                "max_grad_norm may help"
            )

    # --- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All that the run consists of."""
        return {
            "loop": type(self).__name__,
            "config": self.config,
            "position": {
                "epoch": self.epoch,
                "batch": self.batch,
                "iteration": self.iteration,
                "seconds": self.seconds,
                "best": self.best,
            },
            "random": {"package": _random.default.get_state(), **self.random_state()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "model": dict(self.model.state_dict()),
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises
        ------
        ValueError
            The state is that of a run with other data, another seed or another model.
        """
        ours = {"loop": type(self).__name__, **self.config}
        theirs = {"loop": state["loop"], **state["config"]}
        differing = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if differing:
            listed = "; ".join(
                f"{name} was {theirs.get(name)!r} and is {ours.get(name)!r}" for name in differing
            )
            raise ValueError(
                f"resume: expected the settings of the checkpoint, got others: {listed}"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        _random.default.set_state(state["random"]["package"])
        self.set_random_state(state["random"])
        position = state["position"]
        self.epoch, self.batch = position["epoch"], position["batch"]
        self.iteration, self.seconds = position["iteration"], position["seconds"]
        self.best = position["best"]

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write a checkpoint, by default ``last.npz`` in the run's directory."""
        save_checkpoint(self.out / LAST if path is None else path, self.state_dict())
        self._mark = time.monotonic()

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go to where a checkpoint was written; :meth:`run` continues from there."""
        self.load_state_dict(load_checkpoint(path))


def check_validation(dataset: Any) -> None:
    """Refuse a validation data set without items before an epoch is spent, not after it."""
    if dataset is not None and len(dataset) == 0:
        raise ValueError("validation: expected at least one item, or None, got none")


def check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Refuse an optimiser of another model: the loss would just not fall."""
    own = {id(parameter) for parameter in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError("optimizer: expected one of the model's parameters, got one of others")


def check_schedule(schedule: Any, validation: Any) -> None:
    """Refuse a plateau that nothing could tell of, or that takes better scores for worse."""
    if not isinstance(schedule, ReduceLROnPlateau):
        return
    if validation is None:
        raise ValueError("schedule: expected validation data for ReduceLROnPlateau, got none")
    if schedule.mode != "max":
        raise ValueError(
            f"schedule: expected ReduceLROnPlateau with mode='max', as a higher score is better, "
            f"got mode={schedule.mode!r}"
        )


def _optimizer_settings(optimizer: Any) -> dict[str, Any]:
    """What the optimiser began with: of each setting, the values that occur in its groups."""
    settings: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    for name in optimizer.defaults:
        values = {group.get(f"initial_{name}", group[name]) for group in optimizer.param_groups}
        settings[name] = sorted(values, key=repr)
    return settings


def _described(value: Any) -> Any:
    """What JSON has no form for: NumPy's numbers as numbers, other objects by their repr."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    # Without the address, which is another in the process that resumes.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _brief(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4f}" for k, v in record.items() if isinstance(v, float))
