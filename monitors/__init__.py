"""ECG monitor: from a bundle and streams of samples to alarms."""
