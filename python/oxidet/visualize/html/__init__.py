"""How objects look in a notebook: what their ``_repr_html_`` return.

Fragments of HTML that stand alone: no script, nothing fetched, every name escaped. They take the
colour of the text and of lines from the page, so they read in light and in dark notebooks, and
where a page strips styles there are still tables and lists that fold.
"""

from oxidet.visualize.html.classification import classification_html
from oxidet.visualize.html.detections import detections_html
from oxidet.visualize.html.evaluation import evaluation_html
from oxidet.visualize.html.module import module_html
from oxidet.visualize.html.reports import plan_html, profile_html
from oxidet.visualize.html.summary import summary_html

__all__ = [
    "classification_html",
    "detections_html",
    "evaluation_html",
    "module_html",
    "plan_html",
    "profile_html",
    "summary_html",
]
