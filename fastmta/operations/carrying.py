"""An act carried out at a desk, and told when it has ended: in a worker, and in a command's own process alike."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from fastmta.operations.acts import Act, Rows
from fastmta.operations.desk import BareDesk, Desk


async def carry_out(
    act: Act[Any, Any], desk: BareDesk, asked: msgspec.Struct, visit: Callable[[list[Any]], Awaitable[None]]
) -> Any:
    """The result of an act; None of one that gives rows, which `visit` gets, some at a time.

    What has changed is told in any case, with the reason where the act has failed half way.
    """
    desk.act_name = act.name
    try:
        if isinstance(act, Rows):
            assert isinstance(desk, Desk)
            page: list[Any] = []
            at_once = act.at_once
            async for row in act.rows(desk, asked):
                page.append(row)
                if len(page) >= at_once:
                    await visit(page)
                    page = []
            if page:
                await visit(page)
            return None
        assert isinstance(desk, Desk) or not act.opens
        return await act.function(desk, asked)
    except BaseException as error:
        if desk.noted is not None:
            desk.note(failed=str(error) or type(error).__name__)
        raise
    finally:
        if desk.noted is not None:
            desk.tell(**desk.noted)
