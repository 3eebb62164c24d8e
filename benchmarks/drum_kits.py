"""How well a model that learned from simulated sounds knows recorded drum kits.

    python benchmarks/drum_kits.py [FOLDER] --model echo-tiny --clips 200

FOLDER holds kits in Hydrogen's layout: one folder a kit with a `drumkit.xml` and its samples (Debian packages them
as hydrogen-drumkits). Samples called kick, snare, hi-hat or clap are mixed into 8 s clips, questions are made from
the exact truth as for simulated scenes, and the accuracy for each kind is printed. Nothing is trained on the kits.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from relisten.audio import SAMPLE_RATE, Clip
from relisten.data.examples import Example
from relisten.data.questions import make_examples
from relisten.data.scenes import Scene, SceneSpec, place_events, plan_events
from relisten.data.synth import Draw, SynthSound, finish
from relisten.data.timbres import DRUMS
from relisten.errors import InputError

FOLDER = Path("/usr/share/hydrogen/data/drumkits")
KINDS = ("count_window", "first", "last", "exists")
SPEC = SceneSpec(
    duration=(8.0, 8.0), long_share=0.0, labels=DRUMS, distinct=(2, 4), gap=(0.2, 0.5), gain=(-10.0, 0.0)
)

_NAMES = {
    "clap": r"hand ?clap|\bclap",
    "hi-hat": r"hi-?hat|hi hat|\bo?hh\b|\bhat\b",
    "kick": r"kick|bass ?drum|\bbd\b",
    "snare": r"snare|\bsd\b",
}
_OTHERS = r"stick|rim click|roll|\btom|crash|ride|phaser"


@dataclass(frozen=True)
class Hit:
    """One recorded sample."""

    kit: str
    label: str
    sound: SynthSound


def label_of(name: str) -> str | None:
    """The label of an instrument by its name in the kit; None for any other instrument."""
    name = name.lower()
    if re.search(_OTHERS, name):
        return None
    return next((label for label, pattern in _NAMES.items() if re.search(pattern, name)), None)


def read_kits(folder: Path) -> tuple[Hit, ...]:
    """Every kick, snare, hi-hat and clap sample of the kits in a folder.

    Raises:
        InputError: there is no kit.
    """
    hits = []
    for index in sorted(folder.glob("*/drumkit.xml")):
        tree = ElementTree.fromstring(re.sub(rb' xmlns="[^"]*"', b"", index.read_bytes()))
        for instrument in tree.iter("instrument"):
            label = label_of(instrument.findtext("name") or "")
            for file in instrument.iter("filename"):
                path = index.parent / (file.text or "")
                if label and path.is_file():
                    hits.append(Hit(index.parent.name, label, finish(Clip.load(path).samples.astype(np.float64))))
    if not hits:
        raise InputError(f"{folder}: holds no kit; name a folder of Hydrogen drum kits")
    return tuple(hits)


def kit_scenes(
    folder: Path = FOLDER, count: int = 200, seed: int = 0, kinds: Sequence[str] = KINDS, per_scene: int = 4
) -> Iterator[tuple[Scene, tuple[Example, ...]]]:
    """8 s scenes of recorded hits with their questions; three in four keep to one kit, the others mix kits."""
    kits: dict[str, dict[str, list[SynthSound]]] = defaultdict(lambda: defaultdict(list))
    for hit in read_kits(folder):
        kits[hit.kit][hit.label].append(hit.sound)
        kits[""][hit.label].append(hit.sound)
    whole = [name for name, labels in kits.items() if name and len(labels) > 1]
    for index in range(count):
        draw = Draw("test", np.random.default_rng([seed, index]))
        kit = kits[draw.choice(whole)] if whole and draw.chance(0.75) else kits[""]
        scene = _scene(draw, kit, index)
        yield scene, make_examples(scene, draw.rng, kinds, per_scene)


def _scene(draw: Draw, kit: Mapping[str, Sequence[SynthSound]], index: int) -> Scene:
    spec = replace(SPEC, labels=tuple(label for label in DRUMS if label in kit))
    plan = plan_events(draw, spec, spec.duration[0])
    takes = {label: [draw.choice(sounds) for _ in range(2)] for label, sounds in kit.items()}
    dry, events = place_events(draw, spec, spec.duration[0], [(t, label, takes[label]) for t, label in plan])
    level = draw.log(0.1, 0.9) / float(np.abs(dry).max())
    clip = Clip.from_samples(dry * np.float32(level), SAMPLE_RATE, name=f"kits-{index}")
    return Scene(clip, events, "test", index)


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of a model on recorded drum kits.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--model", default="echo-tiny")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()

    from relisten import Listener

    try:
        pairs = list(kit_scenes(options.folder, options.clips, options.seed))
    except InputError as error:
        sys.exit(str(error))
    examples = [example for _, found in pairs for example in found]
    traces = Listener.load(options.model).ask_many([example.question for example in examples])
    asked = Counter(example.kind for example in examples)
    right = Counter(e.kind for e, trace in zip(examples, traces, strict=True) if trace.answer == e.question.answer)
    result = {kind: {"questions": asked[kind], "accuracy": right[kind] / asked[kind]} for kind in sorted(asked)}
    result["all"] = {"questions": len(examples), "accuracy": sum(right.values()) / len(examples)}
    if options.json:
        print(json.dumps(result))
        return
    for kind, row in result.items():
        print(f"{kind:14} {row['accuracy']:7.1%}  of {row['questions']}")


if __name__ == "__main__":
    main()
