"""Runs commands inside a node, in its own namespaces, for `remote`: a server on the management network.

Started by `node_init` as `python -m tests.lab.node_commands ADDRESS TOKEN-FILE`. Each connection is one command; see
`frames` for the wire. Standard library only.
"""

import asyncio
import contextlib
import hmac
import os
import signal
import sys
from pathlib import Path

from tests.lab import frames
from tests.lab.frames import FrameError, Kind

COMMAND_NOT_FOUND = 127  # as a shell has it
COMMAND_NOT_EXECUTABLE = 126


async def serve(address: str, token: str) -> None:
    """Serves until cancelled."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _handle(reader, writer, token)
        except (FrameError, ConnectionError, asyncio.IncompleteReadError) as error:
            print(f"connection dropped: {error!r}", file=sys.stderr, flush=True)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, address, frames.PORT)
    async with server:
        await server.serve_forever()


async def _handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
    kind, payload = await _read_frame(reader)
    if kind is not Kind.START:
        raise FrameError(f"a connection began with {kind.name}")
    start = frames.Start.parse(payload)
    if not hmac.compare_digest(start.token.encode(), token.encode()):
        raise FrameError("wrong token")
    try:
        process = await asyncio.create_subprocess_exec(
            *start.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )
    except OSError as error:
        code = COMMAND_NOT_FOUND if isinstance(error, FileNotFoundError) else COMMAND_NOT_EXECUTABLE
        writer.write(frames.build(Kind.STDERR, f"{start.argv[0]}: {error.strerror}\n".encode()))
        writer.write(frames.build_exit(code))
        await writer.drain()
        return
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    input_task = asyncio.create_task(_feed(reader, process.stdin))
    output_task = asyncio.create_task(_finish(process, process.stdout, process.stderr, writer))
    try:
        # The input ends first when the client goes away, the output when the command has ended.
        await asyncio.wait([input_task, output_task], return_when=asyncio.FIRST_COMPLETED)
        if output_task.done():
            output_task.result()
    finally:
        for task in (input_task, output_task):
            task.cancel()
        await asyncio.gather(input_task, output_task, return_exceptions=True)
        # Nothing of the command outlives its connection, not even what it put into the background.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _feed(reader: asyncio.StreamReader, stdin: asyncio.StreamWriter) -> None:
    """Hands the client's input to the command; returns when the client is gone."""
    while True:
        try:
            kind, payload = await _read_frame(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        if kind is Kind.STDIN:
            with contextlib.suppress(ConnectionError):  # the command needn't read its input
                stdin.write(payload)
                await stdin.drain()
        elif kind is Kind.STDIN_END:
            with contextlib.suppress(ConnectionError):
                stdin.close()
        else:
            raise FrameError(f"unexpected {kind.name}")


async def _finish(
    process: asyncio.subprocess.Process,
    stdout: asyncio.StreamReader,
    stderr: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Hands the command's output to the client, and at last its exit code."""

    async def copy(stream: asyncio.StreamReader, kind: Kind) -> None:
        with contextlib.suppress(ConnectionError):  # whoever feeds the command notices too, and ends us
            while data := await stream.read(frames.CHUNK):
                writer.write(frames.build(kind, data))
                await writer.drain()

    async with asyncio.TaskGroup() as copies:
        copies.create_task(copy(stdout, Kind.STDOUT))
        copies.create_task(copy(stderr, Kind.STDERR))
        await _ended(process.pid)
        # What it put into the background may hold its output open for ever: what came until now is all.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    returncode = await process.wait()
    writer.write(frames.build_exit(returncode))
    await writer.drain()


async def _ended(pid: int) -> None:
    """Waits for a child's end alone; asyncio's own wait() waits for the end of its output as well."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _read_frame(reader: asyncio.StreamReader) -> tuple[Kind, bytes]:
    kind, length = frames.parse_header(await reader.readexactly(frames.HEADER.size))
    return kind, await reader.readexactly(length)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2]).read_text().strip()))
