"""A model that says what a test wrote down, in the four protocols that the hosted clients speak, over SSE.

A Script holds the steps: (tool, arguments) pairs, one a turn, then a closing text. How many results of tools a request
carries says which turn it is, so a request that a client sends twice gets the same answer twice. A request that
offers no tools (a title, a summary, a quota check) gets the closing text and is no turn.
"""

import contextlib
import http.server
import json
import threading

CLOSING = "all steps tried"


class Script:
    """The steps, and what came back of them."""

    def __init__(self, steps):
        self.steps = list(steps)
        self.outputs = []
        self.turns = 0
        self.lock = threading.Lock()

    def next(self, outputs):
        """(turn, (tool, arguments)), or (turn, None) when the script is at its end."""
        turn = len(outputs)
        with self.lock:
            if turn >= self.turns:
                self.turns, self.outputs = turn, outputs
        return turn, self.steps[turn] if turn < len(self.steps) else None


def text_of(content):
    """The text of a content that is a string, or a list of strings and blocks of text."""
    if isinstance(content, list):
        return "".join(text_of(c) for c in content)
    return content.get("text", "") if isinstance(content, dict) else str(content)


def named_events(events):
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)


def plain_events(events):
    return "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events)


class Responses:
    """OpenAI Responses (Codex)."""

    path = "/responses"

    @staticmethod
    def outputs(request):
        return [text_of(i.get("output", "")) for i in request.get("input", []) if i.get("type") == "function_call_output"]

    @staticmethod
    def answer(turn, step, _streamed):
        if step:
            item = {"type": "function_call", "id": f"fc_{turn}", "call_id": f"call_{turn}", "name": step[0],
                    "arguments": json.dumps(step[1])}
        else:
            item = {"type": "message", "role": "assistant", "id": "msg_end",
                    "content": [{"type": "output_text", "text": CLOSING}]}
        usage = {"input_tokens": 1, "input_tokens_details": None, "output_tokens": 1, "output_tokens_details": None,
                 "total_tokens": 2}
        return named_events([{"type": "response.created", "response": {"id": f"resp_{turn}"}},
                             {"type": "response.output_item.done", "item": item},
                             {"type": "response.completed", "response": {"id": f"resp_{turn}", "usage": usage}}])


class Messages:
    """Anthropic Messages (Claude Code)."""

    path = "/messages"

    @staticmethod
    def outputs(request):
        blocks = [b for m in request.get("messages", []) if isinstance(m["content"], list) for b in m["content"]]
        return [text_of(b.get("content", "")) for b in blocks if b.get("type") == "tool_result"]

    @staticmethod
    def answer(turn, step, streamed):
        message = {"id": f"msg_{turn}", "type": "message", "role": "assistant", "model": "scripted", "content": [],
                   "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
        if step:
            block = {"type": "tool_use", "id": f"toolu_{turn}", "name": step[0], "input": {}}
            delta, reason = {"type": "input_json_delta", "partial_json": json.dumps(step[1])}, "tool_use"
        else:
            block = {"type": "text", "text": ""}
            delta, reason = {"type": "text_delta", "text": CLOSING}, "end_turn"
        if not streamed:
            full = block | ({"input": step[1]} if step else {"text": CLOSING})
            return json.dumps(message | {"content": [full], "stop_reason": reason})
        return named_events([{"type": "message_start", "message": message},
                             {"type": "content_block_start", "index": 0, "content_block": block},
                             {"type": "content_block_delta", "index": 0, "delta": delta},
                             {"type": "content_block_stop", "index": 0},
                             {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None},
                              "usage": {"output_tokens": 1}},
                             {"type": "message_stop"}])


class GenerateContent:
    """Google generateContent and streamGenerateContent (Gemini CLI)."""

    path = "enerateContent"

    @staticmethod
    def outputs(request):
        parts = [p for c in request.get("contents", []) for p in c.get("parts", []) if "functionResponse" in p]
        return [json.dumps(p["functionResponse"].get("response", {})) for p in parts]

    @staticmethod
    def answer(_turn, step, streamed):
        part = {"functionCall": {"name": step[0], "args": step[1]}} if step else {"text": CLOSING}
        answer = {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
                  "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}}
        return plain_events([answer]) if streamed else json.dumps(answer)


class ChatCompletions:
    """OpenAI Chat Completions (opencode with an OpenAI-compatible provider)."""

    path = "/chat/completions"

    @staticmethod
    def outputs(request):
        return [text_of(m.get("content", "")) for m in request.get("messages", []) if m.get("role") == "tool"]

    @staticmethod
    def answer(turn, step, streamed):
        if step:
            call = {"index": 0, "id": f"call_{turn}", "type": "function",
                    "function": {"name": step[0], "arguments": json.dumps(step[1])}}
            message, reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        else:
            message, reason = {"role": "assistant", "content": CLOSING}, "stop"
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head = {"id": f"chat_{turn}", "created": 0, "model": "scripted"}
        if not streamed:
            return json.dumps(head | {"object": "chat.completion", "usage": usage,
                                      "choices": [{"index": 0, "message": message, "finish_reason": reason}]})
        chunk = head | {"object": "chat.completion.chunk"}
        return plain_events([chunk | {"choices": [{"index": 0, "delta": message, "finish_reason": None}]},
                             chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage},
                             "[DONE]"])


PROTOCOLS = [Responses, Messages, GenerateContent, ChatCompletions]


def respond(script, target, request):
    """(content type, body) for one request, or None when no protocol has that path."""
    path = target.split("?", 1)[0]
    protocol = next((p for p in PROTOCOLS if path.endswith(p.path)), None)
    if protocol is None:
        return None
    streamed = bool(request.get("stream")) or "streamGenerateContent" in path or protocol is Responses
    turn, step = script.next(protocol.outputs(request)) if request.get("tools") else (0, None)
    return "text/event-stream" if streamed else "application/json", protocol.answer(turn, step, streamed)


@contextlib.contextmanager
def serve(script):
    """Serves the script on host loopback. Yields the port."""

    class Endpoint(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, status, kind, body):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command != "HEAD" else b"")

        def do_GET(self):
            self.reply(200, "application/json", b'{"models":[]}')

        do_HEAD = do_GET

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            answer = respond(script, self.path, request)
            if answer is None:
                self.reply(404, "application/json", b'{"error":{"type":"not_found_error","message":"not scripted"}}')
            else:
                self.reply(200, answer[0], answer[1].encode())

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass   # a client that ends in the middle of an answer is its own affair

    server = Server(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
