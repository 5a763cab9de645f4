"""The store keeps finished trials, once, whoever writes them."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from examples.paper.store import Store, key_of
from examples.paper.training import Epoch

EPOCHS = [Epoch(0, 2.0, 0.25, 1.0), Epoch(1, 1.0, 0.5, 1.0)]
ROOT = Path(__file__).parents[3]


def test_a_finished_trial_is_found_again(tmp_path):
    Store(tmp_path / "deep" / "r.sqlite").add({"a": 1, "b": {"c": None}}, {"accuracy": 0.5}, EPOCHS)
    store = Store(tmp_path / "deep" / "r.sqlite")
    assert {"b": {"c": None}, "a": 1} in store  # in any order
    assert {"a": 2, "b": {"c": None}} not in store
    (found,) = store.finished(a=1)
    assert (found.settings, found.result) == ({"a": 1, "b": {"c": None}}, {"accuracy": 0.5})
    assert found.epochs == tuple(EPOCHS)
    assert store.finished(a=2) == []


def test_a_second_result_of_a_trial_changes_nothing(tmp_path):
    store = Store(tmp_path / "r.sqlite")
    store.add({"a": 1}, {"accuracy": 0.5}, EPOCHS)
    store.add({"a": 1}, {"accuracy": 0.9}, EPOCHS[:1])
    (found,) = store.finished()
    assert (found.result["accuracy"], len(found.epochs)) == (0.5, 2)


def test_a_key_does_not_depend_on_the_process():
    code = "from examples.paper.store import key_of; print(key_of({'a': 1, 'b': [2, 'x']}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == key_of({"b": [2, "x"], "a": 1})


def test_two_writers_lose_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from examples.paper.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "[store.add({'writer': sys.argv[2], 'trial': n}, {}) for n in range(20)]"
    )
    path = tmp_path / "r.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name], cwd=ROOT) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(Store(path).finished()) == 40


def test_writers_that_start_together_may_all_make_the_file(tmp_path):
    writers, rounds = 4, 200  # switching the new file to a write-ahead log failed in 1 to 10 rounds of 100
    gate = threading.Barrier(writers)

    def opens(name):
        gate.wait()
        return Store(tmp_path / name)

    with ThreadPoolExecutor(writers) as pool:
        for number in range(rounds):
            stores = list(pool.map(opens, [f"{number}.sqlite"] * writers))
            assert stores[0].finished() == []
