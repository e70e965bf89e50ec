"""The classic programs as commands of `fastmta`; what they do is in the modules of their names."""

import click

_PASSED_ON = {"ignore_unknown_options": True, "help_option_names": []}


@click.command("sendmail", context_settings=_PASSED_ON, options_metavar="[FLAGS]")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="RECIPIENT...")
@click.pass_context
def sendmail(ctx: click.Context, arguments: tuple[str, ...]) -> int:
    """Submit the message on standard input, as sendmail(1) does."""
    from fastmta.cli.sendmail import run

    return run(arguments, ctx.find_root().obj)


@click.command("mailq", context_settings=_PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FLAGS]")
@click.pass_context
def mailq(ctx: click.Context, arguments: tuple[str, ...]) -> int:
    """Show the queue as mailq(1) does."""
    from fastmta.cli.mailq import run

    return run(list(arguments), ctx.find_root().obj)


@click.command("postmap", context_settings=_PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[TYPE:]FILE...")
def postmap(arguments: tuple[str, ...]) -> int:
    """Compile or query a map file."""
    from fastmta.cli.postmap import run

    return run(list(arguments))


@click.command("newaliases", context_settings=_PASSED_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[FLAGS]")
@click.pass_context
def newaliases(ctx: click.Context, arguments: tuple[str, ...]) -> int:
    """Compile the alias files."""
    from fastmta.cli.postmap import run_newaliases

    return run_newaliases(list(arguments), ctx.find_root().obj)
