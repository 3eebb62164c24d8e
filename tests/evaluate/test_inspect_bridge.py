"""The inspect_ai adapter, run by inspect_ai itself over a scripted engine."""

from __future__ import annotations

import base64
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.questions import CHOICES, write_questions, write_rows

from relisten.audio import Clip
from relisten.engines.scripted import ScriptedEngine, ScriptedStream
from relisten.listener import Listener
from relisten.protocol import Format
from relisten.question import Question, read_questions
from relisten.trace import Sampling, Trace

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: pip install -e '.[inspect]'")
# ruff: noqa: E402
# inspect_ai leaves files and loops of its own open, and warns of its own future.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageSystem,
    ChatMessageUser,
    ContentAudio,
    ContentText,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.scorer import choice, exact
from inspect_ai.solver import generate

from relisten.evaluate.inspect_bridge import ListenerAPI, listen, questions, rules

Script = Callable[[Question], str]
THOUGHT = "<think>It is at <seg>0.2, 0.8</seg> there.</think>"


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_questions(tmp_path / "data", 1) / "noise.wav"


def run(task: Task, script: Script, folder: Path, engine: ScriptedEngine | None = None, **options: Any) -> Any:
    with Listener(engine or ScriptedEngine(script)) as listener:
        model = Model(ListenerAPI("scripted", listener=listener), GenerateConfig())
        (log,) = eval(task, model=model, log_dir=str(folder / "logs"), display="none", **options)
    gc.collect()  # what inspect_ai leaves open goes now, where this file's filters hold
    assert log.status == "success", log.error
    return log


def by_id(log: Any) -> dict[str, Any]:
    return {str(sample.id): sample for sample in log.samples}


def metrics(log: Any) -> dict[str, float]:
    found = {}
    for score in log.results.scores:
        for name, metric in score.metrics.items():
            found[f"{score.name} {name}"] = metric.value
    return found


def message(text: str, *sounds: str) -> ChatMessageUser:
    parts = [ContentAudio(audio=sound, format="wav") for sound in sounds]
    return ChatMessageUser(content=[*parts, ContentText(text=text)])


def test_questions_are_scored_by_our_rules_and_bad_rows_are_errors(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 4)
    lines = (folder / "questions.jsonl").read_text()
    bad = [
        {"id": "missing", "audio": "missing.wav", "question": "What?", "answer": "one"},
        {"id": "silent", "audio": "noise.wav", "question": "", "answer": "one"},
        {"id": "open", "audio": "noise.wav", "question": "What?"},
    ]
    write_rows(folder / "questions.jsonl", bad)
    (folder / "questions.jsonl").write_text(lines + (folder / "questions.jsonl").read_text())
    heard: dict[str, tuple[str, ...]] = {}

    def script(question: Question) -> str:
        heard[question.id] = question.choices
        said = {"q0": "<answer>one</answer>", "q1": "<answer>three</answer>", "q2": "three", "open": "five"}
        if question.id not in said:
            raise RuntimeError("broken")
        return THOUGHT + said[question.id]

    log = run(questions(str(folder)), script, tmp_path)
    rows = by_id(log)
    assert heard == {"q0": CHOICES, "q1": CHOICES, "q2": CHOICES, "q3": CHOICES, "open": ()}
    assert {key for key, row in rows.items() if row.error is not None} == {"q3", "missing", "(row 6)"}
    values = {key: rows[key].scores["rules"].value for key in ("q0", "q1", "q2")}
    assert values == {
        "q0": {"official": "C", "strict": "C", "letter": "C", "no_answer": 0},
        "q1": {"official": "I", "strict": "I", "letter": "I", "no_answer": 0},
        "q2": {"official": "N", "strict": "N", "letter": "N", "no_answer": 1},
    }
    found = metrics(log)
    # The three errors and the row without a reference are in no score.
    assert found["official accuracy"] == found["letter accuracy"] == pytest.approx(1 / 3)
    assert found["no_answer mean"] == pytest.approx(1 / 3)
    assert rows["q0"].metadata["group"] == "even"


def test_the_trace_is_in_the_samples_metadata(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 2)
    said = {"q0": "<answer>one</answer>", "q1": ""}
    rows = by_id(run(questions(str(folder)), lambda question: THOUGHT + said[question.id], tmp_path))
    trace = Trace.from_json(rows["q0"].metadata["trace"])
    assert trace == Trace.from_json(rows["q0"].output.metadata["trace"])
    assert (trace.answer, trace.text) == ("one", f"{THOUGHT}<answer>one</answer>")
    assert [(segment.start, segment.end) for segment in trace.segments] == [(0.2, 0.8)]
    assert rows["q0"].metadata["trace"]["finish"] == "answer"
    assert rows["q1"].metadata["trace"]["finish"] == "no_answer"
    assert rows["q0"].output.completion == "one"
    assert rows["q1"].output.completion == ""
    assert rows["q0"].output.message.content[0].reasoning == "It is at <seg>0.2, 0.8</seg> there."


@pytest.mark.parametrize("inline", [False, True])
def test_a_task_of_somebody_else_with_choices(tmp_path: Path, sound: Path, inline: bool) -> None:
    encoded = base64.b64encode(sound.read_bytes()).decode()
    audio = f"data:audio/wav;base64,{encoded}" if inline else str(sound)
    samples = [
        Sample([message(f"{number}?", audio)], choices=["Dog", "Cat"], target=target, id=f"s{number}")
        for number, target in enumerate("ABBB")
    ]
    said = ["<answer>dog</answer>", "<answer>Dog</answer>", "Cat", "<answer>a horse</answer>"]
    durations: set[float] = set()

    def script(question: Question) -> str:
        assert question.choices == ("Dog", "Cat")
        durations.add(question.clip().duration)
        return THOUGHT + said[int(question.text[0])]

    task = Task(dataset=samples, solver=listen(), scorer=[choice(), rules()])
    rows = by_id(run(task, script, tmp_path))
    assert durations == {1.0}
    assert [rows[f"s{number}"].scores["choice"].value for number in range(4)] == ["C", "I", "N", "I"]
    official = [rows[f"s{number}"].scores["rules"].value["official"] for number in range(4)]
    assert official == ["C", "I", "N", "I"]


def test_the_model_alone_answers_a_task_of_somebody_else(tmp_path: Path, sound: Path) -> None:
    samples = [
        Sample([message("What?", str(sound))], target="one", id="plain"),
        Sample([ChatMessageSystem(content="Be brief."), message("What?", str(sound))], target="one", id="system"),
        Sample([message("What?", str(sound), str(sound))], target="one", id="two sounds"),
        Sample([message("What?")], target="one", id="no sound"),
        Sample([message("What?", "data:audio/wav;base64,UklGRg==")], target="one", id="broken"),
        Sample([message("What?", "data:audio/wav;base64,!!")], target="one", id="not base64"),
    ]
    task = Task(dataset=samples, solver=generate(), scorer=exact(), fail_on_error=False)
    rows = by_id(run(task, lambda _: THOUGHT + "<answer>one</answer>", tmp_path))
    assert rows["plain"].scores["exact"].value == "C"
    errors = {key: row.error.message for key, row in rows.items() if row.error is not None}
    assert set(errors) == set(rows) - {"plain"}
    assert "takes exactly one, of the user" in errors["system"]
    assert "2 sounds" in errors["two sounds"]
    assert "0 sounds" in errors["no sound"]
    assert "cannot be decoded" in errors["not base64"]


@modelapi(name="other")
class OtherAPI(ModelAPI):
    async def generate(self, *_: Any, **options: Any) -> ModelOutput:
        usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else inspect downloads a tokenizer
        return ModelOutput.from_content("other", "one").model_copy(update={"usage": usage})


def test_another_model_is_refused_by_solver_and_scorer(tmp_path: Path, sound: Path) -> None:
    for solver in (listen(), generate()):
        task = Task(dataset=[Sample([message("What?", str(sound))], target="one")], solver=solver, scorer=rules())
        model = Model(OtherAPI("other"), GenerateConfig())
        (log,) = eval(task, model=model, log_dir=str(tmp_path), display="none", fail_on_error=False)
        gc.collect()
        (sample,) = log.samples or ()
        assert sample.error is not None
        assert "is no listener" in sample.error.message


class CountingEngine(ScriptedEngine):
    """Knows how many answers were open at once."""

    most = 0
    seeds: dict[str, int | None]

    def open(self, question: Question, clip: Clip, format: Format, sampling: Sampling) -> ScriptedStream:
        self.seeds = {**getattr(self, "seeds", {}), question.id: sampling.seed}
        stream = super().open(question, clip, format, sampling)
        self.most = max(self.most, len(self._streams))
        return stream


def test_questions_are_open_side_by_side_and_seeds_are_those_of_our_runner(tmp_path: Path) -> None:
    folder = write_questions(tmp_path / "data", 60)
    engine = CountingEngine(lambda question: "<answer>one</answer>" + "." * 800)
    log = run(questions(str(folder)), str, tmp_path, engine, temperature=1.0, seed=7)
    assert metrics(log)["strict accuracy"] == pytest.approx(1 / 3)
    assert engine.most > 20  # where inspect would begin by itself
    own = CountingEngine(lambda question: "<answer>one</answer>")
    with Listener(own) as listener:
        listener.ask_many(read_questions(folder / "questions.jsonl"), temperature=1.0, seed=7)
    assert own.seeds == engine.seeds
