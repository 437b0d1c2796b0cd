"""The loader: order, reproducibility, errors with a name, and no thread left behind."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest

from oxidet.data import DataLoader, ItemError, stack


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("oxidet-data")]


@pytest.fixture(autouse=True)
def _no_thread_left_behind() -> Any:
    yield
    gc.collect()
    assert threads() == []


class Slow:
    """Items that take longer the earlier they come, so that threads finish out of order."""

    def __init__(self, count: int = 12) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        time.sleep(0.002 * ((self.count - index) % 4))
        return index


class Broken(Slow):
    def __getitem__(self, index: int) -> int:
        if index == 5:
            raise KeyError("no such page")
        return index


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("batch", "drop"), [(1, False), (5, False), (5, True), (20, False), (20, True)]
)
def test_order_and_batches(workers: int, batch: int, drop: bool) -> None:
    loader = DataLoader(Slow(), batch, num_workers=workers, drop_last=drop)
    expected = [list(range(k, min(k + batch, 12))) for k in range(0, 12, batch)]
    expected = [b for b in expected if len(b) == batch or not drop]
    assert list(loader) == expected
    assert len(loader) == len(expected)


def test_empty() -> None:
    assert list(DataLoader([], batch_size=3)) == []


def test_shuffling_depends_on_seed_and_epoch() -> None:
    def orders(seed: int, workers: int) -> list[list[int]]:
        loader = DataLoader(range(50), shuffle=True, seed=seed, num_workers=workers)
        return [[item for batch in loader for item in batch] for _ in range(3)]

    first = orders(0, 2)
    assert first == orders(0, 0) == orders(0, 4)
    assert all(sorted(order) == list(range(50)) for order in first)
    distinct = [*first, *orders(1, 2), list(range(50))]
    assert len({tuple(order) for order in distinct}) == len(distinct)


def augment(item: int, rng: np.random.Generator) -> tuple[int, float]:
    return item, rng.random()


def test_augmentation_depends_on_seed_epoch_and_index() -> None:
    def draws(epoch: int, **arguments: Any) -> dict[int, float]:
        loader = DataLoader(range(20), transform=augment, **arguments)
        loader.set_epoch(epoch)
        return dict(item for batch in loader for item in batch)

    plain = draws(3)
    # Neither order, nor batches, nor threads make a difference.
    assert draws(3, shuffle=True, batch_size=7, num_workers=5) == plain
    assert draws(3, num_workers=0) == plain
    others = [draws(4), draws(3, seed=1), draws(0)]
    values = [value for each in (plain, *others) for value in each.values()]
    assert len(set(values)) == len(values)


def test_epochs_advance_when_exhausted_only() -> None:
    loader = DataLoader(range(20), shuffle=True)
    first = next(iter(loader))
    assert loader.epoch == 0
    assert next(iter(loader)) == first
    list(loader)
    assert loader.epoch == 1
    assert list(loader) != list(DataLoader(range(20), shuffle=True))


def test_resuming_continues_the_same_epoch() -> None:
    def fresh() -> DataLoader:
        return DataLoader(range(23), batch_size=4, shuffle=True, seed=5, transform=augment)

    whole = fresh()
    whole.set_epoch(2)
    expected = list(whole)
    for start in (0, 1, 5, 6):
        loader = fresh()
        loader.set_epoch(2, start=start)
        assert list(loader) == expected[start:]
        assert list(loader) == list(whole) == list(_at(fresh(), 3))
        whole.set_epoch(3)


def _at(loader: DataLoader, epoch: int) -> DataLoader:
    loader.set_epoch(epoch)
    return loader


@pytest.mark.parametrize("workers", [0, 2])
def test_error_names_the_item(workers: int) -> None:
    loader = DataLoader(Broken(), batch_size=2, num_workers=workers)
    got = []
    with pytest.raises(ItemError, match=r"item 5 of Broken: KeyError: 'no such page'") as caught:
        got.extend(loader)
    assert got == [[0, 1], [2, 3]]
    assert caught.value.index == 5
    assert isinstance(caught.value.__cause__, KeyError)
    assert threads() == []
    assert loader.epoch == 0


def test_error_in_transform_names_the_item() -> None:
    def divide(item: int, rng: np.random.Generator) -> float:
        return 1 / item

    with pytest.raises(ItemError, match="item 0 of range: ZeroDivisionError"):
        list(DataLoader(range(3), transform=divide))


def test_leaving_early_ends_the_threads() -> None:
    for batch in DataLoader(Slow(), num_workers=3):
        assert batch == [0]
        break
    gc.collect()
    assert threads() == []

    loader = DataLoader(Slow())
    iterator = iter(loader)
    next(iterator)
    assert threads()
    loader.close()
    assert threads() == []
    assert list(iterator) == []

    with DataLoader(Slow()) as loader:
        other = iter(loader)
        next(other)
    assert threads() == []


def test_prefetching_is_bounded_and_real() -> None:
    started: list[int] = []

    class Counted(Slow):
        def __getitem__(self, index: int) -> int:
            started.append(index)
            return index

    loader = DataLoader(Counted(100), num_workers=2, prefetch=3)
    iterator = iter(loader)
    next(iterator)
    deadline = time.monotonic() + 5
    while len(started) < 7 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(started) == 7  # the one taken, and two workers' three
    loader.close()


def test_work_is_shared_by_threads() -> None:
    meeting = threading.Barrier(2, timeout=10)

    class Meet(Slow):
        def __getitem__(self, index: int) -> int:
            meeting.wait()  # passes only if two items are prepared at the same time
            return index

    assert list(DataLoader(Meet(4), num_workers=2)) == [[0], [1], [2], [3]]


def test_collate() -> None:
    items = [(np.full((1, 2), k), k) for k in range(4)]
    first, second = DataLoader(items, batch_size=2, collate=stack)
    assert first[0].shape == (2, 1, 2)
    assert second[1].tolist() == [2, 3]


def test_arguments() -> None:
    for arguments, error in (
        ({"batch_size": 0}, ValueError),
        ({"num_workers": -1}, ValueError),
        ({"prefetch": 0}, ValueError),
        ({"seed": 1.5}, TypeError),
    ):
        with pytest.raises(error, match=next(iter(arguments))):
            DataLoader([], **arguments)  # type: ignore[arg-type]
    loader = DataLoader(range(10), batch_size=4)
    for epoch, start, words in (
        (-1, 0, "epoch"),
        (0, 4, "start: expected 0 to 3"),
        (0, -1, "start"),
    ):
        with pytest.raises(ValueError, match=words):
            loader.set_epoch(epoch, start)
    assert "batch_size=4" in repr(loader)


class Holey:
    """Items 0 to n-1, some of which cannot be read."""

    def __init__(self, count: int, bad: dict[int, Exception]) -> None:
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        if index in self.bad:
            raise self.bad[index]
        return index


BAD = {2: ValueError("b.jpg: cut"), 5: FileNotFoundError(2, "No such file", "e.jpg")}


@pytest.mark.parametrize("workers", [0, 3])
def test_bad_items_are_replaced_in_the_order(workers: int) -> None:
    def loader() -> DataLoader:
        return DataLoader(
            Holey(7, BAD), 2, shuffle=True, num_workers=workers, seed=4, on_error="replace"
        )

    whole = loader()
    order = whole.order(0)
    expected = []
    for position in range(7):
        while order[position % 7] in BAD:
            position += 1
        expected.append(order[position % 7])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        batches = list(whole)
        list(whole)
    assert [k for batch in batches for k in batch] == expected
    assert sorted(str(w.message) for w in seen) == [
        "b.jpg: cut; the item is left out",
        "e.jpg: No such file; the item is left out",
    ]
    assert whole.skipped == {2: "b.jpg: cut", 5: "e.jpg: No such file"}
    later = loader()
    later.set_epoch(0, start=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert list(later) == batches[2:]


@pytest.mark.filterwarnings("ignore:.*the item is left out")
def test_bad_items_are_skipped() -> None:
    loader = DataLoader(Holey(7, BAD), on_error="skip")
    assert list(loader) == [[0], [1], [], [3], [4], [], [6]]
    assert list(loader.skipped) == [2, 5]
    with pytest.raises(ItemError, match="item 2 of Holey"):
        list(DataLoader(Holey(7, BAD)))


@pytest.mark.filterwarnings("ignore:.*the item is left out")
def test_what_is_no_fault_of_a_file_is_raised() -> None:
    for on_error in ("skip", "replace"):
        with pytest.raises(ItemError, match="KeyError"):
            list(DataLoader(Holey(7, {3: KeyError("x")}), on_error=on_error))  # type: ignore
    nothing = Holey(3, {k: ValueError("bad") for k in range(3)})
    with pytest.raises(ItemError, match="bad"):
        list(DataLoader(nothing, on_error="replace"))
    assert list(DataLoader(nothing, on_error="skip")) == [[], [], []]
    with pytest.raises(ValueError, match="on_error: expected"):
        DataLoader(nothing, on_error="ignore")  # type: ignore[arg-type]
