"""``python -m sae_widget`` is the ``sae-widget`` command."""

from sae_widget.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
