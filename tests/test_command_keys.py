"""Keys on the command line, and what Ctrl-C says."""

import os
import shlex

import numpy as np
import pytest
from click.testing import CliRunner

from distinfer_lab.checkpoint import verify_folder
from distinfer_lab.checkpoint.progress import Watch
from distinfer_lab.cli import main
from distinfer_lab.formats import save_slice

KEY = bytes(range(1, 17))


@pytest.fixture
def folder(tmp_path):
    """An encrypted file, one that is not, and the key in hex."""
    values = {f"w{i}": np.full((64, 256), i, np.float32) for i in range(4)}
    save_slice(tmp_path / "secret.ckpt", values, enc_key=KEY, sync=False)
    save_slice(tmp_path / "plain.ckpt", values, sync=False)
    (tmp_path / "key.txt").write_text(KEY.hex() + "\n")
    return tmp_path


def distinfer(*words, env=None, stdin=None):
    done = CliRunner().invoke(main, list(map(str, words)), env=env, input=stdin)
    assert KEY.hex() not in done.output
    return done


def test_a_key_comes_by_option_file_stdin_or_environment(folder):
    """Each opens the file; a wrong one is refused by where it came from, and none is shown."""
    inspect = ("inspect", folder / "secret.ckpt")
    env = {"DISTINFER_KEY": KEY.hex()}
    for words, more in (
        (("--key", KEY.hex()), {}),
        (("--key-file", folder / "key.txt"), {}),
        (("--key-file", "-"), {"stdin": KEY.hex()}),
        ((), {"env": env}),
        (("--key-file", folder / "key.txt"), {"env": {"DISTINFER_KEY": "00" * 16}}),
    ):
        done = distinfer(*inspect, *words, **more)
        assert (done.exit_code, "w3" in done.output) == (0, True), done.output
    (folder / "bad.txt").write_text("not hex")
    (folder / "long.txt").write_text("0" * 10_000)
    for words, more, said in (
        (("--key", "zz"), {}, "Invalid value for --key: a key is given in hex"),
        (("--key-file", folder / "bad.txt"), {}, "Invalid value for --key-file: a key is given in hex"),
        (("--key-file", folder / "long.txt"), {}, "Invalid value for --key-file: a key is given in hex"),
        ((), {"env": {"DISTINFER_KEY": "z"}}, "Invalid value for DISTINFER_KEY: a key is given in hex"),
        (("--key", KEY.hex(), "--key-file", folder / "key.txt"), {}, "both give the key; use --key-file"),
    ):
        done = distinfer(*inspect, *words, **more)
        assert (done.exit_code, said in done.output) == (2, True), done.output
    assert "pass --key (and --mode" in distinfer(*inspect).output
    assert "process list" in " ".join(distinfer("reshard", "--help").output.split())


def test_a_key_in_the_environment_is_used_only_where_it_is_needed(folder):
    """It opens plain files as well; an option that gives a key for a plain file is refused."""
    env = {"DISTINFER_KEY": KEY.hex()}
    assert distinfer("inspect", folder / "plain.ckpt", env=env).exit_code == 0
    assert distinfer("reshard", folder / "plain.ckpt", folder / "out", env=env).exit_code == 0
    assert distinfer("reshard", folder / "secret.ckpt", folder / "again", env=env).exit_code == 0
    done = distinfer("inspect", folder / "plain.ckpt", "--key-file", folder / "key.txt")
    assert (done.exit_code, "is not encrypted; leave out --key" in done.output) == (1, True)


def test_ctrl_c_says_what_is_kept_where_and_what_resumes_it(folder, monkeypatch):
    """The command that it prints, with the key put in, resumes the run, whose work is taken over."""
    monkeypatch.chdir(folder)
    words = ["reshard", "secret.ckpt", "out put", "--key", KEY.hex(), "--no-resume", "--buffer=64KiB"]
    with monkeypatch.context() as patched:
        real, calls = Watch.advance, []

        def advance(watch, rank, nbytes):
            real(watch, rank, nbytes)
            calls.append(nbytes)
            if sum(calls) > 2.5 * 64 * 256 * 4:
                raise KeyboardInterrupt

        patched.setattr(Watch, "advance", advance)
        done = distinfer(*words)
    assert done.exit_code == 1
    stage = folder / ".out put.stage"
    assert f"stopped. What was written so far is kept in {stage} (" in done.output
    assert f"To drop it: rm -r '{stage}'" in done.output
    line = next(line for line in done.output.splitlines() if line.startswith("To resume:"))
    command = shlex.split(line.removeprefix("To resume:"))
    assert command == ["distinfer", "reshard", "secret.ckpt", "out put", "--key", "HEX", "--buffer=64KiB"]
    resumed = distinfer(*(KEY.hex() if word == "HEX" else word for word in command[1:]))
    assert resumed.exit_code == 0
    assert "were there from an earlier run, and right" in resumed.output
    assert verify_folder("out put").ok
    assert not stage.exists()


def test_ctrl_c_before_a_resumed_run_began_says_the_same(folder, monkeypatch):
    """Even while the options are read: what the earlier run left is still there."""
    monkeypatch.chdir(folder)
    stage = folder / ".out.stage"
    (stage / "files").mkdir(parents=True)
    (stage / "files/a").write_bytes(bytes(1 << 16))

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("distinfer_lab.checkpoint.float_dtype", interrupt)
    done = distinfer("reshard", "plain.ckpt", "--dtype", "bf16", "--no-resume", "--", "out")
    assert done.exit_code == 1
    assert f"stopped. What was written so far is kept in {stage} (" in done.output
    assert "To resume:  distinfer reshard plain.ckpt --dtype bf16 -- out\n" in done.output


def test_ctrl_c_before_anything_is_written_says_so(folder, monkeypatch):
    """While the source is opened, for example."""

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("distinfer_lab.checkpoint.open_checkpoint", interrupt)
    done = distinfer("reshard", folder / "plain.ckpt", folder / "out")
    assert (done.exit_code, "stopped; nothing was written" in done.output) == (1, True)
    assert not [name for name in os.listdir(folder) if "out" in name]
