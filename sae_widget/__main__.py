"""``python -m sae_widget`` is the ``sae-widget`` command."""

from sae_widget.cli import command

if __name__ == "__main__":
    raise SystemExit(command())
