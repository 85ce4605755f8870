"""A callback that fails says so in the widget, in words."""

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
    """A bug is told as what it is."""
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
