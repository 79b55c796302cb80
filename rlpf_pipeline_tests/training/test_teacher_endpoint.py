"""The teacher behind an endpoint, against a small server on this machine that speaks the chat-completions form."""

import json
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlpf_pipeline.errors import UserError
from rlpf_pipeline.settings import TeacherSettings
from rlpf_pipeline.training.teacher import request
from rlpf_pipeline.training.teacher_endpoint import KEY, endpoint_teacher

PLANTED = "sk-very-secret-4711"
Reply = Callable[[int, dict[str, object]], tuple[int, dict[str, object] | bytes]]


class Server:
    """Answers the nth request by `reply(n, body)`; remembers what it was asked and how many at a time."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.lock = reply, threading.Lock()
        self.bodies: list[dict[str, object]] = []
        self.keys: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.url = ""


def completion(text: str | None, reason: str = "stop") -> tuple[int, dict[str, object]]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def echo(number: int, body: dict[str, object]) -> tuple[int, dict[str, object]]:
    return completion(f'"About: {body["messages"][1]["content"]}"\n')  # type: ignore[index]


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Reply], Server]]:
    """Starts servers, each with its own way to reply; they end with the test."""
    monkeypatch.setenv(KEY, PLANTED)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = []

    def start(reply: Reply) -> Server:
        server = Server(reply)
        http = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
        threading.Thread(target=http.serve_forever, daemon=True).start()
        running.append(http)
        server.url = f"http://127.0.0.1:{http.server_port}/v1"
        return server

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with counted(server):
                number = len(server.bodies)
                server.bodies.append(body)
                server.keys.add(self.headers["Authorization"])
                status, reply = server.reply(number, body)
            content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status if self.path == "/v1/chat/completions" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler


@contextmanager
def counted(server: Server) -> Iterator[None]:
    with server.lock:
        server.at_once += 1
        server.most_at_once = max(server.most_at_once, server.at_once)
    yield
    with server.lock:
        server.at_once -= 1


def settings(server: Server, **others: object) -> TeacherSettings:
    return TeacherSettings.model_validate({"endpoint": server.url, "model": "large", **others})


def ask(server: Server, path: Path, texts: list[str], **others: object) -> list[str]:
    teacher = endpoint_teacher(settings(server, **others), path, lambda done, total: None)
    return teacher([request("Shorten", text) for text in texts])


def test_every_chat_is_answered_in_its_place(serving: Callable[[Reply], Server], tmp_path: Path) -> None:
    server = serving(echo)
    texts = [f"Ad {number}" for number in range(20)]
    said = []
    teacher = endpoint_teacher(settings(server, concurrency=3), tmp_path / "a.jsonl", lambda *own: said.append(own))
    assert teacher([request("Shorten", text) for text in texts]) == [f"About: Shorten: {text}" for text in texts]
    assert server.most_at_once <= 3
    assert said == [(done, 20) for done in range(21)]
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("large", 0.7, 32)
    assert server.keys == {f"Bearer {PLANTED}"}


def test_a_busy_or_broken_server_is_asked_again(serving: Callable[[Reply], Server], tmp_path: Path) -> None:
    refusals = {0: (429, {"error": {"message": "slow down"}}), 1: (500, {"error": {"message": "oops"}})}
    server = serving(lambda number, body: refusals.get(number) or echo(number, body))
    assert ask(server, tmp_path / "a.jsonl", ["Ad"]) == ["About: Shorten: Ad"]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("reply", [completion("Half a", "length"), completion(None, "content_filter")])
def test_an_answer_that_was_cut_off_or_withheld_is_an_empty_text(
    serving: Callable[[Reply], Server], tmp_path: Path, reply: tuple[int, dict[str, object]]
) -> None:
    assert ask(serving(lambda *_: reply), tmp_path / "a.jsonl", ["Ad"]) == [""]


def test_no_answer_is_paid_for_twice(serving: Callable[[Reply], Server], tmp_path: Path) -> None:
    path, texts = tmp_path / "a.jsonl", ["one", "two", "three", "four"]
    server = serving(lambda number, body: echo(number, body) if number < 2 else (400, {"error": {"message": "no"}}))
    with pytest.raises(UserError, match="The answers so far are kept"):
        ask(server, path, texts, concurrency=1)
    path.write_text(path.read_text() + '["torn')  # killed while it wrote
    server.reply = echo
    server.bodies.clear()
    assert ask(server, path, texts) == [f"About: Shorten: {text}" for text in texts]
    assert sorted(body["messages"][1]["content"] for body in server.bodies) == [  # type: ignore[index]
        "Shorten: four",
        "Shorten: three",
    ]
    server.bodies.clear()
    assert ask(server, path, [*texts, "five"])[-1] == "About: Shorten: five"
    assert len(server.bodies) == 1
    assert ask(server, path, ["one"], temperature=0.1) == ["About: Shorten: one"]
    assert len(server.bodies) == 2


def test_a_cache_that_is_emptied_while_the_teacher_answers_costs_no_answer_of_this_run(
    serving: Callable[[Reply], Server], tmp_path: Path
) -> None:
    path, texts = tmp_path / "cache" / "a.jsonl", ["one", "two", "three"]

    def emptied(number: int, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        if number == 1:
            shutil.rmtree(path.parent)
        return echo(number, body)

    server = serving(emptied)
    assert ask(server, path, texts, concurrency=1) == [f"About: Shorten: {text}" for text in texts]
    assert len(path.read_text().splitlines()) == 2
    assert len(server.bodies) == 3


@pytest.mark.parametrize("line", ['["torn["whole", "an answer"]', "\0\0\0", "[1]", "7"])
def test_a_damaged_line_of_the_answers_is_named(line: str, serving: Callable[[Reply], Server], tmp_path: Path) -> None:
    """As where the file was cut short while another answer came, or by a power cut."""
    server, path = serving(echo), tmp_path / "answers.jsonl"
    ask(server, path, ["Sofas for every room"])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match=rf"^Line 2 of {path}, .* is damaged: .*Remove that line: .* asked for again"):
        ask(server, path, ["Sofas for every room"])


def test_answers_that_were_known_are_told_before_any_is_asked(
    serving: Callable[[Reply], Server], tmp_path: Path
) -> None:
    server, path, known = serving(echo), tmp_path / "a.jsonl", []
    ask(server, path, ["one", "two"])
    teacher = endpoint_teacher(settings(server), path, lambda done, total: None, known.append)
    teacher([request("Shorten", text) for text in ("one", "two", "three")])
    assert known == [2]


def test_the_key_appears_nowhere(
    serving: Callable[[Reply], Server],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    told = serving(lambda *_: (401, {"error": {"message": f"Incorrect API key provided: {PLANTED}"}}))
    with pytest.raises(UserError, match="Incorrect API key provided: …") as caught:
        ask(told, tmp_path / "a.jsonl", ["Ad"])
    assert caught.value.__cause__ is None
    server = serving(echo)
    ask(server, tmp_path / "a.jsonl", ["Ad"])
    out, err = capfd.readouterr()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "About: Shorten: Ad" in written
    assert PLANTED not in "".join(
        [written, caplog.text, out, err, settings(server).model_dump_json(), str(caught.value)]
    )


@pytest.mark.parametrize(
    "reply",
    [
        {"hello": "world"},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{"finish_reason": "stop", "message": None}]},
        {"choices": [{"finish_reason": "stop", "message": {"content": [{"type": "text", "text": "Ad"}]}}]},
        {"error": {"message": "model overloaded"}},
        b"",
        b'{"choices": nope',
        '{"choices": [{"finish_reason": "stop", "message": {"content": "Café"}}]}'.encode("latin-1"),
    ],
)
def test_what_is_no_chat_completion_is_shown(
    serving: Callable[[Reply], Server], tmp_path: Path, reply: dict[str, object] | bytes
) -> None:
    with pytest.raises(UserError, match="no chat completion") as caught:
        ask(serving(lambda *_: (200, reply)), tmp_path / "a.jsonl", ["Ad"])
    assert "overloaded" not in str(reply) or "model overloaded" in str(caught.value)


def test_a_reply_that_is_shown_does_not_show_the_key(serving: Callable[[Reply], Server], tmp_path: Path) -> None:
    for before in range(180, 202, 3):
        with pytest.raises(UserError) as caught:
            ask(serving(lambda *_, n=before: (200, b"x" * n + PLANTED.encode())), tmp_path / "a.jsonl", ["Ad"])
        assert "sk-" not in str(caught.value)


def test_half_a_character_at_the_end_of_an_answer_is_left_out(
    serving: Callable[[Reply], Server], tmp_path: Path
) -> None:
    (text,) = ask(serving(lambda *_: completion("Bread today \ud83d")), tmp_path / "a.jsonl", ["Ad"])
    assert text == "Bread today"


@pytest.mark.parametrize("key", ["“sk-4711”", "sk-4711\n", "sk-4711\r", " sk-4711"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(
    serving: Callable[[Reply], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    server = serving(echo)
    monkeypatch.setenv(KEY, key)
    with pytest.raises(UserError, match="Copy the key anew") as caught:
        ask(server, tmp_path / "a.jsonl", ["Ad"])
    assert "4711" not in str(caught.value)
    assert not server.bodies


def test_a_missing_key_or_package_is_named(
    serving: Callable[[Reply], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(echo)
    monkeypatch.delenv(KEY)
    with pytest.raises(UserError, match=f"Set {KEY}"):
        ask(server, tmp_path / "a.jsonl", ["Ad"])
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"pip install -c constraints.txt openai"):
        ask(server, tmp_path / "a.jsonl", ["Ad"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "http://localhost/v1"},
        {"endpoint": "https://user:secret@host/v1", "model": "m"},
        {"endpoint": "https://host/v1?key=secret", "model": "m"},
        {"endpoint": "http://[::1/v1", "model": "m"},
        {"endpoint": "http://host:port/v1", "model": "m"},
        {"endpoint": "http:///v1", "model": "m"},
    ],
    ids=["no model", "a key before the host", "a key in the query", "half an address", "no port", "no host"],
)
def test_settings_that_cannot_work_or_would_leak_a_key_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TeacherSettings.model_validate(wrong)
