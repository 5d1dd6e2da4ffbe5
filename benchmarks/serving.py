"""What `headstart serve` holds: its pace beside batch `predict`, its answers, waiting, overload, odd files, stops.

    python benchmarks/serving.py [--short] [--only NAME ...] [--litserve FOLDER] [--bentoml FOLDER]

A model of ants and bees (fitted here, default network) answers single photographs as raw bytes over loopback. The load
generator (`load.py`) is a process of its own on the same cores: its processor seconds are told, since they are taken
from the server. Batch `predict` is a process that has its model loaded and its network compiled; both take turns, and
each round is told as a share of its neighbour. Beside it FastAPI around plain timm answers the same images, through
Pillow, timm's own transform and eager torch, LitServe around the same, with batches of up to 8, and BentoML, where
`--litserve` and `--bentoml` name folders that pip put them into (`pip install --target FOLDER litserve`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import measure
from measure import HERE, Table, Target

BATCH = """
import json, sys, time, resource
from headstart.data.table import list_images
from headstart.ship.predict import predict, records
from headstart.story import pipeline
from headstart.trunk.engine import compile_trunk
model, files = pipeline.load(sys.argv[1]), json.loads(sys.stdin.readline())
engine = compile_trunk(model.backbone, model.precision)
print("ready", flush=True)
for _ in sys.stdin:
    used, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    found = records(model, predict(model, list_images(files), engine), 3)
    seconds, now = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(json.dumps({"seconds": seconds, "cpu": cpu, "records": found}), flush=True)
"""
PLAIN = """
import io, sys
import timm, torch, uvicorn
from fastapi import FastAPI, Request
from PIL import Image
model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))
app = FastAPI()

@app.get("/health")
def health():
    return {}

def answer(content):
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    with torch.inference_mode():
        p = model(transform(picture)[None]).softmax(1)[0]
    return {"label": int(p.argmax()), "probability": float(p.max())}

@app.post("/predict")
async def predict(request: Request):
    from starlette.concurrency import run_in_threadpool
    return await run_in_threadpool(answer, await request.body())

uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""
LIT = """
import io, sys
import litserve as ls
import timm, torch
from fastapi import UploadFile
from PIL import Image

class Timm(ls.LitAPI):
    def setup(self, device):
        self.model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
        self.transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=self.model))

    def decode_request(self, request: UploadFile):
        return self.transform(Image.open(io.BytesIO(request.file.read())).convert("RGB"))

    def batch(self, inputs):
        return torch.stack(inputs)

    def predict(self, x):
        with torch.inference_mode():
            return self.model(x).softmax(1)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, p):
        return {"label": int(p.argmax()), "probability": float(p.max())}

if __name__ == "__main__":
    api = Timm(max_batch_size=8, batch_timeout=0.01)
    ls.LitServer(api, accelerator="cpu").run(port=int(sys.argv[2]), generate_client_file=False, log_level="error")
"""
BENTO = """
import os, subprocess, sys
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve()
    serve = [sys.executable, "-m", "bentoml", "serve", f"{here.stem}:Timm", "--working-dir", str(here.parent)]
    alone = {"MODEL": sys.argv[1], "BENTOML_HOME": str(here.parent / "bento"), "BENTOML_DO_NOT_TRACK": "True"}
    sys.exit(subprocess.call([*serve, "--port", sys.argv[2]], env=os.environ | alone, stderr=subprocess.DEVNULL))

import bentoml, timm, torch
from PIL import Image

@bentoml.service(workers=1, traffic={"timeout": 60})
class Timm:
    def __init__(self):
        self.model = timm.create_model("local-dir:" + os.environ["MODEL"], pretrained=True).eval()
        self.transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=self.model))

    @bentoml.api
    def predict(self, picture: Image.Image) -> dict:
        with torch.inference_mode():
            p = self.model(self.transform(picture.convert("RGB"))[None]).softmax(1)[0]
        return {"label": int(p.argmax()), "probability": float(p.max())}
"""
PARTS = ("pace", "waiting", "bursts", "overload", "odd", "stops", "start", "plain")
LOAD = 0.7  # of the pace, for bursts
BURST = 8  # images at once
OVERLOAD = 4  # times the pace
REFUSED = "-2"  # load.py's word for a server that does not listen any more


@dataclass
class Server:
    """A process that listens."""

    process: subprocess.Popen[str]
    url: str
    begun: float  # time.perf_counter() of its start

    @property
    def cpu(self) -> float:
        """Seconds of all its threads so far."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Setting:
    model: Path
    place: Path
    files: list[Path]
    shared: Path
    short: bool
    litserve: Path | None = None
    bentoml: Path | None = None
    rate: float = 0.0  # requests a second of the overload; 0: OVERLOAD times the pace
    pace: float = 0.0  # images a second, of the server
    values: dict[str, Any] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)


@contextmanager
def serving(setting: Setting, *options: str) -> Iterator[Server]:
    begun = time.perf_counter()
    words = [sys.executable, "-m", "headstart", "serve", str(setting.model), "--port", "0", "--json", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while not said.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, "the server has ended"
            said += line
        try:
            yield Server(process, json.loads(said)["url"], begun)
        finally:
            process.terminate()
            process.wait(60)


def load(url: str, files: Sequence[Path], **plan: Any) -> dict[str, Any]:
    """What the load generator found."""
    plan |= {"url": url, "files": [str(file) for file in files]}
    words = [sys.executable, str(HERE / "load.py")]
    done = subprocess.run(words, input=json.dumps(plan), capture_output=True, text=True, check=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def seconds_of(found: dict[str, Any], status: int = 200) -> list[float]:
    return [seconds for _, seconds, given, _ in found["requests"] if given == status]


def statuses(found: dict[str, Any]) -> dict[str, int]:
    return {str(k): n for k, n in sorted(Counter(status for _, _, status, _ in found["requests"]).items())}


def pace(setting: Setting) -> None:
    """Batch `predict` and the server in turns, every image once a round; their answers side by side."""
    rounds, files = (2 if setting.short else 4), setting.files[: 150 if setting.short else None]
    child = subprocess.Popen(
        [sys.executable, "-c", BATCH, str(setting.model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    given, said = child.stdin, child.stdout
    given.write(json.dumps([str(file) for file in files]) + "\n")
    given.flush()
    said.readline()
    rows: list[dict[str, float]] = []
    different = 0
    with serving(setting) as server:
        load(server.url, files[:40], clients=8, once=True)
        for number in range(rounds + 1):  # the first warms both up
            given.write("again\n")
            given.flush()
            batch = json.loads(said.readline())
            cpu = server.cpu
            found = load(server.url, files, clients=16, once=True, answers=True)
            cpu = server.cpu - cpu
            different += differing(batch["records"], found)
            if number:
                row = {"predict": len(files) / batch["seconds"], "serve": len(files) / found["seconds"]}
                row |= {"predict_cpu": batch["cpu"], "serve_cpu": cpu, "load_cpu": found["cpu"]}
                rows.append(row)
    given.close()
    child.wait(60)
    setting.pace = statistics.median(row["serve"] for row in rows)
    share = statistics.median(row["serve"] / row["predict"] for row in rows)
    cpu_share = statistics.median(row["predict_cpu"] / (row["serve_cpu"]) for row in rows)
    each = 1000 / len(files)
    header = (
        "round",
        "predict img/s",
        "serve img/s",
        "share",
        "predict CPU ms/img",
        "serve CPU ms/img",
        "load CPU ms/img",
    )
    cells = [
        (str(k), *(f"{row[n]:.1f}" for n in ("predict", "serve")), f"{row['serve'] / row['predict']:.0%}",
         *(f"{row[n] * each:.1f}" for n in ("predict_cpu", "serve_cpu", "load_cpu")))
        for k, row in enumerate(rows, 1)
    ]  # fmt: skip
    setting.tables.append(Table(f"Pace: {len(files)} photographs, 16 clients", header, cells))
    setting.targets += [
        Target("images/s of the server, share of batch predict (load generator on the same cores)", share, floor=0.85),
        Target("the same by processor seconds of the two alone", cpu_share, floor=0.85),
        Target("answers that differ from predict's in any digit", different, ceiling=0),
    ]
    setting.values["pace"] = rows


def differing(expected: list[dict[str, Any]], found: dict[str, Any]) -> int:
    """Images whose record is not the one of predict."""
    n = int(found["differing"])
    for k, record in enumerate(expected):
        record = record | {"path": Path(record["path"]).name}
        answer = found["answers"].get(str(k))
        n += answer != ({"error": f"{record['path']}: {record['error']}"} if record["error"] else [record])
    return n


def waiting(setting: Setting) -> None:
    rows = []
    with serving(setting) as server:
        load(server.url, setting.files[:40], clients=8, once=True)
        for clients in (1, 8, 64):
            found = load(server.url, setting.files, clients=clients, seconds=4 if setting.short else 12)
            times = seconds_of(found)
            middle, late = (1000 * percentile(times, share) for share in (0.5, 0.99))
            done = len(times) / found["seconds"]
            rows.append(
                (str(clients), f"{done:.1f}", f"{middle:.0f}", f"{late:.0f}", f"{late / middle:.1f}", str(len(times)))
            )
            setting.values[f"waiting {clients}"] = {
                "img/s": done,
                "p50": middle,
                "p99": late,
                "statuses": statuses(found),
            }
            assert set(statuses(found)) <= {"200", "422"}, statuses(found)
            setting.pace = setting.pace or (done if clients == 8 else 0.0)
    header = ("clients", "img/s", "p50 ms", "p99 ms", "p99 / p50", "answers")
    setting.tables.append(Table("Waiting: each client asks again as soon as it has its answer", header, rows))


def pace_of(setting: Setting, server: Server) -> float:
    """Images a second, measured just before what is said in shares of it."""
    found = load(server.url, setting.files, clients=16, seconds=3 if setting.short else 6)
    return len(seconds_of(found)) / found["seconds"]


def bursts(setting: Setting) -> None:
    seconds, rows, rng = (6 if setting.short else 20), [], random.Random(0)
    with serving(setting) as server:
        rate = LOAD * pace_of(setting, server)
        n = int(rate * seconds)
        alone: list[float] = [0.0]
        while len(alone) < n:
            alone.append(alone[-1] + rng.expovariate(rate))
        patterns = {
            f"{BURST} at once, evenly spaced": [(k // BURST) * BURST / rate for k in range(n)],
            "one by one, at random (Poisson)": alone,
        }
        for name, starts in patterns.items():
            found = load(server.url, setting.files, starts=starts)
            middle, late = (1000 * percentile(seconds_of(found), share) for share in (0.5, 0.99))
            rows.append((name, f"{rate:.1f}", f"{middle:.0f}", f"{late:.0f}", f"{late / middle:.1f}", str(n)))
            setting.values[f"bursts, {name}"] = {"p50": middle, "p99": late, "statuses": statuses(found)}
            setting.targets.append(Target(f"p99 / p50 at 70 % load, {name}", late / middle, ceiling=3))
    header = ("arrivals", "img/s", "p50 ms", "p99 ms", "p99 / p50", "images")
    setting.tables.append(Table("Bursts at 70 % of the pace", header, rows))


def overload(setting: Setting) -> None:
    seconds = 10 if setting.short else 60
    memory: list[int] = []
    with serving(setting) as server:
        rate = setting.rate or OVERLOAD * pace_of(setting, server)
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                memory.append(server.memory)

        watcher = threading.Thread(target=watch)
        watcher.start()
        found = load(server.url, setting.files, starts=[k / rate for k in range(int(rate * seconds))])
        done.set()
        watcher.join()
        alive = server.process.poll() is None
        after = load(server.url, setting.files[:16], clients=4, once=True)
    told = statuses(found)
    third = len(memory) // 3
    growth = max(memory[-third:]) / max(memory[third : 2 * third])
    answered = told.get("200", 0) + told.get("422", 0)
    other = len(found["requests"]) - answered - told.get("429", 0)
    times = seconds_of(found)
    row = (
        f"{rate:.0f}",
        str(seconds),
        str(answered),
        f"{answered / found['seconds']:.1f}",
        str(told.get("429", 0)),
        str(other),
        f"{1000 * percentile(times, 0.5):.0f} / {1000 * percentile(times, 0.99):.0f}",
        f"{1000 * percentile(seconds_of(found, 429) or [0], 0.99):.0f}",
        f"{max(memory) / 2**20:.0f}",
        f"{growth:.3f}",
    )
    header = (
        "requests/s",
        "s",
        "answered",
        "img/s",
        "429",
        "other",
        "answer p50 / p99 ms",
        "429 p99 ms",
        "most MiB",
        "growth",
    )
    setting.tables.append(Table(f"{OVERLOAD} times overload", header, [row]))
    setting.targets += [
        Target("requests that were neither answered nor told 429", other + (not alive), ceiling=0),
        Target("most memory in the last third, to the second third", growth, ceiling=1.05),
        Target("answers after it, of 16", len(seconds_of(after)), floor=16),
    ]
    setting.values["overload"] = {"statuses": told, "memory": memory, "after": statuses(after)}


def odd(setting: Setting) -> None:
    """Every strange file there is, through the server and through predict."""
    files = sorted(path for path in (setting.shared / "messy").rglob("*") if path.is_file())
    files = files[::12] if setting.short else files
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        words = [sys.executable, "-m", "headstart", "predict", str(setting.model), "-o", str(out)]
        subprocess.run([*words, *map(str, files)], check=True, capture_output=True)
        expected = json.loads(out.read_text())
    with serving(setting, "--max-megapixels", "120") as server:
        found = load(server.url, files, clients=6, once=True, answers=True)
        told = statuses(found)
    different = differing(expected, found)
    empty = sum(file.stat().st_size == 0 for file in files)
    fives = sum(n for status, n in told.items() if not status.startswith(("2", "4")))
    row = (
        str(len(files)),
        *(str(told.get(status, 0)) for status in ("200", "422")),
        str(fives),
        str(different),
        str(empty),
    )
    header = ("files", "200", "422", "5xx or none", "unlike predict", "of them empty, told so in other words")
    setting.tables.append(Table("Every file of messy/", header, [row]))
    setting.targets += [
        Target("odd files that were answered by a failure", fives, ceiling=0),
        Target("odd files answered otherwise than by predict, but for empty ones", different - empty, ceiling=0),
    ]
    setting.values["odd"] = told


def stops(setting: Setting) -> None:
    """SIGTERM in the midst of requests."""
    lost, answered, codes = 0, 0, Counter[int]()
    for _ in range(2 if setting.short else 5):
        with serving(setting) as server:
            ender = threading.Timer(2.0, server.process.send_signal, (signal.SIGTERM,))
            ender.start()
            found = load(server.url, setting.files, clients=16, seconds=6)
            codes[server.process.wait(60)] += 1
            told = statuses(found)
            answered += told.get("200", 0) + told.get("422", 0)
            lost += sum(n for status, n in told.items() if status not in ("200", "422", REFUSED))
    row = (str(sum(codes.values())), str(answered), str(lost), ", ".join(map(str, codes)))
    setting.tables.append(Table("SIGTERM under load, 16 clients", ("stops", "answered", "lost", "exit codes"), [row]))
    setting.targets.append(Target("requests that were sent to a server that stops and not answered", lost, ceiling=0))


def start(setting: Setting) -> None:
    """From the command to the first answer."""
    times = []
    for _ in range(1 if setting.short else 3):
        with serving(setting) as server:
            listens = time.perf_counter() - server.begun
            content = {"Content-Type": "image/jpeg"}
            request = urllib.request.Request(f"{server.url}/predict", setting.files[0].read_bytes(), content)
            with urllib.request.urlopen(request, timeout=30) as reply:
                reply.read()
            times.append((listens, time.perf_counter() - server.begun, server.cpu))
    listens, first, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    row = (f"{listens:.2f}", f"{first:.2f}", f"{cpu:.2f}")
    setting.tables.append(Table("Start", ("s until it listens", "s until its first answer", "CPU s until then"), [row]))
    setting.targets.append(Target("s from the command to the first answer", first, ceiling=4))
    setting.values["start"] = times


def plain(setting: Setting) -> None:
    """FastAPI, LitServe and BentoML around timm and torch, and the server, in turns."""
    rows: list[tuple[str, ...]] = []
    others = [("FastAPI", PLAIN, "", "health", None)]
    others += [("LitServe", LIT, "request", "health", setting.litserve)] if setting.litserve else []
    others += [("BentoML", BENTO, "picture", "livez", setting.bentoml)] if setting.bentoml else []
    with serving(setting) as mine:
        for name, code, fieldname, health, folder in others:
            with beside(setting, code, health, folder) as url:
                for clients in (1, 8):
                    rows.append(row_of(setting, f"{name}, Pillow, timm, torch", url, clients, fieldname))
                    rows.append(row_of(setting, "headstart serve", mine.url, clients, ""))
    for name, folder in {"LitServe": setting.litserve, "BentoML": setting.bentoml}.items():
        if not folder:
            rows.append((name, "", f"not asked for: --{name.lower()} FOLDER", "", ""))
    setting.tables.append(Table("Beside it", ("server", "clients", "img/s", "p50 ms", "p99 ms"), rows))


@contextmanager
def beside(setting: Setting, code: str, health: str, folder: Path | None) -> Iterator[str]:
    """Another server, as a program of its own; `folder`: where pip put it."""
    file, port = setting.place / "server.py", free_port()
    file.write_text(code)
    words = [sys.executable, str(file), str(setting.model), str(port)]
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | ({"PYTHONPATH": paths} if folder else {})
    with subprocess.Popen(words, env=environment, start_new_session=True) as process:
        try:
            until_it_listens(f"http://127.0.0.1:{port}/{health}")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def row_of(setting: Setting, name: str, url: str, clients: int, field: str) -> tuple[str, ...]:
    load(url, setting.files[:8], clients=clients, once=True, field=field)
    found = load(url, setting.files, clients=clients, seconds=3 if setting.short else 8, field=field)
    times = seconds_of(found)
    done = len(times) / found["seconds"]
    setting.values[f"{name}, {clients} clients"] = [*setting.values.get(f"{name}, {clients} clients", []), done]
    middle, late = (f"{1000 * percentile(times, share):.0f}" for share in (0.5, 0.99))
    return name, str(clients), f"{done:.1f}", middle, late


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until_it_listens(url: str) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"{url} does not answer")


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--short", action="store_true", help="a minute instead of five")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--litserve", type=Path, help="a folder that LitServe lies in")
    parser.add_argument("--bentoml", type=Path, help="a folder that BentoML lies in")
    parser.add_argument(
        "--rate", type=float, default=0, help="requests a second of the overload (default: 4x the pace)"
    )
    parser.add_argument("--model", type=Path, help="a saved model of ants and bees, instead of one that is fitted here")
    parser.add_argument("--record", default="serving", help="the name of the record")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, data = Path(folder), options.data / "hymenoptera"
        model = options.model or place / "ants and bees"
        if not options.model:
            measure.run([sys.executable, "-m", "headstart", "fit", str(data), "-o", str(model), "--json"])
        files = sorted(data.rglob("*.jpg"))
        random.Random(0).shuffle(files)
        setting = Setting(model, place, files, options.data, options.short)
        setting.litserve, setting.bentoml, setting.rate = options.litserve, options.bentoml, options.rate
        for name in options.only:
            {f.__name__: f for f in (pace, waiting, bursts, overload, odd, stops, start, plain)}[name](setting)
    measure.publish(options, __doc__ or "", setting.tables, setting.targets, setting.values)


if __name__ == "__main__":
    main()
