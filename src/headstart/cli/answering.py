"""The options of a fit that say what its answers serve and how sure they must be."""

from __future__ import annotations

import argparse

from headstart.story.options import AIMS, SETS, Options


def add_good(data: argparse._ArgumentGroup) -> None:
    """Which pictures are good, where good ones alone teach."""
    data.add_argument(
        "--good",
        metavar="LABEL",
        help="the label of good pictures, or several with commas between (--task anomaly; default: labels called good, "
        "ok, normal, no_crack or the like; a folder of pictures alone is all good)",
    )


def add_truth(data: argparse._ArgumentGroup) -> None:
    """What the labels of a task of its own mean."""
    add_good(data)
    data.add_argument(
        "--classes",
        metavar="FILE|NAMES",
        help="what the values in masks are called (--task segment): names with commas between, in the order of their "
        "numbers from 0 on, or a file with a line name, number,name or name,r,g,b for each; one called void, ignore or "
        "unlabelled neither teaches nor judges (default: such a file beside the masks, else the numbers)",
    )


def answer_options(command: argparse.ArgumentParser) -> None:
    """What is answered, and what is said of how sure it is."""
    fit = command.add_argument_group("the answers")
    fit.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="the probability from which a label is given (several labels an image; default: the best F1 of each)",
    )
    fit.add_argument(
        "--false-alarms",
        type=float,
        metavar="SHARE",
        help="of new good pictures the share that may be called odd (--task anomaly; default: 0.05)",
    )
    fit.add_argument(
        "--coverage",
        type=float,
        metavar="SHARE",
        help="predict names beside its answer all classes that can be meant; of new images the share whose true class "
        "is among them (one class an image; default: 0.9)",
    )
    fit.add_argument(
        "--sets",
        default=Options.sets,
        metavar="|".join(SETS),
        help="how these classes are chosen: lac, as few as possible on average; raps, more where the model is unsure; "
        "classwise, so that the share holds for the images of each class, rare ones too (one class an image; default: "
        "%(default)s)",
    )
    fit.add_argument(
        "--max-error",
        type=float,
        metavar="SHARE",
        help="predict marks answers as not sure enough, so that of the others at most this share is wrong, such as "
        "0.02 (one class an image; with 95 %% confidence; default: none is marked)",
    )
    fit.add_argument(
        "--positive",
        metavar="CLASS",
        help="of two classes the one that is looked for, of which sensitivity is said (one class an image; "
        "default: not one called no, normal, good or the like; else the rarer one)",
    )
    fit.add_argument(
        "--aim",
        default=Options.aim,
        metavar="|".join(AIMS),
        help="what answers serve: the share that is right, or the mean of the classes' own shares, in which a rare "
        "class counts the same (one class an image; default: %(default)s)",
    )
    fit.add_argument(
        "--cost",
        metavar="FILE",
        help="a CSV file of what each mistake costs: a row for each true class, a column for each answer; the answer "
        "is the one whose expected cost is smallest (one class an image; default: all mistakes are alike)",
    )
