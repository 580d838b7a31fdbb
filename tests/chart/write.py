"""Writes what is made from the chart: the table of values in its README, the golden files, the manifests in k8s/."""

import shutil

import plain
import rendering
import values_table

README = rendering.CHART / "README.md"


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def main():
    README.write_text(values_table.with_table(README.read_text()))
    shutil.rmtree(plain.GOLDEN, ignore_errors=True)
    write(plain.GOLDEN, plain.golden())
    files = plain.manifests()
    for made in ("base", "components"):
        shutil.rmtree(plain.K8S / made, ignore_errors=True)
    write(plain.K8S, files)


if __name__ == "__main__":
    main()
