"""The words of reasoning in full. Data only; `narration` fills it in.

Fields: {one} the label asked about, {times} when it is heard elsewhere, {end} what follows from all of it. Every
reason ends where a segment can follow; every lead goes on behind one, in lower case.
"""

from __future__ import annotations

from typing import Final

ORDINALS: Final = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth",
)  # fmt: skip

OPENINGS: Final[dict[str, tuple[str, ...]]] = {
    "count": (
        "This asks for a number, so every {one} has to be heard on its own.",
        "The question is how often {one} comes.", "Only what is {one} counts here, whatever else sounds.",
        "A number is wanted, and one is easily missed.", "I have to keep {one} apart from everything else.",
        "Counting {one} means going through it one by one.", "From memory I could be off by one.",
        "What decides is each new start of {one}.", "", "",
    ),
    "order": (
        "What matters is which sound starts when.", "The order of the starts decides this.",
        "Two sounds can be close, so the exact moments count.", "It comes down to who is earlier.",
        "I need the sequence of the sounds, not just what is in the clip.",
        "This is about order, so I look at starts.", "The starting times should settle this.",
        "Here the timing has to be exact.", "", "",
    ),
    "exists": (
        "The question is whether {one} is there at all.", "It takes only one {one} to say yes.",
        "I must not mistake something else for {one}.", "Either {one} can be heard or it cannot.",
        "A yes needs evidence, and so does a no.", "Let me not guess from what the rest sounds like.",
        "Whether {one} is present has to be heard.", "I listen for {one} and for nothing else.", "", "",
    ),
    "compare": (
        "The two have to be held against each other.", "This needs a direct comparison.",
        "One of them must stand out.", "I should hear both before I decide.",
        "The difference has to be audible.", "Comparing from memory is unreliable.",
        "Both are needed for a verdict.", "Which one it is must be heard.", "", "",
    ),
    "length": (
        "This is about time, so beginnings and ends matter.", "A length needs a start and an end.",
        "I have to measure instead of guessing.", "The borders of the sounds decide this.",
        "How long something takes is easily misjudged.", "Seconds are asked for, so I note the times.",
        "I need both ends of it.", "Durations call for a close listen.", "", "",
    ),
    "together": (
        "The question is what sounds at the same time.", "Sounds can overlap, so both borders matter.",
        "I need to know what else goes on just then.", "This is about simultaneous sounds.",
        "Whether they meet depends on when each one ends.", "Overlap has to be heard, not assumed.",
        "The start of one and the end of the other decide.", "Here two time spans are compared.", "", "",
    ),
    "kinds": (
        "I have to sort what is heard by kind.", "Repeats of one sound count once.",
        "Each new kind of sound adds one.", "The question is how much variety there is.",
        "What matters is which sounds differ.", "I keep a list of the kinds as I go.",
        "Only kinds count here, not single sounds.", "Every sound must be named once.", "", "",
    ),
    "speech": (
        "I need to tell the voices apart.", "This is about who speaks when.",
        "The voices have to be followed in turn.", "Who is speaking matters as much as what is said.",
        "I follow the conversation turn by turn.", "The roles show in the turns.",
        "Each change of voice matters here.", "To answer I must keep the speakers apart.", "", "",
    ),
    "music": (
        "This is about the music itself.", "The musical detail decides.", "I have to follow the music closely.",
        "Rhythm and harmony must be heard in time.", "A musical question calls for a careful listen.",
        "The changes in the music matter here.", "I keep track of the music moment by moment.",
        "What the music does there settles it.", "", "",
    ),
}  # fmt: skip

FULL_REASONS: Final[dict[str, tuple[str, ...]]] = {
    "count": (
        "To count I play", "I go through", "Let me count in", "I start with", "For the count I need",
        "So I replay", "I listen again to", "To get the number right I return to",
    ),
    "order": (
        "To settle the order I play", "I go back to", "Let me hear", "So I replay", "The order should show in",
        "I listen again to", "For the order I need", "To be exact I return to",
    ),
    "exists": (
        "I look for it in", "To find out I play", "Let me search", "So I replay", "I listen again to",
        "I go through", "If it is there, it is in", "To be sure I return to",
    ),
    "compare": (
        "To compare I play", "I go back to", "Let me hear both in", "So I replay", "I listen again to",
        "For a fair comparison I return to", "The comparison rests on", "For this I need",
    ),
    "length": (
        "To measure it I play", "I go back to", "Let me time it in", "So I replay", "I listen again to",
        "The times should be clear in", "For the length I return to", "For this I need",
    ),
    "together": (
        "To hear both I play", "I go back to", "Let me listen to", "So I replay", "I listen again to",
        "The place to check is", "For the overlap I return to", "What matters happens in",
    ),
    "kinds": (
        "To collect them I play", "I go through", "Let me list what is in", "So I replay", "I listen again to",
        "For the list I need", "I return to", "I sort what is in",
    ),
    "speech": (
        "To follow the voices I play", "I go back to", "Let me hear the speakers in", "So I replay",
        "I listen again to", "Who speaks shows in", "For the turns I return to", "For this I need",
    ),
    "music": (
        "To hear it I play", "I go back to", "Let me follow the music in", "So I replay", "I listen again to",
        "It should be clear in", "For the detail I return to", "For this I need",
    ),
}  # fmt: skip

FULL_LEADS: Final = (
    "where i hear", "where there is", "which brings", "where one hears", "which holds", "with", "where i notice",
    "where i make out", "which has",
)  # fmt: skip
I_LEADS: Final = (
    "and hear", "and there is", "and make out", "and notice", "and find", "and pick out", "and can tell",
)  # fmt: skip
"""Leads that need a sentence whose subject is "I"."""

FULL_NEXT: Final = (
    "Then I play", "Next comes", "After that I listen to", "I go on with", "The following part is",
    "Further on I play", "I continue with", "Now I turn to", "The next stretch is", "Then it is the turn of",
)  # fmt: skip

ASIDES: Final[dict[str, tuple[str, ...]]] = {
    "count": (
        "More {one} comes at {times}, which lies outside and does not count.",
        "What is heard of {one} at {times} is not in the part asked about.",
        "The {one} at {times} falls outside.", "At {times} there is {one} too, but that is elsewhere.",
        "Outside of it, {one} is heard at {times}.",
    ),
    "exists": (
        "The {one} that I know of comes at {times}, which is elsewhere.",
        "Only at {times} is {one} heard, outside of it.", "There is {one} at {times}, but that does not count.",
        "It is the part at {times} that has {one}, not this one.",
    ),
}  # fmt: skip

CHECKS: Final = (
    ("To be sure I also play", "and hear", ", which changes nothing."),
    ("For comparison I take in", "where i hear", ", and that does not affect it."),
    ("The rest,", "with", ", leaves the matter as it is."),
    ("As a check I replay", "which has", ", so nothing speaks against it."),
    ("Elsewhere, in", "there is", ", which is beside the point."),
    ("I also go over", "and find", ", none of which alters the result."),
    ("The remaining part", "brings", ", and that does not count here."),
    ("Just to be certain I listen to", "and there is", ", nothing that matters here."),
    ("Another part,", "has", ", which takes nothing away from it."),
    ("To leave nothing out I play", "where one hears", ", and it stays as it is."),
)  # fmt: skip

CLOSINGS: Final = (
    "So {end}.", "Therefore {end}.", "That means {end}.", "It follows that {end}.", "All in all, {end}.",
    "From this, {end}.", "Put together, {end}.", "As a result, {end}.", "I conclude that {end}.",
    "Hence {end}.", "This shows that {end}.", "With that, {end}.",
)  # fmt: skip
