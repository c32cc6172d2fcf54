"""The report of a run: a page that needs nothing else, and a summary in Markdown."""
