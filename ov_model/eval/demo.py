"""The benchmark that ships with the project: multiple-choice questions on the demo's clips, scored offline."""

from __future__ import annotations

import json
from pathlib import Path

from ov_model.demo import keep_or_write, write_videos
from ov_model.eval.benchmarks import Places

TASK_FOLDER = Path(__file__).parent / "demo_task"

# (video, question, options, index of the right one), written down after looking at the frames.
_QUESTIONS: tuple[tuple[str, str, tuple[str, str, str, str], int], ...] = (
    (
        "bikes.mp4",
        "Which word stands on the roof of a car?",
        ("POLICE", "BUS", "TAXI", "TOURS"),
        2,
    ),
    (
        "bikes.mp4",
        "What leans against the house wall in the last scene?",
        ("A bicycle", "A ladder", "A surfboard", "An umbrella"),
        0,
    ),
    (
        "bikes.mp4",
        "From where does the camera look at the vehicle in the first scene?",
        ("From inside it", "From below", "From behind a window", "From straight above"),
        3,
    ),
    (
        "bigbuckbunny.mp4",
        "Out of what does the rabbit crawl?",
        ("A lake", "A burrow under a mound", "A wooden box", "A tree"),
        1,
    ),
    (
        "bigbuckbunny.mp4",
        "What does the rabbit do after it has stood up?",
        ("It stretches and yawns", "It runs away", "It eats a carrot", "It lies down again"),
        0,
    ),
    (
        "bigbuckbunny.mp4",
        "How was this video made?",
        ("Drawn on paper", "Filmed in a forest", "As computer animation", "With clay figures"),
        2,
    ),
    (
        "carphone_pristine.mp4",
        "Where is the man?",
        ("In an office", "In a car", "On a beach", "In a kitchen"),
        1,
    ),
    (
        "carphone_pristine.mp4",
        "What does the man wear at his neck?",
        ("A scarf", "A necklace", "Nothing", "A red bow tie"),
        3,
    ),
    (
        "carphone_pristine.mp4",
        "What does he do?",
        ("He sleeps", "He talks", "He reads a book", "He paints"),
        1,
    ),
    (
        "cyclist_hevc.mp4",
        "What does the cyclist wear on his head?",
        ("A straw hat", "A hood", "A bicycle helmet", "A crown"),
        2,
    ),
    (
        "cyclist_hevc.mp4",
        "What hides the cyclist for a while?",
        ("Passing vehicles", "Fog", "A closing door", "A crowd of children"),
        0,
    ),
    (
        "cyclist_hevc.mp4",
        "What does the cyclist do at the end of the clip?",
        ("He falls", "He rides away", "He dances", "He still stands there, a hand on a pole"),
        3,
    ),
)


def build(places: Places) -> None:
    """Write the clips and the questions where lmms-eval looks for them; what is there already stays untouched.

    Raises:
        UsageError: the wheel that holds the clips is not installed.
    """
    write_videos(places.videos / "videos")
    lines = [
        json.dumps(
            {"video": f"videos/{video}", "question": question, "options": options, "answer": "ABCD"[right]},
            ensure_ascii=False,
        )
        for video, question, options, right in _QUESTIONS
    ]
    keep_or_write(places.dataset / "test.jsonl", ("\n".join(lines) + "\n").encode())
