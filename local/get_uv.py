"""Put the `uv` program into a folder: `python3 get_uv.py FOLDER`, on any Python 3.

By pip, which knows the machine's index; where there is no pip (Debian's Python comes without), by fetching the wheel from
PyPI with the standard library and checking its SHA-256.
"""

import hashlib
import io
import json
import pathlib
import platform
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile

INDEX = "https://pypi.org/pypi/uv/json"


def main(folder: str) -> None:
    """Leave the program in `folder`/bin/uv."""
    by_pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder, "uv"]
    if subprocess.run(by_pip, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        binary = pathlib.Path(folder, "bin", "uv")
        binary.parent.mkdir(parents=True, exist_ok=True)
        binary.write_bytes(unpacked(fetched_wheel()))
        binary.chmod(0o755)


def fetched_wheel() -> bytes:
    """Return the content of the newest wheel for this machine."""
    with urllib.request.urlopen(INDEX) as answer:
        files = json.load(answer)["urls"]
    system, machine = this_machine()
    fitting = [file for file in files if system in file["filename"] and file["filename"].endswith(machine + ".whl")]
    if not fitting:
        sys.exit(f"PyPI has no uv for {system} {machine}: install uv yourself and run this again.")
    with urllib.request.urlopen(urllib.parse.urljoin(INDEX, fitting[0]["url"])) as answer:  # noqa: S310
        wheel = bytes(answer.read())
    if hashlib.sha256(wheel).hexdigest() != fitting[0]["digests"]["sha256"]:
        sys.exit("The uv that was fetched is not the one that PyPI names: nothing was installed.")
    return wheel


def this_machine() -> "tuple[str, str]":
    """Name this machine as wheels do: (system, processor)."""
    processor = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if sys.platform == "darwin":
        return "macosx", {"aarch64": "arm64"}.get(processor, processor)
    return ("manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"), processor


def unpacked(wheel: bytes) -> bytes:
    """Return the program inside a wheel."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/scripts/uv")))


if __name__ == "__main__":
    main(sys.argv[1])
