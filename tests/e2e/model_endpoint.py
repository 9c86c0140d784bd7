"""A model that says what a test wrote down: the Responses API over SSE, as far as Codex uses it."""

import contextlib
import http.server
import json
import threading


class Script:
    """Shell commands the model asks for, one a turn, then a closing text. Keeps what came back."""

    def __init__(self, commands):
        self.commands = list(commands)
        self.outputs = []
        self.turns = 0
        self.lock = threading.Lock()

    def answer(self, request):
        with self.lock:
            results = [i for i in request.get("input", []) if i.get("type") == "function_call_output"]
            self.outputs = [str(r.get("output", "")) for r in results]
            turn = len(results)   # a retried request gets the same answer again
            self.turns = max(self.turns, turn)
        if turn < len(self.commands):
            item = {"type": "function_call", "id": f"fc_{turn}", "call_id": f"call_{turn}", "name": "exec_command",
                    "arguments": json.dumps({"cmd": self.commands[turn]})}
        else:
            item = {"type": "message", "role": "assistant", "id": "msg_end",
                    "content": [{"type": "output_text", "text": "all steps tried"}]}
        usage = {"input_tokens": 1, "input_tokens_details": None, "output_tokens": 1, "output_tokens_details": None,
                 "total_tokens": 2}
        return [{"type": "response.created", "response": {"id": f"resp_{turn}"}},
                {"type": "response.output_item.done", "item": item},
                {"type": "response.completed", "response": {"id": f"resp_{turn}", "usage": usage}}]


@contextlib.contextmanager
def serve(script):
    """Serves the script on host loopback. Yields the port."""

    class Endpoint(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, kind, body):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.reply("application/json", b'{"models":[]}')

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            events = script.answer(request)
            self.reply("text/event-stream",
                       "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
