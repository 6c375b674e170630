"""Shows an early-exit classifier in the browser: drop an image, or use the camera."""

import http.server
import mimetypes
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kdtoolkit import _errors
from kdtoolkit._arguments import Parser
from kdtoolkit._checks import ArgumentError, Integers, check

WEB = Path(__file__).with_name("web")
_MODEL, _LITERT = "classifier.tflite", "litertjs"
_TYPES = {".js": "text/javascript", ".wasm": "application/wasm"}  # whatever the system says


def main(argv: Sequence[str]) -> int:
    """Runs `kdtoolkit demo FILE.tflite` until Ctrl-C; returns the exit status."""
    parser = Parser(prog="kdtoolkit demo", description=__doc__)
    parser.add_argument("model", type=Path, help=".tflite file of kdtoolkit.export.to_early_exit")
    parser.add_argument("--port", type=int, default=0, help="on this machine (default: a free one)")
    parser.add_argument(
        "--litert",
        type=Path,
        metavar="DIR",
        help="node_modules with @litertjs/core, for a machine without a network (default: the "
        "page loads LiteRT.js from cdn.jsdelivr.net)",
    )
    try:
        arguments = parser.parse_args(argv)
        serving = server(arguments.model, arguments.port, arguments.litert)
    except (ValueError, OSError) as error:
        return _errors.fail("demo", error, status=2)
    with serving:
        print(f"{address(serving, arguments.litert)}  (Ctrl-C ends it)", flush=True)
        serving.serve_forever()
    return 0


def address(serving: http.server.ThreadingHTTPServer, litert: Path | None = None) -> str:
    """Where the page of a `server` is."""
    query = "" if litert is None else f"?litert=/{_LITERT}/"
    return f"http://127.0.0.1:{serving.server_port}/{query}"


def server(
    model: Path, port: int = 0, litert: Path | None = None
) -> http.server.ThreadingHTTPServer:
    """Makes the server of the page, the module, the classifier and, if asked, LiteRT.js.

    It listens on the loopback interface alone, and gives nothing but these files.

    Args:
        model: the classifier's `.tflite` file; read when it is asked for.
        port: of this machine; 0 for a free one.
        litert: a `node_modules` with `@litertjs/core`; None where the page is to load it.

    Raises:
        ArgumentError: an argument is not what is accepted.
        OSError: the port is taken.
    """
    check("port", port, Integers(0, 65535))
    if not model.is_file():
        raise ArgumentError("model", "a .tflite file", str(model))
    packages = None if litert is None else litert.resolve() / "@litertjs"
    if packages is not None and not (packages / "core").is_dir():
        raise ArgumentError("litert", "a node_modules folder with @litertjs/core", str(litert))

    def find(path):
        first, _, rest = path.lstrip("/").partition("/")
        if path.lstrip("/") == _MODEL:
            return model
        folder, name = (packages, rest) if first == _LITERT else (WEB, path.lstrip("/"))
        if folder is None:
            return None
        file = (folder / (name or "index.html")).resolve()
        return file if file.is_relative_to(folder) and file.is_file() else None

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            file = find(unquote(urlsplit(self.path).path))
            if file is None:
                self.send_error(404)
                return
            content = file.read_bytes()
            kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
            self.send_response(200)
            self.send_header("Content-Type", kind or "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format, *args):
            if sys.flags.dev_mode:
                super().log_message(format, *args)

    return http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
