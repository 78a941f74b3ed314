"""What is fixed and known of AMBER."""

from __future__ import annotations

from vlmlens.samples import Sample
from vlmlens_plugins.benchmarks.amber import captions
from vlmlens_plugins.benchmarks.amber.metrics import CAPTION, Amber, OfTask
from vlmlens_plugins.benchmarks.card import OFFICIAL, STRICT, Card, Prompt, Read, Rule, exact
from vlmlens_plugins.benchmarks.reading import first_yes_no
from vlmlens_plugins.benchmarks.toolkits import vlmevalkit_yes_no

_YES_NO = "\nPlease answer yes or no."


def _vlmevalkit(sample: Sample) -> str:
    return sample.prompt if sample.task == CAPTION else sample.prompt + _YES_NO


def _lmms_eval(sample: Sample) -> str:
    return sample.prompt.rstrip(".") if sample.task == CAPTION else sample.prompt


def _as_written(text: str, sample: Sample) -> str | None:
    """`Yes` or `No`, and nothing else at all."""
    del sample
    return text.lower() if text in ("Yes", "No") else None


def _within(text: str, sample: Sample) -> str | None:
    """The letters yes anywhere, else the letters no anywhere."""
    del sample
    return next((said for said in ("yes", "no") if said in text.lower()), None)


def _rule(reader: captions.Reader, read: Read, about: str, metrics: Amber | None = None) -> Rule:
    """A rule for captions, by a reader, and for questions."""

    def either(text: str, sample: Sample) -> str | None:
        if sample.task != CAPTION:
            return read(text, sample)
        return ", ".join(reader.said(text, sample)) if text.strip() else None

    def credit(said: str | None, sample: Sample) -> float:
        if sample.task != CAPTION:
            return exact(said, sample)
        return float(not reader.wrong(tuple(filter(None, (said or "").split(", "))), sample))

    needs = captions.check if reader is captions.OFFICIAL else None
    of_task = None if metrics is None else OfTask(metrics)
    return Rule(either, credit, metrics, about, task_metrics=of_task, needs=needs)


_WHOLE = Amber(captions.STRICT)

CARD = Card(
    name="amber",
    title="AMBER",
    paper="arXiv 2311.07397",
    licence="Apache-2.0; the pictures are a download of their own",
    prompts={
        OFFICIAL: Prompt(),
        "lmms-eval": Prompt(write=_lmms_eval),
        "vlmevalkit": Prompt(_YES_NO, _vlmevalkit),
    },
    rules={
        STRICT: _rule(
            captions.STRICT,
            first_yes_no,
            "Questions: the first word. Captions: the words of relation.json themselves, in "
            "singular and regular plural, whatever part of speech; what is related is looked up "
            "there, and no vectors are asked. So CHAIR is higher than by the authors' script.",
        ),
        OFFICIAL: _rule(
            captions.OFFICIAL,
            _as_written,
            "The authors' script. Questions: exactly Yes or No, without a stop. Captions: nouns by "
            "NLTK's tagger, as they are spelled ('Sky' is none), and spaCy's en_core_web_lg for "
            "words of like meaning; both must be installed.",
            Amber(captions.OFFICIAL, printed=True),
        ),
        "lmms-eval": _rule(
            captions.OFFICIAL,
            _within,
            "lmms-eval's amber_g has captions only, read as the authors do, but with whichever "
            "vectors of spaCy it finds; here always en_core_web_lg. Its code for questions looks "
            "for the letters yes, then no: 'I do not know' is no. It marks cog as better when "
            "higher, which is wrong.",
            Amber(captions.OFFICIAL),
        ),
        "vlmevalkit": _rule(
            captions.STRICT,
            vlmevalkit_yes_no,
            "VLMEvalKit has questions only: exactly one of the words yes and no occurs. Else it "
            "asks a judge; here nothing is read. Its 'Avg ACC' is mean_accuracy.",
        ),
    },
    metrics=_WHOLE,
    headline="score",
    task_metrics=OfTask(_WHOLE),
    units={"amber": "points", "score": "points"},
    lower_is_better=frozenset({"chair", "hal", "cog"}),
    max_new_tokens=512,
    constants=("Yes", "No"),
    shortcuts=(
        "All 4,924 questions of existence have the answer no: who always says no is right in all "
        "of them, and in 66.3 % of the 14,216 questions.",
        "All 975 questions of the type discriminative-relation have the answer yes, all 689 of the "
        "type relation the answer no.",
        "CHAIR, hal and cog of captions that name nothing are 0: read them beside cover. Who says "
        "no to everything, captions too, has a score of 89.9.",
    ),
    faults=(
        "10 pairs of image and question occur twice.",
        "In 14 captions a truth is listed twice; the second can never be covered.",
        "The authors' script evaluates metrics.txt as code; it is not read here.",
        "The paper divides cog by the objects of the caption; the script by the listed words.",
        "lmms-eval adds 0.001 to each denominator once per caption, where the authors' script adds "
        "it once: its hal is at least 0.1. Here the rule lmms-eval adds nothing.",
    ),
)
