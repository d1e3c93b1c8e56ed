"""The one command: what it lists, how it helps, what each part does, and that it says errors in a line."""

import csv
import io
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

from selora.command import COMMANDS, main
from selora.files import REPOSITORY, read_json, write_json
from selora.study import fingerprints
from selora.study.fingerprints import settings_of
from selora.study.profiles import load_profile
from selora.study.results import Run


def said(*arguments: str, cwd=REPOSITORY, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "selora", *arguments], capture_output=True, text=True, cwd=cwd, env=environment or None
    )


def test_the_script_is_the_packages_command():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"selora": "selora.command:main"}
    assert list(COMMANDS) == ["run", "study", "list", "export", "merge", "shrink", "publish", "download"]


def test_help_imports_nothing_that_takes_long():
    code = (
        "import sys\nfrom selora.command import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "slow = {'torch', 'peft', 'pandas', 'numpy', 'diffusers', 'transformers', 'matplotlib', 'papermill', 'yaml'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    for name, (_, what, example) in COMMANDS.items():
        assert what in done.stdout and f"selora {name} {example}" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_helps_with_an_example_that_it_takes(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and shown.startswith(f"usage: selora {name}")
    *_, example = COMMANDS[name]
    assert " ".join(f"example: selora {name} {example}".split()) in " ".join(shown.split())
    options = {word for word in shlex.split(example) if word.startswith("--")}
    assert all(option in shown for option in options)


def test_an_unknown_command_names_the_choices(capsys):
    with pytest.raises(SystemExit):
        main(["train"])
    assert "choose from" in (words := capsys.readouterr().err) and all(name in words for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--dataset", "iu-drr", "--method", "no"], "unknown method 'no': choose from base"),
        (["run", "--dataset", "iu-drr", "--method", "base", "--seed", "-1"], "a seed is -1, but must be"),
        (
            ["run", "--dataset", "iu-drr", "--method", "base", "--seed", "4294967296"],
            "a seed is 4294967296, but",
        ),
        (["list", "--profile", "no"], "unknown profile 'no': choose from mini"),
        (["export", "nowhere", "--format", "peft", "--to", "out"], "there is no such folder"),
        (["merge", "nowhere", "--to", "out"], "there is no such folder"),
        (["shrink", "nowhere", "--rank", "2", "--to", "out"], "there is no such folder"),
        (["publish", "no-such"], "no finished study in"),
        (["publish", "no-such", "--begun"], "no finished run in"),
    ],
)
def test_errors_are_one_line(arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code.startswith("selora: ") and message in stop.value.code and "\n" not in stop.value.code


def test_export_and_shrink_by_the_command(run_folder, tmp_path, capsys):
    main(["export", str(run_folder), "--format", "kohya", "--to", str(tmp_path / "kohya")])
    assert (tmp_path / "kohya" / "iu-drr-selora-seed0.safetensors").exists()
    capsys.readouterr()
    main(["shrink", str(run_folder), "--rank", "1", "--to", str(tmp_path / "small")])
    shown = capsys.readouterr()
    table = list(csv.DictReader(io.StringIO(shown.out)))
    assert len(table) > 20 and {row["rank"] for row in table} == {"1"}
    assert all(0 <= float(row["error"]) < 1 for row in table) and "largest error" in shown.err
    main(["merge", str(run_folder), "--to", str(tmp_path / "merged")])
    assert (tmp_path / "merged" / "model_index.json").exists()


@pytest.fixture(scope="module")
def run_folder(base, trained, tmp_path_factory):
    from selora.export import save_lora

    folder = tmp_path_factory.mktemp("run")
    base.save_pretrained(folder / "base")
    save_lora(trained.unet, trained.text_encoder, folder)
    settings = {"base_model": str(folder / "base")}
    write_json(folder / "result.json", {"dataset": "iu-drr", "method": "selora", "seed": 0, "settings": settings})
    return folder


def listed(capsys, results) -> tuple[dict, str]:
    main(["list", "--profile", "smoke", "--datasets", "montgomery-drr", "--results", str(results)])
    *lines, last = capsys.readouterr().out.splitlines()
    return {words[2]: words[0] for words in map(str.split, lines)}, last


def test_list_tells_done_unfinished_missing_and_stale(tmp_path, capsys):
    profile = load_profile("smoke", datasets="montgomery-drr")
    settings = {}
    for method in ("base", "lora", "full", "selora"):
        run = Run(profile, "montgomery-drr", method, 0, tmp_path)
        settings[method] = settings_of(run)
        write_json(run.folder / "settings.json", settings[method])
        if method in ("base", "full"):
            write_json(run.record, {})
    for method in ("full", "selora"):  # of another time
        folder = Run(profile, "montgomery-drr", method, 0, tmp_path).folder
        write_json(folder / "settings.json", settings[method] | {"data_contents": "0123"})
    states, last = listed(capsys, tmp_path)
    assert states == {
        "base": "done", "lora": "unfinished", "full": "stale", "selora": "stale",
        "dylora": "missing", "adalora": "missing", "selora@1.0": "missing",
    }  # fmt: skip
    assert last == "1 done, 1 unfinished, 3 missing, 2 stale"


def test_a_run_that_is_listed_stale_is_refused_and_one_that_is_missing_is_not_hashed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fingerprints, "hash_examples", lambda *args: pytest.fail("nothing was begun"))
    states, _ = listed(capsys, tmp_path)
    assert set(states.values()) == {"missing"}


def test_the_study_by_the_command_is_run_all(tmp_path, monkeypatch):
    """Its arguments become the notebook's parameters; here of a notebook that only writes them down."""
    import nbformat

    from selora.command import study

    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell('profile = datasets = methods = data_root = results = executor = ""'),
            nbformat.v4.new_code_cell(
                "import json, pathlib\nassert methods != 'no', 'no such method'\n"
                "names = ['profile', 'datasets', 'methods', 'data_root', 'results', 'executor']\n"
                "pathlib.Path(results, 'seen.json').write_text(json.dumps({name: globals()[name] for name in names}))"
            ),
        ]
    )
    book.cells[0].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "run_all.ipynb")
    monkeypatch.setattr(study, "NOTEBOOKS", tmp_path)
    given = ["study", "--profile", "smoke", "--results", str(tmp_path)]
    main([*given, "--methods", "base,lora"])
    assert read_json(tmp_path / "seen.json") == {
        "profile": "smoke", "datasets": "", "methods": "base,lora", "data_root": "", "results": str(tmp_path),
        "executor": "cores",
    }  # fmt: skip
    assert (tmp_path / "smoke" / "notebooks" / "run_all.ipynb").exists()
    with pytest.raises(SystemExit, match="selora: AssertionError: no such method"):
        main([*given, "--methods", "no"])


def test_the_method_alone_has_the_command_and_says_what_the_study_needs(tmp_path):
    """Outside a clone, where `pip install` of the method leaves it."""
    shutil.copytree(REPOSITORY / "selora", tmp_path / "selora", ignore=shutil.ignore_patterns("__pycache__"))
    assert "selora run --profile" in said("--help", cwd=tmp_path, PYTHONPATH=str(tmp_path)).stdout
    for name in ("run", "study", "list", "publish", "download"):
        done = said(name, *(["x"] if name in ("publish", "download") else []), cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert "git clone" in done.stderr, name
