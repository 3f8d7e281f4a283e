"""`hub:owner/name`: Parquet by split from a local hub, by the real client: one table, checked, used offline."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hub_server import HubServer

from msekit.data.cache.cache import prepare
from msekit.data.catalogue import resolve_dataset
from msekit.data.hub_tables import fetch_table, wanted
from msekit.errors import MsekitError
from msekit.reporter import Reporter

QUIET = Reporter(quiet=True)
NAMES = ("calm", "excited")


@pytest.fixture(autouse=True)
def own_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MSEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "downloads"


def parquet(split: str, rows: int = 4, classes: bool = True, last: int | None = None) -> bytes:
    """As the hub's library writes it: class numbers with their names, sound as a path and bytes, frames in a column."""
    import datasets

    table = {
        "utterance": [f"{split} {number}" for number in range(rows)],
        "emotion": [number % 2 if classes else NAMES[number % 2] for number in range(rows)],
        "audio": [[[float(number), 1.0]] * 3 for number in range(rows)],
        "clip": [{"path": "a.wav", "bytes": b"RIFF"}] * rows,
    }
    if last is not None:
        table["emotion"][-1] = last
    made = datasets.Dataset.from_dict(table)
    if classes:
        kinds = made.features | {"emotion": datasets.ClassLabel(names=list(NAMES))}
        made = datasets.Dataset.from_dict(table, features=datasets.Features(kinds))
    file = io.BytesIO()
    made.to_parquet(file)
    return file.getvalue()


def files(folder: str = "data/", valid: str = "validation", **kind: bool) -> dict[str, bytes]:
    splits = {"train": "train", valid: "valid", "test": "test"}
    return {f"{folder}{name}-00000-of-00001.parquet": parquet(split, **kind) for name, split in splits.items()}


COLUMNS = {"text": "utterance", "label": "emotion"}


def test_a_data_set_of_the_hub_is_read_like_ones_own_and_only_once(hub: HubServer):
    hub.add("someone/moods", files() | {"README.md": b"x"}, kind="dataset")
    spec = resolve_dataset("hub:someone/moods", options={"columns": COLUMNS})
    assert (spec.name, spec.labels, spec.hub, spec.task) == ("moods", NAMES, "someone/moods", "erc")
    cache = prepare(spec)
    for split in ("train", "valid", "test"):
        table = cache.split(split)
        assert table.texts == [f"{split} {number}" for number in range(4)]
        assert table.labels.tolist() == [0, 1, 0, 1]
        assert table.audio(2).tolist() == [[2.0, 1.0]] * 3
    assert hub.downloads("README.md") == []
    hub.requests.clear()
    assert resolve_dataset("hub:someone/moods", options={"columns": COLUMNS}) == spec
    assert hub.requests == [], "what is here is used without asking the hub"


def test_labels_must_be_said_where_the_files_do_not(hub: HubServer):
    hub.add("someone/moods", files(classes=False), kind="dataset")
    with pytest.raises(MsekitError, match=r"does not say what its labels are.*utterance, emotion, audio"):
        resolve_dataset("hub:someone/moods")
    spec = resolve_dataset("hub:someone/moods", options={"columns": COLUMNS, "labels": NAMES})
    assert prepare(spec).split("train").labels.tolist() == [0, 1, 0, 1]


def test_classes_that_the_hub_numbers_otherwise_are_refused(hub: HubServer):
    """The table holds numbers: under names in another order every label would be wrong."""
    hub.add("someone/moods", files(), kind="dataset")
    said = {"columns": COLUMNS, "labels": NAMES[::-1]}
    with pytest.raises(MsekitError, match=r"classes of 'label' are said in another order.*calm,excited"):
        resolve_dataset("hub:someone/moods", options=said)
    renamed = resolve_dataset("hub:someone/moods", options=said | {"labels": ("quiet", "lively")})
    assert renamed.labels == ("quiet", "lively")


def test_several_targets_of_a_data_set_of_the_hub(hub: HubServer):
    hub.add("someone/moods", files(), kind="dataset")
    columns = {"text": "utterance", "mood": "emotion"}
    spec = resolve_dataset("hub:someone/moods", options={"columns": columns, "targets": {"mood": {"classes": NAMES}}})
    assert (spec.task, spec.hub) == ("targets", "someone/moods")
    assert prepare(spec).split("train").labels.tolist() == [[0], [1], [0], [1]]
    with pytest.raises(MsekitError, match="classes of 'mood' are said in another order"):
        resolve_dataset(
            "hub:someone/moods", options={"columns": columns, "targets": {"mood": {"classes": NAMES[::-1]}}}
        )


def test_one_of_several_configurations_is_named(hub: HubServer):
    hub.add("someone/moods", files("one/") | files("two/", valid="dev"), kind="dataset")
    with pytest.raises(MsekitError, match=r"several configurations: one, two.*hub:someone/moods/two"):
        fetch_table("hub:someone/moods", QUIET)
    folder = fetch_table("hub:someone/moods/two", QUIET)
    assert folder.name == "two-table"
    assert not hub.downloads("one/train-00000-of-00001.parquet")


def test_a_revision_stays_and_a_newer_one_is_fetched(hub: HubServer):
    old = hub.add("someone/moods", files(), kind="dataset").commit
    first = fetch_table(f"hub:someone/moods@{old}", QUIET)
    hub.add("someone/moods", files(valid="valid") | {"more.txt": b"y"}, kind="dataset")
    assert fetch_table("hub:someone/moods", QUIET) != first
    spec = resolve_dataset(f"hub:someone/moods@{old}", options={"columns": COLUMNS})
    assert (spec.source, spec.hub_revision) == (first, old)


def test_files_of_clips_are_left_out_with_a_word(hub: HubServer, capsys):
    hub.add("someone/moods", files(), kind="dataset")
    fetch_table("hub:someone/moods", Reporter())
    assert "columns of files are left out: clip" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("hub:moods", {}, "is no data set of the hub"),
        ("hub:nobody/moods", {}, "no such data set on the hub"),
        ("hub:someone/moods", {"data.csv": b"x"}, "no Parquet files called by their split.*data.csv"),
        ("hub:someone/moods", {"train.parquet": b"x" * 2000}, "the table cannot be read"),
    ],
)
def test_what_cannot_be_had_is_named(hub: HubServer, name: str, content: dict, match: str):
    if content:
        hub.add("someone/moods", content, kind="dataset")
    with pytest.raises(MsekitError, match=match):
        resolve_dataset(name)


def test_a_source_beside_it_is_refused(tmp_path: Path):
    with pytest.raises(MsekitError, match="brings its own files"):
        resolve_dataset("hub:someone/moods", tmp_path)


def test_names_are_read_in_parts():
    here = wanted("hub:a/b.c/part@v1.0")
    assert (here.repo.name, here.part, here.repo.revision) == ("a/b.c", "part", "v1.0")


def test_negative_classes_are_no_labels_and_too_large_ones_one_line(hub: HubServer):
    unlabelled = files() | {"data/test-00000-of-00001.parquet": parquet("test", last=-1)}
    hub.add("someone/moods", unlabelled, kind="dataset")
    spec = resolve_dataset("hub:someone/moods", options={"columns": COLUMNS})
    labels = prepare(spec).split("test").labels
    assert labels[:3].tolist() == [0, 1, 0]
    assert labels[3] != labels[3], "no label"
    beyond = parquet("test")
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(beyond))
    place = table.column_names.index("emotion")
    table = table.set_column(place, table.schema.field(place), pa.chunked_array([[0, 1, 0, 2]], pa.int64()))
    file = io.BytesIO()
    pq.write_table(table, file)
    hub.add("someone/more", files() | {"data/test-00000-of-00001.parquet": file.getvalue()}, kind="dataset")
    with pytest.raises(MsekitError, match="'emotion' has a label 2 and 2 classes"):
        fetch_table("hub:someone/more", QUIET)
