"""The analysis: train one part of the model, and measure again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from vlmlens.abc import Analysis, AnalysisContext, ModelAdapter, Options
from vlmlens.abc.analysis import MODEL
from vlmlens.errors import CompositionError
from vlmlens.results import Result
from vlmlens.samples import Sample
from vlmlens_plugins.analysis._sweeps.sweeping import heard
from vlmlens_plugins.analysis._tasks import rows_by_task
from vlmlens_plugins.analysis._tuning.dividing import Divided, divided, usable
from vlmlens_plugins.analysis._tuning.gains import Gain, gain
from vlmlens_plugins.analysis._tuning.measuring import Answers, Examiner
from vlmlens_plugins.analysis.tune.options import TuneOptions
from vlmlens_plugins.analysis.tune.report import report
from vlmlens_plugins.analysis.tune.trainings import Trainings, Tuning, folder_of


class Tune(Analysis):
    """How much better answers become if one component of the model is trained."""

    Options: ClassVar[type[Options]] = TuneOptions
    options: TuneOptions

    def uses(self, samples: Sequence[Sample]) -> frozenset[str]:
        """See `Analysis.uses`."""
        del samples
        return frozenset({MODEL})

    def check(self, samples: Sequence[Sample], columns: Sequence[str]) -> None:
        """See `Analysis.check`: component and method fit, and there are enough labels."""
        del columns
        _ = self.options.trainable
        self._divided(samples, 0)

    def check_model(
        self, skeleton: ModelAdapter, samples: Sequence[Sample], columns: Sequence[str]
    ) -> None:
        """See `Analysis.check_model`: the model writes, and has the component."""
        del samples, columns
        if skeleton.choice_scores(()) is not None:
            raise CompositionError(
                "This model compares choices and writes nothing, so no answer can be learned.",
                subject="model",
                hint="Choose a model that writes.",
            )
        self.options.trainable.check(skeleton)

    def cost(self, skeleton: ModelAdapter, samples: Sequence[Sample]) -> str:
        """See `Analysis.cost`."""
        del skeleton
        found, chosen = self._divided(samples, 0), self.options
        trainings = chosen.seeds + chosen.control
        learned = trainings * chosen.epochs * len(found.train)
        passes = trainings * (chosen.epochs + 1) * len(found.held)
        passes += (3 + trainings) * len(found.test)
        return f"at most {learned:,} samples with gradients, and {passes:,} without"

    def run(self, context: AnalysisContext) -> Result:
        """See `Analysis.run`."""
        self.check(context.samples, ())
        told, warnings = heard(context)
        vlm = context.model()
        if vlm.active_edits:
            raise CompositionError(
                "A model that is edited is not trained: what is learned would be of use under the "
                "same edits only.",
                subject="edits",
                hint="Leave --edit out, and edit the tuned model: --tuned RUN --edit ...",
            )
        found = self._divided(context.samples, context.seed)
        known = usable(context.samples)
        if lost := len(context.samples) - len(known):
            told.warn(f"{lost} samples are left out: no label, or none of their choices.")
        most = self.options.max_new_tokens
        examiner = Examiner(told, vlm, found.test, known, max_new_tokens=most)
        before, blind = examiner.ask(), examiner.ask(blind=True)
        with folder_of(told) as folder:
            work = Trainings(told, vlm, self.options, found, examiner, folder)
            tunings = [work.trained(i, save=i == 0) for i in range(self.options.seeds)]
            control = work.trained(0, shuffled=True) if self.options.control else None
            gains = self._gains(context.seed, found, (before, blind), tunings[0], control)
            result = report(self.options, found, gains, before, tunings, control, warnings)
            work.clean_up()
        return result

    def _divided(self, samples: Sequence[Sample], seed: int) -> Divided:
        chosen = self.options
        return divided(
            samples, tasks=chosen.task, shares=chosen.shares, most=chosen.samples,
            tests=chosen.tests, seed=seed,
        )  # fmt: skip

    def _gains(
        self,
        seed: int,
        found: Divided,
        before: tuple[Answers, Answers],
        tuning: Tuning,
        control: Tuning | None,
    ) -> list[Gain]:
        """By task, those that are trained first."""
        measured = {"before": before[0], "blind before": before[1], "after": tuning.answers}
        if tuning.blind is not None:
            measured["blind after"] = tuning.blind
        if control is not None:
            measured["control"] = control.answers
        tasks = rows_by_task(found.test)
        order = sorted(tasks, key=lambda task: task not in found.tasks)
        return [
            gain(
                task,
                found.test,
                measured,
                tasks[task],
                trained=task in found.tasks,
                draws=self.options.draws,
                seed=seed,
            )
            for task in order
        ]
