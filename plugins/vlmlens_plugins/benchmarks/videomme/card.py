"""The card of Video-MME."""

from __future__ import annotations

from vlmlens_plugins.benchmarks.card import Card, Reference, Rule
from vlmlens_plugins.benchmarks.counting import MeanCredit
from vlmlens_plugins.benchmarks.reading import first_letter
from vlmlens_plugins.benchmarks.videomme.asked import PROMPTS
from vlmlens_plugins.benchmarks.videomme.letters import authors_letter, kit_letter, lmms_letter
from vlmlens_plugins.benchmarks.videomme.vocabulary import parts

_VENDOR = "the vendor's own setting"
_FRAMES = "120 frames of 224 x 224"

CARD = Card(
    name="videomme",
    title="Video-MME",
    paper="arXiv 2405.21075",
    licence="academic use only; the videos may not be passed on",
    prompts=PROMPTS,
    rules={
        "strict": Rule(first_letter, about="a letter at the start: B, (B), B."),
        "official": Rule(
            authors_letter,
            metrics=MeanCredit("overall", parts(), parsed_only=True),
            task_metrics=MeanCredit(parsed_only=True),
            about="as read in public copies of the authors' script: the first capital A to D, "
            "after four beginnings such as 'The answer is' are cut ('Best answer: C' reads as B). "
            "Answers without one are left out of the score",
        ),
        "lmms-eval": Rule(
            lmms_letter,
            about="the surest mark of a letter: at the start, at the end, behind 'answer is', (A), "
            "A., ...; at last any capital A to D",
        ),
        "vlmevalkit": Rule(
            kit_letter,
            about="without a judge; the first capital A to D after six beginnings are cut. Two "
            "commas are missing in its list, so that four more beginnings never match",
        ),
    },
    metrics=MeanCredit("overall", parts()),
    headline="overall",
    task_metrics=MeanCredit(),
    groups="a video",
    constants=("A", "B", "C", "D"),
    shortcuts=(
        "Many questions are answered from their text and the subtitles alone: score the blind "
        "condition beside.",
    ),
    faults=(
        "Scores depend on the number and size of frames, and on which subtitles are shown: "
        "compare only figures of one setting.",
        "lmms-eval's prompt speaks of subtitles also where there are none. With subtitles, it "
        "shows those of 32 frames, whatever frames the model sees. A wrong path gave scores "
        "without subtitles, and no error (lmms-eval PR#249).",
        "A model that writes '!!!!' to every question was scored 23.5 (LongVA#33): look at the "
        "unparsed answers.",
    ),
    references=(
        Reference("Qwen2-VL-7B", "overall", 63.3, f"without subtitles; {_VENDOR}", "model card"),
        Reference("Qwen2-VL-7B", "overall", 69.0, f"with subtitles; {_VENDOR}", "model card"),
        Reference("Qwen2-VL-7B", "overall", 58.2, f"without subtitles; {_FRAMES}", "Qwen3-VL#517"),
        Reference("Qwen2-VL-7B", "overall", 64.1, f"with subtitles; {_FRAMES}", "Qwen3-VL#517"),
    ),
)
