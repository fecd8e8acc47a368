"""How the documentation is built: ``nox -s docs``."""

from __future__ import annotations

import importlib.metadata

project = "trioraft"
author = "The trioraft contributors"
copyright = "2026, The trioraft contributors"
release = importlib.metadata.version("trioraft")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
# Headings down to this level can be linked to, as on the page of the repository.
myst_heading_anchors = 3

# Docstrings put names of code in single backticks.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Cancellation", "notes_style")]
maximum_signature_line_length = 100

# No inventories of other projects are fetched, so that a build needs no network: their names stay plain text. So do the library's
# type aliases (`NodeId` is an int) and the types behind its public ones, which have no page of their own.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!trioraft\b).*"),
    (r"py:.*", r"trioraft\.(?:\w+\.)*_\w+(?:\..*)?"),
    (r"py:.*", r"trioraft\.(core|wire|observe|storage|transport|group|manager)\..*"),
]

html_theme = "furo"
html_title = f"trioraft {release}"
html_copy_source = False
exclude_patterns = ["_build"]

doctest_global_setup = "import trioraft"
