"""The page of a study, for one reader: a picture, a guess, a confidence, the next picture."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from synthct.publish.pages.server import Site
from synthct.publish.pages.template import PAGES, asset, fill_template, policy_of
from synthct.studies.readers.result import result_markdown, write_result
from synthct.studies.readers.study import CONFIDENCE, Answer, StudyFolder

_HERE = "synthct.studies.readers"


def site(study: StudyFolder, reader: str) -> Site:
    """The page of a reader, which goes on after the last answer.

    Raises:
        RecipeError: If the reader's name is none for a file.
    """
    style, script = asset("page.css", PAGES), asset("page.js", _HERE)
    policy = f"{policy_of(style, script)}; connect-src 'self'"
    values = {
        "title": "Real or painted?",
        "policy": policy,
        "style": style,
        "script": script,
        "confidence": CONFIDENCE,
    }
    study.answers_of(reader)

    def item(number: int) -> dict[str, Any]:
        """The first picture without an answer, whatever is asked for; or the result."""
        del number
        return _next(study, reader)

    def answer(given: Mapping[str, Any]) -> dict[str, Any]:
        """Take an answer; gives what comes next."""
        name = given.get("picture")
        if name not in study.names:
            raise ValueError(f"picture {name} is none of this study")
        try:
            one = Answer.model_validate({k: v for k, v in given.items() if k != "picture"})
        except ValidationError as err:
            raise ValueError("an answer has picture, guess and confidence") from err
        study.add_answers(reader, {name: one})
        return _next(study, reader)

    return Site(fill_template(values, _HERE), policy, item, answer)


def _next(study: StudyFolder, reader: str) -> dict[str, Any]:
    given = study.answers_of(reader)
    left = [name for name in study.names if name not in given]
    if not left:
        return {"result": result_markdown(write_result(study))}
    picture = base64.b64encode(study.picture(left[0])).decode()
    return {
        "picture": left[0],
        "uri": f"data:image/png;base64,{picture}",
        "done": len(given),
        "total": len(study.names),
    }
