"""What a monitor wants to know: metrics and traces, counted where they happen and told in the words of others."""

from negawatt.telemetry.counts import Alerted, Labels, Sample, Telemetry, learned_samples
from negawatt.telemetry.exposition import exposition
from negawatt.telemetry.instruments import DESCRIBED

__all__ = ["DESCRIBED", "Alerted", "Labels", "Sample", "Telemetry", "exposition", "learned_samples"]
