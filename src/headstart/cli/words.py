"""What the words of some arguments must be; each raises what argparse shows."""

from __future__ import annotations

import argparse
import re


def expression(text: str) -> str:
    """A regular expression with at most one group in brackets, or a word."""
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression ({error})") from None
    if groups > 1 or not text:
        raise argparse.ArgumentTypeError(f"{text!r} has {groups} groups in brackets: allowed are none or one")
    return text


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a whole number from 1 on")
    return int(text)
