"""The public face, on a scripted engine: what callers of every kind get."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sounds import noise_clip

import relisten
from relisten import Finish, Format, InputError, Listen, Listener, Piece, Question, Segment, Stop, Trace
from relisten.audio import SAMPLE_RATE, write_clip
from relisten.engines.scripted import ScriptedEngine
from relisten.errors import EngineError
from relisten.listener import AskOptions, EngineName
from relisten.trace import Sampling

RESPONSE = "<think>so <seg>1.0, 2.0</seg> has two.</think><answer>two</answer>"


def running(name: str) -> int:
    """Threads of that name."""
    return sum(thread.name == name for thread in threading.enumerate())


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it took more than 10 s")


@pytest.fixture
def listener() -> Iterator[Listener]:
    def script(question: Question) -> str:
        if question.text == "wait":
            return "x" * 100_000
        return RESPONSE.replace("two", question.id or "two")

    with Listener(ScriptedEngine(script)) as made:
        yield made


def test_ask(listener: Listener, tmp_path: Path) -> None:
    clip = noise_clip(3.0)
    trace = listener.ask(clip, "How many?", ["one", "two"])
    assert trace.answer == "two"
    assert trace.segments == (Segment(1.0, 2.0),)
    assert trace.choices == ("one", "two")
    assert trace.duration == 3.0
    assert trace.audio_hash == clip.hash
    assert trace.model == "scripted"
    assert trace.timings.total > 0
    write_clip(tmp_path / "clip.wav", clip)
    assert listener.ask(str(tmp_path / "clip.wav"), "How many?").answer == "two"
    assert listener.ask(tmp_path / "clip.wav", "How many?", format="grounded").segments == ()
    assert listener.ask(np.zeros(SAMPLE_RATE, np.float32), "How many?").answer == "two"


def test_bad_input_raises_at_once(listener: Listener, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        listener.ask(tmp_path / "none.wav", "How many?")
    with pytest.raises(InputError, match="text is empty"):
        listener.ask(noise_clip(1.0), " ")
    with pytest.raises(InputError, match="format loud: choose one of text, grounded, interleaved"):
        listener.ask(noise_clip(1.0), "How many?", format="loud")
    with pytest.raises(InputError, match="choices 'yes': give a list"):
        listener.ask(noise_clip(1.0), "Is it?", choices="yes")


@pytest.mark.parametrize("way", ["ask", "stream", "ask_many", "ask_each", "answer"])
def test_a_bad_option_is_told_before_anything_is_asked(listener: Listener, way: str) -> None:
    def ask(**options: Any) -> object:
        question = Question("How many?", (), noise_clip(1.0))
        if way in ("ask", "stream"):
            return getattr(listener, way)(question.audio, question.text, **options)
        if way == "answer":
            return asyncio.run(listener.answer(question, **options))
        return getattr(listener, way)([question], **options)

    with pytest.raises(InputError, match="option temprature: there is none; choose from format, temperature, "):
        ask(temprature=1)
    with pytest.raises(InputError, match="crop speed 9"):
        ask(crop_speed=9)
    with pytest.raises(InputError, match="format loud: choose one of text, grounded, interleaved"):
        ask(format="loud")


def test_a_stream_refuses_choices_at_once(listener: Listener) -> None:
    with pytest.raises(InputError, match="choices 'yes': give a list"):
        listener.stream(noise_clip(1.0), "Is it?", choices="yes")


def test_options_are_the_format_and_all_that_sampling_has() -> None:
    assert set(AskOptions.__annotations__) == {"format"} | {field.name for field in fields(Sampling)}


def test_stream_tells_everything_in_order(listener: Listener) -> None:
    events = list(listener.stream(noise_clip(3.0), "How many?"))
    text = "".join(event.text for event in events if isinstance(event, Piece))
    assert text == RESPONSE
    listen = events.index(Listen(Segment(1.0, 2.0)))
    before = "".join(event.text for event in events[:listen] if isinstance(event, Piece))
    assert before == "<think>so <seg>1.0, 2.0</seg>"
    assert events[-2] == Stop(Finish.ANSWER)
    assert isinstance(events[-1], Trace)
    assert events[-1].text == text


def test_a_listen_that_never_was_is_not_told(listener: Listener) -> None:
    tokens = RESPONSE.index("</seg>") + len("</seg>")
    *events, trace = listener.stream(noise_clip(3.0), "How many?", max_tokens=tokens)
    assert events[-1] == Stop(Finish.LENGTH)
    assert not any(isinstance(event, Listen) for event in events)
    assert isinstance(trace, Trace)
    assert trace.listens == ()


def test_leaving_a_stream_cancels_it(listener: Listener) -> None:
    stream = listener.stream(noise_clip(3.0), "wait", max_tokens=1_000_000)
    assert isinstance(next(stream), Piece)
    stream.close()  # type: ignore[attr-defined]
    assert listener.ask(noise_clip(1.0), "How many?").answer == "two"


def test_a_stream_raises_what_asking_would(listener: Listener) -> None:
    with pytest.raises(InputError, match="no such file"):
        next(listener.stream("none.wav", "How many?"))


def test_ask_many_keeps_order_and_survives_bad_questions(listener: Listener, tmp_path: Path) -> None:
    clip = noise_clip(3.0)
    questions: list[Question | InputError] = [
        Question("How many?", (), clip, id=str(number)) for number in range(600)
    ]
    questions[7] = Question("How many?", (), tmp_path / "none.wav", id="gone")
    questions[9] = Question("How many?", id="silent")
    questions[11] = InputError("line 12 is no question")
    traces = listener.ask_many(iter(questions))
    assert [trace.id for trace in traces] == [getattr(question, "id", "") for question in questions]
    failed = [trace for trace in traces if trace.finish is Finish.FAILED]
    assert [trace.id for trace in failed] == ["gone", "silent", ""]
    assert failed[2].error == "line 12 is no question"
    assert all(trace.error and trace.answer is None for trace in failed)
    assert all(trace.answer == trace.id for trace in traces if trace not in failed)


def test_ask_each_reads_questions_as_it_goes(listener: Listener) -> None:
    drawn = 0

    def endless() -> Iterator[Question]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Question("How many?", (), noise_clip(1.0), id=str(drawn))

    answers = listener.ask_each(endless())
    assert [next(answers)[1].answer for _ in range(3)]
    answers.close()  # type: ignore[attr-defined]
    wait_until(lambda: not running("relisten-questions"))
    assert drawn < 1000


def test_questions_may_wait_for_answers(listener: Listener) -> None:
    answered = threading.Event()

    def source() -> Iterator[Question]:
        yield Question("How many?", (), noise_clip(1.0), id="first")
        assert answered.wait(10)
        yield Question("How many?", (), noise_clip(1.0), id="second")

    found = []
    for _, trace in listener.ask_each(source()):
        found.append(trace.answer)
        answered.set()
    assert found == ["first", "second"]


def test_what_the_questions_raise_is_raised(listener: Listener) -> None:
    def source() -> Iterator[Question]:
        yield Question("How many?", (), noise_clip(1.0))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        listener.ask_many(source())


def test_seeds(listener: Listener) -> None:
    clip = noise_clip(1.0)
    questions = [Question("How many?", (), clip, id=name) for name in "abc"]
    seeds = [t.sampling.seed for t in listener.ask_many(questions, temperature=0.7, seed=5)]
    assert len(set(seeds)) == 3
    again = [t.sampling.seed for t in listener.ask_many(questions[::-1], temperature=0.7, seed=5)]
    assert again == seeds[::-1]
    assert listener.ask(clip, "How many?", temperature=0.7).sampling.seed is not None
    assert listener.ask(clip, "How many?").sampling.seed is None


def test_a_closed_listener_says_so(listener: Listener) -> None:
    listener.close()
    for ask in (
        lambda: listener.ask(noise_clip(1.0), "How many?"),
        lambda: list(listener.stream(noise_clip(1.0), "How many?")),
        lambda: listener.ask_many([Question("How many?", (), noise_clip(1.0))]),
    ):
        with pytest.raises(EngineError, match="the listener was closed"):
            ask()


def test_a_listener_may_be_closed_from_within_an_answer() -> None:
    listener = Listener(ScriptedEngine(lambda _: RESPONSE))
    ended: list[str] = []

    def wait() -> None:
        try:
            listener.ask(noise_clip(1.0), "How many?", on_event=lambda _: listener.close())
        except EngineError as error:
            ended.append(str(error))

    asking = threading.Thread(target=wait, daemon=True)
    asking.start()
    asking.join(10)
    assert ended == ["the listener was closed"]


def test_a_listener_that_nobody_has_any_more_ends_its_thread() -> None:
    before = set(threading.enumerate())  # some may be about to end
    listener = Listener(ScriptedEngine(lambda _: RESPONSE))
    assert listener.ask(noise_clip(1.0), "How many?").answer == "two"
    [thread] = (t for t in set(threading.enumerate()) - before if t.name == "relisten-listener")
    del listener
    gc.collect()
    wait_until(lambda: not thread.is_alive())


@pytest.mark.parametrize("way", ["ask", "stream", "ask_many"])
def test_closing_wakes_those_whose_answer_has_not_begun(way: str) -> None:
    listener = Listener(ScriptedEngine(lambda _: RESPONSE))
    begun = threading.Event()

    async def hold_up() -> None:
        begun.set()
        time.sleep(0.3)  # what is asked meanwhile has no turn before the closing

    ended: list[BaseException] = []

    def wait() -> None:
        try:
            if way == "ask":
                listener.ask(noise_clip(1.0), "How many?")
            elif way == "stream":
                list(listener.stream(noise_clip(1.0), "How many?"))
            else:
                listener.ask_many([Question("How many?", (), noise_clip(1.0))])
        except BaseException as error:
            ended.append(error)

    listener._loop.start(hold_up())
    assert begun.wait(10)
    asking = threading.Thread(target=wait, daemon=True)
    asking.start()
    time.sleep(0.1)
    listener.close()
    asking.join(10)
    assert [str(error) for error in ended] == ["the listener was closed"]


def test_the_asynchronous_way(listener: Listener) -> None:
    async def work() -> list[Trace]:
        clip = noise_clip(2.0)
        return await asyncio.gather(*(listener.answer(Question("q", (), clip, id=str(n))) for n in range(5)))

    assert [trace.answer for trace in asyncio.run(work())] == list("01234")


def test_asking_works_inside_a_running_loop(listener: Listener) -> None:
    async def notebook() -> Trace:
        return listener.ask(noise_clip(1.0), "How many?")

    assert asyncio.run(notebook()).answer == "two"


def test_an_untrained_model_answers_to_the_last_named_end(untrained_folder: Path) -> None:
    with Listener.load(untrained_folder, device="cpu") as model:
        trace = model.ask(noise_clip(2.0), "How many?", max_tokens=12, format=Format.TEXT)
        assert trace.finish in (Finish.LENGTH, Finish.NO_ANSWER)
        assert trace.model == str(untrained_folder)
        again = [model.ask(noise_clip(2.0), "q", max_tokens=12, temperature=1.0, seed=s).text for s in (1, 1, 2)]
        assert again[0] == again[1] != again[2]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Listener.load("no-such-model")
    with pytest.raises(InputError):
        Listener.load(tmp_path)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(untrained_folder: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device {device}: PyTorch has cpu.* here; give one of these"):
        Listener.load(untrained_folder, device=device)


def test_all_public_names_exist() -> None:
    assert all(hasattr(relisten, name) for name in relisten.__all__)


def test_an_engine_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "relisten\[vllm\]"'):
        Listener.load(engine="vllm")


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="engine vlm: choose one of native, vllm"):
        Listener.load(engine="vlm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_rows": "abc"}, "engine option max_rows: 'abc'; it must be a whole number"),
        ({"max_rows": True}, "engine option max_rows: True; it must be a whole number"),
        ({"align": 1}, "engine option align: 1; it must be true or false"),
        ({"foo": 1}, "engine option foo: the native engine takes max_rows, max_context, lockstep,"),
        ({"family": 1}, "engine option family: the native engine takes max_rows"),
        ({"name": "x"}, "engine option name: the native engine takes max_rows"),
    ],
)
def test_options_that_the_native_engine_does_not_take(options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        Listener.load(engine_options=options)


@pytest.mark.parametrize("engine", ["native", "vllm"])
@pytest.mark.parametrize("name", ["model", "device", "dtype"])
def test_what_has_an_argument_of_its_own_is_no_engine_option(engine: EngineName, name: str) -> None:
    with pytest.raises(InputError, match=f"engine option {name}: give it as --{name}"):
        Listener.load(engine=engine, engine_options={name: "bfloat16"})


def test_an_option_that_the_engine_does_not_have(untrained_folder: Path) -> None:
    with pytest.raises(InputError, match="no_such_option"):
        Listener.load(untrained_folder, device="cpu", engine_options={"no_such_option": 1})
