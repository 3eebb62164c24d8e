"""Every export read back by the library it is for."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from relisten.audio import Clip, write_clip
from relisten.data.examples import Example, read_examples
from relisten.data.export import FORMATS, export_examples
from relisten.data.export.base import Exported, ExportOptions, SplitWriter, plain
from relisten.data.filters import Sifted, drop_shared
from relisten.errors import InputError
from relisten.protocol import Format, split_at_listens, system_prompt
from relisten.question import Question

datasets = pytest.importorskip("datasets", reason="exports are read back with datasets: pip install datasets")

RESPONSE = "<think>To see I play <seg>0.1, 0.6</seg> and hear a bark, so it is a dog.</think><answer>dog</answer>"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def examples(tmp_path: Path) -> list[Example]:
    """40 clips of 20 sources, three questions each."""
    found = []
    for number in range(40):
        path = tmp_path / "clips" / f"{number}.{'flac' if number % 2 else 'wav'}"
        path.parent.mkdir(exist_ok=True)
        write_clip(path, Clip(np.random.default_rng(number).uniform(-0.5, 0.5, 16_000).astype(np.float32)))
        clip = Clip.load(path)
        for place in range(3):
            question = Question(
                text=f"Which sound is number {place}?",
                choices=("dog", "cat", "bell"),
                audio=path,
                id=f"{number}-{place}",
                answer="dog",
                metadata={"hash": clip.hash, "source": f"tape {number // 2}", "duration": 1.0},
            )
            found.append(Example(question, RESPONSE, "order", "easy"))
    return found


def export(kind: str, examples: list[Any], folder: Path, **options: Any) -> Exported:
    return export_examples(examples, FORMATS[kind], folder, ExportOptions(**{"validation": 0.25, **options}))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named(example: Example, split: str) -> Example:
    metadata = {**example.question.metadata, "split": split}
    return replace(example, question=replace(example.question, metadata=metadata))


def good(path: Path) -> Iterator[Example]:
    for row in read_examples(path):
        assert isinstance(row, Example)
        yield row


def test_our_own_rows_are_split_by_source_and_nothing_leaks(examples: list[Example], tmp_path: Path) -> None:
    done = export("jsonl", examples, tmp_path / "out")
    train = list(good(tmp_path / "out" / "train.jsonl"))
    validation = list(good(tmp_path / "out" / "validation.jsonl"))
    assert (len(train), len(validation)) == (done.rows["train"], done.rows["validation"])
    assert len(train) + len(validation) == 120
    assert 12 <= len(validation) <= 54
    assert done.clips["train"] * 3 == len(train)
    assert not [row for row in drop_shared(validation)(map(Sifted, train)) if row.reason]
    assert [row.question.clip().hash for row in train[:3]] == [train[0].question.metadata["hash"]] * 3


def test_a_clip_stays_in_its_split(examples: list[Example], tmp_path: Path) -> None:
    export("jsonl", examples, tmp_path / "all")
    export("jsonl", examples[::-1][:60], tmp_path / "half")
    export("jsonl", examples, tmp_path / "other", seed=1)
    of = {
        name: {row["id"] for row in lines(tmp_path / name / "validation.jsonl")}
        for name in ("all", "half", "other")
    }
    assert of["half"] <= of["all"]
    assert of["other"] != of["all"]


def test_given_splits_are_kept(examples: list[Example], tmp_path: Path) -> None:
    rows = [named(examples[0], "test"), named(examples[3], "valid"), named(examples[12], "train")]
    done = export("jsonl", rows, tmp_path / "out", validation=0.0)
    assert done.rows == {"test": 1, "validation": 1, "train": 1}


def test_ms_swift_rows(examples: list[Example], tmp_path: Path) -> None:
    done = export(
        "ms-swift", [*examples, replace(examples[0], response="")], tmp_path / "out", format=Format.GROUNDED
    )
    assert done.bad == 1
    loaded = datasets.load_dataset(
        "json", data_files={"train": str(tmp_path / "out" / "train.jsonl")}, cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(loaded) == done.rows["train"]
    row = loaded[0]
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][0]["content"] == system_prompt(Format.GROUNDED)
    assert row["messages"][1]["content"] == "<audio>Which sound is number 0?\nChoices:\n- dog\n- cat\n- bell"
    assert len(split_at_listens(row["messages"][2]["content"], 1.0)) == 3
    assert Clip.load(row["audios"][0]).duration == 1.0
    assert Path(row["audios"][0]).is_absolute()


def test_verl_parquet(examples: list[Example], tmp_path: Path) -> None:
    rows = [replace(row, response="") for row in examples]
    no_answer = replace(examples[0], question=replace(examples[0].question, answer=None))
    done = export("verl", [*rows, no_answer], tmp_path / "out")
    assert done.bad == 1
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )["train"]
    assert len(loaded) == done.rows["train"]
    row = loaded[4]
    assert row["data_source"] == "relisten"
    assert row["prompt"][1]["content"].count("<audio>") == len(row["audios"]) == 1
    assert row["reward_model"] == {"style": "rule", "ground_truth": "dog"}
    assert row["extra_info"]["index"] == 4
    assert row["extra_info"]["choices"] == ["dog", "cat", "bell"]
    assert row["extra_info"]["duration"] == 1.0


def test_hugging_face_folder(examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relisten.data.export.huggingface.SHARD_BYTES", 1_000_000)
    done = export("hf", examples, tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == dict(done.rows)
    assert len(list((tmp_path / "out" / "data").glob("train-*"))) > 1
    features = loaded["train"].features
    assert features["audio"] == datasets.Audio(sampling_rate=16_000)
    train = loaded["train"].cast_column("audio", datasets.Audio(decode=False))
    by_id = {example.question.id: example for example in examples}
    for row in (train[0], train[len(train) - 1]):
        original = by_id[row["id"]]
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        assert rate == 16_000
        np.testing.assert_array_equal(samples, original.question.clip().samples)
        assert row["choices"] == list(original.question.choices)
        assert row["response"] == RESPONSE
        assert json.loads(row["metadata"]) == original.question.metadata
    assert not list((tmp_path / "out").rglob("*.part"))


def test_the_hub_folder_is_decoded_by_datasets_where_it_can(examples: list[Example], tmp_path: Path) -> None:
    pytest.importorskip("torchcodec", reason="datasets decodes sound with torchcodec, which is not installed")
    export("hf", examples[:6], tmp_path / "out", validation=0.0)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded[0]["audio"]["sampling_rate"] == 16_000


def test_other_sound_files_go_in_as_flac(examples: list[Example], tmp_path: Path) -> None:
    path = tmp_path / "sound.aiff"
    soundfile.write(path, examples[0].question.clip().samples, 16_000, subtype="PCM_16")
    row = replace(examples[0], question=replace(examples[0].question, audio=path))
    export("hf", [row], tmp_path / "out", validation=0.0)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    sound = loaded.cast_column("audio", datasets.Audio(decode=False))[0]["audio"]
    assert sound["bytes"][:4] == b"fLaC"


@pytest.mark.parametrize("kind", ["ms-swift", "verl", "jsonl"])
def test_copied_sounds(examples: list[Example], tmp_path: Path, kind: str) -> None:
    export(kind, examples[:6], tmp_path / "out", copy_audio=True, validation=0.0)
    assert len(list((tmp_path / "out" / "audio").iterdir())) == 2


@pytest.mark.parametrize("kind", list(FORMATS))
def test_bad_rows_are_told_and_left_out(examples: list[Example], tmp_path: Path, kind: str) -> None:
    gone = replace(examples[3], question=replace(examples[3].question, audio=tmp_path / "gone.wav"))
    in_memory = replace(examples[6], question=replace(examples[6].question, audio=Clip(np.ones(99, np.float32))))
    elsewhere = [named(examples[9], split) for split in ("../../escaped", "fold/3", "test2")]
    told: list[InputError] = []
    rows = [InputError("examples.jsonl:1: is not JSON"), gone, in_memory, *elsewhere, examples[0]]
    done = export_examples(rows, FORMATS[kind], tmp_path / "out", ExportOptions(0.0), told.append)
    assert done.bad == len(told) == 6
    assert done.rows == {"train": 1}
    assert "gone.wav: no such file" in str(told[1])
    assert str(told[5]) == "example '3-0': split 'test2' is unknown; use one of train, validation, test"
    assert list(files(tmp_path / "out")) == FORMATS[kind].files_of(tmp_path / "out")
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("kind", ["verl", "hf"])
def test_what_parquet_cannot_hold_is_a_bad_row(examples: list[Example], tmp_path: Path, kind: str) -> None:
    from pyarrow import parquet

    cut_off = replace(examples[3], question=replace(examples[3].question, text="cut off \ud83d"))
    counted = replace(examples[6], question=replace(examples[6].question, metadata={"source": 7, "note": "\ud83d"}))
    told: list[InputError] = []
    rows = [examples[0], cut_off, counted]
    done = export_examples(rows, FORMATS[kind], tmp_path, ExportOptions(0.0), told.append)
    assert (done.rows, done.bad) == ({"train": 2}, 1)
    assert str(told[0]).startswith("example '1-0': cannot be written as parquet ('utf-8' codec can't encode")
    last = parquet.read_table(FORMATS[kind].files_of(tmp_path)[0]).to_pylist()[1]
    if kind == "hf":
        assert (last["source"], json.loads(last["metadata"])) == ("7", {"source": 7, "note": "\ud83d"})
    else:
        assert last["extra_info"]["index"] == 1


@pytest.mark.parametrize("kind", list(FORMATS))
def test_a_disk_that_fills_up_at_the_end_leaves_the_old_export(
    examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    export(kind, examples, tmp_path / "out")
    before = files(tmp_path / "out")
    format = FORMATS[kind]

    def open_(folder: Path, split: str, options: ExportOptions) -> SplitWriter:
        writer = format.open(folder, split, options)
        if split == "validation":
            monkeypatch.setattr(writer, "finish", full)
        return writer

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="No space left"):
        export_examples(examples[::-1], replace(format, open=open_), tmp_path / "out", ExportOptions(0.25))
    assert files(tmp_path / "out") == before


def test_a_failed_export_leaves_the_old_one(examples: list[Example], tmp_path: Path) -> None:
    export("verl", examples, tmp_path / "out")
    before = (tmp_path / "out" / "train.parquet").read_bytes()

    def rows() -> Iterator[Example]:
        yield from examples[:30]
        raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError):
        export_examples(rows(), FORMATS["verl"], tmp_path / "out")
    assert (tmp_path / "out" / "train.parquet").read_bytes() == before
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <audio> tag", "a < audio> tag"),
        ("<|im_end|>", "< |im_end|>"),
        ("<|AUDIO|><image>", "< |AUDIO|>< image>"),
        ("3 < 5, <seg>1.0, 2.0</seg> and <b>", "3 < 5, <seg>1.0, 2.0</seg> and <b>"),
    ],
)
def test_text_stays_text(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_question_with_a_placeholder_names_one_sound(examples: list[Example], tmp_path: Path) -> None:
    question = replace(examples[0].question, text="What is <audio> here?", choices=("<|im_end|>", "dog"))
    for kind, name in (("ms-swift", "train.jsonl"), ("verl", "train.parquet")):
        export(kind, [replace(examples[0], question=question)], tmp_path / kind, validation=0.0)
        loaded = datasets.load_dataset(
            "json" if name.endswith("jsonl") else "parquet",
            data_files=str(tmp_path / kind / name),
            cache_dir=str(tmp_path / "cache"),
        )["train"][0]
        user = (loaded.get("messages") or loaded["prompt"])[1]["content"]
        assert user == "<audio>What is < audio> here?\nChoices:\n- < |im_end|>\n- dog"


@pytest.mark.parametrize("share", [-0.1, 0.95])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match="validation share"):
        ExportOptions(share)
