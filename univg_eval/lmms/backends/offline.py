"""What the backends without a network have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from univg_eval.errors import UserError
from univg_eval.lmms.docs import SampleDocs
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.samples import GroundingSample

__all__ = ["OfflineModel"]


class OfflineModel(lmms):
    """A simple backend that answers from the sample's id or its truth, and opens no image."""

    is_simple = True

    def sample_of(self, request: Instance) -> GroundingSample:
        """The sample that a request asks about.

        Raises:
            UserError: the request comes from a task of another project.
        """
        *_, doc_id, task, split = request.args
        docs = self.task_dict[task][split]
        if not isinstance(docs, SampleDocs):
            raise UserError(
                f"task {task!r} does not belong to univg; univg_baseline and univg_replay know "
                "the samples of `univg tasks` alone"
            )
        return GroundingSample.from_dict(docs[doc_id], where=str(task))

    @user_errors_stop()
    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Not offered: the tasks of univg have one round."""
        raise _foreign("several rounds")

    @user_errors_stop()
    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Not offered: the tasks of univg generate."""
        raise _foreign("likelihoods")


def _foreign(what: str) -> UserError:
    return UserError(
        "univg_baseline and univg_replay answer the tasks of univg alone, and none of them needs "
        f"{what}; take these tasks out of --tasks"
    )
