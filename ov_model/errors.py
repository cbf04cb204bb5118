"""Every error this project raises on purpose, and the reason codes that the ledger records."""

from __future__ import annotations


class OvError(Exception):
    """Base of all errors of this project; the message names the offender and the way out."""


class UsageError(OvError):
    """Options that contradict each other or cannot be honored (exit code 2)."""


class LockedError(OvError):
    """Another live process is writing the same shard."""


class UpstreamError(OvError):
    """A stage was asked to build on a shard whose upstream is missing or failed."""


class TrainingFailed(OvError):
    """A process of a training run ended with an error; the message holds its traceback."""


class EvaluationFailed(OvError):
    """A process of an evaluation ended with an error; the message holds its traceback."""


class DamagedVideo(OvError):
    """A frame that the index promised did not decode; the caller re-indexes by decoding (`Video.reindex`)."""


class UnreadableSlices(OvError):
    """A frame decodes, but its coefficients cannot be read here; the caller estimates the residual instead."""


class SampleError(OvError):
    """One sample cannot be processed. `reason` is the code that its ledger row carries."""

    reason = "error"


class MissingFile(SampleError):
    reason = "missing_file"


class KnownMissing(MissingFile):
    """The record itself says that its file is not there; skipped, not failed."""


class EmptyFile(SampleError):
    reason = "empty_file"


class UnreadableContainer(SampleError):
    reason = "unreadable_container"


class NoVideoStream(SampleError):
    reason = "no_video_stream"


class UnsupportedCodec(SampleError):
    reason = "unsupported_codec"


class DecodeError(SampleError):
    reason = "decode_error"


class BadImage(SampleError):
    reason = "bad_image"


class BadRecord(SampleError):
    reason = "bad_record"


class DuplicateRecord(SampleError):
    reason = "duplicate"


class OutsideRoot(SampleError):
    reason = "outside_root"


class MissingVisidx(SampleError):
    reason = "missing_visidx"


class StaleVisidx(SampleError):
    reason = "stale_visidx"


class NotPackable(SampleError):
    reason = "not_packable"


class SampleTimeout(SampleError):
    reason = "timeout"


class SampleCrashed(SampleError):
    reason = "crashed"


class VisualMismatch(SampleError):
    """Pictures, positions and placeholders of a sample do not fit together."""

    reason = "visual_mismatch"


class TooLong(SampleError):
    """A sample whose visual tokens alone do not fit, or that keeps no answer when cut to the model's length."""

    reason = "too_long"


class DamagedOutput(SampleError):
    """What a finished row names is gone or changed, says `ov verify --repair`; the next run makes it anew."""

    reason = "damaged_output"


class InternalError(SampleError):
    """A defect of ours or of a library: an exception that nobody expected."""

    reason = "internal_error"


class OutOfMemory(SampleError):
    reason = "out_of_memory"


def reason_codes() -> dict[str, type[SampleError]]:
    """Reason code -> error class, for every subclass of SampleError."""
    return {cls.reason: cls for cls in SampleError.__subclasses__()}
