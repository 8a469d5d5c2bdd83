"""What the backends of this project have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from univg_eval.errors import UserError
from univg_eval.lmms.docs import SampleDocs
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.samples import GroundingSample

__all__ = ["SampleModel"]


class SampleModel(lmms):
    """A simple backend that answers the samples of this project's tasks, and no other request."""

    is_simple = True
    device = torch.device("cpu")
    """Where lmms-eval puts what several processes exchange."""

    def sample_of(self, request: Instance) -> GroundingSample:
        """The sample that a request asks about.

        Raises:
            UserError: the request comes from a task of another project.
        """
        *_, doc_id, task, split = request.args
        docs = self.task_dict[task][split]
        if not isinstance(docs, SampleDocs):
            raise UserError(
                f"task {task!r} does not belong to univg; the backends univg, univg_baseline and "
                "univg_replay know the samples of `univg tasks` alone"
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
        "the backends univg, univg_baseline and univg_replay answer the tasks of univg alone, and "
        f"none of them needs {what}; take these tasks out of --tasks"
    )
