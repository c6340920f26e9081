"""One self-contained page of a results folder: claims, tables, figures, settings and how every job went."""

from analysis.report.page import build_page

__all__ = ["build_page"]
