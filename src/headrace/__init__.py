"""Online learning on live Kafka streams: predict, be scored, learn at once.

`headrace.stream` moves events exactly once, `headrace.model` learns, `headrace.producers` sends
events of real and drawn streams; `headrace.cli` is the command line, `headrace.demo` its show.
"""
