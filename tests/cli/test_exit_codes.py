"""Exit codes of real processes: 0 answered or yes, 1 no, 2 could not answer, 130 interrupted, 141 pipe closed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
GPU = ["--on", str(HERE / "machine_gpu.json")]
MAIN = "from fitcheck.__main__ import main\nsys.exit(main())"
CPU = ["--on", str(HERE / "machine_cpu.json")]


def run(
    *arguments: str, cwd: Path | None = None, code: str | None = None, **environ: str
) -> subprocess.CompletedProcess:
    """One process of fitcheck; with ``code``, that Python runs first in it."""
    program = ["-m", "fitcheck"] if code is None else ["-c", f"import sys\n{code}\n{MAIN}"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        capture_output=True,
        cwd=cwd,
        env={**os.environ, **environ},
        timeout=60,
        check=False,
    )


ANSWERED = {
    "version": ["--version"],
    "help": ["--help"],
    "no command": [],
    "help of a command": ["scan", "--help"],
    "schema": ["schema"],
    "machine": ["machine", *GPU],
    "machine that is pretended": ["machine", "--on", "RTX 4090"],
    "scan": ["scan", *GPU],
    "scan as JSON": ["scan", "--json", *CPU],
    "scan as Markdown": ["scan", "--format", "markdown", *GPU],
    "scan for embeddings": ["scan", "--for", "embedding", *CPU],
    "scan where nothing runs": ["scan", *CPU, "--ram", "1MiB"],
    "check that says yes": ["check", "qwen3-0.6b", *GPU],
    "check of several that all pass": ["check", "qwen3-0.6b", "llama-3.2-3b", *GPU],
    "check for the first that passes": ["check", "llama-3.3-70b", "qwen3-0.6b", "--first", *GPU],
    "explain": ["explain", "qwen3-14b", *GPU],
    "explain what does not fit": ["explain", "deepseek-v3", *CPU],
    "plan": ["plan", "qwen3-14b", *CPU],
}


@pytest.mark.parametrize("arguments", ANSWERED.values(), ids=ANSWERED)
def test_an_answer_is_0(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


NO = {
    "memory": ["check", "deepseek-v3"],
    "speed": ["check", "qwen3-14b", "--min-speed", "100000"],
    "licence": ["check", "llama-3.2-3b", "--licence", "open"],
    "context": ["check", "gpt2", "--context", "64k"],
    "placement": ["check", "llama-3.3-70b", "--allow", "gpu"],
    "task": ["check", "qwen3-0.6b", "--for", "embedding"],
    "first token": ["check", "qwen3-14b", "--first-token", "0.000001"],
    "none of several": ["check", "deepseek-v3", "deepseek-r1", "--first"],
    "one of several": ["check", "qwen3-0.6b", "deepseek-v3"],
    "as JSON": ["check", "deepseek-v3", "--json"],
    "as JUnit": ["check", "deepseek-v3", "--format", "junit"],
    "as annotations": ["check", "deepseek-v3", "--format", "github"],
    "quietly": ["check", "deepseek-v3", "--quiet"],
}


@pytest.mark.parametrize("arguments", NO.values(), ids=NO)
def test_no_is_1(arguments: list[str]) -> None:
    done = run(*arguments, *GPU)
    assert (done.returncode, done.stderr) == (1, b"")


CANNOT = {
    "unknown option": ["scan", "--bogus"],
    "unknown command": ["bogus"],
    "missing model": ["explain"],
    "no model and no file": ["check"],
    "unknown model": ["check", "no-such-model-anywhere"],
    "several models": ["check", "llama 3.1"],
    "context that is no number": ["scan", "-c", "abc"],
    "speed below nothing": ["scan", "--min-speed", "-3"],
    "speed that is no number": ["scan", "--min-speed", "fast"],
    "unknown task": ["scan", "--for", "cooking"],
    "unknown placement": ["scan", "--allow", "moon"],
    "unknown licence": ["scan", "--licence", "free"],
    "unknown quantisation": ["check", "qwen3-14b", "-q", "Q9_Z"],
    "unknown runtime": ["scan", "-r", "nope"],
    "unknown cache type": ["scan", "--kv", "f64"],
    "unknown colour": ["scan", "--color", "pink"],
    "unknown format": ["scan", "--format", "junit"],
    "margin without a unit": ["scan", "--margin", "lots"],
    "parallel of none": ["scan", "--parallel", "0"],
    "unknown hardware": ["scan", "--on", "Abacus 9000"],
    "missing file": ["explain", "./missing.gguf"],
}


@pytest.mark.parametrize("arguments", CANNOT.values(), ids=CANNOT)
def test_a_mistake_is_2_with_one_line_and_a_hint(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("error: ")
    assert lines[1:2] in ([], [""])
    assert len(lines) <= 3 and "Traceback" not in done.stderr.decode()


def test_a_mistake_is_valid_json_too(tmp_path: Path) -> None:
    done = run("check", "no-such-model-anywhere", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == report["exit_code"] == 2
    assert report["error"]["code"] == "unknown_model"
    assert report["answer"] is None


BROKEN_FILES = {
    "not JSON": b"{",
    "another JSON": b'{"schema_version": 1}',
    "a newer schema": b'{"schema_version": 99, "machine": null}',
    "a field of the wrong type": b'{"schema_version": 1, "machine": {"os": 3}}',
    "binary": bytes(range(256)),
    "empty": b"",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_machine_file_is_2(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(content)
    done = run("scan", "--on", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: machine.json ")
    assert b"Traceback" not in done.stderr


BOOM = "def boom(*a, **k): raise ZeroDivisionError('injected')\n"
CRASHES = {
    "options": "import fitcheck.options as m; m.RequestOptions.request = boom",
    "probe": "import fitcheck.probe as m; m.Probing.finish = boom",
    "catalog": "import fitcheck.catalog as m; m.load = boom",
    "resolve": "import fitcheck.catalog.resolve as m; m.resolve = boom",
    "facts": "import fitcheck.facts as m; m.load = boom",
    "quick estimate": "import fitcheck.estimate.fit as m; m.Estimator.quick = boom",
    "full estimate": "import fitcheck.estimate.fit as m; m.Estimator.estimate = boom",
    "speed": "import fitcheck.estimate.speed as m; m.decode = m.predict = boom",
    "choose": "import fitcheck.advise.choose as m; m.Chooser.choose = boom",
    "check": "import fitcheck.advise.check as m; m.requirements = boom",
    "view": "import fitcheck.output.views.check as m; m.document = boom",
    "text": "import fitcheck.output.text as m; m.render = boom",
    "terminal": "import fitcheck.output.terminal as m; m.Terminal.of = boom",
}


@pytest.mark.parametrize("layer", CRASHES)
def test_a_crash_in_any_layer_is_2_and_never_1(layer: str) -> None:
    done = run("check", "qwen3-0.6b", code=BOOM + CRASHES[layer])
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(b"error: unexpected ZeroDivisionError: injected\n\nhint: ")
    assert b"Traceback" not in done.stderr


def test_verbose_shows_the_traceback_of_a_crash() -> None:
    done = run("check", "qwen3-0.6b", "--verbose", code=BOOM + CRASHES["facts"])
    assert done.returncode == 2
    assert b"Traceback" in done.stderr


@pytest.mark.parametrize("module", ["fitcheck.arguments", "msgspec", "fitcheck.estimate.fit", "fitcheck.output.wire"])
def test_a_part_that_cannot_be_imported_is_2_and_json_stays_valid(module: str) -> None:
    done = run("scan", "--json", *GPU, code=f"sys.modules[{module!r}] = None")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "broken_installation"


def test_without_the_command_line_library_the_usual_is_answered_and_the_rest_is_2() -> None:
    broken = "sys.modules['typer'] = None"
    assert run("scan", "--json", *GPU, code=broken).returncode == 0
    done = run("scan", "--json", "--bogus", code=broken)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "broken_installation"


def test_a_file_that_python_cannot_parse_is_2(tmp_path: Path) -> None:
    (tmp_path / "msgspec.py").write_text("def broken(:\n")
    done = run("check", "qwen3-0.6b", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")


@pytest.mark.parametrize("arguments", [["scan", *GPU], ["scan", "--json", *GPU], ["--help"], ["schema"]], ids=str)
def test_a_closed_pipe_is_141_and_silent(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "fitcheck", *arguments], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_2() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fitcheck", "schema"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: cannot write the answer: ")


def test_a_missing_stdout_still_answers_by_its_code() -> None:
    script = f'{sys.executable} -m fitcheck check qwen3-0.6b --on "{HERE / "machine_gpu.json"}" >&-'
    assert subprocess.run(script, shell=True, check=False).returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_is_130() -> None:
    wait = "def wait(*a):\n    print('ready', flush=True)\n    time.sleep(30)\n"
    heed = "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs are born deaf to it
    start = f"import signal, sys, time\n{heed}import fitcheck.catalog as m\n{wait}m.load = wait\n{MAIN}"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "scan", *GPU], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "interrupted\n")


SURROUNDINGS = {
    "an ASCII locale": {"LC_ALL": "C"},
    "ASCII output": {"PYTHONIOENCODING": "ascii"},
    "no colour": {"NO_COLOR": "1"},
    "forced colour": {"FORCE_COLOR": "1"},
    "a dumb terminal": {"TERM": "dumb"},
    "continuous integration": {"CI": "true", "GITHUB_ACTIONS": "true"},
    "no home": {"HOME": "", "XDG_DATA_HOME": ""},
    "a home that is not there": {"HOME": "/nonexistent", "XDG_DATA_HOME": "/nonexistent/data"},
    "narrow columns": {"COLUMNS": "40"},
    "wide columns": {"COLUMNS": "200"},
    "columns that are nonsense": {"COLUMNS": "-5x"},
}


@pytest.mark.parametrize("environ", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_surroundings_do_not_change_the_answer(environ: dict[str, str]) -> None:
    expected = run("check", "qwen3-0.6b", *GPU, "--quiet")
    done = run("check", "qwen3-0.6b", *GPU, "--quiet", **environ)
    assert (done.returncode, done.stdout, done.stderr) == (expected.returncode, expected.stdout, b"")


def test_ascii_output_is_ascii() -> None:
    done = run("explain", "qwen3-14b", *GPU, LC_ALL="C")
    assert done.returncode == 0
    done.stdout.decode("ascii")


OFTEN_REFUSED = (["check", "qwen3-0.6b"], ["check"], ["check", "no-such-model-anywhere"], ["scan", "--installed"])


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="nothing is refused to root")
@pytest.mark.parametrize("arguments", OFTEN_REFUSED, ids=" ".join)
def test_a_home_that_may_not_be_looked_into_is_as_good_as_none(arguments: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0)
    refused = run(*arguments, *GPU, HOME=str(home), XDG_DATA_HOME="", XDG_CACHE_HOME="")
    none = run(*arguments, *GPU, HOME=str(tmp_path / "none"), XDG_DATA_HOME="", XDG_CACHE_HOME="")
    assert (refused.returncode, refused.stdout, refused.stderr) == (none.returncode, none.stdout, none.stderr)
