"""Tells the operator, in the diagnostics, which builds are brought to accounts of clouds, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from coordinator.core.model import SECOND_US, Upload, UploadKey

SHORT_DIGEST = 12
"""Characters of a digest that tell builds apart, as in the agents' diagnostics."""


class UploadStory:
    """Follows uploads through the commits."""

    def __init__(self) -> None:
        self._out = structlog.get_logger("coordinator")
        self._begun: dict[UploadKey, Upload] = {}

    def tell_restored(self, uploads: Iterable[Upload]) -> None:
        """Tell which uploads an earlier life knew to be under way."""
        for upload in uploads:
            if upload.end_us is None:
                self._begun[upload.key] = upload
                story = f"{upload.agent} was uploading this build in an earlier life, and keeps the claim for a while"
                self._out.info("upload_taken_up", story=story, **_fields(upload))

    def tell(self, upload: Upload) -> None:
        """Tell what one commit has changed."""
        if upload.end_us is None:
            self._begun[upload.key] = upload
            self._out.info("upload_begun", **_fields(upload))
            return
        begun = self._begun.pop(upload.key, None)
        if upload.url and begun is not None:
            took_s = round((upload.end_us - begun.begin_us) / SECOND_US, 1)
            self._out.info("upload_done", url=upload.url, took_s=took_s, **_fields(upload))
        elif upload.url:
            self._out.debug("build_found", url=upload.url, **_fields(upload))
        elif begun is not None:  # else it was forgotten, being of long ago
            story = f"{upload.agent} ended its claim or stayed away, and the build is not there; the next may upload"
            self._out.warning("upload_given_up", story=story, **_fields(upload))


def _fields(upload: Upload) -> dict[str, str]:
    return {"account": upload.account, "build": upload.digest[:SHORT_DIGEST], "agent": upload.agent}
