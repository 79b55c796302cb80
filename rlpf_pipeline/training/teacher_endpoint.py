"""A teacher behind an OpenAI-compatible endpoint, by the client `openai` (extra `teacher`).

The key comes from OPENAI_API_KEY alone and is written nowhere. Every answer is kept in a JSON Lines file as it comes,
by a digest of what was asked: a run that was stopped, or one that asks for more, pays for no answer twice.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from rlpf_pipeline.digests import digest_of
from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.prompts import tidied
from rlpf_pipeline.training.teacher import Chat, Teacher

if TYPE_CHECKING:
    from openai import OpenAI

KEY = "OPENAI_API_KEY"
TIMEOUT_SECONDS = 60.0
RETRIES = 5
"""Of the client, for refusals by load (429), faults of the server (5xx) and lost connections, with growing pauses."""
SHOWN = 200
"""Characters that are told of a reply that is no chat completion."""


class Answers:
    """Answers by the digest of their request, in memory and, each flushed at once, in a file. Raises UserError where a
    line of that is damaged."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, Lock()
        written = path.read_bytes() if path.is_file() else b""
        # A kill while writing leaves a last line without its end.
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            os.truncate(path, len(whole))
        self.by_request: dict[str, str] = {}
        for number, line in enumerate(whole.split(b"\n")[:-1], start=1):
            try:
                self.by_request |= [json.loads(line)]
            except (ValueError, TypeError):
                raise UserError(
                    f"Line {number} of {path}, the teacher's answers so far, is damaged: {line[:SHOWN]!r}. Remove that "
                    "line: what it answered is asked for again."
                ) from None

    def add(self, request: str, answer: str) -> None:
        with self.lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)  # a cache that was emptied meanwhile
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([request, answer]) + "\n")
            self.by_request[request] = answer


def endpoint_teacher(
    settings: TeacherSettings,
    path: Path,
    on_progress: Callable[[int, int], None],
    on_known: Callable[[int], None] = lambda known: None,
) -> Teacher:
    """The teacher that `settings.endpoint` serves; its answers are kept in `path`.

    on_progress: hears how many chats are answered, of how many. on_known: how many were before any was asked.
    Raises UserError where the package or the key is missing, and where the endpoint refuses or stays silent.
    """
    client, key = make_client(settings), os.environ[KEY]
    answers = Answers(path)

    def answer(chats: Sequence[Chat]) -> list[str]:
        from openai import OpenAIError

        requests = [digest_of([settings.endpoint, *options(settings).values(), chat]) for chat in chats]
        missing = {own: chat for own, chat in zip(requests, chats, strict=True) if own not in answers.by_request}
        known = len(chats) - len(missing)
        on_known(known)
        on_progress(known, len(chats))
        pool = ThreadPoolExecutor(settings.concurrency)
        try:
            asked = [pool.submit(ask, client, settings, answers, own, chat) for own, chat in missing.items()]
            for done, future in enumerate(as_completed(asked), start=known + 1):
                future.result()
                on_progress(done, len(chats))
        except OpenAIError as error:
            # Not chained: a server's words may repeat the key.
            said = f"{error} ({error.__cause__})" if error.__cause__ else str(error)
            raise UserError(
                f"The teacher at {settings.endpoint} gave no answer: {said.replace(key, '…')} Check "
                f"teacher.endpoint, teacher.model and {KEY}. The answers so far are kept in {path}; the next run asks "
                "for the others only."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)
        return [answers.by_request[own] for own in requests]

    return answer


def make_client(settings: TeacherSettings) -> OpenAI:
    """The client, with the key of the environment. Raises UserError where the package or the key is missing."""
    try:
        from openai import OpenAI
    except ModuleNotFoundError as error:
        raise UserError(
            "teacher.endpoint needs the package openai, which is not installed. In the project's folder: "
            "pip install -c constraints.txt openai"
        ) from error
    if not os.environ.get(KEY):
        raise UserError(f"Set {KEY} to the key of {settings.endpoint}; where it asks for none, to any word.")
    if not re.fullmatch("[!-~]+", os.environ[KEY]):
        raise UserError(
            f"{KEY} holds a space, a line break or a letter beyond ASCII, such as a curly quote, as no key does. Copy "
            "the key anew, without what stands around it."
        )
    return OpenAI(base_url=settings.endpoint, api_key=os.environ[KEY], timeout=TIMEOUT_SECONDS, max_retries=RETRIES)


def options(settings: TeacherSettings) -> dict[str, object]:
    return {"model": settings.model, "temperature": settings.temperature, "max_tokens": settings.max_new_tokens}


def ask(client: OpenAI, settings: TeacherSettings, answers: Answers, request: str, chat: Chat) -> None:
    """Ask for one rewrite and keep it; one that was cut off at the length limit is kept as an empty text."""
    from openai import OpenAIError

    create = client.chat.completions.with_raw_response.create
    reply: bytes = create(messages=chat, **options(settings)).content  # type: ignore[call-overload]
    try:
        answers.add(request, finished_text(reply))
    except (ValueError, LookupError, TypeError, AttributeError):
        said = reply.decode(errors="replace").replace(client.api_key, "…")
        raise OpenAIError(f"its reply is no chat completion: {said[:SHOWN]!r}.") from None


def finished_text(reply: bytes) -> str:
    """The text of a chat completion, without halves of characters; empty where it was not finished."""
    choice = json.loads(reply)["choices"][0]
    written = choice["message"].get("content") or ""
    return tidied(written.encode(errors="ignore").decode()) if choice.get("finish_reason") == "stop" else ""
