"""The options that say what a network sees: of each picture, and of the place where a model is used."""

from __future__ import annotations

import argparse

from headstart.story.options import SIGHTS, Options


def view_options(network: argparse._ArgumentGroup) -> None:
    """What the network sees of a picture."""
    network.add_argument(
        "--view",
        default=Options.view,
        metavar="|".join(SIGHTS),
        help="what is seen of a picture: crop, its middle; whole, all of it, in an input of the shape that most have; "
        "pad, all of it in a square with borders; auto: the middle, and of elongated pictures what left-out answers "
        "prefer (default: %(default)s)",
    )
    network.add_argument(
        "--views",
        type=int,
        default=Options.views,
        metavar="1|2",
        help="2: also its mirror image, features averaged; some right answers more, for twice the time of the network, "
        "in use too; not where left and right differ in meaning (default: %(default)s)",
    )


def target_option(network: argparse._ArgumentGroup) -> None:
    """Pictures of the place of use."""
    network.add_argument(
        "--target",
        metavar="PICTURES",
        help="pictures without labels of the place of use, which hold the classes in about the same shares: where they "
        "are of another kind than those that teach, the model is fitted to them (one class an image; default: none)",
    )
