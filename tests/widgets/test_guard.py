"""A callback that fails says so in the widget."""

import threading

from distinfer_lab.errors import LayoutError
from distinfer_lab.widgets import ErrorLine


def test_an_error_is_told_in_words_and_cleared_by_a_success():
    """The text stands in the line, details folded, as text and never as markup."""
    line = ErrorLine()

    def callback(works):
        if not works:
            raise LayoutError("layers.0.w: 10 columns <b>")

    guarded = line.guard(callback)
    guarded(False)
    assert "layers.0.w: 10 columns &lt;b&gt;" in line.value
    assert "<details>" in line.value
    assert "Traceback" in line.value
    guarded(True)
    assert line.value == ""


def test_an_unexpected_error_names_its_class():
    """A bug is reported as what it is."""
    line = ErrorLine()
    line.guard(lambda: {}["w"])()
    assert "KeyError: &#x27;w&#x27;" in line.value


def test_callbacks_run_one_at_a_time():
    """Two threads never are inside guarded callbacks of one line together."""
    line = ErrorLine()
    inside, most = [], []
    started = threading.Barrier(4)

    def callback():
        inside.append(1)
        most.append(len(inside))
        for _ in range(1000):
            pass
        inside.pop()

    def run():
        started.wait()
        for _ in range(200):
            line.guard(callback)()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_its_text_is_stable():
    """Its repr holds no address."""
    assert repr(ErrorLine()) == "ErrorLine()"


def test_an_error_of_a_callback_that_it_causes_stays():
    """The outer one ends well, which does not wipe out what the inner one told; the next success does."""
    line = ErrorLine()
    inner = line.guard(lambda: {}["w"])
    line.guard(inner)()
    assert "KeyError" in line.value
    line.guard(lambda: None, clears=False)()
    assert "KeyError" in line.value
    line.guard(lambda: None)()
    assert line.value == ""


def test_callbacks_of_two_widgets_that_cause_each_other_do_not_wait_for_each_other():
    """Each tells the other, from two threads at once, again and again."""
    first, second = ErrorLine(), ErrorLine()
    there = second.guard(first.guard(lambda: None))
    back = first.guard(second.guard(lambda: None))

    def run(callback):
        for _ in range(2000):
            callback()

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in (there, back)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
