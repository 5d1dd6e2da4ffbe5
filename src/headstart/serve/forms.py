"""The files of a form (multipart/form-data), in memory: a body is bounded, and nothing of it is written to the disk."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from headstart.serve.refusals import Refusal

NAME = "content-disposition"


class Form:
    """Takes a body chunk by chunk. Raises Refusal where it is damaged, and for more than `most` files."""

    def __init__(self, content_type: str, most: int) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise Refusal(422, "the Content-Type of the form names no boundary: let the program that sends it write it")
        self._most, self._ended = most, False
        self._header, self._value, self._said = b"", b"", b""
        self._file: tuple[str, bytearray] | None = None  # of the part that is read
        self._files: list[tuple[str, bytearray]] = []
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _damaged(error) from None

    def take(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _damaged(error) from None

    def files(self) -> list[tuple[str, bytes]]:
        """(name as it was given, content) of each, when the body is whole."""
        if not self._ended:
            raise _damaged("its end is missing")
        if not self._files:
            raise Refusal(422, "the form holds no file: send images as files, as curl -F image=@photo.jpg does")
        return [(name, bytes(content)) for name, content in self._files]

    def _begin(self) -> None:
        self._file, self._said = None, b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == NAME.encode():
            self._said = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        given = parse_options_header(self._said)[1].get(b"filename")
        if given is None:  # a field: it is passed over
            return
        if len(self._files) == self._most:
            raise Refusal(413, f"more than {self._most} files in one request (--max-images): send several requests")
        self._file = (_text(given), bytearray())
        self._files.append(self._file)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file[1].extend(memoryview(data)[start:end])

    def _end(self) -> None:
        self._ended = True


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _damaged(reason: object) -> Refusal:
    return Refusal(422, f"the form is damaged or cut short ({str(reason)[:100].rstrip('.')}): send it again")
