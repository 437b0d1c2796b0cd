"""Items in order, prepared ahead by threads.

Threads, not processes: decoding, resizing and the kernels release the GIL, arrays need no copy to
another process, and nothing is left behind when the program ends.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from oxidet._arrays import choice
from oxidet.data._seeding import generator
from oxidet.data.bbox_dataset import described


class Sampler(Protocol):
    """An order of a data set for every epoch, of one length."""

    def __len__(self) -> int: ...

    def order(self, epoch: int) -> Sequence[int]:
        """Indices of the data set, possibly repeated."""
        ...


class ItemError(RuntimeError):
    """An item of a data set could not be prepared; the message names it, ``__cause__`` says why."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index
        self.line: str | None = None  # what is said of it where it is left out, if not the cause


class DataLoader:
    """Batches of a data set, in an order that depends on ``(seed, epoch)`` alone.

    Iterating yields the batches of the current epoch; when the last one has been taken, the loader
    moves on to the next epoch, with another order. Leaving a loop early moves nothing: the next
    loop starts the same epoch again. ``set_epoch`` goes to any epoch, and to any batch of it::

        loader = DataLoader(dataset, shuffle=True, seed=0, transform=augment)
        loader.set_epoch(3, start=120)      # where a checkpoint was written
        for batch in loader: ...            # the batches that an uninterrupted run would have seen

    Parameters
    ----------
    dataset
        Anything with ``len`` and ``[index]``. One with a method ``random_item(index, rng)``, such
        as :class:`Mosaic`, is asked by that instead of ``[index]``, with the Generator that
        ``transform`` then goes on with.
    batch_size
        Items in a batch; the last batch of an epoch may have fewer.
    shuffle
        Whether every epoch has an order of its own; otherwise the data set's.
    num_workers
        Threads that prepare batches ahead; 0 prepares them in the caller's thread. The batches are
        the same for any number.
    seed
        Of order and augmentation.
    transform
        ``transform(item, rng)``, applied to every item in the worker, with the Generator of
        ``(seed, epoch, index)``: an item's augmentation does not depend on its place in the order,
        on the batch size or on the threads.
    collate
        Makes a batch of a list of items, in the worker; by default the list itself. See also
        ``stack``.
    drop_last
        Whether a last batch with fewer items is left out.
    prefetch
        Batches prepared ahead by each worker.
    sampler
        What decides the order instead of ``shuffle``: ``sampler.order(epoch)`` are indices of the
        data set and ``len(sampler)`` their number, the same for every epoch, as of
        :class:`RepeatFactorSampler`. The copies of an item in one epoch are augmented
        independently.
    on_error
        What becomes of an item whose file cannot be read or does not say what it should (an
        OSError or a ValueError): ``"raise"`` an ItemError; ``"replace"`` it by the next item of
        the epoch's order that can be had, so that batches keep their size and a run can be
        continued, as for training; ``"skip"`` it, so that its batch has fewer items, or none, as
        for evaluation. The latter two warn once for each message, and ``skipped`` has it by the
        item's index.
    report
        Called with the message instead of the warning, in the thread that prepares the item.

    Raises
    ------
    ItemError
        From the loop, when an item cannot be prepared. Batches before it are delivered. Its
        ``index`` is the item's, its ``__cause__`` the original exception.

    Examples
    --------
    >>> from oxidet.data import DataLoader
    >>> loader = DataLoader(range(5), batch_size=2)
    >>> list(loader), loader.epoch
    ([[0, 1], [2, 3], [4]], 1)
    """

    batch_size: int
    num_workers: int
    seed: int
    prefetch: int

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        num_workers: int = 2,
        seed: int = 0,
        transform: Callable[[Any, np.random.Generator], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        prefetch: int = 2,
        sampler: Sampler | None = None,
        on_error: Literal["raise", "replace", "skip"] = "raise",
        report: Callable[[str], Any] | None = None,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
            ("prefetch", prefetch, 1),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"{name}: expected an integer, got {value!r}")
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        choice(on_error, "on_error", ("raise", "replace", "skip"))
        if sampler is not None and shuffle:
            raise ValueError("shuffle: expected False with a sampler, which has its own order")
        self.dataset = dataset
        self.sampler = sampler
        self.on_error = on_error
        self.report = report
        self.skipped: dict[int, str] = {}
        self._warned: set[str] = set()
        self._skipping = threading.Lock()
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.num_workers = int(num_workers)
        self.seed = int(seed)
        self.transform = transform
        self.collate = collate
        self.drop_last = drop_last
        self.prefetch = int(prefetch)
        self._epoch = 0
        self._start = 0
        self._live: weakref.WeakSet[_Batches] = weakref.WeakSet()

    @property
    def epoch(self) -> int:
        """The epoch that the next loop goes through."""
        return self._epoch

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Make the next loop go through ``epoch``, from its batch ``start`` on."""
        if epoch < 0:
            raise ValueError(f"epoch: expected at least 0, got {epoch}")
        if not 0 <= start <= len(self):
            raise ValueError(f"start: expected 0 to {len(self)} batches, got {start}")
        self._epoch, self._start = epoch, start

    def order(self, epoch: int) -> list[int]:
        """The data set's indices in the order of an epoch."""
        if self.sampler is not None:
            return [int(index) for index in self.sampler.order(epoch)]
        count = len(self.dataset)
        if not self.shuffle:
            return list(range(count))
        return [int(index) for index in generator(self.seed, epoch).permutation(count)]

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        count = len(self.dataset if self.sampler is None else self.sampler)
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        order = self.order(self._epoch)
        copies = _copies(order)
        batches = [
            range(k * self.batch_size, min((k + 1) * self.batch_size, len(order)))
            for k in range(self._start, len(self))
        ]
        iterator = _Batches(self, _Epoch(self._epoch, order, copies), batches)
        self._live.add(iterator)
        return iterator

    def close(self) -> None:
        """End every loop over this loader that was left early, and its threads with it.

        A loop that ran to its end, raised, or whose iterator is gone has ended by itself.
        """
        for iterator in list(self._live):
            iterator.close()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"DataLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, "
            f"num_workers={self.num_workers}, seed={self.seed})"
        )

    def _finished(self, epoch: int) -> None:
        if self._epoch == epoch:
            self._epoch, self._start = epoch + 1, 0

    def _prepare(self, epoch: _Epoch, positions: Sequence[int]) -> Any:
        items = []
        for position in positions:
            problem: ItemError | None = None
            for entry in self._candidates(epoch, position):
                try:
                    items.append(self._item(epoch, entry))
                    break
                except ItemError as error:
                    if not self._may_skip(error):
                        raise
                    problem = error
            else:
                if self.on_error == "replace" and problem is not None:
                    raise problem
        return items if self.collate is None else self.collate(items)

    def _candidates(self, epoch: _Epoch, position: int) -> Iterator[int]:
        """The places in the order to try for one place, the place itself first."""
        yield position
        if self.on_error == "replace":
            count = len(epoch.order)
            yield from ((position + k) % count for k in range(1, count))

    def _item(self, epoch: _Epoch, position: int) -> Any:
        index, copy = epoch.order[position], epoch.copies[position]
        rng = generator(self.seed, epoch.number, index, *([copy] if copy else []))
        name = f"item {index} of {type(self.dataset).__name__}"
        try:
            random_item = getattr(self.dataset, "random_item", None)
            item = self.dataset[index] if random_item is None else random_item(index, rng)
        except Exception as error:
            raise ItemError(f"{name}: {type(error).__name__}: {error}", index) from error
        if self.transform is None:
            return item
        try:
            return self.transform(item, rng)
        except Exception as error:
            # The data set names the files of its errors; a transform cannot know them.
            place = self._place(index)
            if place:
                name = f"{name} ({place})"
            problem = ItemError(f"{name}: {type(error).__name__}: {error}", index)
            problem.line = f"{place or name}: {described(error)}"
            raise problem from error

    def _place(self, index: int) -> str:
        """The file of an item, if the data set can tell."""
        find = getattr(self.dataset, "image_path", None)
        return "" if find is None else str(find(index))

    def _may_skip(self, error: ItemError) -> bool:
        """Whether the run goes on without the item; says so, once."""
        cause = error.__cause__
        if self.on_error == "raise" or not isinstance(cause, (OSError, ValueError)):
            return False
        message = described(cause) if error.line is None else error.line
        with self._skipping:
            self.skipped.setdefault(error.index, message)
            new = message not in self._warned
            self._warned.add(message)
        if new and self.report is not None:
            self.report(message)
        elif new:
            warnings.warn(f"{message}; the item is left out", stacklevel=2)
        return True


class _Epoch(NamedTuple):
    """What one pass goes through."""

    number: int
    order: list[int]
    copies: list[int]
    """How often each entry of ``order`` came before."""


def _copies(order: list[int]) -> list[int]:
    seen: Counter[int] = Counter()
    copies = []
    for index in order:
        copies.append(seen[index])
        seen[index] += 1
    return copies


class _Batches(Iterator[Any]):
    """One pass: a window of batches in preparation, handed out in order."""

    def __init__(self, loader: DataLoader, epoch: _Epoch, batches: list[range]) -> None:
        self._loader = loader
        self._epoch = epoch
        self._waiting = deque(batches)
        self._started: deque[Future[Any]] = deque()
        self._executor: ThreadPoolExecutor | None = None
        if loader.num_workers and batches:
            self._executor = ThreadPoolExecutor(loader.num_workers, "oxidet-data")
            # Ends the threads when the iterator is dropped without being exhausted.
            self._finalizer = weakref.finalize(self, _shut_down, self._executor, self._started)
        self._closed = False

    def __next__(self) -> Any:
        if self._closed:
            raise StopIteration
        try:
            if self._executor is None:
                if self._waiting:
                    return self._loader._prepare(self._epoch, self._waiting.popleft())
            else:
                self._fill(self._executor)
                if self._started:
                    batch = self._started.popleft().result()
                    self._fill(self._executor)
                    return batch
        except BaseException:
            self.close()
            raise
        self.close()
        self._loader._finished(self._epoch.number)
        raise StopIteration

    def _fill(self, executor: ThreadPoolExecutor) -> None:
        window = self._loader.num_workers * self._loader.prefetch
        while self._waiting and len(self._started) < window:
            positions = self._waiting.popleft()
            self._started.append(executor.submit(self._loader._prepare, self._epoch, positions))

    def close(self) -> None:
        """Give up what is in preparation and wait for the threads to end."""
        self._closed = True
        self._waiting.clear()
        if self._executor is not None:
            self._finalizer()


def _shut_down(executor: ThreadPoolExecutor, started: deque[Future[Any]]) -> None:
    for future in started:
        future.cancel()
    started.clear()
    # An iterator may be collected inside one of its own workers, which cannot wait for itself.
    in_worker = threading.current_thread().name.startswith("oxidet-data")
    executor.shutdown(wait=not in_worker, cancel_futures=True)


def stack(items: list[Any]) -> tuple[np.ndarray, ...]:
    """Collate items that are tuples of equal shapes into one array per field.

    Examples
    --------
    >>> import numpy as np
    >>> from oxidet.data import stack
    >>> [field.shape for field in stack([(np.zeros((1, 2)), 3), (np.ones((1, 2)), 4)])]
    [(2, 1, 2), (2,)]
    """
    fields = []
    try:
        for index, field in enumerate(zip(*items, strict=True)):
            shapes = sorted({np.shape(value) for value in field})
            if len(shapes) > 1:
                got = f"{shapes[0]} and {shapes[1]}"
                raise ValueError(f"items: expected equal shapes in field {index}, got {got}")
            fields.append(np.stack(field))
    except TypeError:
        raise TypeError("items: expected tuples, got one that is none") from None
    return tuple(fields)
