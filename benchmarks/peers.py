"""headstart beside other ways to the same classifier: same images, same split, same weights, same machine.

    python benchmarks/peers.py [--data FOLDER ...] [--envs FOLDER] [--work FOLDER] [--only PEER ...] [--repeats N]
    python benchmarks/peers.py --table           # the table again, from what has run

Each peer is one or two short programs in benchmarks/peers/, as its own documentation writes them, in an environment of
its own (made with uv where it is on the PATH, else with venv and pip: 6 GB of packages with torch). A folder of images
has train/CLASS and val/CLASS, or CLASS, of which a quarter judges, or train-*.parquet and test-*.parquet. What ran is
kept in --work, a record a file, and not run again. Peers whose documentation chooses the epoch on val/ do so here too,
on the images that judge: an advantage to them, and marked. Weights come from packages and ../shared/weights, and are
put where each peer looks for those that it fetched itself.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import measure
import peer_page
import peer_runs
import peer_sets
from peer_runs import Peer

SETS = ("hymenoptera", "brain_mri_yes_no", "cifar10", "eurosat_3000")
NETWORK, HUB = "tf_efficientnet_lite0", "models--timm--tf_efficientnet_lite0.in1k"
CHECKPOINT = "mobilenet_v2-b0353104.pth"  # torchvision's name of it
LONGEST = 1800.0  # s that a program may take


def main() -> None:
    options = arguments()
    chosen = [peer for peer in peer_runs.peers() if not options.only or peer.name in options.only]
    options.work.mkdir(parents=True, exist_ok=True)
    if not options.table:
        sizes(chosen, options)
        homes = weights(options)
        for repeat in range(options.repeats):
            for source in options.data:
                place = peer_sets.made(source, options.work / "sets")
                for peer in chosen:
                    record(peer, place, repeat, homes, options)
        place = peer_sets.messy(options.shared, options.work / "sets")
        for peer in chosen:
            record(peer, place, 0, homes, options)
    found = [json.loads(path.read_text()) for path in sorted((options.work / "records").glob("*.json"))]
    tables = peer_page.tables(peer_runs.peers(), found)
    versions = peer_runs.versions(options.envs / peer_page.OURS)
    measure.publish(options, __doc__ or "", tables, [], {"records": found, "versions": versions})
    if options.page:
        peer_page.fill(options.page, tables)


def arguments() -> argparse.Namespace:
    shared = measure.HERE.parents[1] / "shared"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", default=[shared / "data" / name for name in SETS])
    parser.add_argument("--shared", type=Path, default=shared / "data", help="where hymenoptera and messy lie")
    parser.add_argument("--envs", type=Path, default=measure.HERE.parent / ".venv" / "peers")
    parser.add_argument("--work", type=Path, default=measure.HERE.parent / ".venv" / "peers-work")
    parser.add_argument("--only", nargs="+", metavar="PEER", help="names of benchmarks/peers/peers.toml")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--limit", type=float, default=LONGEST, help="seconds that one program may take")
    parser.add_argument("--full", action="store_true", help="no recipe's epochs are cut: hours")
    parser.add_argument("--constraints", type=Path, help="pip's constraints for all environments, such as one torch")
    parser.add_argument("--results", type=Path, default=measure.HERE / "results")
    parser.add_argument("--page", type=Path, help="a page whose tables are replaced, such as docs/peers.md")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.set_defaults(load_at_start=os.getloadavg()[0])
    options = parser.parse_args()
    for name in ("envs", "work", "shared"):
        setattr(options, name, getattr(options, name).absolute())
    if absent := [str(source) for source in options.data if not source.is_dir()]:
        parser.error(f"--data: {', '.join(absent)} is no folder; name folders of images, one a set")
    return options


def sizes(chosen: list[Peer], options: argparse.Namespace) -> None:
    """Environments, and a record of what each takes, or why there is none."""
    for peer in chosen:
        place = options.work / "records" / f"{peer.name}.install.json"
        if place.exists():
            continue
        print(f"{peer.name}: environment", file=sys.stderr, flush=True)
        found: dict[str, Any] = {"peer": peer.name, "kind": "install", "ended": ""}
        try:
            env = peer_runs.installed(peer, options.envs, options.constraints, measure.HERE.parent)
            found |= peer_runs.size_of(env)
        except OSError as reason:
            found["ended"] = str(reason)
        peer_runs.record(place, found)


def weights(options: argparse.Namespace) -> dict[str, str]:
    """Variables under which torch, the hub's and Keras's libraries find the two networks as if fetched before."""
    root = options.work / "weights"
    torch_file = root / "torch" / "hub" / "checkpoints" / CHECKPOINT
    hub_file = root / "hub" / "hub" / HUB / "snapshots" / "local" / "model.safetensors"
    if not (root / "done").exists():
        for file in (torch_file, hub_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.shared.parent / "weights" / CHECKPOINT, torch_file)
        export = [sys.executable, "-m", "headstart", "backbones", "--export-weights", NETWORK, str(hub_file)]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
        (root / "hub" / "hub" / HUB / "refs").mkdir(exist_ok=True)
        (root / "hub" / "hub" / HUB / "refs" / "main").write_text("local")
        for_keras(torch_file, root, options.envs / "keras" / "bin" / "python")
        (root / "done").touch()
    return {
        "TORCH_HOME": str(root / "torch"),
        "HF_HOME": str(root / "hub"),
        "HF_HUB_OFFLINE": "1",
        "KERAS_HOME": str(root / "keras"),
        "YOLO_CONFIG_DIR": str(root / "yolo"),
        "YOLO_OFFLINE": "true",
        "MPLCONFIGDIR": str(root / "matplotlib"),
        "OMP_WAIT_POLICY": "PASSIVE",  # else threads that wait beside other work burn seconds that count
    }


def for_keras(torch_file: Path, root: Path, python: Path) -> None:
    """The checkpoint as Keras's own file, where its environment is there."""
    import numpy as np
    import torch

    if python.exists():
        state = torch.load(torch_file, weights_only=True)
        np.savez(
            root / "mobilenet_v2.npz", allow_pickle=False, **{name: value.numpy() for name, value in state.items()}
        )
        program = peer_runs.PROGRAMS / "keras_weights.py"
        subprocess.run([str(python), str(program), str(root / "mobilenet_v2.npz"), str(root / "keras")], check=True)


def record(peer: Peer, place: Path, repeat: int, homes: dict[str, str], options: argparse.Namespace) -> None:
    """One peer on one set, once: run and written, unless that is there."""
    file = options.work / "records" / f"{peer.name}.{place.name}.{repeat}.json"
    env = options.envs / (peer.environment or peer.name)
    if file.exists() or not peer.learn or not env.exists():
        return
    print(f"{peer.name}: {place.name}, {repeat}", file=sys.stderr, flush=True)
    work = options.work / "runs" / f"{peer.name}.{place.name}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found = {"peer": peer.name, "set": place.name, "repeat": repeat, "load": round(os.getloadavg()[0], 2)}
    own = homes | {"HEADSTART_CACHE": str(work / "cache")}  # empty: a first fit on this machine
    peer_runs.record(file, found | once(peer, place, env, work, own, options))
    shutil.rmtree(work / "cache", ignore_errors=True)


def once(
    peer: Peer, place: Path, env: Path, work: Path, homes: dict[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    """Learn, answer the judged pictures, answer one of them in a fresh process."""
    odd, full, limit = place.name == peer_sets.MESSY, options.full, options.limit
    steps = 0 if not peer_runs.asked(peer.learn) else 2 if odd else 0 if full else peer.cut.get(place.name, 0)
    line = peer_runs.command(peer, peer.learn, env, work, steps)
    learned = peer_runs.run([*line, str(place), "model"], env, work, homes, limit)
    found: dict[str, Any] = {
        "steps": steps or peer_runs.asked(peer.learn),
        "learn": told(learned),
        "interval": bool(peer_runs.INTERVAL.search(learned.printed)),
    }
    if learned.ended and odd and (earlier := work.parent / f"{peer.name}.{SETS[0]}").is_dir():
        work = earlier  # asked with the model of that set
    elif learned.ended:
        return found
    truth = json.loads((place / "truth.json").read_text())
    line = peer_runs.command(peer, peer.predict, env, work, 0)
    (work / "answers.csv").unlink(missing_ok=True)
    asked = peer_runs.run([*line, "model", str(place / "judged"), "answers.csv"], env, work, homes, limit)
    given = peer_runs.answers(work / "answers.csv")
    found |= {"judge": told(asked), "answered": {name: given.get(name, "") for name in truth} if odd else len(given)}
    if not odd:
        found["hits"] = "".join("1" if given.get(name) == label else "0" for name, label in truth.items())
        one = work / "one"
        one.mkdir()
        name = next(iter(truth))
        shutil.copyfile(place / "judged" / name, one / name)
        found["first"] = told(peer_runs.run([*line, "model", str(one), "one.csv"], env, work, homes, limit))
    return found


def told(ran: peer_runs.Ran) -> dict[str, Any]:
    ended = re.sub(r"/\S*/", "", ran.ended)  # paths of this machine are nobody's business
    return {"ended": ended, "seconds": round(ran.seconds, 2), "cpu": round(ran.cpu, 2), "peak": ran.peak_bytes}


if __name__ == "__main__":
    main()
