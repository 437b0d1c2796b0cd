"""The loop around a training step, the same for detectors and classifiers.

It owns what a run consists of: the model, the optimiser and its schedule, every random stream and
the position in the data. All of that is in a checkpoint, and a run that is stopped at any moment
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from oxidet import _random, nn, weights
from oxidet._arrays import choice, integer
from oxidet._atomic import atomic_write
from oxidet.data import DataLoader, ItemError
from oxidet.data.loader import Sampler
from oxidet.optim import Optimizer
from oxidet.optim.lr_scheduler import ReduceLROnPlateau
from oxidet.train.average import AveragedModel
from oxidet.train.checkpoint import LAST, find_checkpoint, load_checkpoint, save_checkpoint
from oxidet.train.freezing import freeze as freeze_parts
from oxidet.train.freezing import hold
from oxidet.train.interrupt import SafeInterrupt
from oxidet.train.log import JsonLog, brief
from oxidet.train.progress import Progress
from oxidet.train.schedules import make_optimizer, make_schedule
from oxidet.train.settings import (
    check_optimizer,
    check_schedule,
    described,
    optimizer_settings,
)
from oxidet.train.tensorboard import check_tensorboard, tensorboard_writer, write_scalars

BEST, LOG, TENSORBOARD = "best.npz", "log.jsonl", "tensorboard"


class NonFiniteError(ArithmeticError):
    """A loss or a gradient became infinite or NaN. The message names the iteration and images."""


class Score(NamedTuple):
    """How good a model is on the validation data: one number to compare, and what to log."""

    value: float
    record: dict[str, Any]


class TrainingLoop(ABC):
    """Epochs of training steps with log, progress, checkpoints and resume.

    ``run()`` goes through the data ``epochs`` times and writes to ``out``: ``last.npz``, a
    checkpoint from which ``resume=True`` continues to the same bits; ``best.npz``, the model with
    the highest score on ``validation`` so far; and ``log.jsonl``, a line of JSON for every step and
    evaluation.

    Randomness: the order of the data comes from (seed, epoch), augmentation from (seed, epoch,
    index), dropout and initial weights from the package's state (``oxidet.manual_seed``). Nothing
    else is random, nor does anything depend on the number of threads.

    A subclass says what the losses of a batch are (:meth:`losses`), how the model is scored
    (:meth:`score`), how the best model is written (:meth:`save_best`), and, where it draws random
    numbers of its own, :meth:`random_state` and :meth:`set_random_state`.

    Parameters
    ----------
    model
        What is trained.
    dataset
        Anything with ``len`` and ``[index]``.
    out
        Directory of the run, made where missing.
    transform
        ``transform(item, rng)``, applied to every item by the threads that prepare them.
    validation
        A data set to score the model on; None to go without.
    epochs
        How often to go through the data.
    batch_size
        Items in a batch.
    accumulate
        Batches in a step: their gradients are averaged. Batch norm still sees one batch at a time.
    drop_last
        Leave out the last batch of an epoch if it has fewer items: batch norm over a single one
        may have nothing to average.
    sampler
        Chooses the items of an epoch instead of a shuffle: see :class:`oxidet.data.DataLoader`.
    optimizer
        ``"sgd"``, ``"adam"``, ``"adamw"``; an optimiser over the model's parameters; or a function
        from the parameters that are learned to one.
    lr, weight_decay
        Of the optimiser, unless it is given as an object.
    momentum, nesterov
        Of SGD.
    schedule
        ``"cosine"``, ``"step"``, ``"one_cycle"``; or a function of the optimiser and the number of
        steps of the whole run, that returns a schedule whose ``step()`` is called after each step
        (of ``ReduceLROnPlateau``, with the score after each evaluation). None keeps the rate. See
        :func:`oxidet.train.make_schedule`.
    warmup
        Steps in which the rate rises to ``lr``.
    schedule_options
        Of the schedule, such as ``{"milestones": (16, 22), "gamma": 0.1}`` of ``"step"``.
    max_grad_norm
        Scale the gradients of a step down to this Euclidean norm where it is larger.
    max_grad_value
        Bring the elements of the gradients within this of 0, after ``max_grad_norm``.
    after_step
        Called with the model after every step, such as
        :func:`oxidet.nn.utils.clip_filter_rms_` for ZFNet.
    ema
        Also keep an exponential moving average of the weights with this decay
        (:class:`oxidet.train.AveragedModel`), and score and save that one.
    freeze
        Names of modules or parameters that do not learn, with all below them.
    freeze_batch_norm
        Every batch norm keeps its weights and its statistics.
    seed
        Of order and augmentation.
    evaluate_every
        Epochs between evaluations; the last epoch always has one.
    early_stop
        End the run after so many evaluations in a row that did not better the best; None to go on.
    reload_best
        Epochs (from 1) after which training goes on from the best weights so far, the optimiser's
        memory as it is. simple-faster-rcnn's schedule is ``reload_best=[10]`` with
        ``schedule="step"`` at the same epoch.
    checkpoint_every
        Steps between checkpoints inside an epoch (None: none). Every epoch ends with one.
    log_every
        Steps between lines of the log.
    on_error
        What an item does that cannot be read or learned from: ``"raise"`` an ItemError of one line
        that names its file, or ``"skip"``: another one takes its place, and it is reported once
        and counted in :attr:`skipped`.
    tensorboard
        True to write event files to ``out/tensorboard`` (extra ``tensorboard``, which does without
        torch), or an object with ``add_scalar(tag, value, step)``.
    resume
        True to continue from ``out/last.npz``, or the path of a checkpoint, or of a folder with a
        run. Of a run that lies elsewhere the best weights are taken over as well, and what it has
        is left as it is.
    overwrite
        Start anew in a directory that holds a run. Without it that is a FileExistsError.
    num_workers
        Threads that prepare items ahead.
    quiet
        No progress bar.
    config
        Settings of the subclass that a resumed run must have in common with the checkpoint.

    Attributes
    ----------
    epoch, batch, iteration
        The position: epochs finished, batches taken of the current one, steps taken in all.
    steps_per_epoch
        Steps in an epoch.
    seconds
        Time spent in steps.
    best
        Highest score so far, or None.
    stale
        Evaluations since then.
    average
        The running average of the model, where ``ema`` asks for one.
    """

    loader: DataLoader
    out: Path
    steps_per_epoch: int
    optimizer: Optimizer
    schedule: Any
    average: AveragedModel | None
    reload_best: frozenset[int]
    batch: int
    epoch: int
    iteration: int
    seconds: float
    stale: int

    def __init__(
        self,
        model: nn.Module,
        dataset: Any,
        out: str | os.PathLike[str],
        *,
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        validation: Any = None,
        epochs: int,
        batch_size: int,
        lr: float,
        accumulate: int = 1,
        drop_last: bool = False,
        sampler: Sampler | None = None,
        optimizer: str | Optimizer | Callable[[list[nn.Parameter]], Optimizer] = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        nesterov: bool = False,
        schedule: str | Callable[[Any, int], Any] | None = None,
        warmup: int = 0,
        schedule_options: Mapping[str, Any] | None = None,
        max_grad_norm: float | None = None,
        max_grad_value: float | None = None,
        after_step: Callable[[nn.Module], Any] | None = None,
        ema: float | None = None,
        freeze: str | Sequence[str] = (),
        freeze_batch_norm: bool = False,
        seed: int = 0,
        evaluate_every: int = 1,
        early_stop: int | None = None,
        reload_best: Sequence[int] = (),
        checkpoint_every: int | None = 500,
        log_every: int = 1,
        on_error: Literal["raise", "skip"] = "raise",
        tensorboard: Any = False,
        resume: str | os.PathLike[str] | bool = False,
        overwrite: bool = False,
        num_workers: int = 1,
        quiet: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in (
            ("epochs", epochs),
            ("accumulate", accumulate),
            ("evaluate_every", evaluate_every),
            ("log_every", log_every),
            ("checkpoint_every", checkpoint_every),
            ("early_stop", early_stop),
        ):
            if value is not None:
                integer(value, name, 1)
        for name, limit in (("max_grad_norm", max_grad_norm), ("max_grad_value", max_grad_value)):
            if limit is not None and not limit > 0:
                raise ValueError(f"{name}: expected a positive number, got {limit}")
        choice(on_error, "on_error", ("raise", "skip"))
        check_tensorboard(tensorboard)
        if validation is not None and len(validation) == 0:
            raise ValueError("validation: expected at least one item, or None, got none")
        if early_stop is not None and validation is None:
            raise ValueError("early_stop: expected validation data to stop by, got none")
        if reload_best and validation is None:
            raise ValueError("reload_best: expected validation data to choose by, got none")
        # No limit, in another spelling: a checkpoint has finite numbers alone.
        max_grad_norm = None if max_grad_norm == math.inf else max_grad_norm
        max_grad_value = None if max_grad_value == math.inf else max_grad_value
        self._new_problems: deque[str] = deque()
        self.loader = DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=sampler is None,
            sampler=sampler,
            num_workers=num_workers,
            seed=seed,
            transform=transform,
            drop_last=drop_last,
            on_error="replace" if on_error == "skip" else "raise",
            report=self._new_problems.append,
        )
        if len(self.loader) == 0:
            raise ValueError("dataset: expected at least one batch, got none")
        self.model = model
        self.dataset = dataset
        self.validation = validation
        self.out = Path(out)
        self.epochs = epochs
        self.accumulate = accumulate
        self.steps_per_epoch = math.ceil(len(self.loader) / accumulate)
        self._still = freeze_parts(model, freeze, batch_norm=freeze_batch_norm)
        self.optimizer = make_optimizer(
            optimizer,
            model,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )
        check_optimizer(self.optimizer, model)
        settings = {
            "seed": seed,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "drop_last": drop_last,
            "items": len(dataset),
            "sampler": sampler,
            "max_grad_norm": max_grad_norm,
            "max_grad_value": max_grad_value,
            "after_step": after_step,
            "ema": ema,
            "freeze": [freeze] if isinstance(freeze, str) else list(freeze),
            "freeze_batch_norm": freeze_batch_norm,
            "on_error": on_error,
            "reload_best": sorted(reload_best),
            **optimizer_settings(self.optimizer),
        }
        self.schedule = make_schedule(
            schedule,
            self.optimizer,
            epochs,
            self.steps_per_epoch,
            warmup=warmup,
            options=schedule_options,
        )
        check_schedule(self.schedule, validation)
        # By name, or by the kind of what a function has made.
        named = isinstance(schedule, str) or self.schedule is None
        settings["schedule"] = schedule if named else type(self.schedule).__name__
        settings["schedule_options"] = schedule_options
        settings["warmup"] = warmup
        # A schedule goes from the first step to the last; without one, a run can be prolonged.
        settings["epochs"] = None if self.schedule is None else epochs
        # As it comes back from a checkpoint: lists for tuples.
        self.config: dict[str, Any] = json.loads(
            json.dumps({**settings, **(config or {})}, default=described)
        )
        self.max_grad_norm = max_grad_norm
        self.max_grad_value = max_grad_value
        self.after_step = after_step
        self.average = None if ema is None else AveragedModel(model, ema)
        self.evaluate_every = evaluate_every
        self.early_stop = early_stop
        self.reload_best = frozenset(integer(epoch, "reload_best", 1) for epoch in reload_best)
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.on_error: Literal["raise", "skip"] = on_error
        self.tensorboard = tensorboard
        self.quiet = quiet
        self.epoch = self.batch = self.iteration = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.stale = 0
        self._order: tuple[int, list[int]] | None = None
        self._noted: set[str] = set()
        self._best_elsewhere: Path | None = None
        start = None
        if resume:
            start = self.out / LAST if resume is True else find_checkpoint(resume)
        here = start is not None and start.parent.resolve() == self.out.resolve()
        self._replaces = overwrite and not here
        if (self.out / LAST).exists() and not here and not overwrite:
            raise FileExistsError(
                f"out: expected a directory without {LAST} (or resume=True to continue that run, "
                f"overwrite=True to start another), got {os.fspath(out)}"
            )
        if start is not None:
            self.resume(start)

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

    def random_state(self) -> dict[str, Any]:
        """State of random streams other than the package's own and the loader's."""
        return {}

    def set_random_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027  (optional: a loop may draw nothing)
        """Continue from what :meth:`random_state` returned."""

    @property
    def judged(self) -> nn.Module:
        """What is scored and kept as the best: the average if there is one, else the model."""
        return self.model if self.average is None else self.average.model

    @property
    def skipped(self) -> dict[int, str]:
        """Why items were left out, by index."""
        return self.loader.skipped

    @property
    def stopped_early(self) -> bool:
        """Whether the last ``early_stop`` evaluations brought nothing better."""
        return self.early_stop is not None and self.stale >= self.early_stop

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
        steps = self.epochs * self.steps_per_epoch
        with (
            self.loader,
            contextlib.closing(
                JsonLog(self.out / LOG, 0 if self._replaces else self.iteration)
            ) as self._log,
            tensorboard_writer(
                self.tensorboard, self.out / TENSORBOARD, self.iteration
            ) as self._writer,
            Progress(
                steps, self._title(), initial=self.iteration, unit="step", quiet=self.quiet
            ) as self._progress,
            SafeInterrupt() as self._interrupt,
        ):
            if self._replaces:  # or a resume would continue the old run
                for name in (LAST, BEST):
                    (self.out / name).unlink(missing_ok=True)
                self._replaces = False
            if self._best_elsewhere is not None:
                with atomic_write(self.out / BEST) as copy, self._best_elsewhere.open("rb") as file:
                    shutil.copyfileobj(file, copy)
                self._best_elsewhere = None
            try:
                while self.epoch < self.epochs and not self.stopped_early:
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
        hold(self._still)
        self.loader.set_epoch(self.epoch, start=self.batch)
        self._mark = time.perf_counter()
        self._items_since_line, self._seconds_since_line = 0, 0.0
        for batches in _grouped(self.loader, self.accumulate):
            with self._interrupt.hold():
                self._step(batches)
            every = self.checkpoint_every
            # The end of the epoch has a checkpoint of its own.
            if every and self.iteration % every == 0 and self.batch < len(self.loader):
                self.save()

    def _step(self, batches: list[list[Any]]) -> None:
        """One step: all state advances together."""
        rate = self.optimizer.param_groups[0]["lr"]
        values = self._update(batches)
        if self.schedule is not None and not isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step()
        self.iteration += 1
        self.batch += len(batches)

        now = time.perf_counter()
        self.seconds += now - self._mark
        self._seconds_since_line += now - self._mark
        self._items_since_line += sum(map(len, batches))
        self._mark = now
        if self.iteration % self.log_every == 0:
            record = {
                "event": "step",
                "iteration": self.iteration,
                "epoch": self.epoch,
                "lr": rate,
                **values,
                "images_per_second": self._items_since_line / self._seconds_since_line,
                "seconds": self.seconds,
            }
            self._log.write(record)
            write_scalars(self._writer, "train", record)
            self._items_since_line, self._seconds_since_line = 0, 0.0
        shown = {name: value for name, value in values.items() if "loss" in name}
        self._progress.step({**shown, "lr": rate}, self._title())
        self._report_problems()

    def _update(self, batches: list[list[Any]]) -> dict[str, float]:
        """Change the model by the gradients of some batches; returns their mean losses, and the
        norm of the gradients."""
        self.optimizer.zero_grad()
        share = 1 / len(batches)
        values: dict[str, float] = {}
        for batch in batches:
            losses = self.losses(batch)
            for name, loss in losses.items():
                values[name] = values.get(name, 0.0) + share * float(loss)
            self._check_finite(values)
            total = losses["total_loss"]
            (total if share == 1 else total * share).backward()
        limit = np.inf if self.max_grad_norm is None else self.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        values["gradient_norm"] = norm
        self._check_finite(values)
        if self.max_grad_value is not None:  # after the norm, which shows what is not finite
            nn.utils.clip_grad_value_(self.model.parameters(), self.max_grad_value)
        self.optimizer.step()
        if self.after_step is not None:
            self.after_step(self.model)
        if self.average is not None:
            self.average.update(self.model)
        return values

    def _report_problems(self) -> None:
        """Say what the loader has left out since the last time."""
        while self._new_problems:
            self._report_skipped(self._new_problems.popleft())

    def _report_skipped(self, message: str) -> None:
        """Say it once in the log and beside the progress."""
        if message in self._noted:
            return
        self._noted.add(message)
        self._log.write(
            {
                "event": "skipped",
                "iteration": self.iteration,
                "epoch": self.epoch,
                "message": message,
            }
        )
        self._progress.note(f"skipped: {message}")

    def _finish_epoch(self) -> None:
        evaluate = (self.epoch + 1) % self.evaluate_every == 0 or self.epoch + 1 == self.epochs
        score = self.score() if evaluate else None
        with self._interrupt.hold():
            if score is not None:
                self._take_score(score)
            self.epoch += 1
            self.batch = 0
            if self.epoch in self.reload_best and self.best is not None:
                self.model.load_state_dict(weights.load(self.out / BEST))
            self.save()
            if self.stopped_early and self.epoch < self.epochs:
                self._progress.note(
                    f"stopped: {self.stale} evaluations without a better score than "
                    f"{'none' if self.best is None else format(self.best, '.4f')}"
                )

    def _take_score(self, score: Score) -> None:
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(score.value)
        record = {
            "event": "evaluation",
            "iteration": self.iteration,
            "epoch": self.epoch,
            **score.record,
            "seconds": self.seconds,
        }
        self._log.write(record)
        write_scalars(self._writer, "validation", record)
        # NaN, the score of data without objects, is not better than anything.
        better = score.value > (-np.inf if self.best is None else self.best)
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = score.value
            self.save_best(self.out / BEST)
        self._progress.note(
            f"{self._title()}: {brief(score.record)}{' (best so far)' if better else ''}"
        )

    def _check_finite(self, values: Mapping[str, float]) -> None:
        wrong = [f"{name} = {value}" for name, value in values.items() if not np.isfinite(value)]
        if wrong:
            raise NonFiniteError(
                f"iteration {self.iteration + 1}, {self._describe_step()}: expected finite losses "
                f"and gradients, got {', '.join(wrong)}; a lower learning rate, a warm-up or "
                "max_grad_norm may help"
            )

    def _describe_step(self) -> str:
        """Name the items of the step under way."""
        if self._order is None or self._order[0] != self.epoch:
            self._order = self.epoch, self.loader.order(self.epoch)
        size = self.loader.batch_size
        first, last = self.batch * size, (self.batch + self.accumulate) * size
        ids = getattr(self.dataset, "image_ids", None)
        return ", ".join(
            f"image {index}" if ids is None else f"image {index} ({ids[index]})"
            for index in self._order[1][first:last]
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
                "stale": self.stale,
            },
            "skipped": dict(self.loader.skipped),
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
        self.best, self.stale = position["best"], position["stale"]
        self.loader.skipped.update(state["skipped"])
        self._noted.update(state["skipped"].values())

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write a checkpoint, by default ``last.npz`` in the run's directory."""
        save_checkpoint(self.out / LAST if path is None else path, self.state_dict())
        self._mark = time.perf_counter()

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go to where a checkpoint was written; :meth:`run` continues from there.

        ``path`` is that of the checkpoint, or of a folder with a ``last.npz``. FileNotFoundError if
        it lies in another folder than this run without the ``best.npz`` that ``reload_best`` will
        ask for.
        """
        path = find_checkpoint(path)
        self.load_state_dict(load_checkpoint(path))
        self._best_elsewhere = None
        if self.best is None or path.parent.resolve() == self.out.resolve():
            return
        best = path.with_name(BEST)
        if best.exists():
            self._best_elsewhere = best
        elif any(epoch > self.epoch for epoch in self.reload_best):
            raise FileNotFoundError(
                f"resume: expected {BEST} beside {path.name}, for reload_best, got none in "
                f"{path.parent}"
            )


def _grouped(batches: Any, size: int) -> Iterator[list[Any]]:
    """Lists of ``size`` batches, the last one with what is left."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group
