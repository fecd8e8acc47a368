"""The handshake, from both sides: who dials says who it is and whom it wants, who accepts answers who it is, or why not.

Nothing else is read from a connection before that, and no more than `HELLO_BYTES_MAX` bytes are kept for it.
"""

from __future__ import annotations

import re

import trio

from .._errors import TransportError, WireError
from .._types import NodeId
from ..wire import (
    HELLO_BYTES_MAX,
    FrameReader,
    Hello,
    ProtocolVersionError,
    Welcome,
    decode_welcome,
    encode_frame,
    encode_hello,
    encode_welcome,
)
from ._contract import Identity, Receiver
from ._remarks import printable

CONTROL, APPEND, SNAPSHOT = "control", "append", "snapshot"
_KIND = re.compile("[a-z][a-z-]{0,31}")


async def receive_greeting(stream: trio.abc.ReceiveStream) -> bytes:
    """Read the first frame of a connection and return its body.

    Raises:
        WireError: no valid frame, or one that is too large for a handshake.
        TransportError: ``closed``.
    """
    reader = FrameReader(HELLO_BYTES_MAX)
    while (body := reader.next_frame()) is None:
        data = await stream.receive_some(HELLO_BYTES_MAX)
        if not data:
            raise TransportError("closed", None, "the connection was closed during the handshake")
        reader.feed(data)
    return bytes(body)


async def introduce(stream: trio.abc.Stream, me: Identity, peer: NodeId, lane: str, receiver: Receiver) -> Identity:
    """Introduce ourselves on a connection that we dialled and make sure that the right node answered.

    Raises:
        TransportError: refused by the other side or by us; `kind` says why.
    """
    hello = Hello(cluster_id=me.cluster_id, sender=me.node_id, receiver=peer, store_id=me.store_id, incarnation=me.incarnation, lane=lane)
    try:
        await stream.send_all(encode_frame([encode_hello(hello)]))
        welcome = decode_welcome(await receive_greeting(stream))
    except ProtocolVersionError as error:
        raise TransportError("version", peer, str(error)) from error
    except WireError as error:
        raise TransportError("protocol", peer, f"what answers there is no node of ours: {error}") from error
    if welcome.refusal is not None:
        raise TransportError(printable(welcome.refusal), peer, f"refused by the other side: {printable(welcome.detail)}")
    if welcome.sender != peer:
        raise TransportError("wrong-node", peer, f"node {welcome.sender} answers there")
    identity = Identity(me.cluster_id, welcome.sender, welcome.store_id, welcome.incarnation)
    # NB: a snapshot is sent by its caller's task, which the end of the transport cancels only here: the receiver may be gone by now.
    await trio.lowlevel.checkpoint_if_cancelled()
    reason = receiver.check_peer(identity)
    if reason is not None:
        kind, text = split_reason(reason)
        raise TransportError(kind, peer, f"refused by us: {text}")
    return identity


def judge(hello: Hello, me: Identity, receiver: Receiver) -> tuple[str, str] | None:
    """Decide whether the sender of `hello` may come in: None, or the kind and the text of the refusal."""
    if hello.cluster_id != me.cluster_id:
        # NB: our own cluster id is not told to whoever asks.
        return "wrong-cluster", f"the caller is of cluster {printable(hello.cluster_id)!r}, and this node is not"
    if hello.receiver != me.node_id:
        return "wrong-node", f"this is node {me.node_id}, and the caller wants node {hello.receiver}"
    if hello.sender == me.node_id:
        return "wrong-node", f"the caller says that it is node {me.node_id}, and so is this one"
    reason = receiver.check_peer(Identity(hello.cluster_id, hello.sender, hello.store_id, hello.incarnation))
    return None if reason is None else split_reason(reason)


async def answer(stream: trio.abc.SendStream, me: Identity, refusal: tuple[str, str] | None) -> None:
    kind, text = refusal if refusal is not None else (None, "")
    welcome = Welcome(sender=me.node_id, store_id=me.store_id, incarnation=me.incarnation, refusal=kind, detail=text)
    await stream.send_all(encode_frame([encode_welcome(welcome)]))


def split_reason(reason: str) -> tuple[str, str]:
    """``wrong-store: node 2 was another one`` -> its kind and its text. Without a kind that can travel: ``refused``."""
    kind, _, text = reason.partition(":")
    return (kind, text.strip() or reason) if _KIND.fullmatch(kind) else ("refused", reason)
