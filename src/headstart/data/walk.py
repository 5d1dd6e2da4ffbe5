"""What lies below a folder: files that may be pictures, and, counted, all that is passed over on the way."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.tree import EXAMPLES, Folder, images, shown, some
from headstart.errors import DataError

DROPPINGS = frozenset(  # what operating systems and programs leave behind
    """thumbs.db ehthumbs.db desktop.ini __macosx @eadir $recycle.bin #recycle lost+found __pycache__
    zbthumbnail.info icon\r""".split()  # noqa: SIM905
) | {"system volume information"}
NO_IMAGE = frozenset(  # extensions that no picture has
    """txt csv tsv json jsonl ndjson geojson xml yaml yml toml ini cfg md rst html htm css js db sqlite log py
    ipynb sh bat exe dll zip tar gz bz2 xz 7z rar npy npz mat h5 hdf5 parquet arrow pkl pickle pt
    pth onnx safetensors mp3 wav mp4 mov avi mkv webm doc docx xls xlsx ppt pptx pdf lnk url
    md5 sha1 sha256 kml kmz gpx asc r""".split()  # noqa: SIM905
)
SIDECARS = frozenset(  # extensions of files that belong to another: reduced copies, masks, places on Earth, settings
    """ovr rrd msk aux xmp aae pp3 dop tfw tifw tiffw jgw jpgw jpegw pgw pngw bpw bmpw gfw gifw j2w jp2w sdw wld prj
    dbf shp shx sbn sbx cpg qix qpj qml vrt enp imd rpb""".split()  # noqa: SIM905
)
BESIDE_ANOTHER = frozenset({"hdr", "thm"})  # a sidecar where a file of the same stem lies beside it, else a picture
PICTURES = frozenset(  # extensions that a picture may have after that of another, as in 1.tif.jpg
    """jpg jpeg jpe jfif png tif tiff bmp gif webp avif heic heif jp2 j2k jxl ppm pgm pbm pnm tga qoi psd ico dng dcm
    hdr exr nii""".split()  # noqa: SIM905
)
LISTS = frozenset({"csv", "tsv", "jsonl", "parquet", "xls", "xlsx"})  # extensions of files in which labels may stand
_MASK = re.compile(r"[-_. ](?:masks?|seg|segmentation|gt|groundtruth|annotation)(?:[-_ ]?\d+)?$", re.IGNORECASE)
ONE = {  # why a single thing was passed over
    "hidden or system files": "hidden or system file",
    "stray files that are no images": "stray file that is no image",
    "pipes and devices": "pipe or device",
    "links that lead in a circle": "link that leads in a circle",
    "masks that lie beside their pictures": "mask that lies beside its picture",
    "masks of pictures": "mask of a picture",
    "files beside the class folders": "file beside the class folders",
    "files beside the split folders": "file beside the split folders",
    "folders beside the split folders": "folder beside the split folders",
    "folders without images": "folder without images",
    "folders of masks or boxes": "folder of masks or boxes",
}

Place = tuple[int, int]  # device and number: two names of one folder have the same


@dataclass
class Walk:
    """Files that might be images, below a folder, and what was passed over on the way."""

    root: str
    masks: bool = (
        True  # whether x_mask.png beside x.png is a picture: what teaches is no mask, what is predicted may be
    )
    ignored: dict[str, list[str]] = field(default_factory=dict)
    sidecars: Counter[str] = field(default_factory=Counter)  # ".tfw" -> how many
    nested: Counter[str] = field(default_factory=Counter)

    def tree(self, start: str = "") -> Folder:
        """All folders below the root, or below `start`. Raises DataError.

        A link never leads back; in one class, be it on top or in a part, one folder is not entered twice by links.
        """
        start = start or self.root
        top = Folder(Path(start).name, start, None, 0)
        pending: list[tuple[Folder, tuple[Place, ...], set[Place]]] = [(top, (_identity(start),), set())]
        order = []
        while pending:
            folder, path, seen = pending.pop()
            order.append(folder)
            inner, folder.files = self.entries(folder.path, folder)
            children: list[tuple[Folder, tuple[Place, ...], set[Place]]] = []
            for entry in sorted(inner, key=lambda e: e.is_symlink()):  # what lies here comes before what is linked
                identity = _identity(entry.path)
                linked = entry.is_symlink()
                mine = set() if folder.depth == 0 or (folder.depth == 1 and not linked) else seen
                if identity in path or (linked and identity in mine):
                    self.ignore("links that lead in a circle", entry.path)
                    continue
                mine.add(identity)
                child = Folder(entry.name, entry.path, folder, folder.depth + 1)
                children.append((child, (*path, identity), mine))
            children.sort(key=lambda c: os.fsencode(c[0].name))
            folder.folders = [child for child, _, _ in children]
            pending += children[::-1]
        for folder in reversed(order):
            folder.total += len(folder.files)
            if folder.above:
                folder.above.total += folder.total
        return top

    def below(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Files that may be pictures at any depth below a folder, in order."""
        for found in self.tree(folder).below():
            yield from found.files

    def entries(
        self, place: str, folder: Folder | None = None
    ) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """(folders, files that may be pictures) directly in a folder, sorted bytewise. Raises DataError."""
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda e: os.fsencode(e.name))
        except OSError as error:
            raise DataError(f"{shown(place)} cannot be listed: {error.strerror}") from error
        folder = folder or Folder("", place, None, 0)
        folders, files = [], []
        for entry in entries:
            kind = entry.name.rpartition(".")[2].lower()
            if entry.name.startswith(".") or entry.name.lower() in DROPPINGS:
                self.ignore("hidden or system files", entry.path)
            elif _is(entry, folder=True):
                folders.append(entry)
            elif kind in SIDECARS or entry.name.lower().endswith(".aux.xml"):
                self.sidecars[".aux.xml" if kind == "xml" else f".{kind}"] += 1
            elif kind in NO_IMAGE:
                self.ignore("stray files that are no images", entry.path)
                folder.strays[f".{kind}"] += 1
                if kind in LISTS:
                    folder.lists.append(entry.name)
            elif _is(entry, folder=False) or entry.is_symlink():  # a broken link is reported when it is read
                files.append(entry)
            else:
                self.ignore("pipes and devices", entry.path)
        return folders, self._without_companions(files)

    def _without_companions(self, files: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
        """Without files that belong to another one by their names: a.tif.x and a.hdr beside a.tif, a_mask.png beside
        a.png."""
        suspects = [f for f in files if f.name.count(".") > 1 or _MASK.search(_stem(f.name)) or _is_beside(f.name)]
        if not suspects:
            return files
        stems = Counter(_stem(f.name).lower() for f in files)
        every = {f.name.lower() for f in files}
        passed = set()
        for entry in suspects:
            stem, kind = _stem(entry.name).lower(), _extension(entry.name)
            if (kind in BESIDE_ANOTHER and stems[stem] > 1) or (kind not in PICTURES and stem in every):
                self.sidecars[f".{kind}"] += 1
            elif not self.masks and _MASK.search(stem) and stems[_MASK.sub("", stem)]:
                self.ignore("masks that lie beside their pictures", entry.path)
            else:
                continue
            passed.add(entry.name)
        return [f for f in files if f.name not in passed]

    def ignore(self, why: str, path: str) -> None:
        self.ignored.setdefault(why, []).append(self.relative(path))

    def relative(self, path: str) -> str:
        """The path as it is shown: below the root, with forward slashes."""
        return shown(os.path.relpath(path, self.root).replace(os.sep, "/"))

    def notes(self) -> list[str]:
        """What was passed over, and which classes took in the images of folders inside them."""
        inner = [
            f"{self.relative(folder)}: {images(count)} in folders inside it "
            f"belong{'s' if count == 1 else ''} to the same class"
            for folder, count in self.nested.items()
        ]
        if len(inner) > EXAMPLES:
            folders = some([self.relative(folder) for folder in self.nested])
            what = f"{images(self.nested.total())} in folders inside {len(inner)} class folders"
            inner = [f"{what} belong to those classes: {folders}"]
        return self.passed_over() + inner

    def passed_over(self) -> list[str]:
        notes = [
            f"ignored {len(paths)} {ONE.get(why, why) if len(paths) == 1 else why}: {some(paths)}"
            for why, paths in sorted(self.ignored.items())
            if paths
        ]
        if self.sidecars:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.sidecars.items()))
            count = self.sidecars.total()
            what = "sidecar files, which belong" if count > 1 else "sidecar file, which belongs"
            notes.append(f"ignored {count} {what} to other files ({kinds})")
        return notes


def _is_beside(name: str) -> bool:
    return _extension(name) in BESIDE_ANOTHER


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _is(entry: os.DirEntry[str], folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # a link to itself
        return False


def _identity(path: str) -> Place:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be listed: {error.strerror}") from error
    return status.st_dev, status.st_ino
