# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The hot path: frames, verification, field reads, reply and envelope building, dispatch by type.

Knows bytes: no socket, no event loop, no other module of this package; of clocks only the wall's, for timestamps.
One extension module in parts, from the bottom up:

    _framing_bytes      little- and big-endian loads and stores, UTF-8, names
    _framing_verify     the shapes of all tables, and the verifier
    _framing_frames     Frame and its kinds: cutting, checking, field reads
    _framing_build      whole frames written without a builder
    _framing_decoder    DispatchTable and FrameDecoder
    _framing_shared     SharedFrame and the joining of frames for one write
    _framing_envelopes  Upstream and Downstream
    _framing_relay      from a Message to its acknowledgement, and the budget that it costs

Memory rules: a pointer lives only beside the bytes object that it points into (Frame pins it); every
object that Python could make empty-handed (`Frame.__new__(Frame)`) reads as defaults, never through NULL.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_REFCNT
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

include "_framing_bytes.pxi"
include "_framing_verify.pxi"
include "_framing_frames.pxi"
include "_framing_build.pxi"
include "_framing_decoder.pxi"
include "_framing_shared.pxi"
include "_framing_envelopes.pxi"
include "_framing_relay.pxi"
