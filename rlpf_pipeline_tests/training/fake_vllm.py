"""Stands in for the command `vllm`: serves what of its API is used, and keeps what it was asked in `asked.jsonl` beside
the model. FAKE_VLLM: how it fails.

A text is 300 and its place among the prompt's, the seed's last digits, the adapter's number and the end mark; choices
come in no order.
"""

import hashlib
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = Path(sys.argv[2])
OPTIONS = dict(word.removeprefix("--").split("=") for word in sys.argv[3:] if "=" in word)
ASKED = MODEL.parent / "asked.jsonl"
ADAPTERS: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            return self.reply(401, {"error": "Unauthorized"})
        with ASKED.open("a") as file:
            file.write(json.dumps(body) + "\n")
        if "lora_path" in body:
            weights = (Path(body["lora_path"]) / "adapter_model.safetensors").read_bytes()
            ADAPTERS[body["lora_name"]] = hashlib.sha256(weights).hexdigest()
            return self.reply(200, {})
        if "lora_name" in body:
            del ADAPTERS[body["lora_name"]]
            return self.reply(200, {})
        if os.environ.get("FAKE_VLLM") == "refuses":
            return self.reply(500, {"error": "out of memory"})
        number = int(ADAPTERS[body["model"]], 16) % 200
        ids = [[300 + index, body["seed"] % 200, number, *body["stop_token_ids"]] for index in range(body["n"])]
        choices = [{"index": index, "token_ids": own[: body["max_tokens"]]} for index, own in enumerate(ids)]
        return self.reply(200, {"choices": choices[::-1]})

    def reply(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


if os.environ.get("FAKE_VLLM") == "does not start":
    sys.exit("no room for the cache")
ThreadingHTTPServer((OPTIONS["host"], int(OPTIONS["port"])), Handler).serve_forever()
