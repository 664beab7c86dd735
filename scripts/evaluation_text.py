#!/usr/bin/env python3
"""Makes one plain text of the handbook's HTML pages: their paragraphs, in the book's reading order.

usage: evaluation_text.py HTML_FOLDER OUTPUT
"""

import html.parser
import pathlib
import sys

FIRST_PAGE = "preface.html"


class PageParser(html.parser.HTMLParser):
    """Collects the paragraphs of one page and the name of the next page."""

    def __init__(self):
        super().__init__()
        self.paragraphs = []
        self.next_page = None
        self._depth = 0  # open <div> elements inside the paragraph being read; 0 = not in one
        self._words = []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "link" and attrs.get("rel") == "next":
            self.next_page = attrs.get("href")
        if tag == "div" and (self._depth or attrs.get("class") == "para"):
            self._depth += 1

    def handle_endtag(self, tag):
        if tag == "div" and self._depth:
            self._depth -= 1
            if not self._depth:
                self.paragraphs.append(" ".join("".join(self._words).split()))
                self._words = []

    def handle_data(self, data):
        if self._depth:
            self._words.append(data)


def read_book(folder):
    page, seen = FIRST_PAGE, set()
    while page and page not in seen:
        seen.add(page)
        parser = PageParser()
        parser.feed((folder / page).read_text(encoding="utf-8"))
        yield from filter(None, parser.paragraphs)
        page = parser.next_page


def main(folder, output):
    pathlib.Path(output).write_text("\n\n".join(read_book(pathlib.Path(folder))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
