"""The gRPC service through the proxy: a call, one that fails, and a stream both ways."""

import sys, grpc

with open(sys.argv[1], "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
options = [
    ("grpc.ssl_target_name_override", "grpc.foobar.com"),
    ("grpc.default_authority", "grpc.foobar.com"),
]
with grpc.secure_channel("203.0.113.10:443", credentials, options) as channel:
    once = channel.unary_unary("/lab.Echo/Once")
    answer, call = once.with_call(b"hello", timeout=10)
    assert answer == b"hello", answer
    assert dict(call.trailing_metadata())["x-length"] == "5", call.trailing_metadata()
    try:
        once(b"fail", timeout=10)
        raise SystemExit("it should have failed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "as was asked", error
    chat = channel.stream_stream("/lab.Echo/Chat")
    said = [str(number).encode() * 1000 for number in range(50)]
    heard = list(chat(iter(said), timeout=10))
    assert heard == said, len(heard)
print("ok")
