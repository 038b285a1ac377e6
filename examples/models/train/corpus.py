#!/usr/bin/env python3
"""Plain text of the Rust documentation that ships with the toolchain, split by page into training and held-out text.

    corpus.py OUT_DIR [--skip BOOK ...]      writes OUT_DIR/train.txt and OUT_DIR/heldout.txt

Source: `$(rustc --print sysroot)/share/doc/rust/html` (the rustup component `rust-docs`).
Pages are separated by two empty lines. One toolchain gives one corpus, byte for byte:

* a page is held out by the hash of its path, about one in 25;
* a long line that occurs on several pages is kept only where it first occurs, so no held-out paragraph
  was also read in training.
"""
import argparse
import hashlib
import html
import re
import subprocess
from pathlib import Path

BOOKS = [
    "book", "reference", "nomicon", "cargo", "rustc", "edition-guide", "embedded-book", "rust-by-example",
    "clippy", "rustdoc", "style-guide", "error_codes", "std", "alloc",
]
PAGE_SEPARATOR = "\n\n\n"
HELD_OUT_ONE_IN = 25
# Shorter lines (headings, `use` lines, table cells) repeat by nature and stay.
DEDUPLICATE_ABOVE_CHARS = 80
MIN_PAGE_CHARS = 400

# Indexes, whole-book print pages and translations repeat what other pages hold.
SKIPPED_PAGES = re.compile(r"/(print|toc|404|searchindex|all|ja|zh|es|ko|fr)(\.html|/)|title-page")
# In rustdoc pages only the prose is text; the lists of impls are not.
DOCBLOCK = re.compile(r'<div class="docblock[^"]*">(.*?)</div>(?=\s*</?(?:details|section|h[1-6]|div|main))', re.S)
PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.S)
MAIN = re.compile(r"<main[^>]*>(.*?)</main>", re.S)
RUSTDOC_MAIN = re.compile(r'<section id="main-content"[^>]*>(.*?)</section>\s*</div>', re.S)
DROPPED = re.compile(
    r'<(script|style|nav|button|template|details class="toggle implementors)[^>]*>.*?</\1>', re.S)
HIDDEN_CODE = re.compile(r'<span class="boring">.*?</span>', re.S)
LINE_END = re.compile(r"</(p|li|h[1-6]|div|tr|pre|section|summary|dt|dd)>|<br ?/?>")
TAG = re.compile(r"<[^>]+>")
ASCII_FOR = str.maketrans({"§": None, "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"})


def text_of(page: str) -> str:
    """The readable ASCII text of one HTML page, with its code blocks."""
    if '<div class="docblock' in page:
        page = "<main>" + "\n".join(DOCBLOCK.findall(page)) + "</main>"
    page = PARAGRAPH.sub(lambda m: "<p>" + m.group(1).replace("\n", " ") + "</p>", page)  # soft line breaks
    body = MAIN.search(page) or RUSTDOC_MAIN.search(page)
    text = body.group(1) if body else ""
    text = HIDDEN_CODE.sub("", DROPPED.sub(" ", text))
    text = html.unescape(TAG.sub("", LINE_END.sub("\n", text))).translate(ASCII_FOR)
    text = "".join(c for c in text if c == "\n" or 32 <= ord(c) < 127)
    return re.sub(r"\n\s*\n+", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip()


def without_repeats(text: str, seen: set[bytes]) -> str:
    """`text` less the long lines whose hash is in `seen`; the hashes of those it keeps are added."""
    kept = []
    for line in text.split("\n"):
        key = line.strip()
        if len(key) > DEDUPLICATE_ABOVE_CHARS:
            digest = hashlib.sha256(key.encode()).digest()
            if digest in seen:
                continue
            seen.add(digest)
        kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def is_held_out(relative_path: str) -> bool:
    return hashlib.sha256(relative_path.encode()).digest()[0] % HELD_OUT_ONE_IN == 0


def pages_of(book: Path) -> list[Path]:
    """The pages of one book, a folder's own pages before those of its subfolders."""
    return sorted(book.rglob("*.html"), key=lambda page: (page.parent.as_posix(), page.name))


def build(root: Path, books: list[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {"train": [], "heldout": []}
    seen: set[bytes] = set()
    for book in books:
        for page in pages_of(root / book):
            relative_path = page.relative_to(root).as_posix()
            if SKIPPED_PAGES.search("/" + relative_path):
                continue
            text = without_repeats(text_of(page.read_text(encoding="utf-8", errors="replace")), seen)
            if len(text) >= MIN_PAGE_CHARS:
                parts["heldout" if is_held_out(relative_path) else "train"].append(text)
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--skip", nargs="*", default=[], choices=BOOKS, metavar="BOOK", help="leave these books out")
    args = parser.parse_args()
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    parts = build(Path(sysroot) / "share/doc/rust/html", [book for book in BOOKS if book not in args.skip])
    args.out.mkdir(parents=True, exist_ok=True)
    for name, pages in parts.items():
        text = PAGE_SEPARATOR.join(pages)
        (args.out / f"{name}.txt").write_text(text, encoding="ascii")
        print(f"{name}: {len(pages)} pages, {len(text)} bytes, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}")


if __name__ == "__main__":
    main()
