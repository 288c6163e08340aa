"""Prints docs/reference/reasons.md: tools/reasons_page.py > docs/reference/reasons.md."""

from authz403.cli.reasons import page

if __name__ == "__main__":
    print(page(), end="")
