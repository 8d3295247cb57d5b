"""Analysis of patients' streams: order of messages, signal quality, beats, scores, alarms."""
