"""Export with a model card whose example runs, push with the real client to a local hub, load from it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import HubServer
from typer.testing import CliRunner

import msekit
from msekit.cli.main import app
from msekit.data.catalogue import DATASETS
from msekit.errors import MsekitError
from msekit.sharing.export import export_run
from msekit.sharing.push import push_folder

SECRET = "hf_verysecrettoken"
pytestmark = pytest.mark.slow  # the runs are trained first, in seconds


@pytest.fixture(scope="module")
def exported(erc_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "plug-in"
    arguments = ["export", str(erc_run), str(folder), "--licence", "CC BY 4.0", "--data-licence", "made on the spot"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder


def example(card: str) -> str:
    """The Python of a card."""
    return re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]


def test_an_export_gives_the_runs_own_test_predictions_in_a_fresh_process(exported: Path, erc_lines):
    """It loads the backbone by the name that it carries, in a process that has done nothing else."""
    assert {path.name for path in exported.iterdir()} == {"adapter.safetensors", "adapter.json", "README.md"}
    program = (
        "import json, sys, msekit\nfrom msekit.data.readers.synthetic import synthetic_rows\n"
        "rows = list(synthetic_rows('synthetic-erc', 'test'))\n"
        "run = msekit.load_run(sys.argv[1])\n"
        "out = run.predict([r.text for r in rows], [r.audio for r in rows], [r.vision for r in rows])\n"
        "print(json.dumps([o.record() for o in out]))"
    )
    done = subprocess.run([sys.executable, "-c", program, exported], capture_output=True, text=True, check=True)
    for answer, line in zip(json.loads(done.stdout), erc_lines, strict=True):
        assert answer["prediction"] == line["prediction"]
        assert answer["scores"] == pytest.approx(line["scores"], abs=1e-5)


def test_the_card_says_what_a_user_must_know(exported: Path, erc_run: Path):
    card = (exported / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "msekit"
    assert front["language"] == "en"
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "synthetic-erc"
    report = json.loads((erc_run / "report.json").read_text())
    assert front["license"] == "cc-by-4.0"
    assert front["pipeline_tag"] == "text-classification"
    assert {"accuracy", "f1"} <= set(front["metrics"])
    (results,) = front["model-index"]
    by_name = {metric["name"]: metric for result in results["results"] for metric in result["metrics"]}
    assert by_name["acc"] == {"type": "accuracy", "value": report["metrics"]["acc"], "name": "acc"}
    for said in (
        report["backbone_fingerprint"],
        report["data_fingerprint"],
        f"{100 * report['metrics']['acc']:.2f} [",
        "seed 1111",
        "calm, glad, sad, angry",
        "CC BY 4.0",
        "made on the spot",
        "`tiny-llama`: Apache-2.0",
        "Intended use and limits",
    ):
        assert said in card
    assert str(erc_run.parent) not in card, "no path of the machine"
    assert len(example(card).splitlines()) == 10


def test_a_published_set_is_named_by_its_hub_id(erc_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    published = DATASETS["synthetic-erc"].model_copy(update={"hub": "someone/their-set"})
    monkeypatch.setitem(DATASETS, "synthetic-erc", published)
    export_run(erc_run, tmp_path / "out", licence="ours alone")
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["datasets"] == ["someone/their-set"]
    assert front["license"] == "other"
    entries = yaml.safe_load((tmp_path / "out" / ".eval_results" / "msekit.yaml").read_text(encoding="utf-8"))
    from huggingface_hub import parse_eval_result_entries

    values = {entry.task_id: entry.value for entry in parse_eval_result_entries(entries)}
    assert values["acc"] == json.loads((erc_run / "report.json").read_text())["metrics"]["acc"]


def test_from_pretrained_is_load_run_and_license_is_licence(exported: Path, erc_run: Path, tmp_path: Path, tiny):
    plug_in = msekit.PlugIn.from_pretrained(exported, backbone=tiny)
    assert plug_in.predict("Well.").prediction in ("calm", "glad", "sad", "angry")
    words = ["export", str(erc_run), str(tmp_path / "out"), "--license", "MIT", "--data-license", "theirs"]
    assert CliRunner().invoke(app, words).exit_code == 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    assert "theirs" in card


def test_the_cards_example_runs_as_it_stands(exported: Path):
    program = example((exported / "README.md").read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=exported,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert any(label in done.stdout for label in ("calm", "glad", "sad", "angry"))


def test_export_refuses_what_it_would_spoil(exported: Path, erc_run: Path, tmp_path: Path):
    with pytest.raises(MsekitError, match="already holds"):
        export_run(erc_run, exported)
    (tmp_path / "run").mkdir()
    with pytest.raises(MsekitError, match=r"adapter\.json is missing"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_backbones_folder_does_not_leave_the_machine(erc_run: Path, tmp_path: Path):
    import shutil

    run = Path(shutil.copytree(erc_run, tmp_path / "run"))
    raw = json.loads((run / "adapter.json").read_text())
    raw["backbone"]["name"] = str(tmp_path / "my-llm")
    (run / "adapter.json").write_text(json.dumps(raw))
    export_run(run, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter.json").read_text())["backbone"]["name"] == "my-llm"
    assert not [path for path in (tmp_path / "out").iterdir() if str(tmp_path).encode() in path.read_bytes()]


def test_push_is_private_and_load_run_finds_it(
    exported: Path, tiny, hub: HubServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The real client on both sides; its token, at the most talkative logging, is nowhere to be read."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)
    result = CliRunner().invoke(app, ["push", str(exported), "tester/plug-in"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{hub.url}/tester/plug-in/commit/")
    assert "private" in result.stderr
    assert SECRET not in result.output + caplog.text
    assert hub.tokens == {SECRET}, "huggingface_hub did send it"
    repo = hub.repos["model", "tester/plug-in"]
    assert repo.private
    assert set(repo.files) == {"adapter.safetensors", "adapter.json", "README.md"}
    assert repo.files["adapter.safetensors"] == (exported / "adapter.safetensors").read_bytes()
    assert b'load_run("tester/plug-in")' in repo.files["README.md"]
    repo.files["evil.py"] = b"raise SystemExit('executed')"
    host = msekit.PlugInHost(tiny)
    host.add("shared", "tester/plug-in")
    own = msekit.load_run(exported, tiny)
    assert host.predict("shared", "Well.").scores == own.predict("Well.").scores
    assert hub.downloads("adapter.safetensors") == [None]
    assert not hub.downloads("evil.py")


def test_push_refuses_clearly(exported: Path, erc_run: Path, hub: HubServer):
    hub.add("tester/public", {})
    hub.add("tester/gated", {}, gated=True)
    for folder, repo, said in (
        (erc_run, "tester/x", r"README\.md is missing: not an exported folder"),
        (exported, "tester/public", "exists and is public"),
        (exported, "not a name!", "not a repository name"),
        (exported, "tester/gated", r"refused the upload \(status 403\)"),
    ):
        with pytest.raises(MsekitError, match=said):
            push_folder(folder, repo)
    assert not hub.uploads
    assert ("model", "tester/x") not in hub.repos
    assert push_folder(exported, "tester/public", public=True).startswith(hub.url)


def test_a_repository_that_holds_no_plug_in(tmp_path: Path, hub: HubServer):
    hub.add("tester/empty", {"README.md": b"nothing"})
    with pytest.raises(MsekitError, match=r"adapter\.json is missing"):
        msekit.load_run("tester/empty")
    with pytest.raises(MsekitError, match="no such revision 'v9'"):
        msekit.load_run("tester/empty", revision="v9")
    with pytest.raises(MsekitError, match="neither a folder nor a repository"):
        msekit.load_run("tester/nowhere")


def test_an_extractors_place_does_not_leave_the_machine(erc_run: Path, tmp_path: Path):
    import shutil

    source = Path(shutil.copytree(erc_run, tmp_path / "run"))
    (found,) = source.rglob("adapter.json")
    described = json.loads(found.read_text())
    record = {"name": "hubert", "version": "sha256-0", "settings": {"layers": "last4"}, "place": "/home/me/hubert"}
    described["dataset"]["extractors"] = {"audio": record}
    found.write_text(json.dumps(described))
    export_run(source, tmp_path / "out")
    shared = json.loads((tmp_path / "out" / "adapter.json").read_text())["dataset"]["extractors"]["audio"]
    assert shared.get("place") is None
    assert shared["name"] == "hubert"
