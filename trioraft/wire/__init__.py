"""Bytes <-> values: framing and codec, without I/O. Used by the sockets and by the log.

What arrives is hostile until decoded: nothing is allocated for a length that has not been checked, nothing is executed, and only
`WireError` leaves a decoder. The formats are written down in ``docs/wire.md``.
"""

from __future__ import annotations

from ._body import PING as PING, PONG as PONG, BodyKind as BodyKind, body_kind as body_kind
from ._codec import (
    BODY_OVERHEAD_MAX as BODY_OVERHEAD_MAX,
    HEADER_BYTES_MAX as HEADER_BYTES_MAX,
    MESSAGE_OVERHEAD_MAX as MESSAGE_OVERHEAD_MAX,
    DecodedFrame as DecodedFrame,
    decode_messages as decode_messages,
    encode_messages as encode_messages,
    message_size as message_size,
)
from ._compression import Compression as Compression, default_compression as default_compression
from ._envelope import (
    NO_GROUP as NO_GROUP,
    Envelope as Envelope,
    Forward as Forward,
    ForwardOutcome as ForwardOutcome,
    ForwardReply as ForwardReply,
    GroupMessage as GroupMessage,
    NodeAddress as NodeAddress,
    RequestKind as RequestKind,
    SnapshotAnswer as SnapshotAnswer,
    SnapshotReply as SnapshotReply,
)
from ._frame import FRAME_HEADER_SIZE as FRAME_HEADER_SIZE, FrameReader as FrameReader, encode_frame as encode_frame
from ._handshake import (
    CLUSTER_ID_BYTES_MAX as CLUSTER_ID_BYTES_MAX,
    HELLO_BYTES_MAX as HELLO_BYTES_MAX,
    LANES as LANES,
    PROTOCOL_VERSION as PROTOCOL_VERSION,
    Hello as Hello,
    ProtocolVersionError as ProtocolVersionError,
    Welcome as Welcome,
    decode_hello as decode_hello,
    decode_welcome as decode_welcome,
    encode_hello as encode_hello,
    encode_welcome as encode_welcome,
)
from ._message import ADDRESS_BYTES_MAX as ADDRESS_BYTES_MAX
from ._pulse import (
    PULSE_LINES_MAX as PULSE_LINES_MAX,
    Pulse as Pulse,
    PulseKind as PulseKind,
    PulseLine as PulseLine,
    decode_pulse as decode_pulse,
    encode_pulse as encode_pulse,
)
from ._record import RECORD_HEADER_SIZE as RECORD_HEADER_SIZE, open_record as open_record, open_records as open_records, seal as seal
from ._snapshot_file import (
    SNAPSHOT_RECORD_BYTES_MAX as SNAPSHOT_RECORD_BYTES_MAX,
    SnapshotDecoder as SnapshotDecoder,
    SnapshotEncoder as SnapshotEncoder,
)
from ._snapshot_manifest import (
    SNAPSHOT_TAIL_BYTES as SNAPSHOT_TAIL_BYTES,
    SnapshotBytesError as SnapshotBytesError,
    SnapshotManifest as SnapshotManifest,
    read_manifest as read_manifest,
)
from ._snapshot_piece import SnapshotPiece as SnapshotPiece, decode_piece as decode_piece, encode_piece as encode_piece
from ._value import VALUE_DEPTH_MAX as VALUE_DEPTH_MAX, decode_value as decode_value, encode_value as encode_value
