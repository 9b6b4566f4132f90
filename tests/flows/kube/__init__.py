"""The main job on real parts: a real API server, both programs as processes, real HAProxy."""
