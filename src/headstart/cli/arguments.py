"""The arguments of the `headstart` command: names, defaults and the words of --help."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from headstart import __version__, recipe
from headstart.cli.answering import add_truth, answer_options
from headstart.cli.console import ClosedOutputError, writing
from headstart.cli.exporting import export_arguments
from headstart.cli.featured import labels_option
from headstart.cli.reviewing import review_arguments
from headstart.cli.seeing import target_option, view_options
from headstart.cli.serving import add_serve
from headstart.cli.sharing import add_push
from headstart.cli.spreading import ray_option
from headstart.cli.words import count, expression
from headstart.files.cells import printable
from headstart.story.options import AUGMENTATIONS, PRECISIONS, TAPS, Options

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

IMAGES = (
    "image files, folders, CSV or Parquet lists, zip and tar files, or their addresses; - for paths on standard input"
)

SEE = "see the images"  # what a cluster does
DATA = (
    "a folder with a folder per class, a CSV or Parquet manifest, or Parquet or tar files of images; or the address of "
    "one, such as s3://BUCKET/FOLDER or https://HOST/LIST.csv"
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)} (see {self.prog} --help)\n")

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """argparse itself says nothing where the standard output takes no more."""
        if file is sys.stdout and message:
            if file is None:
                raise ClosedOutputError(errno.EBADF, "it is closed")
            with writing():
                file.write(message)
        elif file is not None and message:
            with suppress(OSError):
                file.write(message)


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="headstart",
        description="A folder of labelled images in; an honest, deployable classifier out.",
        epilog="Begin with: headstart demo. Each command has its own --help.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"headstart {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)

    demo = command("demo", "train on images that ship with a dependency, offline, and say where the report is")
    demo.add_argument(
        "-o", "--output", default="headstart-demo", metavar="FOLDER", help="where to write (default: %(default)s)"
    )
    demo.add_argument("--force", action="store_true", help="replace a model of other data where the new one is written")
    demo.add_argument("--json", action="store_true", help="one JSON document on stdout")

    fit = command("fit", "train a classifier on labelled images, judge it, and save it with its report")
    fit.add_argument("data", metavar="DATA", help=f"{DATA}; or a FOLDER/ that headstart features has written")
    fit.add_argument(
        "-o", "--output", default="model", metavar="MODEL", help="folder of the saved model (default: %(default)s)"
    )
    fit.add_argument("--force", action="store_true", help="replace a model of other data where the new one is written")
    fit.add_argument(
        "--explain", action="store_true", help="show in the report where the network looked, of the worst mistakes"
    )
    fit.add_argument("--add-to", metavar="MODEL", help="a saved model to add these images, or their classes, to")
    fit.add_argument(
        "--track",
        default="",
        metavar="WHERE",
        help="also send losses and scores to tensorboard:FOLDER, mlflow:FOLDER or mlflow:http://SERVER, several with a "
        "comma (needs headstart[track])",
    )
    data = _data_options(fit, leaves_out=True)
    labels_option(data)
    add_truth(data)
    _head_options(fit)
    answer_options(fit)
    _tuning_options(fit)
    network = _network_options(fit, auto=True, spreads="see the images, and tune,")
    view_options(network)
    target_option(network)

    _add_asking_commands(command)
    _add_suggest(command)
    export_arguments(command)
    _add_recognising_commands(command)
    review_arguments(command)
    _add_relabel(command)
    _add_looking_commands(command)
    _add_ranking_command(command)
    add_push(command)
    add_serve(command)
    return top


def _add_asking_commands(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands that ask a saved model."""
    evaluate = command("evaluate", "score a saved model on labelled images")
    evaluate.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    evaluate.add_argument("data", metavar="DATA", help="as for fit; a test part is used alone where there is one")
    add_truth(_data_options(evaluate, asks=False))
    evaluate.add_argument("--positive", metavar="CLASS", help="of two classes, instead of the one that fit took")
    evaluate.add_argument("--json", action="store_true", help="one JSON document on stdout")

    predict = command("predict", "label images with a saved model")
    predict.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    predict.add_argument("images", nargs="+", metavar="IMAGES", help=IMAGES)
    predict.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="a .csv, .jsonl, .json or .parquet file instead of the terminal; FOLDER/ for many .parquet files",
    )
    predict.add_argument(
        "--explain",
        metavar="FOLDER",
        help="write each image there with what spoke for its answer, and what against it; with masks or boxes on it",
    )
    predict.add_argument("--masks", metavar="FOLDER", help="write the mask of each image there (--task segment)")
    predict.add_argument(
        "--tiles",
        type=count,
        metavar="PX",
        help="cut pictures that are much larger into tiles whose longer side is so many px, about that of the pictures "
        "that taught, and put masks or boxes together again",
    )
    predict.add_argument("--top", type=int, default=3, metavar="K", help="best classes to list (default: 3)")
    ray_option(predict, "answer")
    predict.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_suggest(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    suggest = command("suggest", "say which unlabelled images to label next, for a saved classifier to learn most")
    suggest.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    suggest.add_argument("images", nargs="+", metavar="IMAGES", help=IMAGES)
    suggest.add_argument(
        "-n", "--number", dest="n", type=count, default=100, metavar="N", help="how many (default: 100)"
    )
    suggest.add_argument("-o", "--output", metavar="FILE", help="a .csv list with a column label to fill, for fit")
    suggest.add_argument("--sheet", metavar="FILE", help="an .html page with their pictures")
    suggest.add_argument("--cache", metavar="FOLDER", help="where features are kept, as for fit")
    suggest.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_relabel(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    relabel = command("relabel", "apply an edited list of suspected labels: a new list of images, no image is touched")
    relabel.add_argument("data", metavar="DATA", help="the images that the list is of, as fit was given them")
    relabel.add_argument(
        "fixes", metavar="FIXES.csv", help="columns path, action (keep, relabel or drop) and label; others are ignored"
    )
    relabel.add_argument("-o", "--output", required=True, metavar="FILE.csv", help="the new list, which fit reads")
    relabel.add_argument("--label", metavar="COLUMN", help="the column of DATA that holds the class")
    relabel.add_argument("--group", metavar="COLUMN", help="as for fit: the new list has these groups")
    relabel.add_argument("--time", metavar="COLUMN", help="as for fit: the new list parts past and latest images so")
    relabel.add_argument("--new-labels", action="store_true", help="allow labels that DATA does not have")
    relabel.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_recognising_commands(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands of a model that recognises (fit --task recognise)."""
    enrol = command("enrol", "add a person or product to a model that recognises, without training, or take one out")
    enrol.add_argument("model", metavar="MODEL", help="a folder that fit --task recognise has written")
    enrol.add_argument("name", nargs="?", metavar="NAME", help="who or what the images show; known names get more")
    enrol.add_argument("images", nargs="*", metavar="IMAGES", help=IMAGES)
    enrol.add_argument("--remove", metavar="NAME", help="take this one out instead")
    enrol.add_argument("--json", action="store_true", help="one JSON document on stdout")

    verify = command("verify", "say whether two images show the same person or product, enrolled or not")
    verify.add_argument("model", metavar="MODEL", help="a folder that fit --task recognise has written")
    verify.add_argument("first", metavar="IMAGE", help="an image file")
    verify.add_argument("second", metavar="IMAGE", help="another one")
    verify.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_ranking_command(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Which network suits the images."""
    rank = command("rank", "say which network suits your images, by some of those that teach")
    rank.add_argument("data", metavar="DATA", help="as for fit; test and validation images are not looked at")
    rank.add_argument(
        "--backbones",
        metavar="NAME,MODEL,NAME=FILE",
        help="networks, saved models and networks with weights of your own (default: all whose weights are here)",
    )
    rank.add_argument("--download", action="store_true", help="also the best of those that may be fetched")
    rank.add_argument(
        "--budget",
        dest="whole_job",
        metavar="TIME",
        help="leave out networks with which a fit takes longer: 90s, 10m, 2h",
    )
    rank.add_argument("--diagnostics", action="store_true", help="NCE, LEEP and LogME too, which choose nothing")
    rank.add_argument(
        "--taps", default=Options.taps, metavar="|".join(TAPS), help="layers that the heads read (default: %(default)s)"
    )
    _data_options(rank, leaves_out=True)
    _network_options(rank, one=False)


def _add_features(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    features = command("features", "write what the network says of each image as a table")
    features.add_argument("data", metavar="DATA", help="as for fit, or images without labels")
    features.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="a .parquet, .csv or .jsonl file, or FOLDER/ for many Parquet files",
    )
    features.add_argument(
        "--layer", metavar="NAME", help="one layer only: pre_logits, last_map, block5_pool ... (default: all taps)"
    )
    features.add_argument(
        "--pool", default="avg", metavar="avg|max|none|flatten", help="how that layer is pooled (default: avg)"
    )
    features.add_argument("--model", metavar="MODEL", help="as a saved model sees them: what its head reads")
    view_options(_network_options(features, spreads=SEE))


def _add_looking_commands(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The commands that look at data, models and the cache, and train nothing."""
    _add_features(command)
    classify = command("classify", "say what a network trained on ImageNet sees in images: its own answer")
    classify.add_argument("images", nargs="+", metavar="IMAGES", help=IMAGES)
    classify.add_argument("-o", "--output", metavar="FILE", help="a .csv, .jsonl or .json file instead of the terminal")
    classify.add_argument("--top", type=int, default=5, metavar="K", help="best classes to list (default: 5)")
    _network_options(classify, stores=False)

    backbones = command("backbones", "list networks, any two of which run as A+B; fetch or carry their weights")
    backbones.add_argument("--search", metavar="TEXT", help="every network with weights that has this in its name")
    backbones.add_argument("--sort", metavar="COLUMN", help="top1, top5, parameters_millions, gmacs, depth, prior ...")
    doing = backbones.add_mutually_exclusive_group()
    doing.add_argument("--download", metavar="NAME", help="put the weights of a network on this machine")
    doing.add_argument(
        "--export-weights", nargs=2, metavar=("NAME", "FILE"), help="write weights as one .safetensors file"
    )
    doing.add_argument("--import-weights", metavar="FILE", help="take such a file in, for use without a connection")
    backbones.add_argument("--json", action="store_true", help="one JSON document on stdout")

    _add_inspect(command)
    compare = command("compare", "frozen, tuned, from scratch, random weights, raw pixels: same images, paired")
    compare.add_argument("data", metavar="DATA", help="as for fit; without a split a quarter is held out")
    _data_options(compare, leaves_out=True)
    compare.add_argument("--epochs", type=int, metavar="N", help="of every arm that trains (default: by the images)")
    compare.add_argument(
        "--augment", default=Options.augment, metavar="|".join(AUGMENTATIONS), help="random views, as for fit"
    )
    compare.add_argument("--curve", action="store_true", help="each arm with a quarter and half of the images too")
    compare.add_argument(
        "--freeze-depth",
        action="store_true",
        help="instead: accuracy against how many stages stay frozen, the rest tuned or drawn anew",
    )
    _network_options(compare)

    report = command("report", "say what a saved model is and where its report lies")
    report.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    report.add_argument("--json", action="store_true", help="one JSON document on stdout")

    cache = command("cache", "show the size of stored features and networks, or clear them")
    cache.add_argument("--clear", action="store_true", help="delete them")
    cache.add_argument("--cache", metavar="FOLDER", help="another place than HEADSTART_CACHE or the platform's cache")
    cache.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_inspect(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    inspect = command("inspect", "list broken files, odd pictures, duplicates, leaks, shortcuts and imbalance of data")
    inspect.add_argument("data", metavar="DATA", help="as for fit")
    inspect.add_argument("-o", "--output", metavar="FILE", help="also write it as a page with pictures: a .html file")
    inspect.add_argument(
        "--fail-on",
        metavar="LIST",
        help="end with exit code 1 where one of these is found: leaks, conflicts, unreadable, shift, shortcut; several "
        "with commas between",
    )
    add_truth(_data_options(inspect))
    _network_options(inspect, spreads=SEE)


def _data_options(
    command: argparse.ArgumentParser, leaves_out: bool = False, asks: bool = True
) -> argparse._ArgumentGroup:
    """What the truth is, what belongs together, and which classes count. `asks`: whether no saved model says the
    task."""
    data = command.add_argument_group("the data")
    if asks:
        data.add_argument(
            "--task",
            default="auto",
            metavar="auto|classify|tag|regress|recognise|anomaly|segment|detect",
            help="what is learned of an image: its class; several labels; measured values; who or what it is, new ones "
            "too; whether anything is odd, from good pictures alone; the class of each pixel, from masks; which "
            "things lie where, from boxes (default: what the data clearly hold, and never masks or boxes)",
        )
    data.add_argument(
        "--label", metavar="COLUMN", help="the column of the truth in a list, or several with commas between"
    )
    data.add_argument(
        "--group-by",
        type=expression,
        metavar="REGEX|folder|none",
        help="images that stay together, such as those of one patient: what REGEX (or its bracketed part) matches in "
        "their names below DATA, or the folder inside their class; none: the topmost folders are the classes, and "
        "folders in them mean nothing",
    )
    data.add_argument(
        "--group",
        metavar="COLUMN",
        help="the column of a list whose values say which images belong together (hospital, camera, patient): each "
        "group is judged by what the others taught",
    )
    if leaves_out:
        data.add_argument(
            "--time",
            metavar="COLUMN",
            help="the column of a list with dates (2024-03-01) or numbers: the past teaches, and the latest fifth of "
            "the images judges",
        )
        data.add_argument(
            "--min-images",
            type=count,
            metavar="N",
            help="leave out classes with fewer training images (default: 2 are needed, and none is left out)",
        )
    return data


def _head_options(command: argparse.ArgumentParser) -> None:
    """What reads the network's features, and how it is trained."""
    fit = command.add_argument_group("the head")
    fit.add_argument(
        "--taps", default=Options.taps, metavar="|".join(TAPS), help="layers that the head reads (default: %(default)s)"
    )
    fit.add_argument("--layer", metavar="NAME", help="the one layer to read: last_map, block5_pool, layer3 ...")
    fit.add_argument(
        "--head",
        default=Options.head,
        metavar="auto|LAYERS",
        help='layers of your own, such as "gap, dropout 0.2, dense 128 relu" (default: auto, in closed form)',
    )
    fit.add_argument(
        "--epochs", type=int, metavar="N", help="of training it, or of tuning (default: by the number of images)"
    )
    fit.add_argument("--batch-size", type=int, metavar="N", help="images a step of that training (default: 32)")
    fit.add_argument(
        "--optimizer",
        default=Options.optimizer,
        metavar="|".join(recipe.RATES),
        help="of that training (default: %(default)s)",
    )


def _tuning_options(command: argparse.ArgumentParser) -> None:
    """What learns beside the head."""
    fit = command.add_argument_group("fine-tuning")
    fit.add_argument(
        "--tune",
        default=Options.tune,
        metavar="none|auto|last|N|STAGE|all",
        help="what learns beside the head: the last stage, the last N modules with weights, all from a stage on, all; "
        "auto keeps it only where it wins on held-out images (default: %(default)s)",
    )
    fit.add_argument(
        "--augment",
        default=Options.augment,
        metavar="|".join(AUGMENTATIONS),
        help="random views that are true of such pictures, for tuning (default: %(default)s)",
    )
    fit.add_argument(
        "--lr", metavar="RATE|find", help="peak learning rate; find: by a range test (default: by the network)"
    )
    fit.add_argument(
        "--budget", metavar="TIME", help="time for tuning and judging it: 90s, 10m, 2h (default: no limit)"
    )


def _which_network(command: argparse._ArgumentGroup, auto: bool) -> None:
    also = ", or auto: the one that suits the images best, of those at hand or of auto:NAME,NAME" if auto else ""
    command.add_argument(
        "--backbone",
        default=Options.backbone,
        metavar="NAME|MODEL|auto" if auto else "NAME|MODEL",
        help=f"a network (see headstart backbones), two as A+B, or a saved model{also} (default: {Options.backbone})",
    )
    command.add_argument(
        "--weights",
        default=Options.weights,
        metavar="auto|none|FILE",
        help="a .safetensors or .pth file, or none for random (default: %(default)s)",
    )


def _network_options(
    parser: argparse.ArgumentParser, stores: bool = True, one: bool = True, auto: bool = False, spreads: str = ""
) -> argparse._ArgumentGroup:
    """`stores`: the command keeps features, and draws at random; `one`: it takes one network, `auto`: or chooses it;
    `spreads`: what a cluster may do."""
    command = parser.add_argument_group("the network")
    if one:
        _which_network(command, auto)
    command.add_argument(
        "--size", type=int, metavar="PX", help="side of the network's input in pixels (default: from the images)"
    )
    command.add_argument(
        "--bands", metavar="R,G,B", help="bands of a TIFF to see in red, green and blue, such as 4,3,2; or one for grey"
    )
    command.add_argument(
        "--precision",
        default=Options.precision,
        metavar="|".join(PRECISIONS),
        help="numbers that the network runs in (default: %(default)s)",
    )
    if spreads:
        ray_option(command, spreads)
    if stores:
        command.add_argument(
            "--cache",
            metavar="FOLDER",
            help="where features are kept (default: HEADSTART_CACHE, else the platform's cache)",
        )
        command.add_argument(
            "--seed", type=int, default=Options.seed, metavar="N", help="of every random draw (default: %(default)s)"
        )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return command
