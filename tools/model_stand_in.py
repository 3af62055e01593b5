"""A stand-in for the APIs of OpenAI and Anthropic, which says that it is one."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Between two words, so that one sees an answer come in.
PAUSE_SECONDS = 0.03


@contextmanager
def served() -> Iterator[str]:
    """Serves the stand-in on a free port of this machine.

    Yields:
        Its address, for `AI_GATEWAY_BASE_URL`.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers a request for text with text, one with a JSON schema with JSON."""

    def do_POST(self) -> None:
        """Answers as the API does whose path is asked for."""
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length))
        is_anthropic = self.path.endswith("/messages")
        if not is_anthropic and not self.path.endswith("/chat/completions"):
            self.send_error(404)
        elif body.get("stream"):
            text = answer(body)
            self.stream(anthropic_events(text) if is_anthropic else openai_events(text))
        else:
            text = (
                json.dumps(example(schema_of(body)))
                if schema_of(body)
                else answer(body)
            )
            self.send_json(
                anthropic_message(text) if is_anthropic else completion(text)
            )

    def send_json(self, body: dict) -> None:
        """Sends a whole answer."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def stream(self, events: Iterator[tuple[str, dict | str]]) -> None:
        """Sends server-sent events, until the client goes away."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for name, data in events:
                text = data if isinstance(data, str) else json.dumps(data)
                self.wfile.write(f"event: {name}\ndata: {text}\n\n".encode())
                time.sleep(PAUSE_SECONDS)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        """Says nothing: the Worker's own log is what one wants to read."""


def answer(body: dict) -> str:
    """Returns what the model says to the last message of a request."""
    content = body["messages"][-1]["content"]
    if not isinstance(content, str):
        content = " ".join(part.get("text", "") for part in content)
    return (
        "I am a stand-in for a model, so that you can see this work without a key. "
        f"You wrote: {content}"
    )


def schema_of(body: dict) -> dict | None:
    """Returns the JSON schema that the answer to a request must fit, if any."""
    if "response_format" in body:
        return body["response_format"].get("json_schema", {}).get("schema")
    return body.get("output_config", {}).get("format", {}).get("schema")


def example(schema: dict, name: str = "value") -> object:
    """Returns a value that fits a JSON schema.

    Args:
        schema: The schema, without references.
        name: What the value is called; a string says so.
    """
    for key in ("enum", "anyOf", "oneOf"):
        if key in schema:
            first = schema[key][0]
            return first if key == "enum" else example(first, name)
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return {key: example(value, key) for key, value in properties.items()}
        case "array":
            return [example(schema.get("items", {}), name)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
    return schema.get("const", f"{name} from a stand-in for a model")


def completion(text: str) -> dict:
    """Returns a whole answer of OpenAI's API."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def openai_events(text: str) -> Iterator[tuple[str, dict | str]]:
    """Yields a streamed answer of OpenAI's API, as names and data of events."""

    def chunk(delta: dict, finish_reason: str | None = None) -> tuple[str, dict]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        about = {"id": "chatcmpl-1", "created": 1, "model": "stand-in"}
        return "message", {**about, "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    for word in text.split(" "):
        yield chunk({"content": f"{word} "})
    yield chunk({}, "stop")
    yield "message", "[DONE]"


def anthropic_message(text: str) -> dict:
    """Returns a whole answer of Anthropic's API."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
    }


def anthropic_events(text: str) -> Iterator[tuple[str, dict | str]]:
    """Yields a streamed answer of Anthropic's API, as names and data of events."""

    def event(type: str, **data: object) -> tuple[str, dict]:
        return type, {"type": type, **data}

    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {**anthropic_message(""), "content": [], "stop_reason": None}
    yield event("message_start", message={**message, "usage": usage})
    yield event(
        "content_block_start", index=0, content_block={"type": "text", "text": ""}
    )
    for word in text.split(" "):
        delta = {"type": "text_delta", "text": f"{word} "}
        yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage)
    yield event("message_stop")
