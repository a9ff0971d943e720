"""Files of the Hugging Face hub: fetched once into the cache, checked by their hash; and the contents of config.json.

The protocol is that of huggingface_hub: ENDPOINT/OWNER/NAME/resolve/REVISION/FILE answers with the commit, the size and
the SHA-256 of the file, and redirects to its place. HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE
have the same meaning as there, and files that huggingface_hub has fetched are used from its cache.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from resnetlab.data.fetch import HEADERS, TIMEOUT, DownloadProgress, download, held, writing
from resnetlab.data.open import File
from resnetlab.data.resizing import INTERPOLATIONS, LEAST_SHARE, Resizing
from resnetlab.errors import UserError, printable
from resnetlab.storage import cache_folder, write_atomically
from resnetlab.weights.architectures import CONFIG, MOST_BYTES, read_config, timms_settings
from resnetlab.weights.metadata import Preprocessing

MODEL = "model.safetensors"  # the weights in a repository
OLD_MODEL = "pytorch_model.bin"  # the same of before 2023
PREPROCESSOR = "preprocessor_config.json"  # of transformers, beside config.json
PILLOWS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # numbers of interpolations
CROP_SHARE, INTERPOLATION = 0.875, "bicubic"  # where timm's config.json has none
WARPED = 384  # pixels a side, from which on ConvNeXT's processor of transformers squeezes images instead of cropping
REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)  # owner/name, and a revision
_YES = ("1", "ON", "YES", "TRUE")  # values of HF_HUB_OFFLINE


def place(name: str) -> Path:
    """The folder with the files of a repository: huggingface_hub's if it has the weights, else ours."""
    return _of_huggingface_hub(*_parsed(name)) or _folder(name)


def fetch(name: str) -> Iterator[DownloadProgress]:
    """Fetch the weights of a repository, "owner/name" or "owner/name@revision", and what states its preprocessing.

    Yields nothing if they are in the cache already, even if the repository has changed. Raises UserError if there is no
    such repository, or no network, and for weights whose hash differs from the one that the hub states.
    """
    repository, revision = _parsed(name)
    folder = place(name)
    if _has_weights(folder):
        return
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
        raise UserError(f"hf:{name}: is not in the cache, and HF_HUB_OFFLINE is set; unset it to download the weights.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with held(folder, waits=True):
        if _has_weights(folder):  # by another process, meanwhile
            return
        told = _told_of_weights(repository, revision)
        address = _address(repository, told.commit or revision)
        for file in (CONFIG, PREPROCESSOR):
            _fetch_small(address, file, folder)
        weights = File(told.file, told.size, told.sha256)
        yield from download(weights, folder, (address,), token=_token(address))


def _parsed(name: str) -> tuple[str, str]:
    if not (found := REPOSITORY.fullmatch(name)) or ".." in name:
        raise UserError(f"hf:{name}: not a repository of the hub; write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION.")
    return found[1], found[2] or "main"


def _folder(name: str) -> Path:
    return cache_folder() / "hub" / name.replace("/", "--")


def _has_weights(folder: Path) -> bool:
    return any((folder / file).exists() for file in (MODEL, OLD_MODEL))


def _of_huggingface_hub(repository: str, revision: str) -> Path | None:
    """The folder of a repository in huggingface_hub's cache, if that has its weights."""
    home = Path(os.environ.get("HF_HOME") or cache_folder().parent / "huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    kept = cache / f"models--{repository.replace('/', '--')}"
    try:
        commit = (kept / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    folder = kept / "snapshots" / commit
    return folder if _has_weights(folder) else None


def _address(repository: str, revision: str) -> str:
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{repository}/resolve/{quote(revision, safe='')}/"


def _token(address: str) -> str:
    """The user's token, for private repositories; "" if there is none, and for plain HTTP to another machine."""
    here = urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
    if urlsplit(address).scheme != "https" and not here:
        return ""
    return os.environ.get("HF_TOKEN", "").strip()


class _Told(NamedTuple):
    """What the hub states about a file."""

    file: str
    size: int
    sha256: str
    commit: str


class _WithinHost(HTTPRedirectHandler):
    """Follows the redirect of a renamed repository, but not that to the file's place, whose headers describe it."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).netloc != urlsplit(req.full_url).netloc or headers.get("X-Linked-Etag"):
            return None
        followed = Request(newurl, headers=dict(req.headers), method=req.get_method())
        followed.unredirected_hdrs.update(req.unredirected_hdrs)
        return followed


def _told_of_weights(repository: str, revision: str) -> _Told:
    """What the hub states about a repository's weights. Raises UserError if there are none, or without a hash."""
    for file in (MODEL, OLD_MODEL):
        address = _address(repository, revision)
        with _asked(f"{address}{file}", f"hf:{repository}", method="HEAD") as answer:
            if answer.status == http.HTTPStatus.NOT_FOUND:
                continue
            headers = answer.headers
        etag = _etag(headers.get("X-Linked-Etag") or headers.get("ETag") or "")
        if not re.fullmatch(r"[0-9a-f]{64}", etag):
            raise UserError(
                f"hf:{repository}: the hub states no SHA-256 of {file}, so a download can't be checked; download "
                f"{address}{file} by hand, and give the file in place of the name."
            )
        size = headers.get("X-Linked-Size") or (headers.get("Content-Length") if answer.status == 200 else None)
        commit = headers.get("X-Repo-Commit", "")
        return _Told(file, int(size or 0), etag, commit if re.fullmatch(r"[0-9a-f]{40}", commit) else "")
    raise UserError(
        f"hf:{repository}: the hub has no such repository at {revision}, or neither {MODEL} nor {OLD_MODEL} in it."
    )


def _fetch_small(address: str, file: str, folder: Path) -> None:
    """Fetch a file of settings, if there is one; it is small and holds nothing that could be executed.

    Raises UserError if it does not arrive whole: without it, a network that config.json would have had refused loads.
    """
    with _asked(address + file, address, method="GET", follows=True) as answer:
        try:
            content = _whole(answer) if isinstance(answer, http.client.HTTPResponse) else b""
        except (OSError, http.client.HTTPException) as error:
            raise _failed(address, address, f"breaks off in {file} ({_cause(error)})") from error
        etag = _etag(answer.headers.get("ETag") or "")
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()  # as Git hashes it
    if content and (not re.fullmatch(r"[0-9a-f]{40}", etag) or etag == blob):
        with writing(folder):
            write_atomically(folder / file, content)


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """The content, of at most MOST_BYTES. Raises IncompleteRead if it ends before the length that was announced."""
    content = answer.read(MOST_BYTES)
    if answer.length and len(content) < MOST_BYTES:  # still to come
        raise http.client.IncompleteRead(content, answer.length)
    return content


def _etag(text: str) -> str:
    return text.removeprefix("W/").strip('"')


def _asked(url: str, what: str, *, method: str, follows: bool = False) -> http.client.HTTPResponse | HTTPError:
    """The hub's answer: 200, a redirect or 404. Raises UserError for any other, and if there is none."""
    request = Request(url, headers=HEADERS)
    request.method = method
    if token := _token(url):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    opener = build_opener() if follows else build_opener(_WithinHost)
    host = urlsplit(url).netloc
    try:
        return opener.open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code in (401, 403):
            raise UserError(
                f"{what}: {host} answers {error.code} {error.reason}: there is no such repository, or it is not public "
                "and needs your token, in HF_TOKEN."
            ) from error
        if error.code == http.HTTPStatus.NOT_FOUND or 300 <= error.code < 400:
            return error
        raise _failed(what, url, f"answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _failed(what, url, f"can't be reached ({_cause(error)})") from error


def _failed(what: str, url: str, words: str) -> UserError:
    return UserError(
        f"{what}: {urlsplit(url).netloc} {words}. Check the network and repeat the command, or download {MODEL} of the "
        "repository by hand, and give the file in place of the name."
    )


def _cause(error: Exception) -> object:
    cause = error.reason if isinstance(error, URLError) else error
    return getattr(cause, "strerror", None) or cause


def preprocessing(folder: Path, image_size: int | None = None) -> Preprocessing | None:
    """The preprocessing that timm's config.json or transformers' preprocessor_config.json in a folder states, or None.

    image_size: given if it is not the file's own; timm may state another crop for a larger size.
    """
    try:
        if cfg := timms_settings(read_config(folder / CONFIG)):
            found = _of_timm(cfg, image_size)
        else:
            found = _of_transformers(read_config(folder / PREPROCESSOR))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, IndexError):
        return None
    possible = all(map(math.isfinite, found.mean)) and all(0 < deviation < math.inf for deviation in found.std)
    return found if possible else None


def _of_timm(told: dict[str, Any], image_size: int | None) -> Preprocessing:
    """Raises ValueError, or another error that the content causes, for settings that are none."""
    _, height, width = map(int, told["input_size"])
    larger = image_size is not None and image_size == (told.get("test_input_size") or [None])[-1]
    share = float(told.get("crop_pct", CROP_SHARE))
    share = float(told.get("test_crop_pct", share)) if larger else share
    if not 0 < share < math.inf:
        raise ValueError("no share")
    other = [] if height == width else [f"takes images of {width} x {height} pixels (here squares)"]
    resizing = _resizing(share, told.get("interpolation"), told.get("crop_mode"), other)
    size = height if height == width else None
    return Preprocessing(_numbers(told["mean"]), _numbers(told["std"]), size, resizing, _words(other))


def _of_transformers(told: dict[str, Any]) -> Preprocessing:
    """The same of an image processor: ConvNeXT's, which ResNets have and which crops a share, or another's."""
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    sides, crop, other = _sides(told["size"]), told.get("crop_size"), list[str]()
    is_convnext = "ConvNext" in kind or (not kind and "crop_pct" in told)
    size: int | None = sides[-1]
    share = 1.0
    if len(set(sides)) > 1:
        other.append(f"takes images of {sides[1]} x {sides[0]} pixels (here squares)")
        size = None
    elif crop and told.get("do_center_crop", True):
        size = _sides(crop)[0]
        share = size / sides[0]
        if len(set(_sides(crop))) > 1:
            other.append(f"takes images of {_sides(crop)[1]} x {size} pixels (here squares)")
            size, share = None, 1.0
    elif is_convnext and sides[0] >= WARPED:
        sides *= 2
    elif is_convnext and len(sides) == 1:
        share = float(told.get("crop_pct") or CROP_SHARE)
    elif len(sides) == 1:
        other.append("does not crop images (here the centre is cropped)")
    if len(sides) > 1 and len(set(sides)) == 1:
        other.append("squeezes images into squares (here the centre is cropped)")
    if not told.get("do_resize", True):
        other.append("does not resize images (here they are resized)")
    resizing = _resizing(share, PILLOWS.get(told.get("resample", 2), str(told.get("resample"))), None, other)
    return Preprocessing(*_mean_and_std(told), size, resizing, _words(other))


def _mean_and_std(told: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What an image processor normalises by, in the units of pixels / 255."""
    mean, std = _numbers(told["image_mean"]), _numbers(told["image_std"])
    if not told.get("do_normalize", True):
        mean, std = (0.0,) * len(mean), (1.0,) * len(std)
    scale = 255 * float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale", True) else 255.0
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _sides(size: int | dict[str, int]) -> tuple[int, ...]:
    """The short side in pixels, or height and width. Raises KeyError, ValueError or TypeError if there are none."""
    if not isinstance(size, dict):
        return (int(size),)
    keys = ("height", "width") if "height" in size else ("shortest_edge",)
    return tuple(int(size[key]) for key in keys)


def _numbers(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(map(float, values))


def _resizing(share: float, interpolation: str | None, crop_mode: str | None, other: list[str]) -> Resizing:
    """The resizing that is stated, as far as resnetlab supports it; what it does not is added to `other` in words."""
    interpolation = interpolation or INTERPOLATION
    if interpolation not in INTERPOLATIONS:
        other.append(f"resizes images with {printable(str(interpolation))[:40]} interpolation (here bilinear)")
    if not LEAST_SHARE <= share <= 1 or crop_mode not in (None, "center"):
        mode = printable(str(crop_mode or "center"))[:40]
        other.append(f"resizes images to a crop share of {share:g}, crop mode {mode} (here {CROP_SHARE}, center)")
        share = CROP_SHARE
    known = interpolation if interpolation in INTERPOLATIONS else "bilinear"
    return Resizing.from_dict({"crop_share": share, "interpolation": known})


def _words(other: list[str]) -> str:
    return f"its project {' and '.join(other)}" if other else ""
