"""The prompt of a question, or why there can be none."""

from __future__ import annotations

from relisten.audio import Clip
from relisten.errors import InputError
from relisten.models.base import Family, Prompt
from relisten.protocol import Format
from relisten.question import Question
from relisten.trace import PromptSpan


def checked_prompt(
    family: Family, model: str, question: Question, clip: Clip, format: Format, context: int
) -> tuple[Prompt, PromptSpan]:
    """Raises InputError where the clip is too short to be heard, or prompt and clip do not fit `context` tokens."""
    if family.num_audio_tokens(clip.num_samples) == 0:
        raise InputError(
            f"{clip.name or 'clip'}: lasts {clip.duration:g} s, too short for {model} to hear; give at least 0.2 s"
        )
    prompt = family.prompt(question, clip, format)
    span = prompt.span(family)
    if len(span.ids) >= context:
        raise InputError(
            f"{clip.name or 'clip'}: clip and question make {len(span.ids)} tokens, the model takes fewer than "
            f"{context}; give a shorter clip (this one lasts {clip.duration:g} s)"
        )
    return prompt, span
