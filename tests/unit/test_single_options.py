"""Every command refuses an option of one value that is given twice."""

import click
import pytest

from inspector.cli import program
from inspector.cli.options import Command
from inspector.errors import UsageError


def commands():
    context = click.Context(program)
    for name in program.list_commands(context):
        found = program.get_command(context, name)
        inner = found.list_commands(context) if isinstance(found, click.Group) else ()
        yield from (found.get_command(context, one) for one in inner)
        if not inner:
            yield found


def test_an_option_of_one_value_is_given_once():
    seen = 0
    for command in commands():
        single = [
            option
            for option in command.params
            if isinstance(option, click.Option)
            and not (option.multiple or option.is_flag or option.is_eager)
        ]
        assert isinstance(command, Command) or not single, command.name
        for option in single:
            name = max(option.opts, key=len)
            with pytest.raises(UsageError, match=f"{name} is given 2 times"):
                command.make_context("x", ["a", "b", name, "1", name, "2"])
            seen += 1
    assert seen > 50
