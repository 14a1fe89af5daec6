"""The fair lock excludes others, and is handed over in order."""

from __future__ import annotations

import time
from threading import Thread

import pytest

from demo.utils.fair_lock import FairLock
from tests.helpers.waiting import wait_until


def test_only_one_thread_holds_it():
    lock, inside, most = FairLock(), [0], [0]

    def work() -> None:
        for _ in range(200):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert most == [1] and inside == [0]


def test_it_is_handed_over_in_the_order_of_asking():
    lock, order = FairLock(), []

    def work(number: int) -> None:
        with lock:
            order.append(number)

    threads = []
    with lock:
        for number in range(6):
            threads.append(Thread(target=work, args=(number,)))
            threads[-1].start()
            wait_until(lambda count=number + 1: len(lock._gates) == count)
    for thread in threads:
        thread.join(timeout=60)
    assert order == list(range(6))


def test_a_thread_that_asks_again_at_once_waits_behind_the_others():
    lock, order = FairLock(), []

    def work() -> None:
        with lock:
            order.append("other")

    other = Thread(target=work)
    with lock:
        other.start()
        wait_until(lambda: lock._gates)
    with lock:
        order.append("own")
    other.join(timeout=60)
    assert order == ["other", "own"]


def test_an_error_inside_frees_it():
    lock = FairLock()
    with pytest.raises(KeyError), lock:
        raise KeyError
    with lock:
        pass
