"""`resolute data`: write a data set, look at one, read one through, copy one, draw one."""

from __future__ import annotations

import typer

from launcher.cli.data import draw, look, repack, write

app = typer.Typer(
    no_args_is_help=True, help="Write data sets as FFCV .beton files, look at them, verify, repack and draw them."
)
app.command("write")(write.write)
app.command("info")(look.info)
app.command("verify")(look.verify)
app.command("repack")(repack.repack)
app.command("draw")(draw.draw)
