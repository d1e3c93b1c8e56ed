"""How Sphinx makes the site (make site) from the pages that selora.study.report.site lays out. Nothing is fetched when
it is built, nor when it is read."""

project = "The SeLoRA study"
author = "the authors of the study"
copyright = "the authors of the study; Apache-2.0. Nothing here is for diagnosis"  # noqa: A001, Sphinx's own name

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline", "sphinx.ext.githubpages"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_render_markdown_format = "myst"  # what cells display: tables and mathematics too
nb_execution_mode = "off"  # notebooks were executed by the study
nb_ipywidgets_js = {}  # it would be fetched from elsewhere; widgets stand as pictures
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": False,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_persistent": [],  # the side bar has a field to search
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
