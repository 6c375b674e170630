"""The browser's module against the Python class: in Node where files are read, in Chromium whole.

Chromium needs LiteRT.js: `KDTOOLKIT_TEST_NODE_MODULES` names a `node_modules` with
`@litertjs/core` 2.5 (`npm install @litertjs/core`). Nothing is loaded from a network.
"""

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from kdtoolkit import cli
from kdtoolkit.edge import EarlyExitClassifier, demo, images
from tests.edge import networks

NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium")
PACKAGES = os.environ.get("KDTOOLKIT_TEST_NODE_MODULES")
in_node = pytest.mark.skipif(NODE is None, reason="no node")
in_chromium = pytest.mark.skipif(
    not (CHROMIUM and PACKAGES), reason="no chromium, or no KDTOOLKIT_TEST_NODE_MODULES"
)


def node(program, **values):
    """What a program prints as JSON; it has `values`, and the functions of the module."""
    imports = "\n".join(
        f'import {{ {name} }} from "{(demo.WEB / file).as_uri()}";'
        for name, file in (("readPackage, surest", "early_exit.js"), ("fit", "pixels.js"))
    )
    program = f"{imports}\nconst values = {json.dumps(values)};\n{program}"
    command = [NODE, "--input-type=module", "-"]
    ran = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@in_node
def test_the_package_is_what_python_reads(model):
    program = """
    import { readFileSync } from "node:fs";
    const found = await readPackage(new Uint8Array(readFileSync(values.path)));
    console.log(JSON.stringify(found));
    """
    found = node(program, path=str(model))
    ours = EarlyExitClassifier(model)
    assert tuple(found["labels"]) == ours.labels
    assert tuple(found["values"]["exits"]) == ours.exits
    assert tuple(found["values"]["temperatures"]) == ours.temperatures
    points = [tuple(point["thresholds"]) for point in found["values"]["operating_points"]]
    assert points == [point.thresholds for point in ours.operating_points]
    assert model.read_bytes()[found["end"] :].startswith(b"PK")


@in_node
def test_damaged_files(model):
    """A line for each, or, where the damage is in what nobody reads, what the whole file says."""
    program = """
    import { readFileSync } from "node:fs";
    const whole = new Uint8Array(readFileSync(values.path));
    const said = JSON.stringify(await readPackage(whole));
    let state = 1;
    const random = (below) => (state = (state * 48271) % 2147483647) % below;
    const counts = { refused: 0, same: 0, other: [] };
    const tail = whole.length - (await readPackage(whole)).end;
    for (let number = 0; number < 2000; number++) {
      let bytes = Uint8Array.from(whole);
      const kind = number % 4;
      const near = whole.length - 1 - random(tail);
      if (kind === 0) bytes = bytes.subarray(0, random(whole.length));
      else if (kind === 1) bytes[random(whole.length)] ^= 1 << random(8);
      else if (kind === 2) bytes[near] ^= 1 << random(8);
      else for (let i = 0; i < 8; i++) bytes[whole.length - 1 - random(tail)] = random(256);
      try {
        if (JSON.stringify(await readPackage(bytes)) === said) counts.same++;
        else counts.other.push([number, "read as another one"]);
      } catch (error) {
        if (error.constructor === Error && !error.message.includes("\\n")) counts.refused++;
        else counts.other.push([number, String(error)]);
      }
    }
    console.log(JSON.stringify(counts));
    """
    counts = node(program, path=str(model))
    assert counts["other"] == []
    assert counts["refused"] > 1500


@in_node
def test_surest_is_the_softmax():
    logits = np.random.default_rng(0).normal(0, 4, (20, 7)).astype("float32")
    program = "console.log(JSON.stringify(values.logits.map((z) => surest(z, 1.7))));"
    for (index, confidence), row in zip(node(program, logits=logits.tolist()), logits, strict=True):
        exact = np.exp((row - row.max()).astype("float64") / 1.7)
        assert index == row.argmax()
        assert confidence == pytest.approx(exact.max() / exact.sum(), rel=1e-6)
    (found,) = node(program, logits=[[0, 40]])  # nearly sure is sure, as on all devices
    assert found == [1, 1]


@in_node
def test_pictures_become_the_pixels_that_python_makes():
    rng = np.random.default_rng(2)
    shapes = [(8, 10, 3), (8, 10, 4), (8, 10, 1), (31, 17, 3), (5, 40, 4), (3, 3, 1), (16, 20, 3)]
    pictures = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]
    given = [
        {
            "data": picture.ravel().tolist(),
            "height": picture.shape[0],
            "width": picture.shape[1],
            "channels": picture.shape[2],
        }
        for picture in pictures
    ]
    program = """
    const all = values.given.map((p) => values.wanted.map((shape) =>
      [...fit({ ...p, data: Uint8Array.from(p.data) }, shape)]));
    console.log(JSON.stringify(all));
    """
    wanted = [(8, 10, 3), (8, 10, 1), (12, 12, 3)]
    for picture, found in zip(pictures, node(program, given=given, wanted=wanted), strict=True):
        for shape, pixels in zip(wanted, found, strict=True):
            ours = images.fit(picture, shape).astype(int)
            difference = np.abs(np.reshape(pixels, shape) - ours)
            assert difference.max() <= 1  # Python's sums are in float32: a half may be one less
            assert (difference > 0).mean() < 0.03


HARNESS = """<!doctype html>
<iframe id="page" src="/?litert=/litertjs/&image=/first.png"></iframe>
<script type="importmap">{"imports": {
  "@litertjs/core": "/litertjs/core/dist/index.js",
  "@litertjs/wasm-utils": "/litertjs/wasm-utils/dist/index.js"}}</script>
<script type="module">
const post = (found) => fetch("/found", { method: "POST", body: JSON.stringify(found) });
try {
  const litert = await import("@litertjs/core");
  const { EarlyExitClassifier } = await import("/early_exit.js");
  await litert.loadLiteRt("/litertjs/core/wasm/");
  const classifier = await EarlyExitClassifier.load(litert, "/classifier.tflite");
  const bytes = new Uint8Array(await (await fetch("/images.bin")).arrayBuffer());
  const [height, width, channels] = classifier.imageShape;
  const size = height * width * channels;
  const predictions = [];
  for (let start = 0; start < bytes.length; start += size) {
    const data = bytes.subarray(start, start + size);
    predictions.push(await classifier.predict({ data, width, height, channels }));
  }
  const one = { data: bytes.subarray(0, size), width, height, channels };
  const logits = await classifier.logits(one);
  let refused = "";
  try { await EarlyExitClassifier.load(litert, bytes); } catch (error) { refused = error.message; }
  const shown = document.getElementById("page").contentDocument;
  while (!shown.getElementById("label").textContent && !shown.getElementById("error").textContent) {
    await new Promise((done) => setTimeout(done, 50));
  }
  const page = Object.fromEntries(["label", "exit", "error"].map((id) =>
    [id, shown.getElementById(id).textContent]));
  await post({ predictions, logits: logits.map((z) => [...z]), refused, page });
} catch (error) {
  await post({ failed: String(error?.stack ?? error) });
}
</script>"""


@in_chromium
def test_decisions_in_chromium_are_pythons(model, tmp_path):
    from PIL import Image

    drawn = networks.draw_images(200)
    first = tmp_path / "first.png"
    Image.fromarray(drawn[0]).save(first)
    extra = {
        "/harness.html": HARNESS.encode(),
        "/images.bin": drawn.tobytes(),
        "/first.png": first.read_bytes(),
    }
    found, posted = {}, threading.Event()
    serving = demo.server(model, litert=Path(PACKAGES))

    class Handler(serving.RequestHandlerClass):
        def do_GET(self):
            if self.path not in extra:
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if "html" in self.path else "image/png")
            self.end_headers()
            self.wfile.write(extra[self.path])

        def do_POST(self):
            found.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            posted.set()

    serving.RequestHandlerClass = Handler
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--no-first-run"]
    address = f"http://127.0.0.1:{serving.server_port}/harness.html"
    with serving, subprocess.Popen([*command, address], stderr=subprocess.DEVNULL) as browser:
        try:
            assert posted.wait(120), "the page sent nothing"
        finally:
            browser.kill()
            serving.shutdown()
    assert "failed" not in found, found
    classifier = EarlyExitClassifier(model)
    ours = classifier.predict(drawn)
    assert len({prediction.exit for prediction in ours}) == 3
    for theirs, own in zip(found["predictions"], ours, strict=True):
        assert (theirs["label"], theirs["index"], theirs["exit"]) == (
            own.label,
            own.index,
            own.exit,
        )
        assert theirs["confidence"] == pytest.approx(own.confidence, abs=1e-5)
    np.testing.assert_allclose(found["logits"], classifier.logits(drawn[0]), rtol=1e-4, atol=1e-4)
    assert found["refused"] == "it carries no readable labels.txt and early_exit.json"
    assert found["page"] == {"label": ours[0].label, "exit": ours[0].exit, "error": ""}


def fetch(serving, path):
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{serving.server_port}{path}") as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, None, b""


def test_the_demo_serves_its_files_and_no_others(model, tmp_path):
    (tmp_path / "@litertjs" / "core").mkdir(parents=True)
    (tmp_path / "@litertjs" / "core" / "a.wasm").write_bytes(b"wasm")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "@litertjs" / "core" / "link").symlink_to(tmp_path / "secret")
    with demo.server(model, litert=tmp_path) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        assert serving.server_address[0] == "127.0.0.1"
        assert fetch(serving, "/classifier.tflite")[2] == model.read_bytes()
        assert fetch(serving, "/")[1:] == ("text/html", (demo.WEB / "index.html").read_bytes())
        assert fetch(serving, "/early_exit.js")[1] == "text/javascript"
        assert fetch(serving, "/litertjs/core/a.wasm") == (200, "application/wasm", b"wasm")
        for path in ("/litertjs/../secret", "/litertjs/%2e%2e/secret", "/../demo.py", "/no"):
            assert fetch(serving, path)[0] == 404
        assert fetch(serving, "/litertjs/core/link")[0] == 404
        assert demo.address(serving, tmp_path).endswith("/?litert=/litertjs/")
        serving.shutdown()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.tflite"], "`model` must be a .tflite file. Received: model='no.tflite'"),
        (["{model}", "--port=70000"], "`port` must be"),
        (["{model}", "--litert=."], "`litert` must be a node_modules folder with @litertjs/core"),
        ([], "the following arguments are required: model"),
    ],
)
def test_mistakes(model, arguments, message, capsys):
    arguments = [argument.format(model=model) for argument in arguments]
    assert cli.main(["demo", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("demo: ") and message in error and error.count("\n") == 1


def test_types_and_package_name_what_is_there():
    package = json.loads((demo.WEB / "package.json").read_text())
    assert all((demo.WEB / name).is_file() for name in package["files"])
    types = (demo.WEB / "early_exit.d.ts").read_text()
    code = (demo.WEB / "early_exit.js").read_text()
    for name in ("predict", "logits", "delete", "operatingPoints", "certificate", "imageShape"):
        assert name in types and name in code
