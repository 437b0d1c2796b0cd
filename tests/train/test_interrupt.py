"""Ctrl-C waits for the end of what is held."""

from __future__ import annotations

import signal

import pytest

from oxidet.train.interrupt import SafeInterrupt


def interrupted_while_held(times: int) -> tuple[list[str], SafeInterrupt]:
    """What ran when SIGINT came ``times`` times inside a hold, and the SafeInterrupt used."""
    done = []
    interrupt = SafeInterrupt()
    try:
        with interrupt:
            with interrupt.hold():
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
                    done.append("step")
                done.append("end of the hold")
            done.append("after the hold")
    except KeyboardInterrupt:
        done.append("interrupted")
    return done, interrupt


def test_an_interrupt_waits_for_the_end_of_the_hold() -> None:
    done, interrupt = interrupted_while_held(1)
    assert done == ["step", "end of the hold", "interrupted"]
    assert not interrupt.torn


def test_a_second_interrupt_does_not_wait() -> None:
    done, interrupt = interrupted_while_held(2)
    assert done == ["step", "interrupted"]
    assert interrupt.torn


def test_outside_a_hold_and_afterwards_all_is_as_usual() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert interrupted_while_held(0)[0] == ["end of the hold", "after the hold"]
    with SafeInterrupt() as interrupt, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert not interrupt.torn


def test_a_third_interrupt_does_not_mend_what_is_torn() -> None:
    interrupt = SafeInterrupt()

    def impatiently() -> None:
        try:
            with interrupt.hold():
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)

    with interrupt, pytest.raises(KeyboardInterrupt):
        impatiently()
    assert interrupt.torn


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interrupted_while_held(2)[0] == ["step", "step", "end of the hold", "after the hold"]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
