"""A LaTeX document compiled as a user would, where there is a TeX."""

import shutil
import subprocess
from pathlib import Path

import pytest


def compiled(document: str, folder: Path) -> str:
    """Compile a document with pdflatex in a folder, and return what it says; skip without one."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended)")
    (folder / "report.tex").write_text(document, encoding="utf-8")
    done = subprocess.run(
        [program, "-interaction=nonstopmode", "-halt-on-error", "report.tex"],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    assert (folder / "report.pdf").stat().st_size > 1000
    return said


def latex_document(body: str) -> str:
    """Return a document of its own, for pdflatex, around what `latex` or `formats.latex` gave."""
    return (
        "\\documentclass[a4paper]{article}\n"
        "\\usepackage{booktabs}\n\\usepackage{amssymb}\n"
        "\\usepackage{graphicx}\n\\usepackage{longtable}\n"
        "\\begin{document}\n"
        f"{body}"
        "\\end{document}\n"
    )
